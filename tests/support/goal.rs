//! A goal of a measurement, with the figure it is judged by. Pure.

use serde_json::{Value, json};
use std::fmt;

/// A goal, and how near a figure comes to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    what: String,
    figure: f64,
    limit: f64,
    /// Whether the figure has to be the limit or more; else it has to be the limit or less.
    least: bool,
}

impl Goal {
    /// Reached by a figure of the limit or less.
    #[must_use]
    pub fn most(what: String, figure: f64, limit: f64) -> Self {
        Self {
            what,
            figure,
            limit,
            least: false,
        }
    }

    /// Reached by a figure of the limit or more.
    #[must_use]
    pub fn least(what: String, figure: f64, limit: f64) -> Self {
        Self {
            least: true,
            ..Self::most(what, figure, limit)
        }
    }

    /// Whether it is reached. What is no number reaches nothing.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        if self.least {
            self.figure >= self.limit
        } else {
            self.figure <= self.limit
        }
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        // JSON has no infinity: a figure beyond all limits is null.
        json!({
            "goal": self.what, "figure": self.figure, "limit": self.limit,
            "atLeast": self.least, "reached": self.is_reached(),
        })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_reached() { "pass" } else { "FAIL" };
        let bound = if self.least { "at least" } else { "at most" };
        let (what, figure, limit) = (&self.what, self.figure, self.limit);
        write!(f, "{verdict}  {what}: {figure:.3} ({bound} {limit})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_at_its_limit_reaches_it_and_one_beyond_or_none_does_not() {
        let goal = |least: bool, figure: f64| match least {
            true => Goal::least("rate".into(), figure, 2.0),
            false => Goal::most("rate".into(), figure, 2.0),
        };
        for (least, figure, reached) in [
            (true, 2.0, true),
            (true, 1.9, false),
            (true, f64::NAN, false),
            (false, 2.0, true),
            (false, 2.1, false),
            (false, f64::NAN, false),
        ] {
            let goal = goal(least, figure);
            assert_eq!(goal.is_reached(), reached, "{goal}");
            assert_eq!(goal.json()["reached"], reached);
        }
        assert_eq!(
            goal(true, 1.9).to_string(),
            "FAIL  rate: 1.900 (at least 2)"
        );
    }
}
