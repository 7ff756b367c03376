//! `cargo live`: what autoscaling promises, measured on a real cluster with a real broker.
//!
//! Each scene is a consumer of its own with a steady load of its own. The resource is watched, so that no
//! change of it is missed, and the age of messages comes from when they were sent and what the group has
//! committed. Progress goes to standard error. The exit status is 1 if a goal is missed.
#![recursion_limit = "512"]

mod broker;
mod calm;
mod course;
mod figure;
mod keys;
mod load;
mod operator;
mod scene;
mod step;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use figure::Figure;
use keylane_tests::cluster::Target;
use keylane_tests::stack::Stack;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "keylane-live";

/// Measures what autoscaling promises on a cluster; all of it takes about half an hour.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo live")]
struct Cli {
    /// Measure this only; may be given more than once.
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<Name>,
    /// One JSON object a figure.
    #[arg(long)]
    json: bool,
    /// Minutes of constant load.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Leave everything in place at the end.
    #[arg(long)]
    keep: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// A constant load changes nothing.
    Constant,
    /// Eight times as much arrives from one moment to the next.
    Step,
    /// A key gets eight times what one lane can do.
    HotKey,
    /// The messages of a key fail whatever is done.
    StuckKey,
    /// The operator is killed while pods are busy.
    Operator,
    /// The broker cannot be reached for two minutes.
    Broker,
}

impl Name {
    fn label(self) -> &'static str {
        match self {
            Self::Constant => calm::NAME,
            Self::Step => step::NAME,
            Self::HotKey => keys::HOT,
            Self::StuckKey => keys::STUCK,
            Self::Operator => operator::NAME,
            Self::Broker => broker::NAME,
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    ensure!(
        (0.5..=1_440.0).contains(&cli.minutes),
        "--minutes is {}: from 0.5 to 1440",
        cli.minutes
    );
    let target = Target::from_env();
    ensure!(
        target == Target::Local || !cli.wants(Name::Broker),
        "broker: the broker's cable is pulled on this machine, which needs the local cluster; name the others by --only"
    );
    keylane_operator::install_crypto();
    let stack = tokio::task::spawn_blocking(move || Stack::install(&target, NAMESPACE)).await??;
    forget_earlier(&stack).await?;
    let figures = measure(&stack, &cli).await?;
    for figure in &figures {
        println!(
            "{}",
            if cli.json {
                figure.json().to_string()
            } else {
                figure.to_string()
            }
        );
    }
    if !cli.keep {
        tokio::task::spawn_blocking(move || stack.remove()).await??;
    }
    let missed = figures.iter().filter(|figure| !figure.pass()).count();
    eprintln!("{missed} of {} goals are missed.", figures.len());
    Ok(match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

impl Cli {
    fn wants(&self, name: Name) -> bool {
        self.only.is_empty() || self.only.contains(&name)
    }

    /// The figures of a scene, if it is wanted. One that cannot be played misses its goal.
    async fn scene(&self, stack: &Stack, name: Name) -> Vec<Figure> {
        if !self.wants(name) {
            return Vec::new();
        }
        let length = Duration::from_secs_f64(self.minutes * 60.0);
        let figures = match name {
            Name::Constant => calm::constant(stack, length).await,
            Name::Step => step::step(stack).await,
            Name::HotKey => keys::hot(stack).await,
            Name::StuckKey => keys::stuck(stack).await,
            Name::Operator => operator::restarted(stack).await,
            Name::Broker => broker::gone(stack).await,
        };
        match figures {
            Ok(figures) => figures,
            Err(error) => {
                // What it left would have its share of the machine beside the others.
                if let Err(left) = scene::remove(stack, name.label()).await {
                    eprintln!("{}: {left:#}", name.label());
                }
                vec![Figure::failed(name.label(), &error)]
            }
        }
    }
}

/// What an earlier run left would be counted.
async fn forget_earlier(stack: &Stack) -> Result<()> {
    stack.kubectl(&["delete", "orderedconsumers", "--all", "--timeout=120s"])?;
    let gone = ["wait", "--for=delete", "pod", "--timeout=120s"];
    stack.kubectl(&[&gone[..], &["--selector=keylane.dev/ordered-consumer"]].concat())?;
    stack.forget().await
}

async fn measure(stack: &Stack, cli: &Cli) -> Result<Vec<Figure>> {
    let started = Instant::now();
    let mut figures = cli.scene(stack, Name::Step).await;
    // Beside the constant load others have their troubles, which are none of its business.
    let troubles = async {
        let mut figures = cli.scene(stack, Name::HotKey).await;
        figures.extend(cli.scene(stack, Name::StuckKey).await);
        figures
    };
    let (constant, troubles) = tokio::join!(cli.scene(stack, Name::Constant), troubles);
    figures.extend(constant);
    figures.extend(troubles);
    // What these do, everybody notices.
    figures.extend(cli.scene(stack, Name::Operator).await);
    figures.extend(cli.scene(stack, Name::Broker).await);
    let verdict = stack.verdict().await?;
    let broken = verdict.inversions + verdict.overlaps;
    for example in &verdict.examples {
        eprintln!("{example:?}");
    }
    figures.push(Figure::most(
        "all",
        "inversions and overlaps of all keys",
        broken as f64,
        0.0,
    ));
    eprintln!(
        "{} messages of {} keys in {} s",
        verdict.distinct,
        verdict.keys,
        started.elapsed().as_secs()
    );
    Ok(figures)
}
