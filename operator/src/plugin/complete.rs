//! What a command line can go on with, for kubectl: it asks the program `kubectl_complete-<plugin>` with the
//! words typed so far, the last one perhaps empty, and reads a line for each possibility with a tab and its
//! description, and then a number that says what else may follow (the protocol of cobra, by which kubectl
//! is made).

use super::connect::Cluster;
use super::{Cli, PluginError};
use clap::{Args, CommandFactory, Parser};
use kube::config::Kubeconfig;
use std::io::Write;

/// Nothing else may follow: no names of files.
const NOTHING_ELSE: &str = ":4";
/// The shell may go on with names of files.
const FILES: &str = ":0";
/// What values are called that are names of files.
const FILE: &str = "FILE";

/// Words of a command line.
#[derive(Args, Clone, Debug)]
pub(super) struct Complete {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// A possibility and what it is.
type Possibility = (String, String);

/// Tells what the words can go on with.
pub(super) async fn complete(what: &Complete, out: &mut dyn Write) -> Result<(), PluginError> {
    let (last, before) = what
        .words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let Some(found) = possibilities(before, last) else {
        return Ok(writeln!(out, "{FILES}")?);
    };
    let mut found: Vec<Possibility> = found;
    if takes_name(before, last) {
        found.extend(
            names(before)
                .await
                .into_iter()
                .map(|name| (name, String::new())),
        );
    }
    if before.last().is_some_and(|word| word == "--context") {
        let kubeconfig = Kubeconfig::read().unwrap_or_default();
        let contexts = kubeconfig.contexts.into_iter();
        found.extend(contexts.map(|context| (context.name, String::new())));
    }
    for (word, about) in found.iter().filter(|(word, _)| word.starts_with(last)) {
        if about.is_empty() {
            writeln!(out, "{word}")?;
        } else {
            writeln!(out, "{word}\t{about}")?;
        }
    }
    Ok(writeln!(out, "{NOTHING_ELSE}")?)
}

/// The subcommand that was typed, of that its own if it has any, and whether one was.
fn command(words: &[String]) -> (clap::Command, bool) {
    let mut root = Cli::command();
    root.build();
    let (mut typed, mut any) = (&root, false);
    for word in words {
        if let Some(found) = typed.find_subcommand(word) {
            (typed, any) = (found, true);
        }
    }
    (typed.clone(), any)
}

/// What can follow, names of objects and contexts left out; none if that is the name of a file.
fn possibilities(before: &[String], last: &str) -> Option<Vec<Possibility>> {
    let (command, _) = command(before);
    let about = |text: Option<&clap::builder::StyledStr>| {
        let text = text.map(ToString::to_string).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    // The value of an option.
    if let Some(option) = before.last().and_then(|word| option(&command, word)) {
        let values = option.get_possible_values();
        let names = option.get_value_names().unwrap_or_default();
        if values.is_empty() && names.iter().any(|name| name.as_str() == FILE) {
            return None;
        }
        let value = |value: &clap::builder::PossibleValue| {
            (value.get_name().to_owned(), about(value.get_help()))
        };
        return Some(values.iter().map(value).collect());
    }
    if last.starts_with('-') {
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let options = options
            .filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))));
        return Some(options.collect());
    }
    let commands = command.get_subcommands().filter(|one| !one.is_hide_set());
    let commands = commands.map(|one| (one.get_name().to_owned(), about(one.get_about())));
    Some(commands.collect())
}

/// The option that takes a value, if the word is one.
fn option<'c>(command: &'c clap::Command, word: &str) -> Option<&'c clap::Arg> {
    command.get_arguments().find(|arg| {
        let long = arg
            .get_long()
            .is_some_and(|long| word == format!("--{long}"));
        let short = arg
            .get_short()
            .is_some_and(|short| word == format!("-{short}"));
        (long || short) && arg.get_action().takes_values()
    })
}

/// Whether the name of an OrderedConsumer can stand there.
fn takes_name(before: &[String], last: &str) -> bool {
    let (command, typed) = command(before);
    let value = before
        .last()
        .is_some_and(|word| option(&command, word).is_some());
    typed
        && !value
        && !last.starts_with('-')
        && command.get_positionals().any(|arg| arg.get_id() == "name")
}

/// Names of OrderedConsumers where the words say to look; none if nobody says any.
async fn names(before: &[String]) -> Vec<String> {
    let line = ["kubectl-keylane".to_owned()];
    let words = line.iter().chain(before).cloned();
    // The name itself is still missing.
    let cli = Cli::try_parse_from(words.chain(["name".to_owned()]));
    let Ok(cli) = cli else {
        return Vec::new();
    };
    let Ok(cluster) = Cluster::connect(&cli.target).await else {
        return Vec::new();
    };
    let found = cluster.all_consumers(false).await.unwrap_or_default();
    found.iter().map(kube::ResourceExt::name_any).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    /// The words that can follow a line, of which the last one is perhaps empty.
    fn after(line: &str) -> Option<Vec<String>> {
        let words = words(line);
        let (last, before) = words.split_last().unwrap();
        let found = possibilities(before, last)?;
        let found = found.into_iter().map(|(word, _)| word);
        Some(found.filter(|word| word.starts_with(last)).collect())
    }

    #[test]
    fn commands_options_and_values_are_offered_where_they_can_stand() {
        let commands = after("").unwrap();
        assert!(commands.contains(&"status".to_owned()), "{commands:?}");
        assert!(!commands.contains(&"__complete".to_owned()));
        assert_eq!(after("sta"), Some(vec!["status".to_owned()]));
        let options = after("explain order-status --re").unwrap();
        assert_eq!(options, ["--replay"]);
        assert_eq!(
            after("status order-status -o j"),
            Some(vec!["json".to_owned()])
        );
        assert_eq!(after("offsets re"), Some(vec!["reset".to_owned()]));
        assert_eq!(
            after("offsets reset -n a --t"),
            Some(vec!["--to".to_owned()])
        );
        // A file: the shell's own affair.
        assert_eq!(after("simulate -f "), None);
        assert_eq!(after("simulate --rate "), Some(vec![]));
    }

    #[test]
    fn names_are_offered_where_one_is_wanted() {
        let takes = |line: &str| {
            let words = words(line);
            let (last, before) = words.split_last().unwrap();
            takes_name(before, last)
        };
        assert!(takes("status ") && takes("-n shop explain ord") && takes("check "));
        assert!(takes("offsets show ") && !takes("offsets "));
        assert!(!takes("") && !takes("status -") && !takes("status -n "));
        assert!(!takes("simulate "));
    }
}
