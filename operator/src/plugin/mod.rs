//! `kubectl keylane`: what people ask about their OrderedConsumers, from the objects in the API server and
//! with the rights of the user who asks.
//!
//! Promises: it writes nothing but `spec.suspend`, the first pod of a group that is taken over, and the annotation
//! that asks for a reset of offsets, of an OrderedConsumer; dead letters are sent again by the operator, which the
//! API server asks in the user's name. What a command prints is made by pure functions of the objects it read. An
//! error names what went wrong, why, and what to do.

mod check;
mod complete;
mod connect;
mod dlq;
mod error;
mod explain;
mod keys;
#[cfg(test)]
mod krew;
mod migrate;
mod offsets;
mod paint;
mod simulate;
mod status;
mod suspend;
mod time;
mod top;
mod tree;

pub use connect::Target;
pub use error::PluginError;
pub use paint::Paint;

use clap::{Args, Parser, Subcommand, ValueEnum};
use connect::Cluster;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use std::io::Write;
use suspend::Way;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, all is well
  1  a check failed, a decision replayed to another one, a dead letter is held back
     or not known, or a group is not started because it has other members
  2  wrong usage, the cluster cannot be reached, or there is no such object";

/// Looks into OrderedConsumers.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-keylane",
    bin_name = "kubectl keylane",
    version,
    after_help = EXIT_CODES
)]
pub struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How an OrderedConsumer does: load, size, pods, keys, the last decision, conditions in words.
    #[command(after_help = "\
Examples:
  kubectl keylane status order-status -n shop
  kubectl keylane status order-status -n shop -o json")]
    Status(Status),
    /// Why an OrderedConsumer has so many pods and lanes: the last decision, its rules with numbers, and
    /// what would change it.
    #[command(after_help = "\
Examples:
  kubectl keylane explain order-status -n shop
  kubectl keylane explain order-status -n shop --replay    # decide again what was decided, and compare")]
    Explain(Explain),
    /// The keys of an OrderedConsumer that matter now: blocked, stuck, hot, long, or in more than one queue.
    ///
    /// Hot is a key that needs half of what its lane can do, or more: it has one, whatever the number of lanes and
    /// pods. Long is one of which more waits than is a lane's part. The keys with most messages, hot or not, are in
    /// top NAME -o json.
    ///
    /// From the pods, by the API live.keylane.dev.
    #[command(after_help = "\
Examples:
  kubectl keylane keys order-status -n shop
  kubectl keylane keys order-status -n shop -o json")]
    Keys(Status),
    /// An OrderedConsumer as it works: queues and pods with lanes, rates, messages and their age; or all of them, a
    /// line each. Every two seconds until it is interrupted; once where the output is no terminal.
    ///
    /// From the pods, by the API live.keylane.dev.
    #[command(after_help = "\
Examples:
  kubectl keylane top -A
  kubectl keylane top order-status -n shop
  kubectl keylane top order-status -n shop --once
  kubectl keylane top -n shop -o json")]
    Top(top::Top),
    /// Hold back everything, some queues or some keys of an OrderedConsumer, without a restart.
    ///
    /// Writes spec.suspend and nothing else. Running calls finish, and nothing is lost.
    #[command(after_help = "\
Examples:
  kubectl keylane suspend order-status -n shop                       # hand nothing to handlers
  kubectl keylane suspend order-status -n shop --queue broker-a/3
  kubectl keylane suspend order-status -n shop --key order-7 --key order-8")]
    Suspend(suspend::What),
    /// Let go on what was suspended.
    ///
    /// Without --queue and --key it undoes a suspend without them; queues and keys stay suspended.
    #[command(after_help = "\
Examples:
  kubectl keylane resume order-status -n shop
  kubectl keylane resume order-status -n shop --key order-7")]
    Resume(suspend::What),
    /// Messages that were given up: what they are, and sending them again.
    ///
    /// From the brokers, by the API live.keylane.dev.
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Where the group is in each queue, and how to have it go on from elsewhere.
    #[command(subcommand)]
    Offsets(offsets::Offsets),
    /// Take over a group from RocketMQ's own clients: prints its OrderedConsumer, without pods, with what to do;
    /// starts it once nobody else is a member.
    ///
    /// From the brokers, by the API live.keylane.dev.
    #[command(after_help = "\
