//! `cargo scale-sim` with traffic of one's own: what it reads, what it prints, and the plot it leaves.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

/// Fields of a line, as scripts read them.
const FIELDS: [&str; 11] = [
    "trace",
    "controller",
    "setting",
    "violation_s",
    "pod_s",
    "min_pod_s",
    "actions",
    "reversals",
    "lane_actions",
    "worst_age_s",
    "inflated_s",
];

fn simulate(directory: &Path, trace: &Value) -> Result<Output> {
    let file = directory.join("mine.json");
    std::fs::write(&file, trace.to_string())?;
    Command::new(env!("CARGO_BIN_EXE_scale-sim"))
        .arg("--trace")
        .arg(&file)
        .args(["--json", "--controllers", "keylane,hpa", "--plots"])
        .arg(directory.join("plots"))
        .output()
        .context("scale-sim does not run")
}

#[test]
fn a_trace_of_ones_own_gives_a_line_of_json_for_each_controller_and_setting_and_a_plot()
-> Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    // Every field there is, as a file may have it.
    let trace = json!({
        "name": "a & b", "seconds": 240, "queues": 4, "queueWeights": [1, 1, 1, 2], "rate": [200, 300],
        "hotKeyRate": null, "downstreamCap": null, "slowness": [1], "backlog": 100,
        "poison": {"from": 60, "to": 120, "queue": 3}, "metricsOutage": {"from": 30, "to": 40},
        "brokerOutage": null, "schedule": {"from": 100, "to": 150, "rate": 400}
    });
    let output = simulate(directory.path(), &trace)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    for line in &lines {
        let fields = line.as_object().context("no object")?;
        let names: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(FIELDS));
        assert_eq!(line["trace"], "a & b");
        assert!(line["setting"].is_string());
        for number in &FIELDS[3..] {
            let value = line[*number].as_f64().context(*number)?;
            assert!(value >= 0.0, "{line}");
        }
        assert!(line["pod_s"].as_u64() >= Some(240), "{line}");
    }
    let of = |name: &str| {
        let own = lines.iter().filter(|line| line["controller"] == name);
        own.count()
    };
    assert_eq!(of("keylane"), 1);
    assert!(of("hpa") > 1 && lines.len() == 1 + of("hpa"));

    let plot = directory.path().join("plots").join("a---b.svg");
    let plot = std::fs::read_to_string(plot)?;
    ensure!(plot.contains(">a &amp; b</text>"), "{plot}");
    for line in ["arriving", "keylane", "hpa"] {
        ensure!(plot.contains(&format!(">{line}</text>")), "no {line}");
    }
    Ok(())
}

#[test]
fn a_trace_that_makes_no_sense_is_refused_by_name_and_field() -> Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let trace = json!({"name": "mine", "seconds": 60, "queues": 0, "rate": [1]});
    let output = simulate(directory.path(), &trace)?;
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr)?;
    for part in ["mine.json", "queues must be 1 to 4096"] {
        ensure!(said.contains(part), "{said}");
    }
    Ok(())
}
