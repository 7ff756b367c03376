//! `sample-handler`: a handler of orders for the demo and the tests, which works as long as it is told
//! to and judges whether order was kept.
//!
//! `serve` handles messages. One pod sees only its own calls, so with `--judge` it reports them to a
//! `sample-handler judge`, which judges the calls of all pods together. `relay` does no work itself: a
//! recorder elsewhere does, and knows of each call as long as it runs. `database` is what handlers of the
//! demo have behind them, `produce` sends orders, and `control` tells a process that serves what to do.

mod api;
mod calls;
mod control;
mod database;
mod event;
mod forward;
mod judge;
mod orders;
mod produce;
mod relay;
mod serve;

use clap::{Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};

/// A handler that judges the order of what it is given.
#[derive(Parser)]
#[command(name = "sample-handler")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Handle messages: CloudEvents in binary mode.
    Serve(serve::Options),
    /// Keep the record of all handlers and judge it.
    Judge(Listen),
    /// Hand messages on to a recorder elsewhere.
    Relay(relay::Options),
    /// Be what handlers have behind them: so many statements at once, each of which takes so long.
    Database(database::Options),
    /// Send orders to a topic.
    Produce(produce::Options),
    /// Tell a handler or a database that runs what to do from now on.
    Control(control::Options),
}

/// Where to listen.
#[derive(clap::Args)]
struct Listen {
    /// Address to listen on; 0.0.0.0 in a pod.
    #[arg(long, default_value = "127.0.0.1", env = "LISTEN")]
    listen: IpAddr,
    /// Port to listen on, 0 for a free one; standard output tells it.
    #[arg(long, default_value_t = 8080, env = "PORT")]
    port: u16,
}

impl Listen {
    /// Serves until SIGTERM or Ctrl-C, then finishes the requests that run.
    async fn serve(&self, app: axum::Router) -> anyhow::Result<()> {
        use anyhow::Context;
        use std::io::Write;
        let address = SocketAddr::new(self.listen, self.port);
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} (--listen, --port)"))?;
        let mut out = std::io::stdout();
        writeln!(out, "listening on {}", listener.local_addr()?)?;
        out.flush()?;
        axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream| {
                // Answers are small: without this they wait for acknowledgements.
                if let Err(error) = stream.set_nodelay(true) {
                    eprintln!("cannot turn off delays of a connection: {error}");
                }
            }),
            app,
        )
        .with_graceful_shutdown(stopped())
        .await?;
        Ok(())
    }
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            eprintln!("cannot listen for SIGTERM: {error}");
            std::future::pending().await
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(options) => serve::run(options).await,
        Command::Judge(listen) => judge::run(listen).await,
        Command::Relay(options) => relay::run(options).await,
        Command::Database(options) => database::run(options).await,
        Command::Produce(options) => produce::run(options).await,
        Command::Control(options) => control::run(options).await,
    }
}
