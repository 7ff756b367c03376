//! One key that needs more than its lane, and one that does not move: named soon, and no reason for pods, on a
//! pod that is so busy that as many messages of many keys are one.
//!
//! The key comes in place of others, so that arrivals do not seem to rise while pods cannot tell yet how much
//! of them is the key's. Then others get so much that the pod has less to do than asks for another, without
//! what the key asks for in vain, and would have more with that.

use crate::course::Moment;
use crate::figure::Figure;
use crate::load::Rates;
use crate::scene::{Plan, Scene, WORK};
use anyhow::{Context as _, Result, ensure};
use keylane_operator::scale::rules::TRIGGER;
use keylane_tests::stack::Stack;
use keylane_tests::wait;
use serde_json::json;
use std::time::{Duration, Instant};

/// Names of the scenes.
pub const HOT: &str = "hot";
pub const STUCK: &str = "stuck";
/// Less than one pod is believed to do before it has shown what it can.
const RATE: f64 = 200.0;
/// Messages of the key, a second: eight times what one lane can do.
const EXTRA: f64 = 160.0;
/// So much of what the key asks for in vain is left below what asks for another pod; the rest is above.
const BELOW: f64 = 0.4;
/// Pods remember arrivals of a key for about ten seconds.
const KNOWN_AFTER: Duration = Duration::from_secs(25);
/// How long a busy pod with the key is watched.
const WATCHED: Duration = Duration::from_secs(40);
/// How long the same messages of many keys may take to add a pod.
const ADDED_WITHIN: Duration = Duration::from_secs(60);
const NAMED_WITHIN: f64 = 15.0;

/// A key that gets much more than one lane can do.
pub async fn hot(stack: &Stack) -> Result<Vec<Figure>> {
    let served = 1.0 / WORK.as_secs_f64();
    let plan = Plan::usual(HOT, RATE, 1);
    one_key(stack, plan, "HotKeyBound", served).await
}

/// A key whose messages fail, and which waits for a person then: a message that is given up would be followed
/// by one that is called before the handler has taken it, which whoever hears of calls only takes for a breach
/// of order.
pub async fn stuck(stack: &Stack) -> Result<Vec<Figure>> {
    let plan = Plan {
        handler: vec!["--fail-key=stuck-key".to_owned()],
        spec: json!({"retry": {"onExhausted": "Block"}}),
        ..Plan::usual(STUCK, RATE, 1)
    };
    one_key(stack, plan, "KeyStuck", 0.0).await
}

/// Sends messages of key `<name>-key` beside the others, of which so many a second can be done.
async fn one_key(
    stack: &Stack,
    plan: Plan,
    condition: &'static str,
    served: f64,
) -> Result<Vec<Figure>> {
    let name = plan.name;
    let scene = Scene::begin(stack, plan).await?;
    let settled = scene.settled.wanted;
    ensure!(settled == 1, "{settled} pods for {RATE} messages/s");
    let key = format!("{name}-key");
    eprintln!("{name:9} key {key} gets {EXTRA}/s from now on");
    let began = Instant::now();
    let with_key = |orders| Rates {
        orders,
        key: Some((key.clone(), EXTRA)),
    };
    let without = |orders| Rates { orders, key: None };
    scene.load.set(with_key(RATE - EXTRA));
    tokio::time::sleep(KNOWN_AFTER).await;
    let capacity = scene.course.last()?.pod_capacity;
    let capacity = capacity.context("it is not said what a pod is believed to do")?;
    let busy = TRIGGER * capacity - served - BELOW * (EXTRA - served);
    ensure!(busy > 0.0, "a pod is believed to do {capacity}/s only");
    eprintln!("{name:9} all others together {busy:.0}/s: a pod is believed to do {capacity:.0}/s");
    scene.load.set(with_key(busy));
    tokio::time::sleep(WATCHED).await;
    let named = scene.course.first(began, |moment| {
        let message = moment.condition(condition);
        message.is_some_and(|message| message.contains(&key))
    });
    let named = named.map(|moment| (moment.at - began).as_secs_f64());
    let pods = scene.course.pods_since(began);
    let watched = began.elapsed().as_secs();

    scene.load.set(without(busy));
    tokio::time::sleep(KNOWN_AFTER).await;
    eprintln!("{name:9} and {EXTRA}/s more of all from now on");
    let (before, spread) = (scene.course.last()?.wanted, Instant::now());
    scene.load.set(without(busy + EXTRA));
    let more = |moment: &Moment| moment.wanted > before;
    let added = wait::until(ADDED_WITHIN, "more pods", async || {
        scene.course.first(spread, more).ok_or("as many as before")
    });
    let added = added.await.ok();
    scene.end().await?;
    Ok(vec![
        Figure::most(
            name,
            format!("the key is named in {condition}, s"),
            named,
            NAMED_WITHIN,
        ),
        Figure::most(
            name,
            format!(
                "pods added within {watched} s: {busy:.0} messages/s and {EXTRA}/s of the key on a pod that is believed to do {capacity:.0}/s"
            ),
            f64::from(pods.rises),
            0.0,
        ),
        Figure::most(
            name,
            format!("and for comparison: {EXTRA}/s more of many keys add pods, s"),
            added.map(|moment| (moment.at - spread).as_secs_f64()),
            ADDED_WITHIN.as_secs_f64(),
        ),
    ])
}
