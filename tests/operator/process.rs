//! The real program `keylane-operator`, with the rights of the chart, beside others of its kind.

use crate::space::{GUESTS, Space};
use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::Paths;
use keylane_tests::cluster::wait::{self, Pending};
use keylane_tests::images::released;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const DECISIONS: &str = "keylane_operator_decision_seconds_count";

/// A running operator; killed when dropped.
pub struct Process {
    child: Child,
    port: u16,
    metrics_port: u16,
    _kubeconfig: tempfile::NamedTempFile,
}

/// A program of this workspace, as it is released.
pub fn program(name: &str) -> &'static PathBuf {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| release_binaries(&Paths::from_env(), &PROGRAMS).unwrap());
    let at = PROGRAMS.iter().position(|(_, program)| *program == name);
    at.and_then(|at| built.get(at)).unwrap()
}

impl Process {
    /// Starts one that watches the namespace of `space` as `user`.
    pub fn start(space: &Space, user: &str) -> Result<Self> {
        Self::start_with(space, user, &[])
    }

    /// The same with more options.
    pub fn start_with(space: &Space, user: &str, options: &[&str]) -> Result<Self> {
        let more = [&["--consumer-network-policy", GUESTS], options].concat();
        Self::spawn(space, user, program("keylane-operator"), &more, true)
    }

    /// Starts one of the last release.
    pub fn start_released(space: &Space, user: &str) -> Result<Self> {
        let program = released::operator(&Paths::from_env())?;
        let more = ["--consumer-network-policy", GUESTS];
        Self::spawn(space, user, &program, &more, false)
    }

    /// Metrics have a port of their own, or that of probes.
    fn spawn(
        space: &Space,
        user: &str,
        program: &Path,
        options: &[&str],
        own_port: bool,
    ) -> Result<Self> {
        let text = std::fs::read_to_string(space.cluster().kubeconfig())?;
        let mut kubeconfig: serde_json::Value = serde_norway::from_str(&text)?;
        for entry in kubeconfig["users"].as_array_mut().context("no users")? {
            entry["user"]["as"] = user.into();
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), kubeconfig.to_string())?;
        // Held together, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [port, metrics_port] = free.map(|free| free?.local_addr().map(|at| at.port()));
        let (port, metrics_port) = (port?, metrics_port?);
        let metrics = [String::from("--metrics-port"), metrics_port.to_string()];
        let child = Command::new(program)
            .args(["run", "--executor-image=localhost/not-there:dev"])
            .args([
                "--watch-namespace",
                &space.name,
                "--lease-namespace",
                &space.name,
            ])
            .args(["--lease-name=kl-operator", "--port", &port.to_string()])
            .args(metrics.iter().filter(|_| own_port))
            .args(options)
            .env("KUBECONFIG", file.path())
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            port,
            metrics_port: if own_port { metrics_port } else { port },
            _kubeconfig: file,
        })
    }

    /// A connection to the port of metrics.
    pub fn metrics_stream(&self) -> Result<TcpStream> {
        connect(self.metrics_port)
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = get(self.metrics_stream()?, "/metrics", "")?;
        let of = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        let values = text
            .lines()
            .filter(of)
            .filter_map(|line| line.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
    }

    /// Decisions carried out so far.
    pub fn decisions(&self) -> Result<f64> {
        self.metric(DECISIONS)
    }

    /// Waits until it has carried out that many decisions; says how long after `since` that was seen.
    pub fn until_decisions(&self, number: f64, since: Instant) -> Result<Duration> {
        self.until(&format!("{number} decisions"), |process| {
            Ok(process.decisions()? >= number)
        })?;
        Ok(since.elapsed())
    }

    /// Waits until it could take over.
    pub fn until_ready(&self) -> Result<()> {
        self.until("a ready operator", |process| {
            let answer = get(connect(process.port)?, "/readyz", "")?;
            Ok(answer.starts_with("HTTP/1.1 200"))
        })
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        Ok(wait::until(what, LIMIT, None, || match holds(self) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Pending::NotYet("not yet".to_owned())),
            Err(error) => Err(Pending::NotYet(error.to_string())),
        })?)
    }

    /// Ends it without a word.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits for its exit.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// What is answered to a GET, with more headers.
pub fn get(mut stream: impl Read + Write, path: &str, headers: &str) -> Result<String> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n{headers}\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}
