//! Whether everything is there that an OrderedConsumer needs, from the API server to its conditions: each
//! line is well, or says what to do.

mod cluster;
mod consumers;
mod definition;
mod install;
mod operator;

use super::connect::Cluster;
use super::paint::Paint;
use super::{Format, PluginError};
use clap::Args;
use serde::Serialize;
use std::fmt::Write as _;

/// What is to be checked.
#[derive(Args, Clone, Debug)]
pub(super) struct Check {
    /// Only this OrderedConsumer. Default: all of the namespace.
    name: Option<String>,
    /// OrderedConsumers of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Look for the operator in this namespace only. Default: all.
    #[arg(long, value_name = "NAMESPACE")]
    operator_namespace: Option<String>,
    /// Before an installation: whether the cluster can have Keylane, and whether you may install it.
    #[arg(long, conflicts_with_all = ["name", "all_namespaces", "operator_namespace"])]
    pre: bool,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) output: Option<Format>,
}

/// What came out of looking at one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    level: Level,
    text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Level {
    Well,
    /// To be known; nothing is broken.
    Note,
    Failed,
}

impl Line {
    fn well(text: impl Into<String>) -> Self {
        Self {
            level: Level::Well,
            text: text.into(),
            hint: None,
        }
    }

    fn note(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            level: Level::Note,
            text: text.into(),
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
        }
    }

    fn failed(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            level: Level::Failed,
            ..Self::note(text, hint)
        }
    }
}

/// Lines under a title.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Section {
    title: String,
    lines: Vec<Line>,
}

/// Looks at everything. What cannot be looked at because of what failed before is left out.
pub(super) async fn check(cluster: &Cluster, what: &Check) -> Result<Vec<Section>, PluginError> {
    let mut sections = Vec::new();
    let mut add = |title: &str, lines: Vec<Line>| {
        sections.push(Section {
            title: title.to_owned(),
            lines,
        });
    };
    let server = cluster::server(cluster).await;
    let answers = server.level != Level::Failed;
    add("Kubernetes", vec![server]);
    if !answers {
        return Ok(sections);
    }
    if what.pre {
        add(
            &format!("{} to install", rights_of(cluster)),
            install::rights(cluster).await?,
        );
        return Ok(sections);
    }
    let definition = definition::check(cluster).await;
    let installed = definition.served;
    add("Definition of OrderedConsumers", definition.lines);
    let namespace = &cluster.namespace;
    add(
        &format!("{} in namespace {namespace}", rights_of(cluster)),
        cluster::rights(cluster).await?,
    );
    let watched = if what.all_namespaces {
        None
    } else {
        Some(namespace.as_str())
    };
    let mut operators =
        operator::check(cluster, what.operator_namespace.as_deref(), watched).await?;
    operators.push(cluster::live(cluster).await);
    add("Operator", operators);
    if installed {
        let found = match (&what.name, what.all_namespaces) {
            (Some(name), _) => Ok(vec![cluster.consumer(name).await?]),
            (None, all) => cluster.all_consumers(all).await,
        };
        let title = match (&what.name, what.all_namespaces) {
            (Some(name), _) => format!("OrderedConsumer {namespace}/{name}"),
            (None, true) => "OrderedConsumers".to_owned(),
            (None, false) => format!("OrderedConsumers in namespace {namespace}"),
        };
        add(&title, consumers::check(found));
    }
    Ok(sections)
}

/// Whose rights are looked at: with --as those of somebody else.
fn rights_of(cluster: &Cluster) -> String {
    let user = cluster.as_user.as_ref();
    user.map_or_else(
        || "Your rights".to_owned(),
        |user| format!("Your rights as {user}"),
    )
}

/// Whether nothing failed.
pub(super) fn is_well(sections: &[Section]) -> bool {
    failed(sections) == 0
}

fn failed(sections: &[Section]) -> usize {
    let lines = sections.iter().flat_map(|section| &section.lines);
    lines.filter(|line| line.level == Level::Failed).count()
}

/// The same for people.
pub(super) fn text(sections: &[Section], paint: Paint) -> String {
    let mut text = String::new();
    for section in sections {
        let _ = writeln!(text, "{}", paint.strong(&section.title));
        for line in &section.lines {
            let mark = match line.level {
                Level::Well => paint.well("ok  "),
                Level::Note => paint.note("note"),
                Level::Failed => paint.bad("FAIL"),
            };
            let _ = writeln!(text, "  {mark}  {}", line.text);
            if let Some(hint) = &line.hint {
                let _ = writeln!(text, "        -> {hint}");
            }
        }
        text.push('\n');
    }
    text += &match failed(sections) {
        0 => paint.well("All is well."),
        1 => paint.bad("1 check failed."),
        failed => paint.bad(&format!("{failed} checks failed.")),
    };
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_line_is_well_or_says_what_to_do_and_the_last_one_counts() {
        let mut sections = vec![Section {
            title: "Operator".to_owned(),
            lines: vec![
                Line::well("it runs"),
                Line::note("it is old", "upgrade it"),
                Line::failed("nobody leads", "look at its log"),
            ],
        }];
        assert_eq!(
            text(&sections, Paint::PLAIN),
            "\
Operator
  ok    it runs
  note  it is old
        -> upgrade it
  FAIL  nobody leads
        -> look at its log

1 check failed.
"
        );
        assert!(!is_well(&sections));
        let said = serde_json::to_value(&sections).unwrap();
        assert_eq!(
            said[0]["lines"][0],
            json!({"level": "Well", "text": "it runs"})
        );
        assert_eq!(said[0]["lines"][2]["hint"], "look at its log");
        sections[0].lines.pop();
        assert!(is_well(&sections) && text(&sections, Paint::PLAIN).ends_with("\nAll is well.\n"));
    }
}
