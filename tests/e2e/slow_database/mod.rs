//! A database that can do only so much: its pool has a few connections, and with more calls at once each
//! only waits longer. The controller cannot know that before it has tried, and must see it then: name the
//! limit, take back what brought nothing, and see when the limit is gone.

mod database;

use crate::shared::{ALONE, with_stack};
use anyhow::{Context as _, Result, ensure};
use database::{Database, Seen, Written};
use keylane_tests::stack::{OrderedConsumer, Stack};
use keylane_tests::wait;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

const NAMESPACE: &str = "keylane-e2e-downstream";
const NAME: &str = "order-state";
const QUEUES: u32 = 8;
const ORDERS: u64 = 1_000;
/// At what the pool lets through, more than three minutes of work.
const MESSAGES: u64 = 20_000;
/// Connections of the pool: as many calls at once as the database can use.
const POOL: u32 = 4;
/// What a statement takes.
const WORK: Duration = Duration::from_millis(40);
/// Lanes of all pods that are near the knee.
const NEAR: u64 = 2 * POOL as u64;
/// A call that takes so many times as long as usual is too long.
const INFLATED: f64 = 1.5;
/// How long everything must be as it should, to count as settled.
const SETTLED: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SELECTOR: &str = "--selector=keylane.dev/ordered-consumer";

#[tokio::test(flavor = "multi_thread")]
async fn a_saturated_database_is_named_and_gets_no_more_calls_than_it_can_use() -> Result<()> {
    with_stack(async |stack: &Stack| {
        let _turn = ALONE.lock().await;
        let stack = block_in_place(|| stack.beside(NAMESPACE))?;
        case(&stack).await?;
        block_in_place(|| stack.remove_namespace())
    })
    .await
}

async fn case(stack: &Stack) -> Result<()> {
    let topic = format!("ORDER_STATE_{:08x}", rand::random::<u32>());
    let database = Database::start(stack, POOL, WORK).await?;
    stack.produce(&topic, QUEUES, ORDERS, MESSAGES).await?;
    consumer(topic).apply(stack)?;

    let mut watch = Watch::begin(stack, &database).await?;
    watch.until("the limit is named", Moment::is_bound).await?;
    let pods = watch.pods_at_limit()?;
    let settled = watch.until_settled(pods).await?;
    judge(&watch, &settled)?;

    database.work(Duration::ZERO).await?;
    let all = async || {
        let verdict = stack.verdict().await.map_err(|error| error.to_string())?;
        (verdict.distinct >= MESSAGES)
            .then_some(())
            .ok_or_else(|| format!("{verdict:?}"))
    };
    wait::until(LIMIT, "everything handled", all).await?;
    watch
        .until("the limit is gone", |moment| !moment.is_bound())
        .await?;

    // Handlers report their last calls when they end.
    stack.kubectl(&["delete", "orderedconsumer", NAME])?;
    stack.kubectl(&["wait", "--for=delete", "pod", SELECTOR, "--timeout=60s"])?;
    in_order(stack, &database).await
}

fn consumer(topic: String) -> OrderedConsumer {
    OrderedConsumer {
        name: NAME.to_owned(),
        topic,
        work: Duration::ZERO,
        timeout: Duration::from_secs(5),
        lanes: (2, 32),
        mode: "Auto",
        max_replicas: 4,
        stabilization_window: Duration::from_secs(660),
        handler: vec![format!(
            "--postgres=postgres://orders@postgres.{NAMESPACE}:5432/orders"
        )],
    }
}

/// What is seen at a moment: the resource, and what the database has seen.
struct Moment {
    at: Instant,
    object: Value,
    /// Pods there are. One that goes calls until its kubelet tells it to end; the resource counts it no more.
    present: u64,
    total: Seen,
    /// Since the moment before, how long a call waited for a connection and how long its statement took.
    call: Option<(Duration, Duration)>,
}

