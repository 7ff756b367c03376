//! A name server and a broker of this process's own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::admin;
use super::door::Door;
use super::error::{Result, RocketMqError};
use super::jars::jars;
use super::mqadmin;
use super::secured::Secured;
use crate::cluster::run;
use crate::processes::{Sweeper, Tied};
use crate::wait;

pub(super) const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const TRIES: u32 = 5;
const NAME_SERVER: &str = "name server";
const BROKER: &str = "broker";
/// The name of the broker, as it stands in queue names.
const BROKER_NAME: &str = "broker-a";
/// What of a store are messages.
const LOG: [&str; 3] = ["commitlog", "consumequeue", "index"];
pub(super) const PROBE_TOPIC: &str = "keylane-tests-probe";
/// A broker of 5.x reaches into the JDK for its memory-mapped files.
const BROKER_OPENS: [&str; 5] = [
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "-Djava.net.preferIPv4Stack=true",
];

/// Lines of broker.conf that a test wants different, as name and value.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// A name server and a broker, on loopback if nothing else is said, with a store of their own that is removed afterwards. Both
/// end when this is dropped, and when this process ends in any way.
#[derive(Debug)]
pub struct Broker {
    // Dropped in this order: the processes before their directory.
    broker: Tied,
    name_server: Tied,
    _sweeper: Sweeper,
    dir: TempDir,
    lib: PathBuf,
    host: Ipv4Addr,
    name_server_port: u16,
    broker_port: u16,
    door: Door,
}

