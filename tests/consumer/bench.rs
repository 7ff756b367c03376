//! `cargo bench-rocketmq` at its smallest: every system runs and is told of in the form that is promised.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::process::Command;

const BENCH: &str = env!("CARGO_BIN_EXE_bench-rocketmq");
/// What every line has.
const FIELDS: [&str; 11] = [
    "system",
    "handler",
    "work_ms",
    "keys",
    "queues",
    "messages",
    "per_second",
    "cpu_s_per_100k",
    "rss_mib",
    "inversions",
    "overlaps",
];

/// Runs it; gives its lines.
async fn measure(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(BENCH)
        .args(arguments)
        .args(["--json", "--messages=2000", "--queues=2", "--keys=50"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

fn fields(line: &Value) -> BTreeSet<&str> {
    line.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_measures_keylane_beside_rocketmqs_own_consumers() {
    let lines = measure(&["--runs=1"]).await;
    let systems: Vec<_> = lines.iter().map(|line| &line["system"]).collect();
    assert_eq!(systems, ["keylane", "java-orderly", "java-concurrent"]);
    for line in &lines {
        let mut told = fields(line);
        let pulled = line["pulled_per_message"].as_f64();
        assert_eq!(
            told.remove("pulled_per_message"),
            line["system"] == "keylane"
        );
        assert!(pulled.is_none_or(|pulled| pulled >= 1.0), "{line}");
        assert_eq!(told, BTreeSet::from(FIELDS), "{line}");
        for (field, wanted) in [
            ("work_ms", 0),
            ("keys", 50),
            ("queues", 2),
            ("messages", 2_000),
        ] {
            assert_eq!(line[field], wanted, "{line}");
        }
        assert_eq!(line["handler"], "noop");
        for field in ["per_second", "rss_mib"] {
            assert!(line[field].as_f64() > Some(0.0), "{line}");
        }
    }
    // The concurrent consumer promises no order.
    for line in &lines[..2] {
        for field in ["inversions", "overlaps"] {
            assert_eq!(line[field], 0, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_tells_what_a_hot_key_leaves_to_the_others() {
    let lines = measure(&[
        "--peers=none",
        "--handler=http",
        "--hot-key",
        "--stock-broker",
    ])
    .await;
    let systems: Vec<_> = lines.iter().map(|line| &line["system"]).collect();
    assert_eq!(systems, ["keylane", "keylane-without-hot-key"]);
    let messages: Vec<_> = lines.iter().map(|line| &line["messages"]).collect();
    assert_eq!(messages, [2_000, 1_000]);
    let beside = &lines[0];
    let more = [
        "handler_cpu_s_per_100k",
        "hot_percent",
        "others_per_second",
        "stock_broker",
    ];
    assert_eq!(fields(beside), FIELDS.into_iter().chain(more).collect());
    assert_eq!(beside["handler"], "http");
    assert_eq!(
        (&beside["hot_percent"], &beside["stock_broker"]),
        (&50.into(), &true.into())
    );
    for line in &lines {
        assert_eq!(
            (&line["inversions"], &line["overlaps"]),
            (&0.into(), &0.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_tells_how_long_messages_take_to_a_handler_in_another_process() {
    let lines = measure(&["--peers=none", "--handler=grpc", "--rate=1000"]).await;
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    let more = ["handler_cpu_s_per_100k", "p50_ms", "p99_ms", "rate"];
    assert_eq!(fields(line), FIELDS.into_iter().chain(more).collect());
    assert_eq!(
        (&line["handler"], &line["messages"], &line["rate"]),
        (&"grpc".into(), &2_000.into(), &1_000.into())
    );
    let took = ["p50_ms", "p99_ms"].map(|field| line[field].as_f64().unwrap());
    assert!(0.0 < took[0] && took[0] <= took[1], "{line}");
}
