//! A piece of `cargo chaos`: the rest of its hours are run by command.
//!
//! It is one test among those of this target, and not a target of its own, because it mostly waits: five
//! minutes beside the others instead of after them.

use crate::process::program;
use serde_json::Value;

/// Processes come, go, crash with their pods or alone, freeze and are cut off, broker and name server go
/// and come back, handlers fail: order is kept and nothing is lost. How long queues stand still and what
/// runs again is told, and not judged here, where everything else runs beside it.
#[tokio::test(flavor = "multi_thread")]
async fn five_minutes_of_chaos_break_no_order_and_lose_nothing() {
    let program = tokio::task::spawn_blocking(program).await.unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--minutes=5", "--seed=2", "--json", "--consumer"])
        .arg(program)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let course = String::from_utf8_lossy(&output.stderr);
    let summary = told.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(summary)
        .unwrap_or_else(|error| panic!("no summary ({error}): {course}"));
    println!("{summary:#}");
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