Examples:
  kubectl keylane migrate order-status --name-server namesrv.mq:9876 -n shop
  kubectl keylane migrate order-status --name-server namesrv.mq:9876 -n shop -o json
  kubectl keylane migrate order-status --start -n shop")]
    Migrate(migrate::Migrate),
    /// Check the cluster, the installation, your rights and OrderedConsumers: each line is ok or says what
    /// to do.
    #[command(after_help = "\
Examples:
  kubectl keylane check --pre                # before Keylane is installed
  kubectl keylane check                      # and the OrderedConsumers of the context's namespace
  kubectl keylane check order-status -n shop
  kubectl keylane check -A && echo all is well
  kubectl keylane check -A -o json")]
    Check(check::Check),
    /// Try a load on the real controller with the bounds of an OrderedConsumer, before it comes. No
    /// cluster is asked.
    #[command(after_help = "\
Examples:
  kubectl keylane simulate -f order-status.yaml --rate 500 --peak 4000 --svg peak.svg
  kubectl keylane simulate -f order-status.yaml --rate 500 --work 20ms --pod-rate 800 --backlog 100000
  kubectl keylane simulate -f order-status.yaml --trace night.json --at 2026-11-11T00:00:00+08:00")]
    Simulate(simulate::Simulate),
    /// What the words typed so far can go on with, in the format that kubectl asks plugins for: let
    /// kubectl_complete-keylane on your PATH be a script with exec kubectl-keylane __complete "$@".
    #[command(name = "__complete", hide = true)]
    Complete(complete::Complete),
}

