//! Eight times as much arrives from one moment to the next: lanes follow at once, pods as fast as they start.
//! It is more than the pod there is can do, and the objective is short, so that messages are too old until
//! pods have come.

use crate::figure::Figure;
use crate::load::Rates;
use crate::scene::{Plan, Scene};
use anyhow::Result;
use keylane_tests::stack::Stack;
use serde_json::json;
use std::time::{Duration, Instant};

/// Name of the scene.
pub const NAME: &str = "step";
const BEFORE: f64 = 100.0;
const AFTER: f64 = 800.0;
/// autoscaling.objective.maxMessageAge.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Most lanes: a pod can do 320/s.
const LANES: u32 = 16;
/// How long ages are watched.
const WATCHED: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Measures it.
pub async fn step(stack: &Stack) -> Result<Vec<Figure>> {
    let scene = Scene::begin(
        stack,
        Plan {
            lanes: LANES,
            spec: json!({"autoscaling": {"objective": {
                "maxMessageAge": format!("{}s", MAX_AGE.as_secs()),
            }}}),
            ..Plan::usual(NAME, BEFORE, 1)
        },
    )
    .await?;
    let stepped = Instant::now();
    let lanes = scene.settled.lanes;
    eprintln!("{NAME:9} {AFTER} messages/s from now on");
    scene.load.set(Rates {
        orders: AFTER,
        key: None,
    });
    let mut ages = Ages::default();
    while stepped.elapsed() < WATCHED {
        tokio::time::sleep(LOOK_EVERY).await;
        ages.add(Instant::now(), scene.load.oldest().await?);
    }
    let followed = scene.course.first(stepped, |moment| moment.lanes > lanes);
    let followed = followed.map(|moment| (moment.at - stepped).as_secs_f64());
    let arrived = scene.course.first_rise(stepped);
    // If none ever was too old, nothing was shown.
    let back = ages.back.filter(|_| ages.worst > MAX_AGE).zip(arrived);
    let back = back.map(|(back, arrived)| back.saturating_duration_since(arrived).as_secs_f64());
    let worst = format!(
        "oldest message under {} s again after the first lanes or pods came, s (worst {:.1} s)",
        MAX_AGE.as_secs(),
        ages.worst.as_secs_f64()
    );
    let lanes = format!("arrivals {BEFORE} -> {AFTER}/s: lanes follow, s");
    scene.end().await?;
    Ok(vec![
        Figure::most(NAME, lanes, followed, 10.0),
        Figure::most(NAME, worst, back, 60.0),
    ])
}

/// Ages of the oldest message.
#[derive(Debug, Default)]
struct Ages {
    worst: Duration,
    /// First look after the last at which it was too old; none while it is.
    back: Option<Instant>,
}

impl Ages {
    fn add(&mut self, at: Instant, age: Duration) {
        self.worst = self.worst.max(age);
        if age > MAX_AGE {
            self.back = None;
        } else if self.back.is_none() {
            self.back = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_back_when_they_stay_young_enough() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let (young, old) = (MAX_AGE, MAX_AGE + Duration::from_secs(1));
        let mut ages = Ages::default();
        let seen = [young, old, young, 2 * old, young, young];
        for (second, age) in (1..).zip(seen) {
            ages.add(at(second), age);
        }
        assert_eq!(ages.back, Some(at(5)));
        assert_eq!(ages.worst, 2 * old);
        ages.add(at(7), old);
        assert_eq!(ages.back, None);
    }
}
