//! How a run ends: what is left over is handled and committed, then the processes end.

use super::Run;
use anyhow::Result;
use keylane_tests::rocketmq::Offsets;
use keylane_tests::wait;
use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

/// How long what is left over may take when nothing happens any more.
const LEFT_OVER: Duration = Duration::from_secs(180);
/// How long processes may take to drain.
const DRAIN: Duration = Duration::from_secs(60);

/// Processes that were asked to end. Those that have not when this is dropped are killed.
#[derive(Default)]
pub(super) struct Leaving(Vec<Child>);

impl Leaving {
    pub(super) fn add(&mut self, child: Option<Child>) {
        self.0.extend(child);
    }

    fn running(&mut self) -> usize {
        let statuses = self.0.iter_mut().filter_map(|child| child.try_wait().ok());
        statuses.filter(Option::is_none).count()
    }

    /// Exit codes of all of them; none of those that had to be killed.
    fn end(&mut self) -> Vec<Option<i32>> {
        let codes = self.0.drain(..).map(|mut child| {
            let status = child.try_wait().ok().flatten();
            let _gone = child.kill();
            let _reaped = child.wait();
            status.and_then(|status| status.code())
        });
        codes.collect()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.end();
    }
}

impl Run<'_> {
    pub(super) async fn until_handled(&mut self, messages: u64) -> Result<()> {
        self.teller.say(&format!(
            "no more events; {messages} messages are to be handled"
        ));
        let recorder = &self.recorder;
        let handled = wait::until(LEFT_OVER, "every message handled", async || {
            let count = recorder.count().await.map_err(|error| error.to_string())?;
            if count.handled >= messages && count.running == 0 {
                Ok(())
            } else {
                Err(format!("{count:?} of {messages} messages"))
            }
        });
        if let Err(late) = handled.await {
            // What was not handled is lost, and told as such.
            self.teller.say(&late.to_string());
        }
        self.look_after()
    }

    /// A broker may have come back only now: whoever runs a queue commits, and whoever does not cannot when
    /// it is ended.
    pub(super) async fn until_committed(&self, offsets: &Offsets, ends: &BTreeMap<u32, u64>) {
        let committed = wait::until(LEFT_OVER, "every message committed", async || {
            for (queue, end) in ends {
                let committed = offsets.committed(*queue).await;
                let committed = committed.map_err(|error| error.to_string())?;
                if committed.unwrap_or(0) < *end {
                    return Err(format!("queue {queue}: {committed:?} of {end}"));
                }
            }
            Ok(())
        });
        if let Err(late) = committed.await {
            // What was not committed is told as such.
            self.teller.say(&late.to_string());
        }
    }

    pub(super) async fn terminate_all(&mut self) -> Vec<Option<i32>> {
        for member in &mut self.members {
            self.leaving.add(member.terminate());
        }
        let leaving = &mut self.leaving;
        let ended = wait::until(DRAIN, "the end of all processes", async || {
            match leaving.running() {
                0 => Ok(()),
                running => Err(format!("{running} run")),
            }
        });
        if let Err(late) = ended.await {
            self.teller.say(&late.to_string());
        }
        self.leaving.end()
    }
}
