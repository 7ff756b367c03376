#![recursion_limit = "512"]
//! `keylane-operator`: deploys OrderedConsumers and tunes their lanes and replicas.

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use keylane_operator::controller::{self, Context, Options};
use keylane_operator::metrics::Metrics;
use keylane_operator::pods::PodClient;
use keylane_operator::{crd, server};
use std::io::IsTerminal;
use std::net::IpAddr;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Runs OrderedConsumers on Kubernetes.
#[derive(Parser)]
#[command(name = "keylane-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator, in a cluster or outside with a kubeconfig.
    Run(Run),
    /// Print the CustomResourceDefinition.
    Crd,
}

#[derive(Args)]
struct Run {
    /// Image of the executor for OrderedConsumers that name none.
    #[arg(long, env = "KEYLANE_EXECUTOR_IMAGE", default_value = concat!("ghcr.io/keylane/keylane-consumer:", env!("CARGO_PKG_VERSION")))]
    executor_image: String,
    /// Watch this namespace only.
    #[arg(long)]
    watch_namespace: Option<String>,
    /// Address to listen on for probes and metrics.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port of probes and metrics.
    #[arg(long, default_value_t = 9401)]
    port: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(run) => operate(run).await,
        Command::Crd => {
            print!("{}", crd::yaml()?);
            Ok(())
        }
    }
}

async fn operate(run: Run) -> Result<()> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,rocketmq=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    keylane_operator::install_crypto();
    let client = kube::Client::try_default()
        .await
        .context("no Kubernetes: set KUBECONFIG, or run in a pod with a service account")?;
    let registry = prometheus::Registry::new();
    let options = Options {
        executor_image: run.executor_image,
        namespace: run.watch_namespace,
    };
    let context = Context::new(client, options, PodClient::new()?, Metrics::new(&registry)?);
    let listener = tokio::net::TcpListener::bind((run.listen, run.port))
        .await
        .with_context(|| {
            format!(
                "cannot listen on {}:{}; free the port or choose another with --port",
                run.listen, run.port
            )
        })?;
    tokio::spawn(async move { axum::serve(listener, server::router(registry)).await });

    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    info!("watching OrderedConsumers");
    controller::run(context, shutdown).await;
    info!("stopped");
    Ok(())
}
