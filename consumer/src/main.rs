#![recursion_limit = "512"]
//! `keylane-consumer`: runs an OrderedConsumer in this process.

use anyhow::Result;
use clap::Parser as _;
use keylane_consumer::admin::{self, Access, Files};
use keylane_consumer::cli::{Cli, Command};
use keylane_consumer::config::Config;
use keylane_consumer::exec::{Executor, Measures, Options, follow, incarnation};
use keylane_consumer::handler::Remote;
use keylane_consumer::handler::grpc::Caller;
use keylane_consumer::metrics::Metrics;
use keylane_consumer::program;
use keylane_consumer::source::rocketmq::{self, RocketmqSource};
use tracing::{info, warn};

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
