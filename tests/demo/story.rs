//! The shop's order events: the consumer that every chapter is about, what is behind it, and ways to look.

use crate::look::{Look, condition};
use crate::{NAME, NAMESPACE, QUEUES, WINDOW, new_topic, say_environment};
use anyhow::{Context, Result, ensure};
use keylane_tests::judge::Verdict;
use keylane_tests::plugin;
use keylane_tests::stack::{OrderedConsumer, Producing, Stack};
use serde_json::json;
use std::time::Duration;

/// Orders a second on a usual day.
pub const USUAL: u32 = 60;
/// The text that the first version of the handler cannot take.
pub const COUPON: &str = "coupon";
/// Of a call of its handler.
pub const TIMEOUT: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_secs(240);
const FINISH: Duration = Duration::from_secs(420);

/// A version of the shop's handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Fails for orders with a coupon.
    One,
    /// Takes them.
    Two,
}

/// The consumer of the demo, while a chapter is told.
pub struct Story<'s> {
    pub stack: &'s Stack,
    topic: String,
}

impl<'s> Story<'s> {
    /// Brings the consumer to rest, with the first version of its handler and a database that is well.
    pub async fn begin(stack: &'s Stack) -> Result<Self> {
        stack.apply("a database", include_str!("database.yaml"))?;
        stack.rollout(NAMESPACE, "deployment/database")?;
        let story = Self {
            stack,
            topic: topic(stack).await?,
        };
        story.database(32, 20)?;
        story.deploy(Version::One).await?;
        story.rest().await?;
        stack.judge_anew()?;
        Ok(story)
    }

    /// Rolls a version of the handler out, and waits until all pods have it.
    pub async fn deploy(&self, version: Version) -> Result<()> {
        let mut handler = vec!["--database=http://database:8080".to_owned()];
        if version == Version::One {
            handler.push(format!("--fail-body={COUPON}"));
        }
        let consumer = OrderedConsumer {
            name: NAME.to_owned(),
            topic: self.topic.clone(),
            work: Duration::ZERO,
            timeout: TIMEOUT,
            lanes: (2, 8),
            mode: "Auto",
            max_replicas: 4,
            stabilization_window: WINDOW,
            handler,
        };
        consumer.apply(self.stack)?;
        let mut look = Look::quiet(self.stack);
        let seen = look
            .until(REST, |object| {
                Ok(object["status"]["observedGeneration"] == object["metadata"]["generation"])
            })
            .await?;
        seen.context("no operator looks at the consumer; kubectl keylane check says why")?;
        let deployment = format!("deployment/{NAME}-keylane");
        self.stack.rollout(NAMESPACE, &deployment)
    }

    /// Waits until nothing is left to be done.
    async fn rest(&self) -> Result<()> {
        let mut look = Look::quiet(self.stack);
        let rest = look
            .until(REST, |object| {
                let lag = object["status"]["lag"]["unfinished"].as_u64();
                Ok(lag == Some(0) && condition(object, "Ready").is_some())
            })
            .await?;
        rest.map(drop).with_context(|| {
            format!(
                "the consumer is not at rest after {REST:?}; kubectl keylane status {NAME} -n {NAMESPACE} says why"
            )
        })
    }

    /// Sends orders in the background.
    pub fn produce(&self, args: &[&str]) -> Result<Producing> {
        self.stack.producing(&self.topic, args)
    }

    /// From now on the database has so many connections, and a statement takes so long.
    pub fn database(&self, connections: u32, work_ms: u32) -> Result<()> {
        let control = json!({"connections": connections, "workMs": work_ms});
        self.stack
            .control("deployment/database", "database", &control)
    }

    /// What a person who follows may look at meanwhile.
    pub fn say_where_to_look(&self, commands: &[&str]) {
        println!("\nIn another terminal:");
        say_environment(self.stack);
        for command in commands {
            println!("  kubectl keylane {command} {NAME} -n {NAMESPACE}");
        }
        println!();
    }

    /// Runs a command of kubectl keylane for this consumer, and shows it with what it prints.
    pub async fn keylane(&self, command: &[&str], more: &[&str]) -> Result<()> {
        let text = self.asked(command, more).await?;
        let words = [command, &[NAME, "-n", NAMESPACE], more].concat();
        println!("\n$ kubectl keylane {}\n{}\n", words.join(" "), text.trim());
        Ok(())
    }

    /// What a command prints.
    pub async fn asked(&self, command: &[&str], more: &[&str]) -> Result<String> {
        let words = [command, &[NAME], more].concat();
        let kubeconfig = self.stack.cluster().kubeconfig();
        let (_, text) = plugin::keylane(kubeconfig, NAMESPACE, &words).await?;
        Ok(text)
    }

    /// Looks until so many messages are handled and none is left; what the judge says then.
    pub async fn finish(&self, look: &mut Look<'_>, messages: u64) -> Result<Verdict> {
        let done = look
            .until(FINISH, |object| {
                let left = object["status"]["lag"]["unfinished"].as_u64();
                Ok(left == Some(0) && self.stack.judged()?.distinct >= messages)
            })
            .await?;
        let verdict = self.stack.judged()?;
        ensure!(
            done.is_some(),
            "after {FINISH:?} {} of {messages} orders are handled",
            verdict.distinct
        );
        Ok(verdict)
    }
}

/// The topic of the demo's consumer; a new one if there is no consumer.
async fn topic(stack: &Stack) -> Result<String> {
    let found = stack.kubectl(&[
        "get",
        "orderedconsumer",
        NAME,
        "--ignore-not-found",
        "--output=jsonpath={.spec.topic}",
    ])?;
    if !found.trim().is_empty() {
        return Ok(found.trim().to_owned());
    }
    let topic = new_topic();
    let queues = QUEUES.to_string();
    let made = stack.producing(&topic, &["--queues", &queues])?;
    made.finish().await?;
    Ok(topic)
}

/// A rate and for how long, as the producer takes it.
pub fn stretch(rate: u32, seconds: u32) -> String {
    format!("--rate={rate}:{seconds}")
}
