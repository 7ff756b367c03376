//! A piece of `cargo chaos`: the rest of its hours are run by command.
//!
//! It is one test among those of this target, and not a target of its own, because it mostly waits: five
//! minutes beside the others instead of after them.

use crate::process::program;
use serde_json::Value;
use std::process::{Output, Stdio};

/// Processes come, go, crash with their pods or alone, freeze and are cut off, broker and name server go
/// and come back, handlers fail: order is kept and nothing is lost. How long queues stand still and what
/// runs again is told, and not judged here, where everything else runs beside it.
#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_of_chaos_break_no_order_and_lose_nothing() {
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let consumer = format!("--consumer={}", program.display());
    let (output, summary) = chaos(&["--minutes=5", "--seed=2", &consumer]).await;
    let told = String::from_utf8_lossy(&output.stdout);
    let course = String::from_utf8_lossy(&output.stderr);
    let count = |name: &str| summary[name].as_u64();
    for (name, expected) in [
        ("inversions", 0),
        ("overlaps", 0),
        ("lost", 0),
        ("crashed", 0),
        ("uncommitted", 0),
    ] {
        assert_eq!(count(name), Some(expected), "{name}: {course}{told}");
    }
    assert!(count("events") > Some(60), "{course}");
    assert!(output.status.success(), "{course}");
}

/// RocketMQ's own ordered consumer runs in the harness too and is told of in the same terms. Only its
/// beginning is tried here: what faults do to it is measured, and not ours to promise.
#[tokio::test(flavor = "multi_thread")]
async fn rocketmqs_ordered_consumer_is_recorded_and_judged_as_keylane_is() {
    let arguments = ["--minutes=0.5", "--seed=7", "--peer=java-orderly"];
    let (output, summary) = chaos(&arguments).await;
    let course = String::from_utf8_lossy(&output.stderr);
    assert_eq!(summary["summary"], "java-orderly", "{course}");
    let count = |name: &str| summary[name].as_u64();
    assert!(count("messages") > Some(1_000), "{course}");
    assert_eq!(count("handled"), count("messages"), "{course}");
    assert_eq!(count("uncommitted"), Some(0), "{course}");
    assert_eq!(count("clean_exits"), count("exits"), "{course}");
    assert!(output.status.success(), "{course}");
}

/// Runs it with these arguments; its last line is its summary.
async fn chaos(arguments: &[&str]) -> (Output, Value) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let summary = told.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(summary).unwrap_or_else(|error| {
        let course = String::from_utf8_lossy(&output.stderr);
        panic!("no summary ({error}): {course}")
    });
    println!("{summary:#}");
    (output, summary)
}
