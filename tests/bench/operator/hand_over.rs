//! The operator that decides ends: how long until the next decision, and do pods notice?

use crate::measure::{Operator, program};
use crate::{AT_ONCE, NAMESPACE, apply, consumer};
use anyhow::{Context as _, Result};
use keylane_tests::cluster::{Cluster, run};
use keylane_tests::rocketmq::Broker;
use keylane_tests::wait;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PODS: Duration = Duration::from_secs(300);

/// How an operator that decides ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum End {
    /// Killed beside another.
    Killed,
    /// Stopped in order beside another.
    Stopped,
    /// Stopped in order, and started again: there is one only.
    Restarted,
}

impl End {
    const ALL: [Self; 3] = [Self::Killed, Self::Stopped, Self::Restarted];

    /// Seconds until the next decision, at most.
    fn goal(self) -> f64 {
        match self {
            Self::Killed => 20.0,
            Self::Stopped | Self::Restarted => 10.0,
        }
    }
}

/// What is told of one way to end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    end: End,
    resources: usize,
    /// Seconds until the next decision, each time.
    seconds: Vec<f64>,
    longest: f64,
    goal: f64,
    /// Pods that were replaced or restarted meanwhile, of all ways together.
    pods_changed: usize,
}

/// Measures; says whether the goals are reached.
pub async fn measure(
    times: u32,
    resources: usize,
    json: bool,
    cluster: &Cluster,
    broker: &Broker,
) -> Result<bool> {
    let program = program(cluster).await?;
    for number in 0..resources {
        broker.create_topic(&format!("BENCH_{number}"), 4).await?;
    }
    let all = (0..resources).map(|number| consumer(number, &broker.name_server(), 1));
    for some in all.collect::<Vec<_>>().chunks(AT_ONCE) {
        apply(cluster, some)?;
    }
    let another = || Operator::start_elected(&program, cluster, NAMESPACE);
    let mut leader = another()?;
    leader.until_settled(cluster, resources).await?;
    let before = until_pods(cluster, resources).await?;
    let mut took: BTreeMap<End, Vec<f64>> = BTreeMap::new();
    for time in 1..=times {
        for end in End::ALL {
            let after = if end == End::Restarted {
                let began = Instant::now();
                leader.stop()?;
                leader = another()?;
                leader.until_it_decides(began).await?
            } else {
                let next = another()?;
                next.until_ready().await?;
                let began = Instant::now();
                match end {
                    End::Killed => drop(leader),
                    _ => leader.stop()?,
                }
                leader = next;
                leader.until_it_decides(began).await?
            };
            eprintln!("  {time}: {end:?}, the next decision {after:.1?} after");
            took.entry(end).or_default().push(after.as_secs_f64());
        }
    }
    drop(leader);
    let after = pods(cluster)?;
    let changed = before.iter().filter(|pod| !after.contains(pod)).count();
    let mut reached = changed == 0;
    for (end, seconds) in took {
        let longest = seconds.iter().copied().fold(0.0, f64::max);
        let goal = end.goal();
        let figures = Figures {
            end,
            resources,
            seconds,
            longest,
            goal,
            pods_changed: changed,
        };
        reached &= longest <= goal;
        if json {
            println!("{}", serde_json::to_string(&figures)?);
        } else {
            println!(
                "  {end:?} {times} times with {resources} OrderedConsumers: the next decision at most {longest:.1} s after (goal {goal}), {changed} pods replaced or restarted"
            );
        }
    }
    Ok(reached)
}

/// Uid and restarts of each pod, in order.
fn pods(cluster: &Cluster) -> Result<Vec<(String, i64)>> {
    let mut kubectl = cluster.kubectl();
    kubectl.args(["--namespace", NAMESPACE, "get", "pods", "--output=json"]);
    let list: Value = serde_json::from_str(&run::output("listing pods", &mut kubectl)?)?;
    let restarts = |pod: &Value, of: &str| -> i64 {
        let statuses = pod["status"][of].as_array().into_iter().flatten();
        statuses
            .filter_map(|one| one["restartCount"].as_i64())
            .sum()
    };
    let items = list["items"].as_array().context("no list of pods")?;
    let pods = items.iter().map(|pod| {
        let restarts = restarts(pod, "containerStatuses") + restarts(pod, "initContainerStatuses");
        (pod["metadata"]["uid"].to_string(), restarts)
    });
    let mut pods: Vec<_> = pods.collect();
    pods.sort();
    Ok(pods)
}

async fn until_pods(cluster: &Cluster, number: usize) -> Result<Vec<(String, i64)>> {
    let found = wait::until(PODS, format!("{number} pods"), async || {
        let pods = pods(cluster).map_err(|error| error.to_string())?;
        if pods.len() == number {
            Ok(pods)
        } else {
            Err(format!("{} pods", pods.len()))
        }
    })
    .await?;
    Ok(found)
}
