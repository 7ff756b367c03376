//! Lines that hang on each other.

use std::fmt;

/// A line and those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    line: String,
    below: Vec<Tree>,
}

impl Tree {
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            below: Vec::new(),
        }
    }

    /// The same with one more line below it.
    pub fn with(mut self, below: impl Into<Tree>) -> Self {
        self.below.push(below.into());
        self
    }

    /// The same with these lines below it.
    pub fn with_all<T: Into<Tree>>(mut self, below: impl IntoIterator<Item = T>) -> Self {
        self.below.extend(below.into_iter().map(Into::into));
        self
    }

    fn write(&self, formatter: &mut fmt::Formatter<'_>, margin: &str) -> fmt::Result {
        for (index, tree) in self.below.iter().enumerate() {
            let last = index + 1 == self.below.len();
            let (branch, bar) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            writeln!(formatter, "{margin}{branch}{}", tree.line)?;
            tree.write(formatter, &format!("{margin}{bar}"))?;
        }
        Ok(())
    }
}

impl From<String> for Tree {
    fn from(line: String) -> Self {
        Self::new(line)
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.line)?;
        self.write(formatter, "")
    }
}
