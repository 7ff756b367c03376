#![recursion_limit = "512"]
//! `keylane-operator`: deploys OrderedConsumers and tunes their lanes and replicas.

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use keylane_consumer::contract::duration::DurationText;
use keylane_consumer::program::{self, Also};
use keylane_operator::controller;
use keylane_operator::leader::{self, Tenure, Terms};
use keylane_operator::metrics::Metrics;
use keylane_operator::served::Place;
use keylane_operator::traces::{self, Endpoint, Exporter, Identity};
use keylane_operator::{crd, live, server};
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Longest time the last traces may take to be sent.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// How often a process that leads without an election says that it is alive.
const BEAT: Duration = Duration::from_secs(5);

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
    Run(Box<Run>),
    /// Print the CustomResourceDefinition.
    Crd,
}

#[derive(Args)]
struct Run {
    /// Image of the executor for OrderedConsumers that name none.
    #[arg(long, env = "KEYLANE_EXECUTOR_IMAGE", default_value = concat!("ghcr.io/keylane/keylane-consumer:", env!("CARGO_PKG_VERSION")))]
    executor_image: String,
    /// Make a NetworkPolicy for the pods of each consumer that lets only these in at the executor's own ports, as
    /// JSON: {"operator": PEER, "metricsFrom": [PEER…]}, each a NetworkPolicyPeer.
    #[arg(long, value_name = "JSON")]
    consumer_network_policy: Option<controller::Guests>,
    /// Watch this namespace only.
    #[arg(long)]
    watch_namespace: Option<String>,
    /// Address to listen on for probes and metrics.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port of /livez and /readyz.
    #[arg(long, default_value_t = 9401)]
    port: u16,
    #[command(flatten)]
    reading: Reading,
    /// Write logs as JSON. What is logged is chosen by RUST_LOG, such as info or keylane_operator=debug.
    #[arg(long, env = "KEYLANE_LOG_JSON")]
    log_json: bool,
    #[command(flatten)]
    election: Election,
    #[command(flatten)]
    live: Live,
    #[command(flatten)]
    tracing: Tracing,
}

/// Traces of rounds.
#[derive(Args)]
struct Tracing {
    /// Send traces by OTLP over HTTP, in JSON, to this collector, such as http://collector:4318.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<Endpoint>,
    /// Percent of rounds that are traced.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    otlp_sample: u8,
}

impl Tracing {
    /// A receiver for the log, and what sends on what it is told.
    fn start(self, election: &Election, metrics: &Metrics) -> Option<(Also, Exporter)> {
        let endpoint = self.otlp_endpoint?;
        let identity = Identity {
            pod: election.identity.clone(),
            namespace: election.lease_namespace.clone(),
        };
        let to = traces::to(endpoint, self.otlp_sample, identity, metrics.clone());
        Some(to)
    }
}

/// Who reads metrics.
#[derive(Args)]
struct Reading {
    /// Port of /metrics.
    #[arg(long, default_value_t = 9402)]
    metrics_port: u16,
    /// Serve metrics over TLS, to those whom the cluster lets get /metrics: each request needs a token, about
    /// which the API server is asked (TokenReview, SubjectAccessReview). The certificate is for this Service in
    /// the operator's namespace and lies in a Secret of the same name. Without it metrics are served in clear to
    /// whoever reaches the port.
    #[arg(long, value_name = "NAME")]
    metrics_service: Option<String>,
}

/// The aggregated API live.keylane.dev.
#[derive(Args)]
struct Live {
    /// Name of the Service, in the operator's namespace, by which the API server reaches this; without it the
    /// API is not served.
    #[arg(long, value_name = "NAME")]
    live_service: Option<String>,
    /// Port it is served on.
    #[arg(long, default_value_t = 9404)]
    live_port: u16,
}

