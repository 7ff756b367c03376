use super::*;
use crate::plugin::Paint;
use crate::simulate::Moment;
use std::io::Write as _;

const CONSUMER: &str = "
apiVersion: v1
kind: Namespace
---
apiVersion: keylane.dev/v1alpha1
kind: OrderedConsumer
metadata: {name: order-status}
spec:
  rocketmq: {nameServers: ['namesrv.mq:9876']}
  topic: ORDER_STATUS
  consumerGroup: order-status
  handler: {http: {port: 8080}}
  lanes: {max: 32}
  autoscaling:
    maxReplicas: 8
    SCHEDULES
  template: {spec: {containers: [{name: handler, image: a}]}}
";

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    simulate: Simulate,
}

fn simulated(schedules: &str, args: &[&str]) -> Result<String, PluginError> {
    let mut file = std::env::temp_dir();
    file.push(format!(
        "keylane-simulate-{:016x}.yaml",
        rand::random::<u64>()
    ));
    let mut open = std::fs::File::create(&file)?;
    open.write_all(CONSUMER.replace("SCHEDULES", schedules).as_bytes())?;
    let name = file.display().to_string();
    let mut line = vec!["simulate", "-f", &name];
    line.extend(args);
    let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
    let mut out = Vec::new();
    let outcome = simulate(&line.simulate, Paint::PLAIN, &mut out);
    std::fs::remove_file(&file)?;
    outcome.map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn a_run_is_there_for_programs_and_as_a_picture() {
    let path = std::env::temp_dir().join(format!("keylane-{:016x}.svg", rand::random::<u64>()));
    let picture = path.display().to_string();
    let peak = ["--rate", "100", "--peak", "4000", "--queues", "16"];
    let args = [&peak[..], &["-o", "json", "--svg", &picture]].concat();
    let text = simulated("objective: {}", &args).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["name"], "order-status");
    assert_eq!(report["seconds"], 3600);
    assert!(report["mostPods"].as_u64() > Some(1), "{report}");
    assert!(report["changes"][0]["to"].as_u64() > Some(1), "{report}");
    let svg = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(svg.matches("<polyline").count(), 6);
    assert!(svg.contains("order-status"), "{svg}");
    let nowhere = [&peak[..], &["--svg", "/not/there/run.svg"]].concat();
    let error = simulated("objective: {}", &nowhere)
        .unwrap_err()
        .to_string();
    assert!(error.contains("/not/there/run.svg"), "{error}");
}

#[test]
fn a_peak_brings_pods_and_the_file_bounds_them() {
    let peak = ["--rate", "100", "--peak", "100000", "--queues", "16"];
    let text = simulated("objective: {}", &peak).unwrap();
    for part in [
        "order-status: 1h with 16 queues; a call takes 50 ms, a pod does 320/s at most and starts in 30s",
        "mode Auto, 1 to 8 pods, 4 to 32 lanes",
        "at most 8 pods",
        "-> 8  ReplicasUp",
        "older than maxMessageAge (30 s)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let quiet = simulated("objective: {}", &["--rate", "10", "--for", "20m"]).unwrap();
    assert!(
        quiet.contains("for 0s") && quiet.contains("at most 1 pods"),
        "{quiet}"
    );
}

#[test]
fn an_announced_peak_finds_its_pods_there() {
    let peak = [
        "--rate",
        "100",
        "--peak",
        "1500",
        "--at",
        "2026-11-10T23:45:00+08:00",
    ];
    let announced =
        "schedules: [{start: '2026-11-11T00:00:00+08:00', duration: 15m, expectedPerSecond: 1500}]";
    let text = simulated(announced, &peak).unwrap();
    let (moment, _) = text.split_once("Scheduled").expect(&text);
    let moment = moment.lines().last().unwrap_or_default();
    // A start that was never seen is believed to take 60 s, and pods are to be there 15 s before.
    assert!(moment.trim().starts_with("13m45s"), "{text}");
    let surprised = simulated("objective: {}", &peak).unwrap();
    assert!(!surprised.contains("Scheduled"), "{surprised}");
}

#[test]
fn what_cannot_be_simulated_is_named() {
    let error = |schedules: &str, args: &[&str]| {
        let error = simulated(schedules, args).unwrap_err().to_string();
        error
            .split_once(": ")
            .map(|(_, reason)| reason.to_owned())
            .unwrap()
    };
    let late = error(
        "schedules: [{start: soon, duration: 15m, expectedPerSecond: 1}]",
        &["--rate", "1"],
    );
    assert!(late.contains("\"soon\" is not a time"), "{late}");
    let none = error("objective: {}", &["--rate", "1", "--queues", "0"]);
    assert!(none.contains("queues must be 1 to 4096"), "{none}");
    let missing = error("objective: {}", &["--trace", "/nowhere.json"]);
    assert!(missing.contains("No such file"), "{missing}");
}

#[test]
fn the_plot_has_a_line_a_figure_and_shows_what_is_there_at_all() {
    let course: Vec<Moment> = (0..8)
        .map(|second| Moment {
            arriving: f64::from(second) * 100.0,
            pods: 1,
            ..Moment::default()
        })
        .collect();
    let text = plot::plot(&course);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(" arriving/s  ▁▂▃▅▆▇█ at most 700"));
    assert!(text.contains("       pods ████████ at most 1"), "{text}");
    assert_eq!(text.lines().last(), Some("            0     8s"));
}