#[derive(Debug, Args)]
struct Status {
    /// Name of the OrderedConsumer.
    name: String,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
struct Explain {
    /// Name of the OrderedConsumer.
    name: String,
    /// Make the decisions that were kept again from what they were made of, and say whether they come out
    /// the same. Reads the ConfigMap <name>-keylane-decisions.
    #[arg(long)]
    replay: bool,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// How things are printed for programs.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

impl Format {
    fn write(self, value: &impl Serialize, out: &mut dyn Write) -> Result<(), PluginError> {
        match self {
            Self::Json => {
                serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Self::Yaml => {
                let text = serde_norway::to_string(value).map_err(std::io::Error::other)?;
                write!(out, "{text}")?;
            }
        }
        Ok(())
    }
}

/// How a command ended that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Well,
    /// A check failed.
    Failed,
}

/// Carries out a command; what it has to say goes to `out`.
///
/// # Errors
///
/// When it cannot be carried out: no cluster, no such object, no right to it.
pub async fn run(cli: Cli, paint: Paint, out: &mut dyn Write) -> Result<Verdict, PluginError> {
    let connect = || Cluster::connect(&cli.target);
    match cli.command {
        Command::Complete(what) => {
            complete::complete(&what, out).await?;
            Ok(Verdict::Well)
        }
        Command::Simulate(what) => {
            simulate::simulate(&what, paint, out)?;
            Ok(Verdict::Well)
        }
        Command::Status(args) => {
            let cluster = connect().await?;
            let consumer = cluster.consumer(&args.name).await?;
            let pods = cluster.pods(&args.name).await?;
            // Where it is served, and the user may.
            let live = cluster.live_in(&cluster.namespace, &args.name).await.ok();
            let now = Timestamp::now();
            let report = status::report(&consumer, pods.as_deref(), live.as_ref(), now);
            match args.output {
                Some(format) => format.write(&report, out)?,
                None => write!(out, "{}", status::text(&report, paint))?,
            }
            Ok(Verdict::Well)
        }
        Command::Explain(args) => {
            let cluster = connect().await?;
            let consumer = cluster.consumer(&args.name).await?;
            let mut explanation = explain::explain(&consumer);
            let mut verdict = Verdict::Well;
            if args.replay {
                let replayed = explain::replay::replay(&cluster.decisions(&args.name).await?);
                if !explain::replay::all_same(&replayed) {
                    verdict = Verdict::Failed;
                }
                explanation.replayed = Some(replayed);
            }
            match args.output {
                Some(format) => format.write(&explanation, out)?,
                None => write!(out, "{}", explain::text(&explanation, paint))?,
            }
            Ok(verdict)
        }
        Command::Keys(args) => {
            let live = connect().await?.live(&args.name).await?;
            let keys = keys::keys(&live);
            match args.output {
                Some(format) => format.write(&keys, out)?,
                None => write!(out, "{}", keys::text(&keys, paint))?,
            }
            Ok(Verdict::Well)
        }
        Command::Top(what) => {
            top::top(&connect().await?, &what, paint, out).await?;
            Ok(Verdict::Well)
        }
        Command::Migrate(what) => migrate::migrate(&connect().await?, &what, paint, out).await,
        Command::Dlq(what) => dlq::dlq(&connect().await?, &what, paint, out).await,
        Command::Offsets(what) => {
            offsets::offsets(&connect().await?, &what, paint, out).await?;
            Ok(Verdict::Well)
        }
        Command::Suspend(what) => hold(&connect().await?, &what, Way::Suspend, out).await,
        Command::Resume(what) => hold(&connect().await?, &what, Way::Resume, out).await,
        Command::Check(what) => {
            let cluster = connect().await?;
            let sections = check::check(&cluster, &what).await?;
            match what.output {
                Some(format) => format.write(&sections, out)?,
                None => write!(out, "{}", check::text(&sections, paint))?,
            }
            Ok(if check::is_well(&sections) {
                Verdict::Well
            } else {
                Verdict::Failed
            })
        }
    }
}

async fn hold(
    cluster: &Cluster,
    what: &suspend::What,
    way: Way,
    out: &mut dyn Write,
) -> Result<Verdict, PluginError> {
    let done = suspend::carry_out(cluster, what, way).await?;
    match what.output {
        Some(format) => format.write(&done, out)?,
        None => write!(out, "{}", done.text)?,
    }
    Ok(Verdict::Well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_its_help_tells_the_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("Exit codes:"), "{help}");
    }

    #[test]
    fn every_command_shows_how_it_is_typed() {
        let root = Cli::command();
        let commands = root.get_subcommands().filter(|one| !one.is_hide_set());
        for command in commands {
            let below: Vec<_> = command.get_subcommands().collect();
            let typed = if below.is_empty() {
                vec![command]
            } else {
                below
            };
            for command in typed {
                let help = command.get_after_help().map(ToString::to_string);
                let shows = help.is_some_and(|help| help.starts_with("Examples:\n"));
                assert!(shows, "{} has no examples", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_that_help_and_readme_show_is_one() {
        let mut shown = Vec::new();
        let readme = include_str!("../../../README.md").lines();
        shown.extend(readme.filter_map(|line| line.strip_prefix("$ ")));
        for document in [
            include_str!("../../docs/how-to.md"),
            include_str!("../../docs/runbook.md"),
        ] {
            shown.extend(document.lines());
        }
        let root = Cli::command();
        let commands = root.get_subcommands();
        let helps: Vec<String> = commands
            .flat_map(|command| std::iter::once(command).chain(command.get_subcommands()))
            .filter_map(|command| command.get_after_help().map(ToString::to_string))
            .collect();
        shown.extend(helps.iter().flat_map(|help| help.lines()).map(str::trim));
        let words = shown.into_iter().filter_map(|line| {
            let line = line.split(['#', '&']).next()?;
            line.strip_prefix("kubectl keylane ")
        });
        let mut commands = 0;
        for words in words {
            let line = ["kubectl-keylane"]
                .into_iter()
                .chain(words.split_whitespace());
            if let Err(error) = Cli::try_parse_from(line) {
                panic!("{words}: {error}");
            }
            commands += 1;
        }
        assert!(commands > 15, "{commands}");
    }
}