impl Broker {
    /// The one broker that all tests of this process share. Use topics and groups of your own, and
    /// do nothing to it that others would notice (this reference does not allow it).
    ///
    /// # Panics
    /// When it cannot be started: nothing that needs it could go on.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match Self::start().await {
                    Ok(broker) => broker,
                    Err(error) => panic!("no RocketMQ for the tests: {error}"),
                }
            })
            .await
    }

    /// Starts a name server and a broker; both serve when this returns (6 to 10 s).
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts them with settings of broker.conf added or changed.
    pub async fn start_with(settings: Settings<'_>) -> Result<Self> {
        Self::start_as(Ipv4Addr::LOCALHOST, settings, &Secured::default()).await
    }

    /// Starts them so that they let only some clients in.
    pub async fn start_secured(secured: &Secured) -> Result<Self> {
        Self::start_as(Ipv4Addr::LOCALHOST, &[], secured).await
    }

    /// The same at another address of this machine, for clients that reach it there.
    pub async fn start_secured_at(host: Ipv4Addr, secured: &Secured) -> Result<Self> {
        Self::start_as(host, &[], secured).await
    }

    async fn start_as(host: Ipv4Addr, settings: Settings<'_>, secured: &Secured) -> Result<Self> {
        let lib = tokio::task::spawn_blocking(jars)
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let mut tries = 1;
        loop {
            let error = match Self::try_start(&lib, host, settings, secured).await {
                Ok(broker) => return Ok(broker),
                Err(error) => error,
            };
            // Somebody else may have taken a port between our look and the server's start.
            let lost_a_port = matches!(&error, RocketMqError::NotServing { log, .. }
                if std::fs::read_to_string(log).is_ok_and(|text| text.contains("Address already in use")
                    || text.contains("bind")));
            if !lost_a_port || tries == TRIES {
                return Err(error);
            }
            tries += 1;
        }
    }

    async fn try_start(
        lib: &Path,
        host: Ipv4Addr,
        settings: Settings<'_>,
        secured: &Secured,
    ) -> Result<Self> {
        let temp = std::env::temp_dir();
        let dir = tempfile::Builder::new()
            .prefix("keylane-rocketmq-")
            .tempdir()
            .map_err(RocketMqError::io("create a directory in", &temp))?;
        let sweeper = Sweeper::of(dir.path())?;
        let [name_server_port, broker_port] = free_ports()?;
        let (door, mut all) = secured.doors(dir.path())?;
        all.extend(
            settings
                .iter()
                .map(|&(name, value)| (name, value.to_owned())),
        );
        let all: Vec<_> = all
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        write_configuration(dir.path(), host, [name_server_port, broker_port], &all)?;
        // Both at once: the broker takes longer to come up than the name server, and registers then.
        let name_server = start_name_server(lib, dir.path(), &door.java)?;
        let known = format!("{host}:{name_server_port}");
        let broker = start_broker(lib, dir.path(), &known, &door.java)?;
        let mut this = Self {
            broker,
            name_server,
            _sweeper: sweeper,
            dir,
            lib: lib.to_path_buf(),
            host,
            name_server_port,
            broker_port,
            door,
        };
        this.serves().await?;
        Ok(this)
    }

    /// The name server's address, as `host:port`.
    #[must_use]
    pub fn name_server(&self) -> String {
        format!("{}:{}", self.host, self.name_server_port)
    }

    pub(super) fn lib(&self) -> &Path {
        &self.lib
    }

    /// The broker's address, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.broker_port)
    }

    /// The broker's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        BROKER_NAME
    }

    /// Creates a topic; see [`create_topic`](super::create_topic).
    pub async fn create_topic(&self, topic: &str, queues: u32) -> Result<()> {
        admin::create_topic_through(&self.door, &self.name_server(), topic, queues).await
    }

    /// A producer for a topic.
    pub async fn producer(&self, topic: &str) -> Result<super::Producer> {
        super::Producer::connect_through(&self.door, &self.name_server(), topic).await
    }

    /// What RocketMQ's own tool says of a group's progress; see [`progress`](super::progress).
    pub async fn progress(&self, group: &str, topic: &str) -> Result<Vec<super::QueueProgress>> {
        mqadmin::progress_through(&self.door, &self.name_server(), group, topic).await
    }

    /// Runs RocketMQ's own tool; see [`mqadmin`](super::mqadmin).
    pub async fn mqadmin(&self, args: &[&str]) -> Result<String> {
        mqadmin::mqadmin_through(&self.door, &self.name_server(), args).await
    }

    /// Stops the broker in good order, unless it was killed, and starts it again with the same port
    /// and store; returns when it serves. Its queue locks and its list of members are gone.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.broker = start_broker(
            &self.lib,
            self.dir.path(),
            &self.name_server(),
            &self.door.java,
        )?;
        self.serves().await
    }

    /// Stops the broker in good order and waits until it has ended.
    pub async fn stop(&mut self) -> Result<()> {
        self.broker.signal(Signal::CONT);
        self.broker.signal(Signal::TERM);
        let broker = &mut self.broker;
        wait::until(STOP_LIMIT, "the broker's end", async || {
            broker.ended().ok_or("it still runs")
        })
        .await?;
        Ok(())
    }

    /// Stops the broker, puts what it stored back to what [`Broker::keep_log`] kept, and starts it: as
    /// after a crash that lost its last messages. Topics and committed offsets stay as they are.
    pub async fn truncate_log(&mut self) -> Result<()> {
        self.stop().await?;
        let store = self.dir.path().join("store");
        for part in LOG {
            let path = store.join(part);
            std::fs::remove_dir_all(&path).map_err(RocketMqError::io("remove", &path))?;
            copy(&self.dir.path().join("kept").join(part), &path)?;
        }
        self.restart().await
    }

    /// Keeps a copy of what the broker stored until now; it is restarted for it.
    pub async fn keep_log(&mut self) -> Result<()> {
        self.stop().await?;
        for part in LOG {
            let store = self.dir.path().join("store");
            copy(&store.join(part), &self.dir.path().join("kept").join(part))?;
        }
        self.restart().await
    }

    /// Kills the broker as a crash would. What it had not flushed of committed offsets is lost.
    pub fn kill(&mut self) {
        self.broker.kill();
    }

    /// Kills the name server: everybody keeps the routes they know.
    pub fn kill_name_server(&mut self) {
        self.name_server.kill();
    }

    /// Starts the name server again after [`Broker::kill_name_server`]; returns when the broker has
    /// registered with it and routes are known again.
    pub async fn restart_name_server(&mut self) -> Result<()> {
        self.name_server.kill();
        self.name_server = start_name_server(&self.lib, self.dir.path(), &self.door.java)?;
        self.serves().await
    }

    /// Freezes the broker: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.broker.signal(Signal::STOP);
    }

    /// Lets a frozen broker go on.
    pub fn resume(&mut self) {
        self.broker.signal(Signal::CONT);
    }

    /// Waits until a topic is created and the name server knows it: then all of it works.
    async fn serves(&mut self) -> Result<()> {
        let (name_server, address) = (self.name_server(), self.address());
        let log = self.dir.path().join("broker.log");
        let not_serving = |reason: String| RocketMqError::NotServing {
            part: BROKER,
            reason,
            log: kept(&log),
        };
        let (broker, door) = (&mut self.broker, &self.door);
        let ready = wait::until(START_LIMIT, "RocketMQ serving", async || {
            if let Some(status) = broker.ended() {
                return Ok(Err(format!("it ended ({status})")));
            }
            // Creating a topic makes the broker register; by itself it tries again after 30 s only.
            admin::create_on(door, &address, PROBE_TOPIC, 1)
                .await
                .map_err(|error| error.to_string())?;
            admin::masters(door, &name_server, PROBE_TOPIC)
                .await
                .map(|_| Ok(()))
                .map_err(|error| error.to_string())
        })
        .await;
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(not_serving(reason)),
            Err(late) => Err(not_serving(late.to_string())),
        }
    }
}

