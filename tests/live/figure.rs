//! One figure, its goal, and whether it is met.

use serde_json::{Value, json};
use std::fmt;

/// What was measured and what it must be.
#[derive(Clone, Debug)]
pub struct Figure {
    scene: &'static str,
    what: String,
    /// None: it never came to be.
    figure: Option<f64>,
    goal: f64,
    at_least: bool,
}

impl Figure {
    /// A figure that must not be larger than its goal.
    pub fn most(
        scene: &'static str,
        what: impl Into<String>,
        figure: impl Into<Option<f64>>,
        goal: f64,
    ) -> Self {
        Self {
            scene,
            what: what.into(),
            figure: figure.into(),
            goal,
            at_least: false,
        }
    }

    /// A figure that must not be smaller than its goal.
    pub fn least(
        scene: &'static str,
        what: impl Into<String>,
        figure: impl Into<Option<f64>>,
        goal: f64,
    ) -> Self {
        Self {
            at_least: true,
            ..Self::most(scene, what, figure, goal)
        }
    }

    /// A scene that could not be played.
    pub fn failed(scene: &'static str, error: &anyhow::Error) -> Self {
        Self::most(scene, format!("not measured: {error:#}"), None, 0.0)
    }

    /// Whether the goal is met.
    pub fn pass(&self) -> bool {
        match (self.figure, self.at_least) {
            (None, _) => false,
            (Some(figure), true) => figure >= self.goal,
            (Some(figure), false) => figure <= self.goal,
        }
    }

    /// As JSON; a figure that never came to be is null.
    pub fn json(&self) -> Value {
        json!({
            "scene": self.scene, "what": self.what, "figure": self.figure.map(round),
            "goal": self.goal, "bound": if self.at_least { "least" } else { "most" },
            "pass": self.pass(),
        })
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.pass() { "pass" } else { "FAIL" };
        let figure = self.figure.map_or_else(
            || "never".to_owned(),
            |figure| format!("{:.1}", round(figure)),
        );
        let bound = if self.at_least { "at least" } else { "at most" };
        write!(
            f,
            "{:9} {verdict}  {figure:>7} ({bound} {})  {}",
            self.scene, self.goal, self.what
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_to_be_meets_no_goal() {
        let never = Figure::most("step", "lanes follow, s", None, 10.0);
        assert!(!never.pass());
        assert_eq!(never.json()["figure"], Value::Null);
        assert!(Figure::most("step", "lanes follow, s", 10.0, 10.0).pass());
        assert!(!Figure::most("step", "lanes follow, s", 10.1, 10.0).pass());
        assert!(Figure::least("broker", "pods", 3.0, 3.0).pass());
        assert!(!Figure::least("broker", "pods", 2.0, 3.0).pass());
    }
}
