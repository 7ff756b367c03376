//! The command line of `keylane-consumer`.

use crate::contract::{ADMIN_PORT, METRICS_PORT, PROBE_PORT};
use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// Consumes a RocketMQ topic with order per key.
#[derive(Debug, Parser)]
#[command(name = "keylane-consumer", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What it does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an OrderedConsumer until SIGTERM or SIGINT, then drain. Changes of the file are noticed within a
    /// second, and at SIGHUP: retry, limits, suspend and redactKeys take effect at once.
    Run(Run),
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The OrderedConsumer (YAML). Its handler is called at 127.0.0.1; replicas, autoscaling, executor and
    /// template are ignored.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Lanes that may run at once until the operator sets another number. Default: lanes.max.
    #[arg(long)]
    pub lanes: Option<u32>,
    /// Address to listen on for probes, metrics and the admin API.
    #[arg(long, default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Port of /livez and /readyz.
    #[arg(long, default_value_t = PROBE_PORT)]
    pub probe_port: u16,
    /// Port of /metrics.
    #[arg(long, default_value_t = METRICS_PORT)]
    pub metrics_port: u16,
    /// Port of the admin API.
    #[arg(long, default_value_t = ADMIN_PORT)]
    pub admin_port: u16,
    /// File with the bearer token of the admin API; without it the admin API is not served. It and the two
    /// below are read again every few seconds.
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// File with the certificate chain (PEM) of the admin API; without it the admin API is served in clear.
    #[arg(long, value_name = "FILE", requires_all = ["admin_key_file", "admin_token_file"])]
    pub admin_cert_file: Option<PathBuf>,
    /// File with the certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "admin_cert_file")]
    pub admin_key_file: Option<PathBuf>,
    /// Directory with what the Secrets hold that spec.rocketmq names, a file for each key: accessKey,
    /// secretKey, ca.crt, tls.crt, tls.key. Read again every second.
    #[arg(long, value_name = "DIR")]
    pub rocketmq_secrets: Option<PathBuf>,
    /// Uid of the pod, part of this process's identity.
    #[arg(long, env = "POD_UID", hide_env_values = true)]
    pub pod_uid: Option<String>,
    /// Write logs as JSON.
    #[arg(long, env = "KEYLANE_LOG_JSON")]
    pub log_json: bool,
}
