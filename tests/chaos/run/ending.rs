//! How a run ends: what is left over is handled and committed, then the members end.

use super::Run;
use crate::ground::Ground;
use anyhow::Result;
use keylane_tests::rocketmq::Offsets;
use keylane_tests::wait;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long what is left over may take when nothing happens any more.
const LEFT_OVER: Duration = Duration::from_secs(180);

impl<G: Ground> Run<'_, G> {
    pub(super) async fn until_handled(&mut self, messages: u64) -> Result<()> {
        self.course.teller.say(&format!(
            "no more events; {messages} messages are to be handled"
        ));
        let recorder = &self.course.recorder;
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
            self.course.teller.say(&late.to_string());
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
            self.course.teller.say(&late.to_string());
        }
    }
}
