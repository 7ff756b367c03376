use super::*;

/// Calls of key `k` of one queue, as (offset, start, end); a negative end is a failure at that time.
fn calls(list: &[(i64, i64, Option<i64>)]) -> Vec<Call> {
    list.iter()
        .map(|&(offset, start, end)| Call {
            queue: "q".into(),
            key: "k".into(),
            offset,
            start,
            end: end.map(i64::abs),
            ok: end.is_some_and(|end| end > 0),
        })
        .collect()
}

fn verdict(list: &[(i64, i64, Option<i64>)]) -> Verdict {
    judge(&calls(list))
}

#[test]
fn one_after_the_other_is_in_order() {
    let verdict = verdict(&[(0, 10, Some(20)), (4, 20, Some(30)), (9, 40, Some(50))]);
    assert!(verdict.in_order(), "{:?}", verdict.examples);
    assert_eq!(
        (verdict.received, verdict.distinct, verdict.keys),
        (3, 3, 1)
    );
    assert_eq!((verdict.duplicates, verdict.failures), (0, 0));
    assert_eq!((verdict.first_at, verdict.last_at), (Some(10), Some(50)));
}

#[test]
fn a_successor_that_starts_before_its_predecessor_was_ever_handled_is_an_inversion() {
    // The record is not in order of time: offset 0 is known only from later.
    let verdict = verdict(&[(1, 10, Some(20)), (0, 30, Some(40))]);
    assert_eq!((verdict.inversions, verdict.overlaps), (1, 0));
    assert!(verdict.examples[0].contains("offset 1 started while offset 0"));
}

#[test]
fn a_successor_after_a_failure_is_an_inversion_until_the_retry_succeeded() {
    let skipped = verdict(&[(0, 10, Some(-20)), (1, 20, Some(30)), (0, 30, Some(40))]);
    assert_eq!((skipped.inversions, skipped.failures), (1, 1));
    let retried = verdict(&[(0, 10, Some(-20)), (0, 30, Some(40)), (1, 40, Some(50))]);
    assert!(retried.in_order());
}

#[test]
fn a_predecessor_that_is_never_handled_accuses_every_successor() {
    let verdict = verdict(&[(0, 10, Some(-20)), (1, 20, Some(30)), (2, 30, Some(40))]);
    assert_eq!(verdict.inversions, 2);
    assert!(verdict.examples[0].ends_with("was never handled"));
}

#[test]
fn a_message_handled_again_with_its_successors_is_a_duplicate_and_in_order() {
    let verdict = verdict(&[
        (0, 10, Some(20)),
        (1, 20, Some(30)),
        (0, 50, Some(60)),
        (1, 60, Some(70)),
        (2, 70, Some(80)),
    ]);
    assert!(verdict.in_order());
    assert_eq!((verdict.received, verdict.distinct), (5, 3));
    assert_eq!(verdict.duplicates, 2);
}

#[test]
fn running_at_once_is_an_overlap_also_for_one_message() {
    assert_eq!(verdict(&[(0, 10, Some(30)), (0, 20, Some(25))]).overlaps, 1);
    // The long call reaches over the short one to the third.
    let verdict = verdict(&[(0, 10, Some(90)), (0, 20, Some(25)), (0, 50, Some(60))]);
    assert_eq!(verdict.overlaps, 2);
}

#[test]
fn a_successor_inside_its_predecessor_is_an_inversion_and_an_overlap() {
    let verdict = verdict(&[(0, 10, Some(30)), (1, 20, Some(40))]);
    assert_eq!((verdict.inversions, verdict.overlaps), (1, 1));
}

#[test]
fn a_call_of_unknown_end_is_counted_and_accuses_nobody() {
    let verdict = verdict(&[(0, 10, None), (1, 20, Some(30))]);
    assert!(verdict.in_order(), "{:?}", verdict.examples);
    assert_eq!((verdict.unknown_ends, verdict.distinct), (1, 1));
    // But it cannot have been over before it began.
    let early = self::verdict(&[(1, 5, Some(8)), (0, 10, None)]);
    assert_eq!(early.inversions, 1);
}

#[test]
fn other_keys_and_other_queues_do_not_matter() {
    let mut list = calls(&[(0, 30, Some(40)), (1, 10, Some(20)), (2, 12, Some(35))]);
    list[1].key = "other".into();
    list[2].queue = "elsewhere".into();
    let verdict = judge(&list);
    assert!(verdict.in_order(), "{:?}", verdict.examples);
    assert_eq!(verdict.keys, 3);
}

#[test]
fn lost_is_what_was_expected_and_has_no_call_that_may_have_succeeded() {
    let list = calls(&[
        (0, 1, Some(2)),
        (1, 3, None),
        (2, 4, Some(-5)),
        (0, 6, Some(7)),
    ]);
    let verdict = judge(&list).expecting(4, &list);
    assert_eq!(verdict.lost, Some(2));
    assert_eq!(judge(&[]).lost, None);
}

#[test]
fn the_rate_counts_messages_between_the_first_start_and_the_last_end() {
    let verdict = verdict(&[(0, 0, Some(500_000)), (1, 500_000, Some(1_000_000))]);
    assert!((verdict.per_second - 2.0).abs() < 1e-9);
    assert_eq!(judge(&[]).per_second, 0.0);
}

#[test]
fn the_recorder_tells_each_change_once_and_again_if_it_did_not_arrive() {
    let recorder = Recorder::default();
    let first = recorder.start("q", "k", 0);
    recorder.end(first, true);
    recorder.end(first, false);
    let second = recorder.start("q", "k", 1);
    let taken = recorder.take_changed(10);
    assert_eq!(taken.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1]);
    assert!(taken[0].1.ok, "only the first end counts");
    assert_eq!(recorder.take_changed(10), []);
    recorder.put_back([first]);
    recorder.end(second, true);
    assert_eq!(recorder.take_changed(1).len(), 1);
    assert_eq!(recorder.take_changed(10).len(), 1);
    assert!(recorder.verdict(Some(2)).in_order());
}
