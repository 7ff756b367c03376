//! What `kubectl get oc` shows, a line whenever it changed.

use crate::NAME;
use anyhow::Result;
use keylane_tests::stack::Stack;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior};

const EVERY: Duration = Duration::from_secs(3);

/// Looks every three seconds.
pub struct Look<'s> {
    stack: &'s Stack,
    began: Instant,
    ticks: Interval,
    /// Whether it prints.
    shown: bool,
    header: bool,
    last: String,
    /// Most pods that were seen.
    pub most_pods: u64,
    /// Most pods that were wanted.
    pub most_wanted: u64,
    /// Most lanes a pod.
    pub most_lanes: u64,
}

impl<'s> Look<'s> {
    /// Begins now.
    pub fn new(stack: &'s Stack) -> Self {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stack,
            began: Instant::now(),
            ticks,
            shown: true,
            header: false,
            last: String::new(),
            most_pods: 0,
            most_wanted: 0,
            most_lanes: 0,
        }
    }

    /// The same, and nothing is printed.
    pub fn quiet(stack: &'s Stack) -> Self {
        Self {
            shown: false,
            ..Self::new(stack)
        }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Looks once when it is time to: prints what changed, and gives the object.
    pub async fn once(&mut self) -> Result<Value> {
        self.ticks.tick().await;
        if self.shown {
            self.print()?;
        }
        let object = self.stack.get("orderedconsumer", NAME)?;
        let number = |name: &str| object["status"][name].as_u64().unwrap_or(0);
        self.most_pods = self.most_pods.max(number("replicas"));
        self.most_wanted = self.most_wanted.max(wanted_pods(&object));
        self.most_lanes = self.most_lanes.max(number("lanes"));
        Ok(object)
    }

    fn print(&mut self) -> Result<()> {
        let table = self.stack.kubectl(&["get", "orderedconsumer", NAME])?;
        let mut lines = table.lines();
        let (titles, row) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        if !self.header {
            println!(" TIME  {titles}");
            self.header = true;
        }
        // Its age alone is no news.
        let told = row
            .trim_end()
            .rsplit_once(' ')
            .map_or(row, |(told, _)| told);
        if told != self.last {
            println!("{:4} s  {row}", self.seconds());
            self.last = told.to_owned();
        }
        Ok(())
    }

    /// Looks until the object is as wanted; none if it is not after so long.
    pub async fn until(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> Result<bool>,
    ) -> Result<Option<Value>> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            let object = self.once().await?;
            if wanted(&object)? {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// Looks for so long.
    pub async fn on(&mut self, length: Duration) -> Result<()> {
        self.until(length, |_| Ok(false)).await?;
        Ok(())
    }
}

/// Pods that are wanted.
pub fn wanted_pods(object: &Value) -> u64 {
    object["spec"]["replicas"].as_u64().unwrap_or(0)
}

/// What a condition that is true says.
pub fn condition<'o>(object: &'o Value, kind: &str) -> Option<&'o str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|one| one["type"] == kind)?;
    (found["status"] == "True")
        .then(|| found["message"].as_str())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_says_something_only_while_it_is_true() {
        let object = json!({"status": {"conditions": [
            {"type": "KeyStuck", "status": "True", "message": "key a"},
            {"type": "HotKeyBound", "status": "False", "message": "none"},
        ]}});
        assert_eq!(condition(&object, "KeyStuck"), Some("key a"));
        assert_eq!(condition(&object, "HotKeyBound"), None);
        assert_eq!(condition(&json!({}), "KeyStuck"), None);
    }
}
