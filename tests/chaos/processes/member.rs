//! One place for consumer processes.

use super::gone;
use super::relay::{Mode, Relay, Swap};
use crate::peer;
use crate::subject::Subject;
use crate::system::System;
use anyhow::{Context, Result};
use keylane_consumer::ownership::membership::pod_of;
use keylane_tests::rocketmq::Broker;
use rustix::process::{Pid, Signal};
use serde_json::json;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The place of a consumer process, by its client id: that names the pod.
pub fn of_client(client: &str) -> Option<usize> {
    let (place, _) = pod_of(client)?.strip_prefix("chaos-")?.split_once('-')?;
    place.parse().ok()
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
        let document = subject.resource(subject.spec(name_server, http));
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
