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
    measure_and_tell(arguments).await.0
}

/// Runs it; gives its lines, and what it tells people.
async fn measure_and_tell(arguments: &[&str]) -> (Vec<Value>, String) {
    let output = Command::new(BENCH)
        .args(arguments)
        .args(["--json", "--messages=2000", "--queues=2", "--keys=50"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(serde_json::from_str);
    (lines.collect::<Result<_, _>>().unwrap(), said)
}

fn fields(line: &Value) -> BTreeSet<&str> {
    line.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_measures_keylane_beside_the_consumers_of_others() {
    let peers = "--peers=java-orderly,parallel-consumer,java-concurrent";
    let (lines, said) = measure_and_tell(&["--runs=1", peers]).await;
    let names = [
        "keylane",
        "java-orderly",
        "parallel-consumer",
        "java-concurrent",
    ];
    let systems: Vec<_> = lines.iter().map(|line| &line["system"]).collect();
    assert_eq!(systems, names);
    for line in &lines {
        assert_eq!(fields(line), BTreeSet::from(FIELDS), "{line}");
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
    // Nothing is pulled and thrown away, and what people are told has all systems.
    let pulled = said.split_once(" pulled for each handled");
    let pulled = pulled.and_then(|(before, _)| before.rsplit_once(' '));
    let pulled = pulled.and_then(|(_, pulled)| pulled.parse::<f64>().ok());
    assert!(pulled.is_some_and(|pulled| pulled >= 1.0), "{said}");
    for system in names {
        assert!(said.contains(&format!("  {system} ")), "{said}");
    }
    // The concurrent consumer promises no order.
    for line in &lines[..3] {
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
    let peer = "--peers=java-concurrent";
    let lines = measure(&[peer, "--handler=grpc", "--rate=1000"]).await;
    let [own, beside] = &lines[..] else {
        panic!("{lines:?}");
    };
    let more = ["handler_cpu_s_per_100k", "p50_ms", "p99_ms", "rate"];
    assert_eq!(fields(own), FIELDS.into_iter().chain(more).collect());
    assert_eq!(
        fields(beside),
        FIELDS.into_iter().chain(more.into_iter().skip(1)).collect()
    );
    assert_eq!(
        (&own["handler"], &beside["handler"]),
        (&"grpc".into(), &"noop".into())
    );
    for line in &lines {
        assert_eq!(
            (&line["messages"], &line["rate"]),
            (&2_000.into(), &1_000.into())
        );
        let took = ["p50_ms", "p99_ms"].map(|field| line[field].as_f64().unwrap());
        assert!(0.0 < took[0] && took[0] <= took[1], "{line}");
    }
}

/// The same messages by HTTP/2 as by HTTP/1.1; of several runs the medians are told.
#[tokio::test(flavor = "multi_thread")]
async fn the_bench_measures_a_handler_that_speaks_http_2_as_often_as_it_is_to() {
    let arguments = ["--peers=none", "--handler=http2", "--runs=3"];
    let (lines, said) = measure_and_tell(&arguments).await;
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let more = ["handler_cpu_s_per_100k"];
        assert_eq!(fields(line), FIELDS.into_iter().chain(more).collect());
        assert_eq!(
            (&line["system"], &line["handler"], &line["messages"]),
            (&"keylane".into(), &"http2".into(), &2_000.into())
        );
        assert_eq!(
            (&line["inversions"], &line["overlaps"]),
            (&0.into(), &0.into())
        );
    }
    let mut rates: Vec<f64> = lines
        .iter()
        .map(|line| line["per_second"].as_f64().unwrap())
        .collect();
    rates.sort_by(f64::total_cmp);
    let (_, medians) = said.split_once("Medians of 3 runs:").expect(&said);
    let told = format!("{:.0} messages/s", rates[1]);
    assert!(medians.contains(&told), "{told} is not in {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bench_tells_what_waiting_costs() {
    let lines = measure(&["--idle", "--idle-seconds=2"]).await;
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    let wanted = [
        "system",
        "handler",
        "queues",
        "seconds",
        "idle_cpu_percent",
        "rss_mib",
        "settled_seconds",
    ];
    assert_eq!(fields(line), BTreeSet::from(wanted));
    assert_eq!((&line["queues"], &line["seconds"]), (&2.into(), &2.into()));
    for field in ["rss_mib", "settled_seconds"] {
        assert!(line[field].as_f64() > Some(0.0), "{line}");
    }
}

/// It says so before it measures anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_bench_tells_what_it_lacks_for_a_profile() {
    let nothing = tempfile::tempdir().unwrap();
    let output = Command::new(BENCH)
        .args(["--profile", "--peers=none"])
        .env("PATH", nothing.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("linux-perf") && !said.contains("Starting RocketMQ"),
        "{said}"
    );
}
