//! Every command that the documentation shows is one: it is read by the program it is for, or by what that program
//! reads. Programs of others are named with the reason why nobody reads them here.

use crate::docs::{blocks, documents};
use crate::shell::{Shown, in_block, in_text};
use crate::space::Space;
use anyhow::{Context as _, Result};
use clap::Parser;
use clap::error::ErrorKind;
use keylane_consumer::cli::Cli as Executor;
use keylane_operator::plugin::Cli as Plugin;
use keylane_tests::cluster::run;
use keylane_tests::images::workspace::workspace;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Ours behind `cargo`, by the names of their programs.
const PROGRAMS: [(&str, &str); 8] = [
    ("demo", env!("CARGO_BIN_EXE_demo")),
    ("cluster", env!("CARGO_BIN_EXE_cluster")),
    ("bench-rocketmq", env!("CARGO_BIN_EXE_bench-rocketmq")),
    ("bench-operator", env!("CARGO_BIN_EXE_bench-operator")),
    ("chaos", env!("CARGO_BIN_EXE_chaos")),
    ("fuzz", env!("CARGO_BIN_EXE_fuzz")),
    ("live", env!("CARGO_BIN_EXE_live")),
    ("scale-sim", env!("CARGO_BIN_EXE_scale-sim")),
];

/// Programs of others: RocketMQ's own tools are run in tests of what they are shown for; the rest are not needed
/// to be there.
const OTHERS: [&str; 13] = [
    "mqadmin", "curl", "docker", "kind", "k3d", "for", "do", "done", "export", "cd", "git", "cat",
    "jq",
];

/// What stands for something of the reader's, with an example of it.
const STANDS_FOR: [(&str, &str); 7] = [
    ("NAME", "orders"),
    ("GROUP", "orders"),
    ("FILE", "orders.yaml"),
    ("ADDRESS", "namesrv.mq:9876"),
    ("TIME", "earliest"),
    ("LETTER", "broker-a/0/17"),
    ("REGISTRY", "localhost:5001"),
];

/// Whether a command begins with this word that somebody here reads.
fn is_read(word: &str) -> bool {
    ["kubectl", "cargo", "helm", "keylane-consumer"].contains(&word)
}

fn is_known(word: &str) -> bool {
    is_read(word) || OTHERS.contains(&word)
}

/// An example of what a word stands for.
fn example(word: &str) -> String {
    let word = word.trim_matches(['[', ']']);
    let word = word.split('|').next().unwrap_or_default();
    let known = STANDS_FOR.iter().find(|(name, _)| *name == word);
    known.map_or(word, |(_, example)| example).to_owned()
}

struct Reader {
    space: Space,
    /// Aliases of cargo.
    aliases: Vec<(String, String)>,
    /// Names of packages, programs, examples and benches.
    names: Vec<String>,
    values: Value,
}

