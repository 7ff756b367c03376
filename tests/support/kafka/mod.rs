//! A real Kafka, for a benchmark of what order by key costs there: Apache Kafka in Java, from Maven, as one
//! process that is broker and controller.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::cluster::{ClusterError, Paths, Result, run};
use crate::jars::Jars;
use crate::processes::{Sweeper, Tied};
use crate::wait;

/// The version everything here was tried with.
pub const VERSION: &str = "3.9.1";

/// Kafka, and Confluent's parallel-consumer.
const JARS: Jars = Jars {
    name: "Kafka",
    version: VERSION,
    pom: include_str!("pom.xml"),
    parts: &["kafka_2.13-3.9.1.jar", "parallel-consumer-core-0.5.3.2.jar"],
};
/// What the jars' programs write to standard error.
const LOG4J: &str = include_str!("log4j.properties");
const START_LIMIT: Duration = Duration::from_secs(90);
/// Any 16 bytes in Base64.
const CLUSTER_ID: &str = "a2V5bGFuZS1rZXlsYW5lLQ";

/// A broker on loopback with a store of its own that is removed afterwards. It ends when this is dropped,
/// and when this process ends in any way.
#[derive(Debug)]
pub struct Kafka {
    // Dropped in this order: the process before its directory.
    broker: Tied,
    _sweeper: Sweeper,
    dir: TempDir,
    lib: PathBuf,
    port: u16,
}

impl Kafka {
    /// Starts it; it serves when this returns (some 5 s).
    pub async fn start() -> Result<Self> {
        let lib = tokio::task::spawn_blocking(|| JARS.dir())
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let temp = std::env::temp_dir();
        let dir = tempfile::Builder::new()
            .prefix("keylane-kafka-")
            .tempdir()
            .map_err(ClusterError::io("create a directory in", &temp))?;
        let sweeper = Sweeper::of(dir.path())?;
        let [port, controller] = free_ports()?;
        let properties = dir.path().join("server.properties");
        let text = configuration(port, controller, &dir.path().join("store"));
        std::fs::write(&properties, text).map_err(ClusterError::io("write", &properties))?;
        let log4j = dir.path().join("log4j.properties");
        std::fs::write(&log4j, LOG4J).map_err(ClusterError::io("write", &log4j))?;
        let mut format = run::command("java");
        format
            .args(java(&lib, dir.path()))
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&properties);
        run::output("preparing Kafka's store", &mut format)?;
        let mut args = java(&lib, dir.path());
        // As much as RocketMQ's broker has.
        args.extend(["-Xmx512m", "-XX:+UseSerialGC", "kafka.Kafka"].map(str::to_owned));
        args.push(properties.display().to_string());
        let broker = Tied::start("java", &args, &[], &dir.path().join("broker.log"))?;
        let mut this = Self {
            broker,
            _sweeper: sweeper,
            dir,
            lib,
            port,
        };
        this.serves().await?;
        Ok(this)
    }

    /// The bootstrap server, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The directory of the jars: Kafka's, those of its clients, and parallel-consumer's.
    #[must_use]
    pub fn lib(&self) -> &Path {
        &self.lib
    }

    /// Options of a virtual machine whose program of these jars tells only what goes wrong.
    #[must_use]
    pub fn quiet(&self) -> String {
        quiet(self.dir.path())
    }

    async fn serves(&mut self) -> Result<()> {
        let address = self.address();
        let log = self.dir.path().join("broker.log");
        let broker = &mut self.broker;
        // It listens when it has become a broker of its cluster.
        let ready = wait::until(START_LIMIT, "Kafka serving", async || {
            if let Some(status) = broker.ended() {
                return Ok(Err(status));
            }
            let connected = TcpStream::connect(&address).await;
            connected.map(|_| Ok(())).map_err(|error| error.to_string())
        })
        .await;
        let what = "Kafka's broker".to_owned();
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(ClusterError::Failed {
                what,
                status,
                tail: run::tail(&std::fs::read_to_string(&log).unwrap_or_default()),
                log: None,
            }),
            Err(late) => Err(ClusterError::TimedOut {
                what,
                seconds: START_LIMIT.as_secs(),
                last: late.last,
                log: Some(kept(&log)),
            }),
        }
    }
}

/// A copy of the broker's output that outlives its directory, for the person who reads the error.
fn kept(log: &Path) -> PathBuf {
    let copy = Paths::from_env().build_logs().join("kafka.log");
    match std::fs::copy(log, &copy) {
        Ok(_) => copy,
        Err(_) => log.to_path_buf(),
    }
}

fn quiet(dir: &Path) -> String {
    let file = dir.join("log4j.properties");
    format!("-Dlog4j.configuration=file:{}", file.display())
}

fn java(lib: &Path, dir: &Path) -> Vec<String> {
    vec![
        quiet(dir),
        "-cp".to_owned(),
        lib.join("*").display().to_string(),
    ]
}

/// For the broker and its controller.
fn free_ports() -> Result<[u16; 2]> {
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let ports = || {
        // Held together, so that they differ.
        let (one, other) = (free()?, free()?);
        Ok([one.local_addr()?.port(), other.local_addr()?.port()])
    };
    ports().map_err(ClusterError::io("bind a port of", Path::new("loopback")))
}

/// As Kafka comes, but for what one broker alone needs.
fn configuration(port: u16, controller: u16, store: &Path) -> String {
    let host = Ipv4Addr::LOCALHOST;
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{host}:{controller}\n\
         listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}\n\
         controller.listener.names=CONTROLLER\nlog.dirs={}\nauto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n",
        store.display()
    )
}
