//! One key that needs more than its lane, and one that does not move: named soon, and no reason for pods.

use crate::figure::Figure;
use crate::load::Rates;
use crate::scene::{Plan, Scene, WORK};
use anyhow::Result;
use keylane_tests::stack::Stack;
use std::time::{Duration, Instant};

/// Names of the scenes.
pub const HOT: &str = "hot";
pub const STUCK: &str = "stuck";
const RATE: f64 = 100.0;
/// How long pods are watched. What fails for a minute is given up and sent to the dead letters, and a key
/// moves again.
const WATCHED: Duration = Duration::from_secs(50);
const NAMED_WITHIN: f64 = 15.0;

/// A key that gets three times what one lane can do.
pub async fn hot(stack: &Stack) -> Result<Vec<Figure>> {
    let rate = 3.0 / WORK.as_secs_f64();
    one_key(stack, HOT, "HotKeyBound", rate, Vec::new()).await
}

/// A key whose messages fail.
pub async fn stuck(stack: &Stack) -> Result<Vec<Figure>> {
    let fails = vec!["--fail-key=stuck-key".to_owned()];
    one_key(stack, STUCK, "KeyStuck", 10.0, fails).await
}

/// Sends messages of key `<name>-key` at this rate beside the others.
async fn one_key(
    stack: &Stack,
    name: &'static str,
    condition: &'static str,
    rate: f64,
    handler: Vec<String>,
) -> Result<Vec<Figure>> {
    let scene = Scene::begin(
        stack,
        Plan {
            handler,
            ..Plan::usual(name, RATE, 1)
        },
    )
    .await?;
    let key = format!("{name}-key");
    eprintln!("{name:9} key {key} gets {rate}/s from now on");
    let began = Instant::now();
    scene.load.set(Rates {
        orders: RATE,
        key: Some((key.clone(), rate)),
    });
    tokio::time::sleep(WATCHED).await;
    let named = scene.course.first(began, |moment| {
        moment
            .condition(condition)
            .is_some_and(|message| message.contains(&key))
    });
    let named = named.map(|moment| (moment.at - began).as_secs_f64());
    let pods = scene.course.pods_since(began);
    scene.end().await?;
    let seconds = WATCHED.as_secs();
    Ok(vec![
        Figure::most(
            name,
            format!("the key is named in {condition}, s"),
            named,
            NAMED_WITHIN,
        ),
        Figure::most(
            name,
            format!("pods added within {seconds} s"),
            f64::from(pods.rises),
            0.0,
        ),
    ])
}
