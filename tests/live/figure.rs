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
        }
    }

    /// A scene that could not be played.
    pub fn failed(scene: &'static str, error: &anyhow::Error) -> Self {
        Self::most(scene, format!("not measured: {error:#}"), None, 0.0)
    }

    /// Whether the goal is met.
    pub fn pass(&self) -> bool {
        self.figure.is_some_and(|figure| figure <= self.goal)
    }

    /// As JSON; a figure that never came to be is null.
    pub fn json(&self) -> Value {
        json!({
            "scene": self.scene, "what": self.what, "figure": self.figure.map(round),
            "goal": self.goal, "pass": self.pass(),
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
        write!(
            f,
            "{:9} {verdict}  {figure:>7} (at most {})  {}",
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
    }
}
