use super::*;
use crate::lane::LaneKey;
use crate::message::{Message, QueueId};
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

const TIMEOUT: Duration = Duration::from_secs(8);
const GRACE: Duration = Duration::from_secs(5);
const STREAM: u64 = 1;

struct Bench {
    desk: Desk<u32>,
    start: Instant,
    may_send: Rc<Cell<bool>>,
}

impl Bench {
    /// With an open stream, on which the handler began with these words.
    fn open(welcome: proto::HandleResponse) -> Self {
        let mut desk = Desk::new(TIMEOUT, GRACE, "not yet".into());
        assert_eq!(desk.open(STREAM, welcome), []);
        Self {
            desk,
            start: Instant::now(),
            may_send: Rc::new(Cell::new(true)),
        }
    }

    fn put_at(&mut self, after: Duration, reply: u32, bytes: usize) -> Option<Answer<u32>> {
        let message = Message {
            offset: reply.into(),
            body: Bytes::from(vec![0; bytes]),
            ..Message::default()
        };
        let delivery = Delivery {
            queue: QueueId::new("b", 0),
            key: LaneKey::Shared,
            message: Arc::new(message),
            rest: Vec::new(),
            attempt: 1,
            timeout: TIMEOUT,
            deadline: SystemTime::now(),
        };
        let may_send = self.may_send.get();
        self.desk.put(Waiting {
            delivery,
            may_send: Box::new(move || may_send),
            since: self.start + after,
            reply,
        })
    }

    fn put(&mut self, replies: std::ops::Range<u32>) {
        for reply in replies {
            assert_eq!(self.put_at(Duration::ZERO, reply, 0), None);
        }
    }

    /// Offsets of the messages written, and ids cancelled.
    fn write(&mut self) -> (Vec<u64>, Vec<u64>) {
        let mut answers = Vec::new();
        let request = self.desk.write(STREAM, &mut answers).unwrap_or_default();
        assert_eq!(answers, []);
        let calls = request.calls.iter().map(|call| call.messages[0].offset);
        (calls.collect(), request.cancelled)
    }

    fn tick(&mut self, after: Duration) -> Vec<Answer<u32>> {
        self.desk.tick(self.start + after).0
    }
}

fn says(results: &[(u64, proto::Status)], ended: &[u64]) -> proto::HandleResponse {
    let results = results.iter().map(|(id, status)| proto::Result {
        call_id: *id,
        status: (*status).into(),
        ..proto::Result::default()
    });
    proto::HandleResponse {
        results: results.collect(),
        ended: ended.to_vec(),
        ..proto::HandleResponse::default()
    }
}

fn credit(most: u32) -> proto::HandleResponse {
    proto::HandleResponse {
        max_in_flight: Some(most),
        ..proto::HandleResponse::default()
    }
}

fn earlier(running: u32) -> proto::HandleResponse {
    proto::HandleResponse {
        earlier_running: Some(running),
        ..proto::HandleResponse::default()
    }
}

fn done(reply: u32) -> Answer<u32> {
    (reply, CallResult::Done.into())
}

#[test]
fn calls_go_out_together_and_are_answered_in_any_order() {
    let mut bench = Bench::open(says(&[], &[]));
    bench.put(10..14);
    assert_eq!(bench.write(), (vec![10, 11, 12, 13], vec![]));
    let answers = bench.desk.read(says(
        &[(3, proto::Status::Done), (1, proto::Status::Done)],
        &[],
    ));
    assert_eq!(answers, [done(12), done(10)]);
    // A second result of a call, and one of a call that never was, are of no account.
    let again = says(
        &[(3, proto::Status::Failed), (99, proto::Status::Done)],
        &[],
    );
    assert_eq!(bench.desk.read(again), []);
}