/// Copies a directory; files with holes stay small.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(to);
    std::fs::create_dir_all(parent).map_err(RocketMqError::io("create", parent))?;
    let copied = run::command("cp")
        .args(["-a", "--sparse=always"])
        .args([from, to])
        .output();
    let failed = |reason: String| RocketMqError::Io {
        action: "copy",
        path: from.to_path_buf(),
        source: std::io::Error::other(reason),
    };
    match copied {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// A copy of a server's output that outlives its directory, for the person who reads the error.
fn kept(log: &Path) -> PathBuf {
    let copy = crate::cluster::Paths::from_env()
        .build_logs()
        .join(format!("rocketmq-{}.log", std::process::id()));
    let dir = copy.parent().unwrap_or(Path::new("/"));
    match std::fs::create_dir_all(dir).and_then(|()| std::fs::copy(log, &copy)) {
        Ok(_) => copy,
        Err(_) => log.to_path_buf(),
    }
}

/// A port for the name server and the first of the broker's three (`listenPort` − 2, `listenPort`
/// and `listenPort` + 1). Below the range the kernel gives to outgoing connections.
pub(super) fn free_ports() -> Result<[u16; 2]> {
    let mut random = rand::rng();
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    for _ in 0..200 {
        let base = random.random_range(12_000..32_000_u16);
        // Held together, so that all four are free at one moment.
        let all: Option<Vec<_>> = [0, 2, 4, 5].iter().map(|step| free(base + step)).collect();
        if all.is_some() {
            return Ok([base, base + 4]);
        }
    }
    Err(RocketMqError::Connection {
        address: "127.0.0.1".to_owned(),
        reason: "no free ports between 12000 and 32000 for a broker".to_owned(),
    })
}

/// `ports`: the name server's and the broker's.
pub(super) fn write_configuration(
    dir: &Path,
    host: Ipv4Addr,
    ports: [u16; 2],
    settings: Settings<'_>,
) -> Result<()> {
    let [name_server_port, broker_port] = ports;
    let name_server = format!("listenPort={name_server_port}\nbindAddress={host}\n");
    let mut broker = format!(
        "brokerClusterName=keylane\nbrokerName={BROKER_NAME}\nbrokerId=0\nbrokerRole=ASYNC_MASTER\n\
         brokerIP1={host}\nbrokerIP2={host}\nbindAddress={host}\nlistenPort={broker_port}\n\
         storePathRootDir={dir}/store\nstorePathCommitLog={dir}/store/commitlog\n\
         autoCreateTopicEnable=false\nautoCreateSubscriptionGroup=true\n\
         maxTransferCountOnMessageInMemory=1024\nmaxTransferBytesOnMessageInMemory=4194304\n\
         diskMaxUsedSpaceRatio=95\ndiskSpaceCleanForciblyRatio=97\ndiskSpaceWarningLevelRatio=99\n\
         mappedFileSizeCommitLog=268435456\n",
        dir = dir.display()
    );
    for (name, value) in settings {
        broker.push_str(&format!("{name}={value}\n"));
    }
    for (file, text) in [("namesrv.conf", name_server), ("broker.conf", broker)] {
        let path = dir.join(file);
        std::fs::write(&path, text).map_err(RocketMqError::io("write", &path))?;
    }
    Ok(())
}

fn start_name_server(lib: &Path, dir: &Path, options: &[String]) -> Result<Tied> {
    let mut args = java(lib, dir, "-Xmx128m", &["-XX:TieredStopAtLevel=1"]);
    args.extend(options.iter().cloned());
    args.push("org.apache.rocketmq.namesrv.NamesrvStartup".to_owned());
    args.extend([
        "-c".to_owned(),
        dir.join("namesrv.conf").display().to_string(),
    ]);
    start(NAME_SERVER, dir, &args, "namesrv.log")
}

pub(super) fn start_broker(
    lib: &Path,
    dir: &Path,
    name_server: &str,
    options: &[String],
) -> Result<Tied> {
    let mut args = java(lib, dir, "-Xmx512m", &BROKER_OPENS);
    args.push("-XX:MaxDirectMemorySize=512m".to_owned());
    args.extend(options.iter().cloned());
    args.push("org.apache.rocketmq.broker.BrokerStartup".to_owned());
    args.extend(["-n".to_owned(), name_server.to_owned()]);
    args.extend([
        "-c".to_owned(),
        dir.join("broker.conf").display().to_string(),
    ]);
    start(BROKER, dir, &args, "broker.log")
}

fn java(lib: &Path, dir: &Path, heap: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec![heap.to_owned(), "-XX:+UseSerialGC".to_owned()];
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    args.push(format!("-Duser.home={}", dir.display()));
    args.extend(["-cp".to_owned(), lib.join("*").display().to_string()]);
    args
}

fn start(part: &'static str, dir: &Path, args: &[String], log: &str) -> Result<Tied> {
    let log = dir.join(log);
    let home = dir.display().to_string();
    let env = [("ROCKETMQ_HOME", home.as_str())];
    let mut process = Tied::start("java", args, &env, &log)?;
    match process.ended() {
        None => Ok(process),
        Some(status) => Err(RocketMqError::NotServing {
            part,
            reason: format!("it ended ({status})"),
            log: kept(&log),
        }),
    }
}
