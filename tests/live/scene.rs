//! A consumer with its load, from its beginning until it has settled.

use crate::course::{Course, Moment};
use crate::load::{Load, Rates};
use anyhow::{Context as _, Result};
use keylane_tests::cluster::run;
use keylane_tests::rocketmq;
use keylane_tests::stack::{OrderedConsumer, Stack};
use serde_json::{Value, json};
use std::time::Duration;

/// A call takes so long.
pub const WORK: Duration = Duration::from_millis(50);
/// autoscaling.maxReplicas.
pub const MOST_PODS: u32 = 4;
const QUEUES: u32 = 8;
/// Sizes that have not changed for so long have settled.
const QUIET: Duration = Duration::from_secs(25);
/// Beyond being quiet, a scene may take so long to settle.
const LIMIT: Duration = Duration::from_secs(240);

/// What differs between scenes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the scene and of its consumer.
    pub name: &'static str,
    /// Messages a second to begin with.
    pub rate: f64,
    /// Pods there must be before the scene begins, at least.
    pub pods: i32,
    /// Most lanes of a pod: what it can do is so many calls at once.
    pub lanes: u32,
    /// What else its spec says.
    pub spec: Value,
    /// How long fewer pods must have been enough.
    pub window: Duration,
    /// Pods that have not changed for so long have settled; lanes follow the load all the time.
    pub quiet: Duration,
    /// More options of the handler.
    pub handler: Vec<String>,
}

impl Plan {
    /// The usual window.
    pub const WINDOW: Duration = Duration::from_secs(660);

    /// The usual plan of this name: so many messages a second, which take so many pods.
    pub fn usual(name: &'static str, rate: f64, pods: i32) -> Self {
        Self {
            name,
            rate,
            pods,
            lanes: 32,
            spec: json!({}),
            window: Self::WINDOW,
            quiet: QUIET,
            handler: Vec::new(),
        }
    }
}

/// A consumer with its load.
pub struct Scene<'s> {
    stack: &'s Stack,
    name: &'static str,
    /// What the resource has been.
    pub course: Course,
    /// What arrives.
    pub load: Load,
    /// How it was when it had settled.
    pub settled: Moment,
}

impl<'s> Scene<'s> {
    /// Brings it up and lets it settle.
    pub async fn begin(stack: &'s Stack, plan: Plan) -> Result<Self> {
        let name = plan.name;
        eprintln!(
            "{name:9}    0 s: {} messages/s, calls of {WORK:?}",
            plan.rate
        );
        let topic = format!("LIVE_{}_{:08x}", name.to_uppercase(), rand::random::<u32>());
        let name_server = stack.name_server()?;
        rocketmq::create_topic(&name_server, &topic, QUEUES).await?;
        let consumer = OrderedConsumer {
            name: name.to_owned(),
            topic: topic.clone(),
            work: WORK,
            timeout: Duration::from_secs(5),
            lanes: (2, plan.lanes),
            mode: "Auto",
            max_replicas: MOST_PODS,
            stabilization_window: plan.window,
            handler: plan.handler,
        };
        consumer.apply(stack)?;
        let spec = json!({"spec": plan.spec}).to_string();
        let patch = [
            "patch",
            "orderedconsumer",
            name,
            "--type=merge",
            "--patch",
            &spec,
        ];
        kubectl(stack, &patch).await?;
        let course = Course::follow(stack, name, name).await?;
        let rates = Rates {
            orders: plan.rate,
            key: None,
        };
        let load = Load::begin(&name_server, &topic, name, rates).await?;
        let wanted = |moment: &Moment| {
            moment.lag_known && moment.reason != "Learning" && moment.wanted >= plan.pods
        };
        let settled = course.settled(QUIET, plan.quiet, LIMIT + 2 * plan.quiet, wanted);
        let settled = settled.await;
        let settled = settled.with_context(|| name.to_owned())?;
        Ok(Self {
            stack,
            name,
            course,
            load,
            settled,
        })
    }

    /// Takes it down; handlers report their last calls when they end.
    pub async fn end(self) -> Result<()> {
        self.load.oldest().await?;
        let (stack, name) = (self.stack, self.name);
        drop(self);
        remove(stack, name).await
    }
}

/// Takes a scene's consumer down, if it is there, and waits until its pods are gone.
pub async fn remove(stack: &Stack, name: &str) -> Result<()> {
    let delete = ["delete", "orderedconsumer", name, "--ignore-not-found"];
    kubectl(stack, &[&delete[..], &["--timeout=60s"]].concat()).await?;
    let selector = format!("--selector=keylane.dev/ordered-consumer={name}");
    let gone = ["wait", "--for=delete", "pod", &selector, "--timeout=60s"];
    kubectl(stack, &gone).await?;
    Ok(())
}

/// kubectl in the namespace. It may take a minute, in which another scene goes on.
async fn kubectl(stack: &Stack, args: &[&str]) -> Result<String> {
    let what = format!("kubectl {}", args.join(" "));
    let mut command = stack.cluster().kubectl();
    command.args(["--namespace", stack.namespace()]).args(args);
    let output = tokio::task::spawn_blocking(move || run::output(&what, &mut command));
    Ok(output.await??)
}
