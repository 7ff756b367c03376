//! The samples as users run them: each in a process of its own, with the real executor on a real broker.
//! Order and completeness are judged from what the samples themselves log.

use crate::process::Process;
use crate::world::{SOON, World};
use keylane_tests::cluster::Paths;
use keylane_tests::judge::Verdict;
use keylane_tests::samples::{Record, Sample};
use keylane_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

const MESSAGES: u64 = 10_000;
const KEYS: u64 = 250;
/// The first attempt of each of its messages fails.
const FAIL_KEY: &str = "order-7";

/// Runs one sample after the other, with one record of what they log.
struct Runs {
    sample: Sample,
    env: Vec<(&'static str, String)>,
    record: Arc<Mutex<Record>>,
    started: u32,
}

/// A sample's process; killed when dropped.
struct Running {
    child: Child,
    lines: JoinHandle<Result<(), String>>,
}

impl Runs {
    fn of(sample: Sample, mut env: Vec<(&'static str, String)>) -> Self {
        env.push(("FAIL_KEY", FAIL_KEY.into()));
        Self {
            sample,
            env,
            record: Arc::default(),
            started: 0,
        }
    }

    async fn start(&mut self) -> Running {
        let sample = self.sample;
        let command = move || sample.command(&Paths::from_env());
        let command = tokio::task::spawn_blocking(command).await.unwrap().unwrap();
        let mut child = Command::from(command)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.started += 1;
        let process = format!("{} {}", sample.name(), self.started);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let record = self.record.clone();
        let lines = tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                let taken = record.lock().unwrap().take(&process, &line);
                taken.map_err(|error| format!("{line}: {error}"))?;
            }
            Ok(())
        });
        Running { child, lines }
    }

    fn verdict(&self) -> Verdict {
        self.record.lock().unwrap().judge().verdict()
    }

    async fn until_handled(&self, count: u64) {
        let what = format!("{count} messages handled by the sample");
        wait::until(SOON, what, async || {
            let verdict = self.verdict();
            if verdict.distinct >= count {
                Ok(())
            } else {
                Err(format!("{verdict:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// Everything once and in order; what failed was told to.
    fn judge(&self) {
        let verdict = self.verdict();
        assert_eq!(
            (verdict.inversions, verdict.overlaps),
            (0, 0),
            "{:?}",
            verdict.examples
        );
        assert_eq!((verdict.distinct, verdict.duplicates), (MESSAGES, 0));
        // Each message of the one key failed once; the one that was about to be tried again when the first
        // process ended may have failed once more, or its failure may have been lost with the process.
        let told = MESSAGES / KEYS;
        assert!(
            (told - 1..=told + 1).contains(&verdict.failed),
            "{verdict:?}"
        );
        assert_eq!(verdict.keys, KEYS);
    }
}

impl Running {
    /// Sends SIGTERM and waits for the exit code; every line that was logged is in the record then.
    async fn terminate(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let end = tokio::time::timeout(SOON, self.child.wait());
        let status = end.await.expect("the sample ends").unwrap();
        self.lines.await.unwrap().unwrap();
        status.code()
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The OrderedConsumer beside the sample, for this broker, topic and port.
fn document(sample: Sample, world: &World, port: u16) -> Value {
    let mut document = sample.manifest().unwrap();
    let spec = &mut document["spec"];
    spec["rocketmq"]["nameServers"] = json!([world.broker().name_server()]);
    spec["topic"] = json!(world.topic);
    spec["consumerGroup"] = json!(world.group);
    for protocol in ["http", "grpc"] {
        if let Some(endpoint) = spec["handler"].get_mut(protocol) {
            endpoint["port"] = json!(port);
        }
    }
    document
}

/// The handler is stopped and started in the middle, the executor is not: its messages wait.
async fn a_handler_works(sample: Sample, messages_a_call: u32) {
    let name = format!("sample_{}_{messages_a_call}", sample.name());
    let world = World::new(&name, 4).await;
    world.produce(MESSAGES, KEYS).await;
    let port = free_port();
    let mut document = document(sample, &world, port);
    document["spec"]["handler"]["batch"] = json!({"maxMessages": messages_a_call});
    let mut runs = Runs::of(sample, vec![("PORT", port.to_string())]);
    let first = runs.start().await;
    let executor = Process::run(&document).await;
    runs.until_handled(300).await;
    assert_eq!(first.terminate().await, Some(0));
    assert!(
        runs.verdict().distinct < MESSAGES,
        "it was over before the signal"
    );
    let second = runs.start().await;
    runs.until_handled(MESSAGES).await;
    world.until_committed(MESSAGES).await;
    assert_eq!(executor.terminate().await, Some(0));
    assert_eq!(second.terminate().await, Some(0));
    runs.judge();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_in_python_keeps_order_and_loses_nothing() {
    a_handler_works(Sample::Python, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_in_python_takes_batches() {
    a_handler_works(Sample::Python, 8).await;
}

/// Headers of an event, as the executor writes them.
type Attributes<'a> = &'a [(&'a str, &'a str)];

/// Calls a sample in Python as the executor does; gives the status of its answer.
async fn post(port: u16, attributes: Attributes<'_>, body: &'static str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = client.post(format!("http://127.0.0.1:{port}/"));
    let call = attributes
        .iter()
        .fold(call, |call, (name, value)| call.header(*name, *value));
    call.body(body).send().await.unwrap().status().as_u16()
}

/// What nobody waits for any more may have come again already: it is not begun, nor is what is not whole. An
/// event that its producer made is a message like any, and so is one without a key.
#[tokio::test(flavor = "multi_thread")]
async fn the_sample_in_python_begins_no_call_that_is_too_late_or_not_whole() {
    const SOURCE: &str = "rocketmq://b/T/0";
    const NEVER: &str = "2999-01-01T00:00:00.123456789Z";
    let port = free_port();
    let mut runs = Runs {
        sample: Sample::Python,
        env: vec![("PORT", port.to_string())],
        record: Arc::default(),
        started: 0,
    };
    let running = runs.start().await;
    let mut broken_off = wait::until(SOON, "the sample listens", async || {
        TcpStream::connect(("127.0.0.1", port)).await
    })
    .await
    .unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: handler\r\nce-source: {SOURCE}\r\nce-sequence: 1\r\nce-attempt: 1\r\n\
         ce-deadline: {NEVER}\r\ncontent-length: 9\r\n\r\n{{}}"
    );
    broken_off.write_all(head.as_bytes()).await.unwrap();
    broken_off.shutdown().await.unwrap();
    let mut answer = Vec::new();
    broken_off.read_to_end(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "");

    let event = |sequence, deadline| {
        [
            ("ce-source", SOURCE),
            ("ce-sequence", sequence),
            ("ce-attempt", "1"),
            ("ce-deadline", deadline),
        ]
    };
    assert_eq!(
        post(port, &event("2", "2020-01-01T00:00:00Z"), "{}").await,
        503
    );
    assert_eq!(post(port, &event("3", NEVER), "{}").await, 204);
    let made_by_its_producer = [
        ("ce-specversion", "1.0"),
        ("ce-id", "event-1"),
        ("ce-source", "/shop"),
        ("ce-type", "shop.paid"),
        ("ce-keylanesource", SOURCE),
        ("ce-keylanekey", "order-1"),
        ("ce-keylaneoffset", "4"),
        ("ce-keylaneattempt", "1"),
        ("ce-keylanedeadline", NEVER),
    ];
    assert_eq!(post(port, &made_by_its_producer, "{}").await, 204);
    // Not the executor's: an answer, whatever it says.
    assert_eq!(post(port, &[], "{}").await, 400);
    assert_eq!(running.terminate().await, Some(0));
    let verdict = runs.verdict();
    assert_eq!((verdict.received, verdict.failed), (2, 0));
    assert_eq!((verdict.distinct, verdict.keys), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_in_go_keeps_order_and_loses_nothing() {
    a_handler_works(Sample::Go, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_in_go_takes_batches() {
    a_handler_works(Sample::Go, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_in_rust_keeps_order_and_loses_nothing() {
    let world = World::new("sample_rust", 4).await;
    world.produce(MESSAGES, KEYS).await;
    let env = vec![
        ("NAME_SERVERS", world.broker().name_server()),
        ("TOPIC", world.topic.clone()),
        ("GROUP", world.group.clone()),
    ];
    let mut runs = Runs::of(Sample::Rust, env);
    let first = runs.start().await;
    runs.until_handled(300).await;
    assert_eq!(first.terminate().await, Some(0));
    let second = runs.start().await;
    runs.until_handled(MESSAGES).await;
    world.until_committed(MESSAGES).await;
    assert_eq!(second.terminate().await, Some(0));
    runs.judge();
}
