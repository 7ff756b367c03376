#![recursion_limit = "512"]
//! `keylane-consumer`: runs an OrderedConsumer in this process.

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use keylane_consumer::admin::{self, Access, Files};
use keylane_consumer::config::Config;
use keylane_consumer::contract::{ADMIN_PORT, METRICS_PORT, PROBE_PORT};
use keylane_consumer::exec::{Executor, Measures, Options, follow, incarnation};
use keylane_consumer::handler::Remote;
use keylane_consumer::handler::grpc::Caller;
use keylane_consumer::metrics::Metrics;
use keylane_consumer::program;
use keylane_consumer::source::rocketmq::{self, RocketmqSource};
use std::net::IpAddr;
use std::path::PathBuf;
use tracing::{info, warn};

/// Consumes a RocketMQ topic with order per key.
#[derive(Parser)]
#[command(name = "keylane-consumer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an OrderedConsumer until SIGTERM or SIGINT, then drain. Changes of the file are noticed within a
    /// second, and at SIGHUP: retry, limits, suspend and redactKeys take effect at once.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// The OrderedConsumer (YAML). Its handler is called at 127.0.0.1; replicas, autoscaling, executor and
    /// template are ignored.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Lanes that may run at once until the operator sets another number. Default: lanes.max.
    #[arg(long)]
    lanes: Option<u32>,
    /// Address to listen on for probes, metrics and the admin API.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port of /livez and /readyz.
    #[arg(long, default_value_t = PROBE_PORT)]
    probe_port: u16,
    /// Port of /metrics.
    #[arg(long, default_value_t = METRICS_PORT)]
    metrics_port: u16,
    /// Port of the admin API.
    #[arg(long, default_value_t = ADMIN_PORT)]
    admin_port: u16,
    /// File with the bearer token of the admin API; without it the admin API is not served. It and the two
    /// below are read again every few seconds.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// File with the certificate chain (PEM) of the admin API; without it the admin API is served in clear.
    #[arg(long, value_name = "FILE", requires_all = ["admin_key_file", "admin_token_file"])]
    admin_cert_file: Option<PathBuf>,
    /// File with the certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "admin_cert_file")]
    admin_key_file: Option<PathBuf>,
    /// Directory with what the Secrets hold that spec.rocketmq names, a file for each key: accessKey,
    /// secretKey, ca.crt, tls.crt, tls.key. Read again every second.
    #[arg(long, value_name = "DIR")]
    rocketmq_secrets: Option<PathBuf>,
    /// Uid of the pod, part of this process's identity.
    #[arg(long, env = "POD_UID", hide_env_values = true)]
    pod_uid: Option<String>,
    /// Write logs as JSON.
    #[arg(long, env = "KEYLANE_LOG_JSON")]
    log_json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Command::Run(run) = Cli::parse().command;
    program::start_logging(run.log_json, None);
    let config = Config::read(&run.file)?;
    let spec = config.spec();
    let host = run.pod_uid.clone().unwrap_or_else(host_name);
    let lanes = run.lanes.unwrap_or(spec.lanes.max);
    let options = Options {
        pod: run.pod_uid.clone(),
        ..Options::new(incarnation(&host), lanes)
    };
    info!(
        consumer = config.name(),
        topic = spec.topic,
        group = spec.consumer_group,
        incarnation = options.incarnation,
        lanes = options.lanes,
        "starting"
    );
    let caller = Caller {
        instance: run
            .pod_uid
            .clone()
            .unwrap_or_else(|| options.incarnation.clone()),
        incarnation: options.incarnation.clone(),
    };
    let handler = Remote::new(spec, caller)?;
    let secrets = run.rocketmq_secrets.as_deref();
    let secrets = secrets.map(|directory| rocketmq::Files::new(directory, &spec.rocketmq));
    let source = match secrets {
        Some(files) => {
            let access = files.access()?;
            tokio::spawn(files.follow(access.clone()));
            RocketmqSource::connect_with(spec, &options.incarnation, access).await?
        }
        None => RocketmqSource::connect(spec, &options.incarnation).await?,
    };
    let measures = Measures::new()?;
    let executor = Executor::new(spec, options, source, handler, measures.clone());
    let control = executor.control();

    let servers = [
        (
            admin::listen(run.listen, run.probe_port, "probe").await?,
            admin::probes(control.clone()),
        ),
        (
            admin::listen(run.listen, run.metrics_port, "metrics").await?,
            admin::metrics(control.clone(), Metrics::new(measures)),
        ),
    ];
    for (listener, router) in servers {
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    if let Some(token) = &run.admin_token_file {
        let access = Access::read(Files {
            token: token.clone(),
            tls: run.admin_cert_file.clone().zip(run.admin_key_file.clone()),
        })?;
        let listener = admin::listen(run.listen, run.admin_port, "admin").await?;
        if !access.is_encrypted() && !run.listen.is_loopback() {
            warn!(
                "the admin API is served in clear on {}: its token can be read on the way; give it a certificate \
                 (--admin-cert-file, --admin-key-file) or --listen 127.0.0.1",
                run.listen
            );
        }
        tokio::spawn(access.clone().follow());
        tokio::spawn(admin::serve_admin(listener, control.clone(), access));
    }

    tokio::spawn({
        let (path, known) = (run.file.clone(), config.clone());
        async move {
            if let Err(error) = follow(&path, &known, &control).await {
                warn!("changes of {} are not noticed: {error}", path.display());
            }
        }
    });

    executor.run(program::shutdown()).await;
    Ok(())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c))
        .collect();
    if name.is_empty() { "host".into() } else { name }
}