#[test]
fn no_more_calls_are_in_flight_than_the_handlers_credit() {
    let mut bench = Bench::open(credit(1));
    bench.put(10..13);
    assert_eq!(bench.write().0, [10]);
    assert!(!bench.desk.has_work(STREAM));
    assert!(bench.write().0.is_empty());
    bench.desk.read(says(&[(1, proto::Status::Done)], &[]));
    assert!(bench.desk.has_work(STREAM));
    assert_eq!(bench.write().0, [11]);
    bench.desk.read(credit(0));
    bench.desk.read(says(&[(2, proto::Status::Done)], &[]));
    assert!(bench.write().0.is_empty());
    bench.desk.read(credit(5));
    assert_eq!(bench.write().0, [12]);
}

#[test]
fn what_waits_for_credit_goes_back_to_its_lane_unharmed_after_a_while() {
    let mut bench = Bench::open(credit(0));
    bench.put(10..11);
    let nearly = PATIENCE - Duration::from_millis(1);
    assert_eq!(bench.tick(nearly), []);
    assert_eq!(bench.tick(PATIENCE), [(10, CallResult::NotSent.into())]);
    assert_eq!(bench.desk.tick(bench.start).1, None);
}

#[test]
fn the_lease_is_asked_about_at_the_write() {
    let mut bench = Bench::open(says(&[], &[]));
    bench.may_send.set(false);
    bench.put(10..11);
    bench.may_send.set(true);
    bench.put(11..12);
    let mut answers = Vec::new();
    let request = bench.desk.write(STREAM, &mut answers).unwrap();
    assert_eq!(answers, [(10, CallResult::NotSent.into())]);
    assert_eq!(request.calls.len(), 1);
    assert_eq!(request.calls[0].messages[0].offset, 11);
}

#[test]
fn a_request_is_not_longer_than_servers_take_but_for_one_call() {
    let mut bench = Bench::open(says(&[], &[]));
    for (reply, bytes) in [(1, 100 << 10), (2, 100 << 10), (3, 100 << 10), (4, 1 << 20)] {
        bench.put_at(Duration::ZERO, reply, bytes);
    }
    assert_eq!(bench.write().0, [1, 2]);
    assert_eq!(bench.write().0, [3]);
    assert_eq!(bench.write().0, [4]);
}

#[test]
fn a_call_past_its_deadline_is_cancelled_once_and_is_over_when_the_handler_says_so() {
    let mut bench = Bench::open(credit(1));
    bench.put(10..11);
    bench.write();
    assert_eq!(bench.tick(TIMEOUT), []);
    assert_eq!(bench.tick(TIMEOUT), []);
    assert_eq!(bench.put_at(TIMEOUT, 11, 0), None);
    // It keeps its credit until it is over.
    assert_eq!(bench.write(), (vec![], vec![1]));
    assert_eq!(bench.write(), (vec![], vec![]));
    let over = Outcome {
        over: true,
        ..CallResult::TimedOut.into()
    };
    assert_eq!(bench.desk.read(says(&[], &[1])), [(10, over)]);
    assert_eq!(bench.write().0, [11]);
}

#[test]
fn a_cancelled_call_without_a_word_is_over_after_the_grace() {
    let mut bench = Bench::open(says(&[], &[]));
    bench.put(10..11);
    bench.write();
    bench.tick(TIMEOUT);
    assert_eq!(bench.tick(TIMEOUT + GRACE - Duration::from_millis(1)), []);
    assert_eq!(bench.tick(TIMEOUT + GRACE), [(10, timed_out())]);
}

#[test]
fn a_late_result_counts_if_the_message_was_done() {
    let mut bench = Bench::open(says(&[], &[]));
    bench.put(10..12);
    bench.write();
    bench.tick(TIMEOUT);
    let late = [(1, proto::Status::Done), (2, proto::Status::Permanent)];
    let answers = bench.desk.read(says(&late, &[]));
    assert_eq!(answers, [done(10), (11, timed_out())]);
}