impl Reader {
    fn new() -> Result<Self> {
        let read = |path: &str| {
            let path = workspace().join(path);
            std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
        };
        let config = read(".cargo/config.toml")?;
        let aliases = config.lines().filter_map(|line| {
            let (name, value) = line.split_once(" = ")?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        let mut names = Vec::new();
        for manifest in ["consumer", "consumer/samples/rust", "operator", "tests"] {
            let text = read(&format!("{manifest}/Cargo.toml"))?;
            let named = text.lines().filter_map(|line| line.strip_prefix("name = "));
            names.extend(named.map(|name| name.trim_matches('"').to_owned()));
        }
        for directory in ["consumer/examples", "operator/src/bin"] {
            for entry in std::fs::read_dir(workspace().join(directory))? {
                let path = entry?.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                names.extend(stem.map(str::to_owned));
            }
        }
        Ok(Self {
            space: Space::new("commands")?,
            aliases: aliases.collect(),
            names,
            values: serde_norway::from_str(&read("charts/keylane/values.yaml")?)?,
        })
    }

    /// What is wrong with a command.
    fn fault(&self, shown: &Shown) -> Option<String> {
        let words: Vec<&str> = shown.words.iter().map(String::as_str).collect();
        // Settings, of one command or of all that follow.
        let words = match words.iter().position(|word| !is_setting(word)) {
            Some(first) => &words[first..],
            None => return None,
        };
        match words {
            ["kubectl", "keylane", rest @ ..] => {
                parsed::<Plugin>("kubectl-keylane", rest, shown.whole)
            }
            ["kubectl", rest @ ..] => {
                let mut kubectl = self.space.cluster().kubectl();
                helps(kubectl.args(rest))
            }
            ["cargo", command, rest @ ..] => self.cargo(command, rest),
            ["helm", rest @ ..] => self.helm(rest, shown),
            ["keylane-consumer", rest @ ..] => {
                parsed::<Executor>("keylane-consumer", rest, shown.whole)
            }
            [other, ..] if OTHERS.contains(other) => None,
            [other, ..] => Some(format!("nobody reads {other} here: say how it is checked")),
            [] => None,
        }
    }

    fn cargo(&self, command: &str, rest: &[&str]) -> Option<String> {
        let alias = self.aliases.iter().find(|(name, _)| name == command);
        let Some((_, alias)) = alias else {
            let mut options = rest.iter().take_while(|word| **word != "--");
            while let Some(option) = options.next() {
                if ["-p", "--package", "--bin", "--example", "--bench", "--test"].contains(option) {
                    let name = options.next().copied().unwrap_or_default();
                    if !self.names.iter().any(|known| known == name) {
                        return Some(format!("there is no {option} {name:?}"));
                    }
                }
            }
            if command == "fuzz" {
                return fuzz(rest);
            }
            let known = ["build", "test", "run", "doc", "deny", "bench"];
            return (!known.contains(&command)).then(|| format!("cargo has no {command}"));
        };
        let mut parts = alias.split(' ').skip_while(|part| *part != "--bin");
        let Some(program) = parts.nth(1) else {
            // A bench of its own; what it takes is not asked.
            return rest
                .first()
                .map(|word| format!("{word} is not read by anybody"));
        };
        let path = PROGRAMS.iter().find(|(name, _)| *name == program);
        let Some((_, path)) = path else {
            return Some(format!("{program} is not among the programs of this test"));
        };
        let rest = rest.strip_prefix(&["--"]).unwrap_or(rest);
        helps(Command::new(path).args(rest))
    }

    /// Charts that are there, and values that they have.
    fn helm(&self, rest: &[&str], shown: &Shown) -> Option<String> {
        let chart = rest.iter().find(|word| word.starts_with("charts/"));
        if chart.is_none() && (!shown.whole || rest.first() == Some(&"rollback")) {
            return None;
        }
        let missing = chart.is_none_or(|chart| !workspace().join(chart).is_dir());
        if missing {
            return Some(format!("there is no chart {chart:?}"));
        }
        let sets = rest.windows(2).filter(|two| two[0] == "--set");
        let values = sets.flat_map(|two| two[1].split(','));
        let set = values
            .filter_map(|value| value.split_once('='))
            .map(|(name, _)| name)
            .find(|name| {
                let path = format!("/{}", name.replace('.', "/"));
                self.values.pointer(&path).is_none()
            });
        if let Some(name) = set {
            return Some(format!("the chart has no value {name}"));
        }
        match serde_norway::from_str(shown.input.as_deref()?) {
            Ok(given) => unknown_value(&self.values, &given)
                .map(|name| format!("the chart has no value {name}")),
            Err(error) => Some(format!("its values are no YAML: {error}")),
        }
    }
}

fn is_setting(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphabetic() || letter == '_')
}

/// The first value that a chart does not have, by its path.
fn unknown_value(chart: &Value, given: &Value) -> Option<String> {
    given.as_object()?.iter().find_map(|(name, value)| {
        let Some(known) = chart.get(name) else {
            return Some(name.clone());
        };
        unknown_value(known, value).map(|below| format!("{name}.{below}"))
    })
}

/// cargo-fuzz, for those who have it: its target is one.
fn fuzz(rest: &[&str]) -> Option<String> {
    let directory = rest.windows(2).find(|two| two[0] == "--fuzz-dir");
    let manifest = workspace().join(directory?[1]).join("Cargo.toml");
    let targets = std::fs::read_to_string(manifest).unwrap_or_default();
    let is_target = |word: &&str| targets.contains(&format!("name = \"{word}\""));
    let missing = !rest.iter().any(is_target);
    missing.then(|| "there is no such target".to_owned())
}

/// What a program of ours says of a command line.
fn parsed<C: Parser>(program: &str, rest: &[&str], whole: bool) -> Option<String> {
    let line = [program].into_iter().chain(rest.iter().copied());
    let error = C::try_parse_from(line).err()?;
    let spoken_of = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::ArgumentConflict
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    (whole || !spoken_of).then(|| error.to_string())
}

/// A program that reads its arguments, and then says what they mean.
fn helps(command: &mut Command) -> Option<String> {
    run::output("reading it", command.arg("--help"))
        .err()
        .map(|error| error.to_string())
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[test]
fn every_command_that_is_shown_is_read_by_what_it_is_for() -> Result<()> {
    let reader = Reader::new()?;
    let (mut faults, mut whole, mut spoken_of) = (Vec::new(), 0, 0);
    for (path, text) in documents()? {
        // Generated, and its examples are tried where they are written.
        if name(&path) == "reference.md" {
            continue;
        }
        let mut shown = in_text(&text, is_read);
        spoken_of += shown.len();
        for shown in &mut shown {
            shown.words = shown.words.iter().map(|word| example(word)).collect();
        }
        let languages = ["", "console"].into_iter();
        for block in languages.flat_map(|language| blocks(&text, language)) {
            let commands = in_block(&block, is_known);
            whole += commands.len();
            shown.extend(commands);
        }
        for shown in &shown {
            if let Some(fault) = reader.fault(shown) {
                faults.push(format!(
                    "{}: {}: {fault}",
                    name(&path),
                    shown.words.join(" ")
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(whole > 25 && spoken_of > 40, "{whole}, {spoken_of}");
    Ok(())
}

#[test]
fn a_command_that_is_none_is_found() -> Result<()> {
    let reader = Reader::new()?;
    let fault = |line: &str| {
        let mut commands = in_block(line, |_| true);
        assert_eq!(commands.len(), 1, "{line}");
        commands.pop().and_then(|shown| reader.fault(&shown))
    };
    for well in [
        "kubectl keylane status orders -n shop   # how it does",
        "kubectl get oc --watch",
        "cargo demo -- --down",
        "cargo build --release -p keylane-operator --bin kubectl-keylane",
        "helm install keylane charts/keylane --set liveApi.enabled=true,image.tag=dev",
        "keylane-consumer run --file orders.yaml --lanes 4",
        "keylane-consumer run -f orders.yaml --admin-token-file token",
        "helm rollback keylane",
        "helm upgrade keylane charts/keylane -f - <<END\nmetrics: {access: TokenReview}\nEND",
        "cargo fuzz run --fuzz-dir tests/fuzz journal",
        "topic=ORDERS",
    ] {
        assert_eq!(fault(well), None, "{well}");
    }
    for wrong in [
        "kubectl keylane state orders",
        "kubectl keylane simulate -f orders.yaml",
        "kubectl get oc --wach",
        "cargo demo -- --dwn",
        "cargo demo -- sales",
        "cargo build -p keylane-oprator",
        "helm install keylane charts/keylan",
        "helm install keylane charts/keylane --set liveAPI.enabled=true",
        "keylane-consumer run --fil orders.yaml",
        "keylane-consumer run -f orders.yaml --lanes many",
        "keylane-consumer run -f orders.yaml --admin-cert-file cert",
        "keylane-consumer run",
        "helm upgrade keylane",
        "helm upgrade keylane charts/keylane -f - <<END\nmetrics: {acces: TokenReview}\nEND",
        "cargo fuzz run --fuzz-dir tests/fuzz jurnal",
        "make all",
    ] {
        assert!(fault(wrong).is_some(), "{wrong}");
    }
    Ok(())
}

#[test]
fn what_stands_for_something_of_the_readers_has_an_example() {
    assert_eq!(example("[python|go]"), "python");
    assert_eq!(example("[NAME]"), "orders");
}
