//! `cargo cluster`: a real Kubernetes on this machine for tests and the demo.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use keylane_tests::cluster::{self, Paths, Target};

/// A real Kubernetes on this machine, for tests and the demo.
#[derive(Debug, Parser)]
#[command(name = "cluster", bin_name = "cargo cluster")]
struct Cli {
    /// Use this context of your kubeconfig instead of a cluster on this machine. It must have the
    /// images or be able to pull them.
    #[arg(long, global = true, env = "KEYLANE_TEST_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Start the cluster, or find it running. The first time it is built, which takes minutes.
    Up,
    /// Stop the cluster and remove every trace of it. Build caches stay.
    Down,
    /// Say what runs; fails when not all is well.
    Status,
    /// Print the path of the kubeconfig.
    Kubeconfig,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let cli = Cli::parse_from(keylane_tests::arguments());
    let paths = Paths::from_env();
    let target = Target::from_option(cli.context);
    match (cli.command, &target) {
        (Action::Up, _) => {
            let cluster = target.up(&paths).context("the cluster is not up")?;
            println!("up: export KUBECONFIG={}", cluster.kubeconfig().display());
        }
        (Action::Down, Target::Context(name)) => {
            println!("context {name} is a cluster of your own: nothing was changed");
        }
        (Action::Down, Target::Local) => match cluster::down(&paths).context("not all is down")? {
            true => println!("down: build caches stay in {}", paths.cache().display()),
            false => println!("down already"),
        },
        (Action::Status, Target::Context(_)) => {
            target.up(&paths).context("the cluster does not answer")?;
        }
        (Action::Status, Target::Local) => {
            let (lines, well) = cluster::status(&paths)?;
            lines.iter().for_each(|line| println!("{line}"));
            if !well {
                return Ok(ExitCode::FAILURE);
            }
        }
        (Action::Kubeconfig, Target::Context(_)) => {
            println!("{}", target.up(&paths)?.kubeconfig().display());
        }
        (Action::Kubeconfig, Target::Local) => {
            if !paths.kubeconfig().exists() {
                return Err(cluster::ClusterError::NotUp.into());
            }
            println!("{}", paths.kubeconfig().display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
