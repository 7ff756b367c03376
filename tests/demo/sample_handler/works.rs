//! The sample handler and its judge, as processes: what they answer, and that records survive.

use std::process::Stdio;
use std::time::Duration;

use keylane_tests::judge::Verdict;
use keylane_tests::wait;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(20);

/// A process of the binary, killed when dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    async fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sample-handler"))
            .args(args)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let address = line.strip_prefix("listening on ").unwrap();
        let url = format!("http://{address}");
        Self { child, url }
    }

    async fn send(&self, key: &str, offset: i64) -> u16 {
        let request = client()
            .post(format!("{}/events", self.url))
            .header("ce-source", "rocketmq://broker-a/T/0")
            .header("ce-partitionkey", key)
            .header("ce-sequence", offset.to_string())
            .body(vec![b'x'; 3 * 1024 * 1024]);
        request.send().await.unwrap().status().as_u16()
    }

    async fn verdict(&self) -> Verdict {
        let url = format!("{}/verdict?expected=3", self.url);
        let answer = client().get(url).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    async fn control(&self, change: serde_json::Value) -> u16 {
        let request = client().put(format!("{}/control", self.url)).json(&change);
        request.send().await.unwrap().status().as_u16()
    }

    async fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(kill.unwrap().success());
        tokio::time::timeout(LIMIT, self.child.wait())
            .await
            .expect("no end after SIGTERM")
            .unwrap()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_handler_does_as_it_is_told_and_judges_itself() {
    let args = ["serve", "--work", "1ms", "--fail-key", "bad"];
    let handler = Process::start(&args).await;
    assert_eq!(handler.send("good", 0).await, 200);
    assert_eq!(handler.send("bad", 1).await, 500);
    let change = json!({"failKey": null, "status": 503});
    assert_eq!(handler.control(change).await, 200);
    assert_eq!(handler.send("good", 2).await, 503);
    assert_eq!(handler.control(json!({"status": null})).await, 200);
    // Offset 2 of this key has not been handled: its successor is early.
    assert_eq!(handler.send("good", 3).await, 200);
    assert_eq!(handler.send("good", 2).await, 200);
    let verdict = handler.verdict().await;
    assert_eq!((verdict.received, verdict.distinct), (5, 3));
    assert_eq!((verdict.failures, verdict.unknown_ends), (2, 0));
    assert_eq!((verdict.inversions, verdict.overlaps), (1, 0));
    assert_eq!((verdict.keys, verdict.lost), (2, Some(0)));

    assert_eq!(handler.control(json!({"status": 99})).await, 400);
    assert_eq!(handler.control(json!({"wrok": "1ms"})).await, 422);
    let request = client().post(format!("{}/events", handler.url));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.text().await.unwrap(), "header ce-source is missing");
}

#[tokio::test]
async fn records_of_several_processes_meet_and_a_stopped_one_leaves_all_of_its_own() {
    let judge = Process::start(&["judge"]).await;
    let args = ["serve", "--work", "0ms", "--judge", &judge.url];
    let mut first = Process::start(&args).await;
    let second = Process::start(&args).await;
    assert_eq!(second.send("a", 1).await, 200);
    assert_eq!(first.send("a", 0).await, 200);
    assert!(first.terminate().await.success());
    wait::until(LIMIT, "both records at the judge", async || {
        let verdict = judge.verdict().await;
        (verdict.distinct == 2)
            .then_some(())
            .ok_or(format!("{verdict:?}"))
    })
    .await
    .unwrap();
    let verdict = judge.verdict().await;
    assert_eq!((verdict.inversions, verdict.lost), (1, Some(1)));
}

#[tokio::test]
async fn a_killed_handler_leaves_its_running_call_with_an_unknown_end() {
    let judge = Process::start(&["judge"]).await;
    let args = ["serve", "--work", "600s", "--judge", &judge.url];
    let mut handler = Process::start(&args).await;
    let url = handler.url.clone();
    let calling = tokio::spawn(async move {
        let request = client()
            .post(format!("{url}/events"))
            .header("ce-source", "rocketmq://broker-a/T/0")
            .header("ce-sequence", "7");
        request.send().await.is_err()
    });
    wait::until(LIMIT, "the start at the judge", async || {
        let verdict = judge.verdict().await;
        (verdict.unknown_ends == 1)
            .then_some(())
            .ok_or(format!("{verdict:?}"))
    })
    .await
    .unwrap();
    handler.child.kill().await.unwrap();
    assert!(calling.await.unwrap());
    let verdict = judge.verdict().await;
    assert_eq!((verdict.received, verdict.distinct), (1, 0));
    assert_eq!((verdict.unknown_ends, verdict.lost), (1, Some(2)));
}