/// What happens to calls in flight when the stream breaks and the next one begins with `welcome`.
fn after_a_break(welcome: proto::HandleResponse) -> Outcome {
    let mut bench = Bench::open(credit(1));
    bench.put(10..12);
    bench.write();
    let answers = bench.desk.close("it went away".into());
    // What was not written is not an attempt; what was is held back for the next stream.
    let [
        (
            11,
            Outcome {
                result: CallResult::NotTaken { error, .. },
                ..
            },
        ),
    ] = &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!(error, "it went away");
    let refused = bench.put_at(Duration::ZERO, 12, 0);
    assert!(matches!(
        refused,
        Some((
            12,
            Outcome {
                result: CallResult::NotTaken { .. },
                ..
            }
        ))
    ));
    let answers = bench.desk.open(STREAM + 1, welcome);
    assert!(!bench.desk.has_work(STREAM));
    let [(10, outcome)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(matches!(outcome.result, CallResult::Lost { .. }));
    outcome.clone()
}

#[test]
fn a_paused_stream_is_given_no_calls_and_its_results_still_count() {
    let mut bench = Bench::open(credit(1));
    bench.put(10..12);
    bench.write();
    let is_refused = |answers: &[Answer<u32>], reply: u32| {
        let [(to, outcome)] = answers else {
            return false;
        };
        matches!(&outcome.result, CallResult::NotTaken { error, .. } if error == "not now")
            && *to == reply
    };
    let answers = bench.desk.pause("not now".into());
    assert!(is_refused(&answers, 11), "{answers:?}");
    assert_eq!(bench.desk.takes_calls(), Err("not now"));
    let answer = bench.put_at(Duration::ZERO, 12, 0);
    assert!(is_refused(answer.as_slice(), 12), "{answer:?}");
    assert_eq!(
        bench.desk.read(says(&[(1, proto::Status::Done)], &[])),
        [done(10)]
    );
    assert!(!bench.desk.has_work(STREAM));
    bench.desk.resume();
    bench.put(13..14);
    assert_eq!(bench.write().0, [13]);
    // A pause is over with its stream.
    bench.desk.pause("not now".into());
    bench.desk.close("gone".into());
    assert_eq!(bench.desk.takes_calls(), Err("gone"));
    bench.desk.open(STREAM + 1, says(&[], &[]));
    assert_eq!(bench.desk.takes_calls(), Ok(()));
}

#[test]
fn calls_of_a_broken_stream_are_over_if_the_next_one_begins_with_nothing_running() {
    assert!(after_a_break(earlier(0)).over);
    assert!(!after_a_break(earlier(1)).over);
    assert!(
        !after_a_break(says(&[], &[])).over,
        "nothing said is not known"
    );
}

#[test]
fn calls_of_a_broken_stream_are_lost_at_the_call_bound_if_there_is_no_other_stream() {
    let mut bench = Bench::open(says(&[], &[]));
    bench.put(10..11);
    bench.write();
    bench.desk.close("it went away".into());
    assert_eq!(bench.tick(TIMEOUT + GRACE - Duration::from_millis(1)), []);
    let answers = bench.tick(TIMEOUT + GRACE);
    assert!(matches!(
        &answers[..],
        [(
            10,
            Outcome {
                result: CallResult::Lost { .. },
                over: true,
                ..
            }
        )]
    ));
    assert_eq!(bench.desk.tick(bench.start).1, None);
}

#[test]
fn the_handler_is_idle_if_it_says_so_of_earlier_calls_and_has_none_now() {
    let mut bench = Bench::open(says(&[], &[]));
    assert_eq!(bench.desk.idle(), None);
    bench.desk.read(earlier(2));
    assert_eq!(bench.desk.idle(), Some(false));
    bench.desk.read(earlier(0));
    assert_eq!(bench.desk.idle(), Some(true));
    bench.put(10..11);
    bench.write();
    assert_eq!(bench.desk.idle(), Some(false));
    bench.desk.read(says(&[(1, proto::Status::Done)], &[]));
    assert_eq!(bench.desk.idle(), Some(true));
    // Not before it has said so on the next stream.
    bench.desk.close("gone".into());
    assert_eq!(bench.desk.idle(), Some(false));
    bench.desk.open(STREAM + 1, says(&[], &[]));
    assert_eq!(bench.desk.idle(), None);
}
