//! The consumer processes, and the recording process.

use crate::gone;
use crate::peer;
use crate::record::{Call, Count, Manner, Ports};
use crate::relay::{Mode, Relay, Swap};
use crate::settings::{DRAINS, TIMEOUT};
use crate::system::System;
use anyhow::{Context, Result, ensure};
use keylane_tests::rocketmq::Broker;
use rustix::process::{Pid, Signal};
use serde_json::json;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What is consumed, by what.
pub struct Subject {
    /// What consumes.
    pub system: System,
    /// Keylane's executor, or the directory of the peer's compiled classes.
    pub program: PathBuf,
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Where processes write their logs.
    pub logs: PathBuf,
}

/// A place for one consumer process after the other, with connections of its own.
pub struct Member {
    index: usize,
    name_server: Relay,
    broker: Relay,
    handler: Relay,
    /// Whether its processes can ask the handler if it is idle.
    idle_probe: bool,
    /// Counts the pods that its processes are said to run in.
    pods: u32,
    gone: watch::Receiver<Vec<String>>,
    /// Tells its process who is gone.
    teller: Option<AbortOnDropHandle<()>>,
    child: Option<Child>,
}

/// A command whose process ends with the thread that starts it.
fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Member {
    /// Without a process yet.
    ///
    /// Its processes are told of the pods in `gone`.
    pub async fn new(
        index: usize,
        of: &Broker,
        handler: u16,
        idle_probe: bool,
        gone: watch::Receiver<Vec<String>>,
    ) -> Result<Self> {
        let broker = Relay::start(of.address().parse()?, None).await?;
        let here = format!("127.0.0.1:{}", broker.port());
        // Routes name the relay in place of the broker.
        let swap = Swap::new(&of.address(), &here);
        Ok(Self {
            index,
            name_server: Relay::start(of.name_server().parse()?, Some(swap)).await?,
            broker,
            handler: Relay::start(([127, 0, 0, 1], handler).into(), None).await?,
            idle_probe,
            pods: 0,
            gone,
            teller: None,
            child: None,
        })
    }

    /// Starts a process in a new pod.
    pub fn start(&mut self, subject: &Subject) -> Result<()> {
        self.pods += 1;
        self.start_again(subject)
    }

    /// Uid of the pod its process runs in, or the last one ran in.
    pub fn pod(&self) -> String {
        format!("chaos-{}-{}", self.index, self.pods)
    }

    /// Starts a process in the pod of the last one, which is killed if it still runs.
    pub fn start_again(&mut self, subject: &Subject) -> Result<()> {
        self.stop_now();
        let name_server = format!("127.0.0.1:{}", self.name_server.port());
        let mut command = match subject.system {
            System::Peer(peer) => peer::command(peer, subject, &name_server, self.handler.port())?,
            System::Keylane => {
                let admin = gone::free_address()?;
                self.teller = Some(gone::tell(admin, self.gone.clone()));
                self.keylane(subject, &name_server, admin)?
            }
        };
        let log = subject.logs.join(format!("member-{}.log", self.index));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn();
        self.child = Some(child.context("a consumer process cannot be started")?);
        Ok(())
    }

    fn keylane(&self, subject: &Subject, name_server: &str, admin: SocketAddr) -> Result<Command> {
        let file = subject.logs.join(format!("member-{}.json", self.index));
        let mut http = json!({"port": self.handler.port(), "path": "/events"});
        if self.idle_probe {
            http["idlePath"] = json!("/idle");
        }
        let document = json!({
            "apiVersion": "keylane.dev/v1alpha1", "kind": "OrderedConsumer",
            "metadata": {"name": "chaos"},
            "spec": {
                "rocketmq": {"nameServers": [name_server]},
                "topic": subject.topic, "consumerGroup": subject.group,
                "handler": {
                    "http": http,
                    "timeout": format!("{}s", TIMEOUT.as_secs()),
                },
                // No message is given up: each must be handled in the end.
                "retry": {
                    "maxAttempts": 1000, "backoff": {"initial": "200ms", "max": "2s"},
                    "budget": {"blocked": "24h", "per": "24h"},
                },
                "drain": {"timeout": format!("{}s", DRAINS.as_secs())},
            }
        });
        std::fs::write(&file, document.to_string())?;
        let token = subject.logs.join("token");
        std::fs::write(&token, gone::TOKEN)?;
        let mut command = tied(&subject.program);
        command
            .args(["run", "--lanes=64", "--probe-port=0", "--metrics-port=0"])
            .args(["--pod-uid", &self.pod()])
            .args(["--listen", &admin.ip().to_string()])
            .args(["--admin-port", &admin.port().to_string()])
            .arg("--admin-token-file")
            .arg(&token)
            .arg("--file")
            .arg(&file);
        Ok(command)
    }

    /// Sends a signal to the process, if there is one.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // Not reaped yet, so the number is still this child's.
            let _gone = rustix::process::kill_process(Pid::from_child(child), signal);
        }
    }

    /// Its exit code once it has ended: none while it runs, -1 if a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(status.code().unwrap_or(-1))
    }

    /// Sends SIGTERM; gives the process away, which ends by itself.
    pub fn terminate(&mut self) -> Option<Child> {
        self.signal(Signal::TERM);
        self.teller = None;
        self.child.take()
    }

    /// Kills the process, if there is one.
    pub fn stop_now(&mut self) {
        self.teller = None;
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Changes what its connections to broker and name server do.
    pub fn connect(&self, broker: Mode, name_server: Mode) {
        self.broker.set(broker);
        self.name_server.set(name_server);
    }

    /// Changes what its connection to the handler does.
    pub fn connect_handler(&self, mode: Mode) {
        self.handler.set(mode);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// The recording process.
pub struct Recorder {
    child: tokio::process::Child,
    ports: Ports,
    client: reqwest::Client,
}

impl Recorder {
    /// Starts it, with a handler for each member.
    pub async fn start(members: usize) -> Result<Self> {
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .args(["record", "--members", &members.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the recording process cannot be started")?;
        let output = child.stdout.take().context("it has no output")?;
        let first = BufReader::new(output).lines().next_line().await?;
        let first = first.context("the recording process ended at once")?;
        Ok(Self {
            child,
            ports: serde_json::from_str(&first)?,
            client: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    /// The port of a member's handler.
    pub fn handler(&self, member: usize) -> u16 {
        self.ports.handlers[member]
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.control)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.client.get(self.url(path)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// How far everything is.
    pub async fn count(&self) -> Result<Count> {
        self.get("/count").await
    }

    /// Every call.
    pub async fn calls(&self) -> Result<Vec<Call>> {
        self.get("/calls/0").await
    }

    /// Changes the manner of a handler.
    pub async fn behave(&self, member: usize, manner: Manner) -> Result<()> {
        let url = self.url(&format!("/handlers/{member}"));
        let answer = self.client.put(url).json(&manner).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// Ends the calls of a handler; it begins no other.
    pub async fn die(&self, member: usize) -> Result<()> {
        let url = self.url(&format!("/handlers/{member}"));
        self.client.delete(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Starts a handler again that died.
    pub async fn live(&self, member: usize) -> Result<()> {
        let url = self.url(&format!("/handlers/{member}"));
        self.client.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Fails if the process is gone: nothing would be recorded.
    pub fn is_well(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the recording process ended: {ended:?}");
        Ok(())
    }
}
