use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Offset, start, end, and how it ended.
type Row = (u64, Micros, Micros, bool);

fn call(id: u64, key: &str, (offset, start, end, ok): Row) -> Reported {
    Reported {
        id,
        queue: "broker/orders/0".into(),
        key: Some(key.into()),
        offset,
        start,
        end: Some(Ended { at: end, ok }),
    }
}

fn report(handler: &str, sequence: u64, at: Micros, calls: Vec<Reported>) -> Report {
    Report {
        handler: handler.into(),
        sequence,
        at,
        calls,
    }
}

fn judged(rows: &[Row]) -> Verdict {
    let calls = (1..)
        .zip(rows)
        .map(|(id, &row)| call(id, "k", row))
        .collect();
    let mut judge = Judge::default();
    judge.take(report("a", 1, 1_000_000, calls));
    judge.verdict()
}

/// Inversions and overlaps.
fn broken(rows: &[Row]) -> (u64, u64) {
    let verdict = judged(rows);
    (verdict.inversions, verdict.overlaps)
}

#[test]
fn one_after_the_other_is_in_order() {
    let verdict = judged(&[
        (1, 1_000, 2_000, true),
        (3, 2_000, 3_000, true),
        (9, 5_000, 7_500, true),
    ]);
    let expected = Verdict {
        received: 3,
        distinct: 3,
        keys: 1,
        first_at: Some(1),
        last_at: Some(7),
        ..Verdict::default()
    };
    assert_eq!(verdict, expected);
}

#[test]
fn a_successor_that_starts_while_its_predecessor_runs_is_an_inversion_and_an_overlap() {
    let verdict = judged(&[(1, 10, 20, true), (2, 19, 30, true)]);
    assert_eq!((verdict.inversions, verdict.overlaps), (1, 1));
    let told: Vec<_> = verdict
        .examples
        .iter()
        .map(|example| (example.kind, example.offset, example.other))
        .collect();
    assert_eq!(told, [(Kind::Inversion, 2, 1), (Kind::Overlap, 2, 1)]);
}

#[test]
fn a_successor_after_a_failed_predecessor_is_an_inversion() {
    assert_eq!(broken(&[(1, 10, 20, false), (2, 20, 30, true)]), (1, 0));
    let retried = [(1, 10, 20, false), (1, 25, 30, true), (2, 30, 40, true)];
    assert_eq!(broken(&retried), (0, 0));
    assert_eq!(judged(&retried).failed, 1);
}

#[test]
fn a_message_that_first_comes_last_makes_every_earlier_successor_an_inversion() {
    let rows = [(2, 10, 20, true), (3, 20, 30, true), (1, 30, 40, true)];
    assert_eq!(broken(&rows), (2, 0));
}

#[test]
fn a_handled_message_may_come_again_followed_by_its_successors() {
    let rows = [
        (1, 10, 20, true),
        (2, 20, 30, true),
        (3, 30, 40, true),
        (2, 50, 60, true),
        (3, 60, 70, true),
        (4, 70, 80, true),
    ];
    let verdict = judged(&rows);
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    assert_eq!((verdict.distinct, verdict.duplicates), (4, 2));
}

#[test]
fn two_calls_of_one_message_at_once_overlap() {
    assert_eq!(broken(&[(1, 10, 30, true), (1, 20, 25, true)]), (0, 1));
}

#[test]
fn keys_and_queues_do_not_disturb_each_other() {
    let mut judge = Judge::default();
    let mut other_queue = call(3, "a", (0, 12, 28, true));
    other_queue.queue = "broker/orders/1".into();
    let mut unkeyed = call(4, "", (3, 13, 29, true));
    unkeyed.key = None;
    let calls = vec![
        call(1, "a", (1, 10, 30, true)),
        call(2, "b", (2, 11, 29, true)),
        other_queue,
        unkeyed,
    ];
    judge.take(report("a", 1, 30, calls));
    let verdict = judge.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (0, 0));
    assert_eq!(verdict.keys, 4);
}

#[test]
fn a_call_of_another_process_counts_as_one_of_ours() {
    let mut judge = Judge::default();
    judge.take(report("b", 1, 50, vec![call(1, "k", (2, 15, 40, true))]));
    judge.take(report("a", 1, 50, vec![call(1, "k", (1, 10, 20, true))]));
    let verdict = judge.verdict();
    assert_eq!((verdict.inversions, verdict.overlaps), (1, 1));
}

#[test]
fn a_running_call_is_completed_by_a_later_report_and_a_repeated_report_is_ignored() {
    let mut judge = Judge::default();
    let mut running = call(7, "k", (1, 10, 0, true));
    running.end = None;
    judge.take(report("a", 1, 15, vec![running.clone()]));
    assert_eq!(judge.verdict().unfinished, 1);
    let ended = report("a", 2, 30, vec![call(7, "k", (1, 10, 20, true))]);
    for _ in 0..3 {
        judge.take(ended.clone());
    }
    let verdict = judge.verdict();
    assert_eq!((verdict.received, verdict.distinct), (1, 1));
    assert_eq!(verdict.unfinished, 0);
}

#[test]
fn a_call_of_a_killed_process_runs_until_its_last_sign_of_life_and_never_succeeds() {
    let lost = |next: Micros| {
        let mut judge = Judge::default();
        let mut running = call(1, "k", (1, 10, 0, true));
        running.end = None;
        judge.take(report("killed", 1, 100, vec![running]));
        let again = [(1, next, next + 10, true), (2, next + 10, next + 20, true)];
        let calls = (1..).zip(again).map(|(id, row)| call(id, "k", row));
        judge.take(report("heir", 1, 500, calls.collect()));
        let verdict = judge.verdict();
        (verdict.inversions, verdict.overlaps, verdict.unfinished)
    };
    assert_eq!(lost(100), (0, 0, 1));
    assert_eq!(lost(90), (0, 1, 1));
}

/// The definitions, word for word: quadratic.
fn reference(rows: &[Row]) -> (u64, u64) {
    let handled_by = |offset: u64, at: Micros| {
        rows.iter()
            .any(|&(o, _, end, ok)| o == offset && ok && end <= at)
    };
    let inversions = rows
        .iter()
        .filter(|(offset, start, ..)| {
            rows.iter()
                .any(|(earlier, ..)| earlier < offset && !handled_by(*earlier, *start))
        })
        .count();
    let overlaps = rows
        .iter()
        .enumerate()
        .filter(|(i, (offset, start, ..))| {
            rows.iter().enumerate().any(|(j, (o, s, e, _))| {
                // Of two calls that start at one moment the second in the order of offsets counts.
                let first = (s, o, j) < (start, offset, *i);
                first && start < e
            })
        })
        .count();
    (inversions as u64, overlaps as u64)
}

#[test]
fn random_records_are_judged_as_the_definitions_say() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rows = Vec::new();
        for _ in 0..random.random_range(0..12) {
            let start = random.random_range(0..40);
            rows.push((
                random.random_range(0..6),
                start,
                start + random.random_range(1..8),
                random.random_bool(0.8),
            ));
        }
        assert_eq!(broken(&rows), reference(&rows), "seed {seed}: {rows:?}");
    }
}
