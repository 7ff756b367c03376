//! Offsets that somebody wants reset, by the admin API: what is handled again, what is skipped, and what
//! holds it back.

use crate::faulty::{Faults, Faulty};
use crate::member::Member;
use crate::world::{SOON, World};
use keylane_consumer::admin::{self, Access, Files};
use keylane_consumer::contract::offsets::{ResetOffsets, ResetReport, ResetState, ResetTo};
use keylane_consumer::handler::Delivery;
use keylane_consumer::handler::func::FuncHandler;
use keylane_consumer::journal::{self, Body};
use keylane_consumer::lane::CallResult;
use keylane_consumer::source::Source;
use keylane_consumer::source::journal::Journal;
use keylane_tests::rocketmq::Message;
use keylane_tests::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A call as it began and as it ended, in the order in which that happened, whichever executor made it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    Began {
        queue: u32,
        key: String,
        offset: u64,
    },
    Ended {
        queue: u32,
        key: String,
    },
}

/// What all handlers of a test have in common.
#[derive(Clone)]
struct Handlers {
    happened: Arc<Mutex<Vec<Happened>>>,
    /// Keys whose calls do not end.
    held: watch::Sender<BTreeSet<String>>,
}

impl Handlers {
    fn new() -> Self {
        Self {
            happened: Arc::default(),
            held: watch::Sender::new(BTreeSet::new()),
        }
    }

    fn hold(&self, keys: &[&str]) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.held.send_replace(keys);
    }

    async fn call(self, delivery: Delivery) -> CallResult {
        let (queue, key) = (delivery.queue.id, delivery.key.as_str().to_owned());
        let (offset, mut held) = (delivery.message.offset, self.held.subscribe());
        let begun = key.clone();
        self.happened.lock().unwrap().push(Happened::Began {
            queue,
            key: begun,
            offset,
        });
        // A call that takes no time overlaps with nothing.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = held.wait_for(|held| !held.contains(&key)).await;
        let ended = Happened::Ended { queue, key };
        self.happened.lock().unwrap().push(ended);
        CallResult::Done
    }

    /// Offsets in the order in which their calls began, by queue and key. Fails if two calls of a key
    /// overlap.
    fn seen(&self) -> BTreeMap<(u32, String), Vec<u64>> {
        let mut seen: BTreeMap<(u32, String), Vec<u64>> = BTreeMap::new();
        let mut running = BTreeSet::new();
        for happened in &*self.happened.lock().unwrap() {
            match happened {
                Happened::Began { queue, key, offset } => {
                    let lane = (*queue, key.clone());
                    assert!(running.insert(lane.clone()), "{lane:?} overlaps");
                    seen.entry(lane).or_default().push(*offset);
                }
                Happened::Ended { queue, key } => {
                    running.remove(&(*queue, key.clone()));
                }
            }
        }
        seen
    }

    fn count(&self) -> usize {
        self.seen().values().map(Vec::len).sum()
    }

    async fn until_seen(&self, count: usize) {
        wait::until(SOON, format!("{count} calls"), async || {
            let seen = self.count();
            if seen >= count {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        })
        .await
        .unwrap();
    }

    /// Every key was handled twice from its beginning to its end, in order: `once` are all its offsets.
    fn check_twice(&self, once: &BTreeMap<(u32, String), Vec<u64>>) {
        let seen = self.seen();
        for (lane, offsets) in once {
            let twice: Vec<u64> = offsets.iter().chain(offsets).copied().collect();
            assert_eq!(seen[lane], twice, "{lane:?}");
        }
    }
}

/// An executor in this process, whose answers of the broker can be made to fail.
struct Resettable {
    member: Member,
    faults: Arc<Faults>,
}

impl Deref for Resettable {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl Resettable {
    async fn start(world: &World, handlers: &Handlers, changes: &[(&str, &str)]) -> Self {
        let faults = Arc::<Faults>::default();
        let handlers = handlers.clone();
        let handler = FuncHandler::new(move |delivery| handlers.clone().call(delivery));
        let member = Member::start(world, changes, Faulty::with(&faults), handler).await;
        Self { member, faults }
    }

    async fn reset(&self, id: &str, to: ResetTo) -> ResetReport {
        self.ask(id, to, None, true).await
    }

    async fn ask(&self, id: &str, to: ResetTo, queue: Option<String>, wait: bool) -> ResetReport {
        let id = id.to_owned();
        let request = ResetOffsets {
            id,
            to,
            queue,
            wait,
        };
        let answer = self.control.reset_offsets(request).await.unwrap();
        answer.unwrap()
    }

