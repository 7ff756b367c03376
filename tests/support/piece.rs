//! A piece of `cargo chaos` in a test: the harness runs as the program it is.

use serde_json::Value;
use std::process::Stdio;

/// What came of a piece.
#[derive(Debug)]
pub struct Piece {
    /// Its last line on standard output.
    pub summary: Value,
    /// What it told: every event and verdict, then how it went in words.
    pub course: String,
    /// Whether it says that it passed.
    pub passed: bool,
}

impl Piece {
    /// Runs the harness, which is at `program`, with these arguments.
    ///
    /// # Errors
    /// If it gives no summary.
    pub async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let output = tokio::process::Command::new(program)
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let told = String::from_utf8_lossy(&output.stdout);
        let course = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
        let last = told.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(last)
            .map_err(|error| anyhow::anyhow!("no summary ({error}): {course}"))?;
        println!("{summary:#}");
        Ok(Self {
            summary,
            course,
            passed: output.status.success(),
        })
    }

    /// A figure of the summary.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        self.summary[name].as_u64()
    }
}