impl Moment {
    fn condition(&self) -> Option<&Value> {
        let conditions = self.object["status"]["conditions"].as_array()?;
        conditions
            .iter()
            .find(|condition| condition["type"] == "DownstreamBound")
    }

    fn is_bound(&self) -> bool {
        self.condition()
            .is_some_and(|condition| condition["status"] == "True")
    }

    fn pods(&self) -> u64 {
        self.present.max(self.wanted_pods())
    }

    fn wanted_pods(&self) -> u64 {
        self.object["spec"]["replicas"].as_u64().unwrap_or(0)
    }

    /// Lanes of all pods.
    fn lanes(&self) -> u64 {
        self.object["status"]["lanes"].as_u64().unwrap_or(0) * self.pods()
    }

    fn decision(&self) -> &str {
        let message = &self.object["status"]["decision"]["message"];
        message.as_str().unwrap_or_default()
    }
}

/// The course of a run.
struct Watch<'w> {
    stack: &'w Stack,
    database: &'w Database,
    began: Instant,
    moments: Vec<Moment>,
}

impl<'w> Watch<'w> {
    async fn begin(stack: &'w Stack, database: &'w Database) -> Result<Self> {
        let mut watch = Self {
            stack,
            database,
            began: Instant::now(),
            moments: Vec::new(),
        };
        watch.look().await?;
        Ok(watch)
    }

    async fn look(&mut self) -> Result<()> {
        let object = block_in_place(|| self.stack.get("orderedconsumer", NAME))?;
        let pods = block_in_place(|| {
            self.stack
                .kubectl(&["get", "pods", SELECTOR, "--output=name"])
        })?;
        let total = self.database.seen().await?;
        let before = self.moments.last();
        let call = before.and_then(|before| total.since(&before.total).each());
        let moment = Moment {
            at: Instant::now(),
            object,
            present: u64::try_from(pods.lines().count())?,
            total,
            call,
        };
        // A line where sizes change.
        let size = |moment: &Moment| (moment.lanes(), moment.pods(), moment.wanted_pods());
        if before.is_none_or(|before| size(before) != size(&moment)) {
            let (waited, took) = call.unwrap_or_default();
            println!(
                "{:5.1} s: {} lanes on {} pods, {} wanted; a call waits {waited:.0?} and works {took:.0?}: {}",
                self.began.elapsed().as_secs_f64(),
                moment.lanes(),
                moment.pods(),
                moment.wanted_pods(),
                moment.decision(),
            );
        }
        self.moments.push(moment);
        Ok(())
    }

    /// Looks until the last moment is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Moment) -> bool) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !self.moments.last().is_some_and(&wanted) {
            let last = self.moments.last().map_or("", Moment::decision);
            ensure!(Instant::now() < end, "{what}: not within {LIMIT:?}; {last}");
            tokio::time::sleep(LOOK_EVERY).await;
            self.look().await?;
        }
        println!("{:5.1} s: {what}", self.began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Pods that were wanted when the limit was named.
    fn pods_at_limit(&self) -> Result<u64> {
        let bound = self.moments.iter().find(|moment| moment.is_bound());
        Ok(bound.context("the limit was never named")?.wanted_pods())
    }

    /// Seconds that a call takes where it waits for nothing, as they were known when the limit was named.
    fn usual(&self) -> Result<f64> {
        let mut bound = self.moments.iter().filter(|moment| moment.is_bound());
        let usual = bound.find_map(|moment| number_after(moment.decision(), "usually "));
        Ok(usual.context("it was never told how long a call usually takes")? / 1e3)
    }

    /// Looks until lanes are near the knee, on one pod, and have been for a while; gives what the database
    /// saw in that while. No pods come meanwhile.
    async fn until_settled(&mut self, most_pods: u64) -> Result<Settled> {
        let end = Instant::now() + LIMIT;
        let mut since: Option<usize> = None;
        loop {
            let index = self.moments.len() - 1;
            let last = &self.moments[index];
            ensure!(
                last.wanted_pods() <= most_pods,
                "more pods although the database is the limit: {}",
                last.decision()
            );
            let near = last.is_bound() && last.pods() == 1 && last.lanes() <= NEAR;
            since = near.then(|| since.unwrap_or(index));
            if let Some(first) = since.map(|first| &self.moments[first])
                && last.at - first.at >= SETTLED
            {
                let seen = last.total.since(&first.total);
                let (waited, took) = seen.each().context("nothing was written")?;
                let settled = Settled {
                    lanes: last.lanes(),
                    waited,
                    took,
                    rate: seen.statements as f64 / (last.at - first.at).as_secs_f64(),
                };
                println!("{:5.1} s: {settled:?}", self.began.elapsed().as_secs_f64());
                return Ok(settled);
            }
            ensure!(
                Instant::now() < end,
                "lanes did not settle within {LIMIT:?}: {} on {} pods; {}",
                last.lanes(),
                last.pods(),
                last.decision()
            );
            tokio::time::sleep(LOOK_EVERY).await;
            self.look().await?;
        }
    }
}