    async fn until_owns(&self, queues: usize) {
        self.until_stats(&format!("{queues} queues"), |stats| {
            let owned = stats.queues.iter().filter(|of| of.watermark.is_some());
            owned.count() == queues
        })
        .await;
    }

    async fn stop(self) {
        self.member.stop().await;
    }

    async fn kill(self) {
        self.member.kill().await;
    }
}

fn states(report: &ResetReport) -> Vec<ResetState> {
    report.queues.iter().map(|of| of.state).collect()
}

/// Everything is handled again, each key in its order, once for each request, and the broker has it as
/// committed; a second member that takes the queues over knows.
#[tokio::test(flavor = "multi_thread")]
async fn from_earliest_on_everything_is_handled_again_in_order_and_once() {
    let (world, handlers) = (World::new("reset_all", 2).await, Handlers::new());
    world.produce(400, 20).await;
    let first = Resettable::start(&world, &handlers, &[]).await;
    world.until_committed(400).await;
    let once = handlers.seen();
    let report = first.reset("again", ResetTo::Earliest).await;
    assert_eq!(states(&report), [ResetState::Done; 2]);
    assert_eq!((report.replayed, report.skipped), (400, 0));
    handlers.until_seen(800).await;
    world.until_committed(400).await;
    handlers.check_twice(&once);
    let stats = first.control.stats().await.unwrap();
    assert_eq!((stats.replayed, stats.skipped), (400, 0));
    let last = stats.queues[0].reset.clone().unwrap();
    assert_eq!((last.id.as_str(), last.position), ("again", 0));
    // The same request again changes nothing, here and at whoever has the queues then.
    let again = first.reset("again", ResetTo::Earliest).await;
    assert_eq!(again, report);
    let second = Resettable::start(&world, &handlers, &[]).await;
    first.stop().await;
    second.until_owns(2).await;
    let again = second.reset("again", ResetTo::Earliest).await;
    assert_eq!(again, report);
    world.produce(10, 10).await;
    handlers.until_seen(810).await;
    assert_eq!(handlers.count(), 810);
    second.stop().await;
}

/// What is before the end is skipped, also what was in memory, and counted.
#[tokio::test(flavor = "multi_thread")]
async fn from_latest_on_only_what_is_sent_afterwards_is_handled() {
    let (world, handlers) = (World::new("reset_latest", 1).await, Handlers::new());
    let suspended = [("suspend", r#"{"all": true}"#)];
    let member = Resettable::start(&world, &handlers, &suspended).await;
    world.produce(100, 10).await;
    member
        .until_stats("a backlog in memory", |stats| stats.buffered == 100)
        .await;
    let report = member.reset("skip", ResetTo::Latest).await;
    assert_eq!((report.replayed, report.skipped), (0, 100));
    let queue = &report.queues[0];
    assert_eq!((queue.from, queue.position), (Some(0), Some(100)));
    world.until_committed(100).await;
    // What the spec suspends stays suspended.
    world.produce(10, 10).await;
    member
        .until_stats("the new ones in memory", |stats| stats.buffered == 10)
        .await;
    assert_eq!(handlers.count(), 0);
    member
        .control
        .reconfigure(world.spec(1, &[]))
        .await
        .unwrap();
    world.until_committed(110).await;
    let offsets: BTreeSet<u64> = handlers.seen().into_values().flatten().collect();
    assert_eq!(offsets, (100..110).collect());
    member.stop().await;
}

/// An offset concerns one queue and must be there; a time concerns all.
#[tokio::test(flavor = "multi_thread")]
async fn one_queue_goes_on_from_an_offset_and_all_from_a_time() {
    let (world, handlers) = (World::new("reset_offset", 2).await, Handlers::new());
    let producer = world.producer().await;
    let send = async |from: u64, to: u64| {
        for number in from..to {
            for queue in [0, 1] {
                let message = Message::keyed(&format!("{queue}-{}", number % 3), "m");
                producer.send_to(queue, &message).await.unwrap();
            }
        }
    };
    send(0, 20).await;
    // Times of messages are whole milliseconds.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = jiff::Timestamp::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    send(20, 30).await;
    let member = Resettable::start(&world, &handlers, &[]).await;
    world.until_committed(60).await;
    let one = Some(world.queue(1).to_string());
    let ask = async |id: &str, offset| {
        let to = ResetTo::Offset(offset);
        member.ask(id, to, one.clone(), true).await
    };
    let beyond = ask("beyond", 31).await;
    let refused = beyond.refused().next().unwrap();
    let reason = refused.reason.as_deref().unwrap();
    assert_eq!(reason, "to is 31, and the broker has offsets 0 to 30");
    let seven = ask("seven", 7).await;
    assert_eq!((seven.queues.len(), seven.replayed), (1, 23));
    handlers.until_seen(60 + 23).await;
    let since = member.reset("since", ResetTo::Time(between)).await;
    assert_eq!((since.queues.len(), since.replayed), (2, 20));
    handlers.until_seen(60 + 23 + 20).await;
    world.until_committed(60).await;
    assert_eq!(handlers.count(), 60 + 23 + 20);
    member.stop().await;
}

/// A call that does not end holds it back: nothing changes, its key is named, others go on; once it ends
/// the reset is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_call_holds_a_reset_back_and_is_named() {
    let (world, handlers) = (World::new("reset_held", 1).await, Handlers::new());
    let changes = [
        ("drain", r#"{"timeout": "2s"}"#),
        (
            "handler",
            r#"{"http": {"port": 1, "path": "/"}, "timeout": "60s"}"#,
        ),
    ];
    let member = Resettable::start(&world, &handlers, &changes).await;
    handlers.hold(&["order-3"]);
    world.produce(40, 10).await;
    // All but those behind the one that does not end.
    handlers.until_seen(37).await;
    let refused = member.reset("held", ResetTo::Earliest).await;
    let queue = refused.refused().next().expect("it is refused");
    assert_eq!(queue.keys, ["order-3"]);
    let reason = queue.reason.as_deref().unwrap();
    assert!(
        reason.contains("drain.timeout (2s): keys order-3"),
        "{reason}"
    );
    let before = member.control.stats().await.unwrap();
    assert_eq!(before.queues[0].reset, None);
    assert!(!before.queues[0].suspended);
    world.produce(20, 10).await;
    handlers.until_seen(37 + 18).await;
    // Who does not wait hears of a refusal once, and it is tried again when it is asked for again.
    let state = async || {
        let report = member.ask("held", ResetTo::Earliest, None, false).await;
        report.queues[0].state
    };
    assert_eq!(state().await, ResetState::Draining);
    member
        .until_stats("another refusal", |stats| !stats.queues[0].suspended)
        .await;
    assert_eq!(state().await, ResetState::Refused);
    assert_eq!(state().await, ResetState::Draining);
    handlers.hold(&[]);
    let done = member.reset("held", ResetTo::Earliest).await;
    assert_eq!(states(&done), [ResetState::Done]);
    world.until_committed(60).await;
    // Its first call ended before all of it came again; those behind that one had not begun.
    let seen = handlers.seen()[&(0, "order-3".to_owned())].clone();
    assert_eq!((seen.len(), seen[0]), (1 + 6, seen[1]), "{seen:?}");
    assert!(seen[1..].is_sorted(), "{seen:?}");
    member.stop().await;
}

/// Two members, four queues: each resets its own. One stops in between: whoever gets its queues finds what
/// was done, and does what was not.
#[tokio::test(flavor = "multi_thread")]
async fn queues_that_move_meanwhile_are_reset_exactly_once() {
    let (world, handlers) = (World::new("reset_moves", 4).await, Handlers::new());
    world.produce(400, 20).await;
    let first = Resettable::start(&world, &handlers, &[]).await;
    let second = Resettable::start(&world, &handlers, &[]).await;
    first.until_owns(2).await;
    second.until_owns(2).await;
    world.until_committed(400).await;
    let once = handlers.seen();
    let half = first.reset("moves", ResetTo::Earliest).await;
    assert_eq!(states(&half), [ResetState::Done; 2]);
    handlers.until_seen(400 + half.replayed as usize).await;
    first.stop().await;
    second.until_owns(4).await;
    let all = second.reset("moves", ResetTo::Earliest).await;
    assert_eq!(states(&all), [ResetState::Done; 4]);
    assert_eq!(all.replayed, 400);
    handlers.until_seen(800).await;
    world.until_committed(400).await;
    handlers.check_twice(&once);
    second.stop().await;
}

/// The executor dies after the record of a reset and before the broker has the new offset; the answer to
/// the first record was lost, too. Whoever comes next goes on from the new position.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_journal_and_commit_does_not_undo_a_reset() {
    let (world, handlers) = (World::new("reset_killed", 1).await, Handlers::new());
    let short = [(
        "handler",
        r#"{"http": {"port": 1, "path": "/"}, "timeout": "1s"}"#,
    )];
    world.produce(200, 10).await;
    let first = Resettable::start(&world, &handlers, &short).await;
    world.until_committed(200).await;
    let once = handlers.seen();
    // From here on nothing is handled: what is seen later comes from the next one.
    first
        .control
        .reconfigure(world.spec(1, &[short[0], ("suspend", r#"{"all": true}"#)]))
        .await
        .unwrap();
    first.faults.commits.store(true, Ordering::SeqCst);
    first.faults.records.store(1, Ordering::SeqCst);
    let state = first.ask("killed", ResetTo::Earliest, None, false).await;
    assert_eq!(states(&state), [ResetState::Draining]);
    let source = world.source("reader").await;
    let records = wait::until(SOON, "the record of the reset", async || {
        let stats = first
            .control
            .stats()
            .await
            .map_err(|gone| gone.to_string())?;
        if stats.queues[0].reset.is_some() {
            let records = source.records(&world.queue(0), 0).await;
            records.map_err(|error| error.to_string())
        } else {
            Err(format!("{stats:?}"))
        }
    })
    .await
    .unwrap();
    let begins = records.found.iter().filter(|(_, bytes)| {
        let record = journal::decode(bytes);
        record.is_ok_and(|record| match record.body {
            Body::Progress { progress, .. } => progress.reset.is_some_and(|reset| reset.begins),
            _ => false,
        })
    });
    assert_eq!(
        begins.count(),
        2,
        "the one whose answer was lost, and another"
    );
    let report = first.ask("killed", ResetTo::Earliest, None, false).await;
    assert_eq!(
        states(&report),
        [ResetState::Writing],
        "not done without the broker"
    );
    first.kill().await;
    assert_eq!(source.committed(&world.queue(0)).await.unwrap(), Some(200));
    assert_eq!(handlers.count(), 200);

    let second = Resettable::start(&world, &handlers, &short).await;
    handlers.until_seen(400).await;
    world.until_committed(200).await;
    handlers.check_twice(&once);
    let report = second.reset("killed", ResetTo::Earliest).await;
    assert_eq!(
        (states(&report), report.replayed),
        (vec![ResetState::Done], 200)
    );
    // Gone through to the end that the queue had then, the committed offset counts again.
    second.kill().await;
    let third = Resettable::start(&world, &handlers, &short).await;
    world.produce(10, 10).await;
    handlers.until_seen(410).await;
    assert_eq!(handlers.count(), 410);
    third.stop().await;
}

/// The admin API with what people may send it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_says_what_to_write() {
    const TOKEN: &str = "a token of the test";
    let (world, handlers) = (World::new("reset_bad", 1).await, Handlers::new());
    let member = Resettable::start(&world, &handlers, &[]).await;
    member.until_owns(1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/offsets/reset", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let access = Access::read(Files { token, tls: None }).unwrap();
    tokio::spawn(admin::serve_admin(listener, member.control.clone(), access));
    let client = reqwest::Client::new();
    let post = async |token: &str, body: &str| {
        let request = client.post(&url).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let earliest = r#"{"id": "a", "to": "earliest"}"#;
    assert_eq!(post("another", earliest).await, (401, String::new()));
    for (body, status, says) in [
        (r#"{"to": "earliest"}"#, 422, "missing field `id`"),
        (r#"{"id": "a b", "to": "earliest"}"#, 422, "letters, digits"),
        (
            r#"{"id": "a", "to": "yesterday"}"#,
            422,
            "\"yesterday\" is no position: write earliest, latest, a time",
        ),
        (r#"{"id": "a", "to": 7}"#, 422, "name one with queue"),
        (
            r#"{"id": "a", "to": 7, "queue": "7"}"#,
            422,
            "broker name/queue id",
        ),
        (
            r#"{"id": "a", "to": 7, "queue": "other/7"}"#,
            404,
            "other/7 is not held by this executor",
        ),
        (
            r#"{"id": "a", "to": "latest", "when": "now"}"#,
            422,
            "unknown field `when`",
        ),
    ] {
        let (got, text) = post(TOKEN, body).await;
        assert_eq!(got, status, "{body}: {text}");
        assert!(text.contains(says), "{body}: {text}");
    }
    let (status, text) = post(TOKEN, earliest).await;
    let report: ResetReport = serde_json::from_str(&text).unwrap();
    assert_eq!((status, states(&report)), (200, vec![ResetState::Done]));
    // What README shows.
    world.produce(40, 5).await;
    world.until_committed(40).await;
    let seven = r#"{"id": "replay-1", "to": 7, "queue": "broker-a/0"}"#;
    let (_, text) = post(TOKEN, seven).await;
    let shown = r#"{"id":"replay-1","to":"7","skipped":0,"replayed":33,"queues":[{"queue":"broker-a/0","state":"Done","from":40,"position":7,"skipped":0,"replayed":33}]}"#;
    assert_eq!(text, shown);
    member.stop().await;
    let (status, text) = post(TOKEN, earliest).await;
    assert_eq!((status, text.as_str()), (503, "the executor has ended"));
}
