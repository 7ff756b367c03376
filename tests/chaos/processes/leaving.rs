//! Processes that were asked to end.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

/// Processes that were asked to end. Those that have not when this is dropped are killed.
#[derive(Default)]
pub(super) struct Leaving(Vec<Child>);

impl Leaving {
    pub(super) fn add(&mut self, child: Option<Child>) {
        self.0.extend(child);
    }

    pub(super) fn running(&mut self) -> usize {
        let statuses = self.0.iter_mut().filter_map(|child| child.try_wait().ok());
        statuses.filter(Option::is_none).count()
    }

    /// Exit codes of all of them, 128 and the number for one that a signal ended; none of those that had to be
    /// killed.
    pub(super) fn end(&mut self) -> Vec<Option<i32>> {
        let codes = self.0.drain(..).map(|mut child| {
            let status = child.try_wait().ok().flatten();
            let _gone = child.kill();
            let _reaped = child.wait();
            status.and_then(code)
        });
        codes.collect()
    }
}

fn code(status: ExitStatus) -> Option<i32> {
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal)
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.end();
    }
}
