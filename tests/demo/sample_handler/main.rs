//! A handler to try Keylane with, and the judge of several of them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use keylane_consumer::contract::duration::DurationText;
use keylane_tests::sample_handler::{Behaviour, Collector, Handler, HandlerOptions};
use tokio::signal::unix::{SignalKind, signal};

/// Takes CloudEvents over HTTP, works on each for a while, and judges whether order was kept.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Handles events. GET /verdict judges them; PUT /control changes work, failKey and status.
    Serve(Serve),
    /// Collects the records of several handlers; GET /verdict judges them together.
    Judge(Listen),
}

#[derive(Args)]
struct Listen {
    /// Port to listen on; 0 takes a free one, which is printed.
    #[arg(long)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    listen: Listen,
    /// Path of events.
    #[arg(long, default_value = "/events")]
    path: String,
    /// How long to work on each event, such as 5ms.
    #[arg(long, default_value = "5ms")]
    work: DurationText,
    /// URL of the judge that gets the records, such as http://judge:8090.
    #[arg(long, env = "KEYLANE_SAMPLE_JUDGE")]
    judge: Option<String>,
    /// A key whose events are answered with 500.
    #[arg(long)]
    fail_key: Option<String>,
}

impl Listen {
    fn address(&self) -> SocketAddr {
        (self.host, self.port).into()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().init();
    // Asked for before anything is said to be ready, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let told_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    match Cli::parse().command {
        Command::Serve(serve) => {
            let handler = Handler::start(HandlerOptions {
                address: serve.listen.address(),
                path: serve.path,
                behaviour: Behaviour {
                    work: serve.work,
                    fail_key: serve.fail_key,
                    status: None,
                },
                judge: serve.judge,
            })
            .await?;
            println!("listening on {}", handler.address());
            told_to_stop.await;
            handler.stop().await?;
        }
        Command::Judge(listen) => {
            let collector = Collector::start(listen.address()).await?;
            println!("listening on {}", collector.address());
            told_to_stop.await;
            collector.stop().await;
        }
    }
    Ok(())
}
