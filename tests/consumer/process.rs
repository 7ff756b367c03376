//! The real program: signals, exit codes, two members of one group.

use crate::world::{Handler, Running, SOON, World};
use keylane_consumer::contract::admin::Stats;
use keylane_tests::cluster::Paths;
use keylane_tests::images::workspace::{PROGRAMS, release_binaries};
use keylane_tests::wait;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

pub fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let binaries = release_binaries(&Paths::from_env(), &PROGRAMS);
        binaries.unwrap().swap_remove(1)
    })
}

/// A running `keylane-consumer run`; killed when dropped.
pub struct Process {
    child: Child,
    _file: tempfile::NamedTempFile,
}

impl Process {
    pub async fn start(world: &World, handler_port: u16) -> Self {
        Self::run(&world.document(handler_port, &[])).await
    }

    /// Runs an OrderedConsumer.
    pub async fn run(document: &Value) -> Self {
        Self::run_with(document, &[]).await
    }

    /// Runs an OrderedConsumer, with more arguments.
    pub async fn run_with(document: &Value, arguments: &[&str]) -> Self {
        let program = tokio::task::spawn_blocking(program).await.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document.to_string()).unwrap();
        let child = Command::new(program)
            .args([
                "run",
                "--lanes=16",
                "--probe-port=0",
                "--metrics-port=0",
                "--file",
            ])
            .arg(file.path())
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _file: file }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM and waits for the exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        wait::until(SOON, "the end of the process", async || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status.code()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn until_handled(handler: &Handler, count: u64) {
    wait::until(SOON, format!("{count} messages handled"), async || {
        let verdict = handler.verdict();
        if verdict.distinct >= count {
            Ok(())
        } else {
            Err(format!("{verdict:?}"))
        }
    })
    .await
    .unwrap();
}

/// SIGTERM in the middle of work: running calls finish, the watermark is committed, exit 0; a new
/// process goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_loses_nothing() {
    let world = World::new("sigterm", 2).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    world.produce(20_000, 200).await;
    let first = Process::start(&world, port).await;
    until_handled(&handler, 2_000).await;
    assert_eq!(first.terminate().await, Some(0));
    let stopped = handler.verdict();
    assert_eq!((stopped.unfinished, stopped.failed), (0, 0));
    assert!(stopped.distinct < 20_000, "it was over before the signal");
    let second = Process::start(&world, port).await;
    until_handled(&handler, 20_000).await;
    world.until_committed(20_000).await;
    assert_eq!(second.terminate().await, Some(0));
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    assert_eq!(verdict.duplicates, 0, "finished before the stop, run again");
}

/// Two processes share a group; one stops and comes back. No key is ever with both.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_group_while_one_stops_and_comes_back() {
    let world = World::new("shared", 4).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let first = Process::start(&world, port).await;
    let second = Process::start(&world, port).await;
    world.produce(2_000, 100).await;
    until_handled(&handler, 2_000).await;
    assert_eq!(second.terminate().await, Some(0));
    world.produce(2_000, 100).await;
    until_handled(&handler, 4_000).await;
    let third = Process::start(&world, port).await;
    world.produce(2_000, 100).await;
    until_handled(&handler, 6_000).await;
    world.until_committed(6_000).await;
    assert_eq!(third.terminate().await, Some(0));
    assert_eq!(first.terminate().await, Some(0));
    let verdict = handler.verdict();
    assert_eq!(
        (verdict.inversions, verdict.overlaps, verdict.distinct),
        (0, 0, 6_000)
    );
}

/// Told to drain, an executor gives its queues away and leaves the group, and stays; SIGTERM ends it.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_told_to_drain_hands_over_and_stays_until_it_is_ended() {
    let world = World::new("drained", 2).await;
    let handler = Handler::default();
    let port = handler.serve(0).await;
    let first = Running::with(&world, handler.clone(), port, &[]).await;
    let second = Running::with(&world, handler.clone(), port, &[]).await;
    world.produce(1_000, 100).await;
    first.until_handled(1_000).await;
    first.control().drain().await.unwrap();
    assert!(!first.control().is_ready().await.unwrap());
    let drained = |stats: &Stats| stats.drained && stats.queues.is_empty();
    let before = first.until_stats(drained, "the first drained").await;
    second
        .until_stats(|stats| stats.queues.len() == 2, "both queues taken")
        .await;
    world.produce(1_000, 100).await;
    first.until_handled(2_000).await;
    let now = first.control().stats().await.unwrap();
    assert_eq!(now.dispatched, before.dispatched);
    first.stop().await;
    second.stop().await;
    let verdict = handler.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    assert_eq!((verdict.distinct, verdict.duplicates), (2_000, 0));
}
