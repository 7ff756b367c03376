//! The reference of everything users write and read, made of the source it is about.

use crate::crd::OrderedConsumer;
use crate::metrics::Metrics;
use crate::plugin::Cli;
use clap::CommandFactory;
use keylane_consumer::contract::admin::{QueueStats, Stats};
use keylane_consumer::exec::Measures;
use kube::CustomResourceExt;
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Rewrites the file when KEYLANE_REGENERATE is set.
#[test]
fn the_reference_is_that_of_the_source() {
    let operator = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = "# Reference\n\nGenerated from the source; do not edit.\n".to_owned();
    resource(&mut text);
    commands(&mut text, "kubectl keylane", Cli::command());
    let executor = keylane_consumer::cli::Cli::command();
    commands(&mut text, "keylane-consumer", executor);
    metrics(&mut text);
    values(&mut text, &operator.join("../charts/keylane/values.yaml"));
    let path = operator.join("docs/reference.md");
    if std::env::var_os("KEYLANE_REGENERATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "{} is stale: run KEYLANE_REGENERATE=1 cargo test --workspace --lib reference::",
        path.display()
    );
}

/// Every field of a spec, with its default and what it says of itself, and of a status.
fn resource(text: &mut String) {
    let definition = serde_json::to_value(OrderedConsumer::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for part in ["spec", "status"] {
        let _ = write!(
            text,
            "\n## OrderedConsumer: {part}\n\n| field | type | default | |\n|---|---|---|---|\n"
        );
        fields(text, "", &schema["properties"][part]);
    }
}

fn fields(text: &mut String, above: &str, schema: &Value) {
    let properties = schema["properties"].as_object();
    for (name, field) in properties.into_iter().flatten() {
        let path = format!("{above}{name}");
        let kind = field["type"].as_str().unwrap_or("integer or string");
        let values = field["enum"].as_array().map(|values| {
            let values = values.iter().filter_map(Value::as_str);
            values.collect::<Vec<_>>().join(", ")
        });
        let default = match &field["default"] {
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let _ = writeln!(
            text,
            "| `{path}` | {} | {default} | {} |",
            values.as_deref().unwrap_or(kind),
            cell(field["description"].as_str().unwrap_or_default())
        );
        // Kubernetes documents its own.
        if path == "template" {
            continue;
        }
        match kind {
            "array" => fields(text, &format!("{path}[]."), &field["items"]),
            _ => fields(text, &format!("{path}."), field),
        }
    }
}

/// The help of every command of a program; of one that has commands of its own, theirs.
fn commands(text: &mut String, title: &str, mut root: clap::Command) {
    let _ = writeln!(text, "\n## {title}");
    root.build();
    for command in root.get_subcommands() {
        put_command(text, command, command.get_name());
    }
}

fn put_command(text: &mut String, command: &clap::Command, name: &str) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let parts: Vec<_> = command.get_subcommands().collect();
    for part in &parts {
        put_command(text, part, &format!("{name} {}", part.get_name()));
    }
    if parts.is_empty() {
        let help = command.clone().render_long_help().to_string();
        let help: Vec<_> = help.lines().map(str::trim_end).collect();
        let _ = writeln!(
            text,
            "\n### {name}\n\n```text\n{}\n```",
            help.join("\n").trim()
        );
    }
}

/// Every metric of executor and operator.
fn metrics(text: &mut String) {
    let measures = Measures::new().unwrap();
    measures.pulls.with_label_values(&["found"]).inc();
    let known = QueueStats {
        broker: "broker-a".to_owned(),
        watermark: Some(1),
        pulled: Some(1),
        committed: Some(1),
        oldest_age_seconds: Some(1.0),
        ..QueueStats::default()
    };
    let stats = Stats {
        queues: vec![known],
        ..Stats::default()
    };
    let executor = keylane_consumer::metrics::Metrics::new(measures).render(&stats);
    table(text, "Metrics of a pod, on port 9402", &executor);
    let registry = Registry::new();
    let operator = Metrics::new(&registry).unwrap();
    operator.failed("apply");
    operator.wrote_child("Deployment");
    operator.asked_brokers(Duration::ZERO, true);
    let mut page = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut page)
        .unwrap();
    let page = String::from_utf8(page).unwrap();
    table(text, "Metrics of the operator, on port 9402", &page);
}

fn table(text: &mut String, title: &str, page: &str) {
    let _ = writeln!(text, "\n## {title}\n\n| metric | type | |\n|---|---|---|");
    let kind = |name: &str| {
        let begin = format!("# TYPE {name} ");
        let mut kinds = page.lines().filter_map(|line| line.strip_prefix(&begin));
        kinds.next().unwrap_or_default().to_owned()
    };
    let helps = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
    let mut rows: Vec<_> = helps.filter_map(|line| line.split_once(' ')).collect();
    rows.sort_unstable();
    for (name, help) in rows {
        let _ = writeln!(text, "| `{name}` | {} | {} |", kind(name), cell(help));
    }
}

/// Every value of the chart, with the comment above it.
fn values(text: &mut String, path: &Path) {
    text.push_str("\n## Values of the chart keylane\n\n| value | default | |\n|---|---|---|\n");
    let file = std::fs::read_to_string(path).unwrap();
    let (mut above, mut comment) = (Vec::<(usize, String)>::new(), String::new());
    for line in file.lines() {
        let trimmed = line.trim_start();
        if let Some(said) = trimmed.strip_prefix('#') {
            comment.push_str(said);
            continue;
        }
        let Some((name, value)) = trimmed.split_once(':') else {
            comment.clear();
            continue;
        };
        let depth = line.len() - trimmed.len();
        above.retain(|(at, _)| *at < depth);
        let names = above.iter().map(|(_, name)| name.as_str());
        let path: Vec<_> = names.chain([name]).collect();
        let value = value.trim();
        let value = if value.is_empty() {
            String::new()
        } else {
            format!("`{value}`")
        };
        let _ = writeln!(
            text,
            "| `{}` | {value} | {} |",
            path.join("."),
            cell(comment.trim())
        );
        above.push((depth, name.to_owned()));
        comment.clear();
    }
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}