/// Which of several operators decides.
#[derive(Args)]
struct Election {
    /// Lead without an election: nothing else may run an operator on the same consumers.
    #[arg(long)]
    no_leader_election: bool,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the Lease.
    #[arg(long, default_value = "keylane-operator")]
    lease_name: String,
    /// Who this is, in the Lease; a random part is added.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    identity: String,
    /// How long others wait for a leader that is silent, in whole seconds.
    #[arg(long, default_value = "12s")]
    lease_duration: DurationText,
    /// How long a leader goes on after its last renewal; shorter than the duration, so that it stops first.
    #[arg(long, default_value = "8s")]
    renew_deadline: DurationText,
    /// Time between tries to lead and between renewals.
    #[arg(long, default_value = "2s")]
    retry_period: DurationText,
}

impl Election {
    /// None: lead without one.
    fn options(self) -> Result<Option<leader::Options>> {
        if self.no_leader_election {
            return Ok(None);
        }
        Ok(Some(leader::Options {
            terms: Terms::new(
                self.lease_duration.get(),
                self.renew_deadline.get(),
                self.retry_period.get(),
            )?,
            namespace: self.lease_namespace,
            name: self.lease_name,
            identity: format!("{}_{:016x}", self.identity, rand::random::<u64>()),
        }))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(run) => operate(*run).await,
        Command::Crd => {
            print!("{}", crd::yaml()?);
            Ok(())
        }
    }
}

async fn listen(address: IpAddr, port: u16, option: &str) -> Result<TcpListener> {
    TcpListener::bind((address, port)).await.with_context(|| {
        format!("cannot listen on {address}:{port}; free the port or choose another with {option}")
    })
}

async fn operate(run: Run) -> Result<()> {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry)?;
    let (also, exporter) = run.tracing.start(&run.election, &metrics).unzip();
    program::start_logging(run.log_json, also);
    keylane_operator::install_crypto();
    let namespace = run.election.lease_namespace.clone();
    let election = run.election.options()?;
    let client = kube::Client::try_default()
        .await
        .context("no Kubernetes: set KUBECONFIG, or run in a pod with a service account")?;
    let exported = CancellationToken::new();
    let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(exported.clone())));
    let listener = listen(run.listen, run.port, "--port").await?;
    let router = server::probes(metrics.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let listener = listen(run.listen, run.reading.metrics_port, "--metrics-port").await?;
    match run.reading.metrics_service {
        Some(service) => {
            let place = Place {
                namespace: namespace.clone(),
                service,
            };
            tokio::spawn(server::serve_reviewed(
                client.clone(),
                listener,
                registry,
                place,
            ));
        }
        None => {
            let router = server::metrics(registry);
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
    }
    if let Some(service) = run.live.live_service {
        let listener = listen(run.listen, run.live.live_port, "--live-port").await?;
        let place = Place { namespace, service };
        tokio::spawn(live::serve(client.clone(), listener, place));
    }

    let options = controller::Options {
        executor_image: run.executor_image,
        guests: run.consumer_network_policy,
        namespace: run.watch_namespace,
    };
    let shutdown = program::shutdown();
    let work = {
        let (client, metrics, shutdown) = (client.clone(), metrics.clone(), shutdown.clone());
        move |tenure| {
            controller::run(
                client.clone(),
                options.clone(),
                metrics.clone(),
                tenure,
                shutdown.clone(),
            )
        }
    };
    match election {
        Some(election) => leader::lead(client, election, metrics, shutdown, work).await,
        None => {
            metrics.leading(true);
            let mut turn = tokio::time::interval(BEAT);
            tokio::select! {
                () = work(Tenure::unlimited()) => {}
                () = async { loop { turn.tick().await; metrics.beat(); } } => {}
            }
        }
    }
    exported.cancel();
    if let Some(exporting) = exporting {
        // A collector that does not answer holds nobody up.
        let _cut_off = tokio::time::timeout(LAST_TRACES, exporting).await;
    }
    info!("stopped");
    Ok(())
}
