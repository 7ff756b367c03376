//! Every command that the documentation shows is one: it is read by the program it is for, or by what that program
//! reads. Programs of others are named with the reason why nobody reads them here.

use crate::docs::{blocks, documents};
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
const OTHERS: [&str; 11] = [
    "mqadmin", "curl", "docker", "kind", "k3d", "for", "do", "done", "export", "cd", "git",
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

/// A command that is shown.
struct Shown {
    words: Vec<String>,
    /// Whether it can be typed as it stands, or is only spoken of.
    whole: bool,
}

/// The commands of a line of a shell.
fn parse(line: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    let mut command = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ';' | '&' | '|') if letter == ';' || word.is_none() => {
                command.extend(word.take());
                commands.push(std::mem::take(&mut command));
            }
            (None, _) if letter.is_whitespace() => command.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    command.extend(word);
    commands.push(command);
    commands.retain(|command| !command.is_empty());
    commands
}

/// Commands of a block: behind a prompt if there is one, else every line if the first one is a command.
fn in_block(block: &str) -> Vec<Shown> {
    let joined = block.replace("\\\n", " ");
    let prompted: Vec<&str> = joined
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    let known = |line: &str| {
        let first = line.split_whitespace().next().unwrap_or_default();
        ["kubectl", "cargo", "helm", "keylane-consumer"].contains(&first) || OTHERS.contains(&first)
    };
    let lines: Vec<&str> = if !prompted.is_empty() {
        prompted
    } else if joined.lines().next().is_some_and(known) {
        joined.lines().collect()
    } else {
        Vec::new()
    };
    let commands = lines.into_iter().flat_map(parse);
    commands.map(|words| Shown { words, whole: true }).collect()
}

/// Commands that a text speaks of.
fn in_text(text: &str) -> Vec<Shown> {
    let mut prose = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| {
        let first = span.split_whitespace().next().unwrap_or_default();
        ["kubectl", "cargo", "helm", "keylane-consumer"].contains(&first)
    });
    let commands = spans.flat_map(|span| parse(&span.replace('\n', " ")));
    commands
        .map(|words| Shown {
            words: words.iter().map(|word| example(word)).collect(),
            whole: false,
        })
        .collect()
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
        // Settings of one command.
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
            ["helm", rest @ ..] => self.helm(rest),
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
    fn helm(&self, rest: &[&str]) -> Option<String> {
        let chart = rest.iter().find(|word| word.starts_with("charts/"));
        let missing = chart.is_none_or(|chart| !workspace().join(chart).is_dir());
        if missing {
            return Some(format!("there is no chart {chart:?}"));
        }
        let sets = rest.windows(2).filter(|two| two[0] == "--set");
        let values = sets.flat_map(|two| two[1].split(','));
        values
            .filter_map(|value| value.split_once('='))
            .find(|(name, _)| {
                let path = format!("/{}", name.replace('.', "/"));
                self.values.pointer(&path).is_none()
            })
            .map(|(name, _)| format!("the chart has no value {name}"))
    }
}

fn is_setting(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_uppercase() || letter == '_')
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
        let mut shown = in_text(&text);
        spoken_of += shown.len();
        for block in blocks(&text, "") {
            let commands = in_block(&block);
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
        let mut commands = in_block(line);
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
        "make all",
    ] {
        if wrong == "make all" {
            let shown = Shown {
                words: vec!["make".into(), "all".into()],
                whole: true,
            };
            assert!(reader.fault(&shown).is_some());
            continue;
        }
        assert!(fault(wrong).is_some(), "{wrong}");
    }
    Ok(())
}

#[test]
fn lines_are_read_as_a_shell_reads_them() {
    let line = r#"A=1 kubectl annotate oc a k='x: y' && helm list | head; ls # "no"#;
    let words: Vec<Vec<&str>> = vec![
        vec!["A=1", "kubectl", "annotate", "oc", "a", "k=x: y"],
        vec!["helm", "list"],
        vec!["head"],
        vec!["ls"],
    ];
    assert_eq!(parse(line), words);
    assert_eq!(example("[python|go]"), "python");
    assert_eq!(example("[NAME]"), "orders");
}