/// What the database saw once lanes were near the knee.
#[derive(Debug)]
struct Settled {
    lanes: u64,
    /// How long a call waited for a connection.
    waited: Duration,
    /// How long its statement took.
    took: Duration,
    /// Statements a second.
    rate: f64,
}

fn judge(watch: &Watch<'_>, settled: &Settled) -> Result<()> {
    // It was worse before: there was something to find.
    let waits = watch.moments.iter().filter_map(|moment| moment.call);
    let worst = waits.map(|(waited, _)| waited).max().unwrap_or_default();
    ensure!(worst >= 2 * settled.took, "calls waited {worst:?} at most");
    let knee = f64::from(POOL) / settled.took.as_secs_f64();
    // From a lane and back a call takes longer than its statement, on a busy machine by half: by that the
    // lanes are counted that keep all connections busy, and only that tells how much longer a call is.
    let call = settled.lanes as f64 / settled.rate;
    let usual = watch.usual()?;
    ensure!(
        call <= INFLATED * usual,
        "a call takes {:.1} ms, usually {:.1} ms: {settled:?}",
        call * 1e3,
        usual * 1e3
    );
    // More than NEAR lanes would wait longer, whatever the resource says how many there are.
    ensure!(
        settled.waited <= settled.took,
        "more calls than at the knee: {settled:?}"
    );
    ensure!(
        settled.rate >= 0.8 * knee,
        "the database can do {knee:.0}/s: {settled:?}"
    );
    let last = watch.moments.last().context("nothing was seen")?;
    let condition = last
        .condition()
        .and_then(|condition| condition["message"].as_str());
    let sizes = format!("{} lanes on each of 1 pods", settled.lanes);
    let condition = condition.unwrap_or_default();
    ensure!(
        condition.contains(&sizes),
        "{sizes:?} is not in {condition:?}"
    );
    let through = number_after(last.decision(), "at most ");
    ensure!(
        through.is_some_and(|rate| (0.75 * knee..=1.25 * knee).contains(&rate)),
        "the database can do {knee:.0}/s: {}",
        last.decision()
    );
    Ok(())
}

fn number_after(text: &str, words: &str) -> Option<f64> {
    let (_, rest) = text.split_once(words)?;
    rest.split(['/', ')']).next()?.parse().ok()
}

async fn in_order(stack: &Stack, database: &Database) -> Result<()> {
    let (written, verdict) = (database.written().await?, stack.verdict().await?);
    println!("{written:?}");
    let last = i64::try_from(MESSAGES / ORDERS)? - 1;
    let right = Written {
        writes: written.writes.max(i64::try_from(MESSAGES)?),
        inversions: 0,
        overlaps: 0,
        orders: i64::try_from(ORDERS)?,
        versions: (last, last),
    };
    ensure!(written == right, "{written:?}, not {right:?}");
    ensure!(
        verdict.inversions == 0 && verdict.overlaps == 0 && verdict.distinct == MESSAGES,
        "{verdict:?}"
    );
    Ok(())
}
