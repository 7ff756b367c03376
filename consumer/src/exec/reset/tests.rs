use super::*;
use crate::journal::{Keys, Newest, State};
use proptest::prelude::*;

const NOW: Time = Duration::from_secs(100);

fn request(id: &str) -> ResetOffsets {
    ResetOffsets {
        id: id.to_owned(),
        to: ResetTo::Earliest,
        queue: None,
        wait: false,
    }
}

fn queue() -> QueueId {
    QueueId::new("b", 1)
}

fn under_way() -> UnderWay {
    UnderWay::new(queue(), &request("a"), NOW + Duration::from_secs(10))
}

fn quiet() -> Facts {
    Facts {
        usable: true,
        ..Facts::default()
    }
}

fn located(position: u64) -> Located {
    Located {
        position,
        min: 0,
        max: 100,
    }
}

/// A journal in which this epoch ran last.
fn head(epoch: Epoch, end: u64) -> Head {
    let waiting = Keys::default();
    Head {
        end,
        newest: Some(Newest {
            epoch,
            by: "x".into(),
            state: State::Ran { waiting },
        }),
        doubtful: false,
    }
}

#[test]
fn nothing_is_begun_while_a_call_runs_an_answer_is_owed_or_the_lease_is_over() {
    let busy = [
        Facts {
            runs: true,
            ..quiet()
        },
        Facts {
            owed: true,
            ..quiet()
        },
        Facts::default(),
    ];
    for facts in busy {
        let mut of = under_way();
        assert_eq!(of.step(NOW, facts), None);
        assert!(!of.is_frozen() && !of.is_written());
        let late = NOW + Duration::from_secs(10);
        assert_eq!(of.step(late, facts), Some(Step::GiveUp));
        // Just in time.
        assert_eq!(of.step(late, quiet()), Some(Step::Locate));
    }
}

#[test]
fn a_record_whose_answer_is_lost_is_written_until_it_is_known_to_be_there() {
    let mut of = under_way();
    assert_eq!(of.step(NOW, quiet()), Some(Step::Locate));
    assert!(of.is_frozen() && !of.is_written());
    let reset = reset("a", 3, None, &Finished::new(50), located(0));
    of.located(NOW, reset.clone());
    assert_eq!(of.step(NOW, Facts::default()), None, "not past the lease");
    assert_eq!(of.step(NOW, quiet()), Some(Step::Write));
    assert_eq!(of.step(NOW, quiet()), None, "one at a time");
    of.written(NOW, None);
    // However late: there is no way back.
    let much_later = NOW + Duration::from_secs(1_000);
    assert_eq!(of.step(much_later, quiet()), Some(Step::Write));
    assert_eq!(of.reset, Some(reset));
    of.written(much_later, Some(7));
    assert!(of.is_written() && !of.is_in_force());
    assert_eq!(of.step(much_later, quiet()), Some(Step::Confirm));
    let mut later = much_later;
    // Unreadable, and read before the record could be seen.
    for head in [None, Some(head(3, 7))] {
        assert_eq!(of.confirmed(later, head.as_ref(), false), None);
        later += JOURNAL_RETRY;
        assert_eq!(of.step(later, quiet()), Some(Step::Confirm));
    }
    let reset = of.reset.clone();
    assert_eq!(of.confirmed(later, Some(&head(3, 8)), false), reset);
    assert!(of.is_in_force() && !of.is_frozen());
}

#[test]
fn a_queue_that_somebody_claimed_stays_as_it_is_until_it_is_taken_away() {
    let mut of = under_way();
    of.step(NOW, quiet());
    of.located(NOW, reset("a", 3, None, &Finished::new(50), located(0)));
    of.step(NOW, quiet());
    of.written(NOW, Some(7));
    of.step(NOW, quiet());
    let mut given_away = of.clone();
    assert_eq!(given_away.confirmed(NOW, Some(&head(3, 8)), true), None);
    assert!(given_away.is_frozen());
    assert_eq!(of.confirmed(NOW, Some(&head(6, 8)), false), None);
    let mut resets = Resets::default();
    resets.begin(Assignment(1), of);
    assert!(resets.is_written(Assignment(1)) && resets.is_frozen(Assignment(1)));
    assert_eq!(resets.suspended().collect::<Vec<_>>(), [&queue()]);
    assert_eq!(resets.next_deadline(NOW), None);
}

#[test]
fn a_request_that_was_obeyed_is_done_whoever_obeyed_it() {
    let resets = Resets::default();
    let first = reset("a", 3, None, &Finished::new(50), located(20));
    let second = reset("b", 3, Some(&first), &Finished::new(20), located(60));
    assert_eq!((first.generation.number, second.generation.number), (0, 1));
    let told = |id: &str, last| resets.of_queue(id, &queue(), Some(Assignment(1)), last);
    let a = told("a", Some(&first));
    assert_eq!((a.state, a.replayed, a.skipped), (ResetState::Done, 30, 0));
    assert_eq!((a.from, a.position), (Some(50), Some(20)));
    let b = told("b", Some(&second));
    assert_eq!((b.state, b.replayed, b.skipped), (ResetState::Done, 0, 40));
    // What came of it is known of the last one only.
    let a = told("a", Some(&second));
    assert_eq!((a.state, a.position), (ResetState::Done, None));
    assert_eq!(told("c", Some(&second)).state, ResetState::Waiting);
    assert_eq!(told("c", None).state, ResetState::Waiting);
}

#[test]
fn a_refusal_is_told_once() {
    let mut resets = Resets::default();
    resets.begin(Assignment(1), under_way());
    assert_eq!(resets.other("a"), None);
    assert_eq!(resets.other("b"), Some("a"));
    resets.refuse(Assignment(1), "why".into(), vec!["k".into()]);
    let told = resets.of_queue("a", &queue(), Some(Assignment(1)), None);
    assert_eq!(told.state, ResetState::Refused);
    assert_eq!((told.reason.as_deref(), told.keys.len()), (Some("why"), 1));
    let of_another = resets.of_queue("b", &queue(), Some(Assignment(1)), None);
    assert_eq!(of_another.state, ResetState::Waiting);
    resets.told(&ResetReport {
        id: "a".into(),
        to: ResetTo::Earliest,
        skipped: 0,
        replayed: 0,
        queues: vec![told],
    });
    assert_eq!(resets.refusal(&queue(), "a"), None);
}

#[test]
fn requests_that_cannot_be_obeyed_say_what_to_write() {
    let said = |change: fn(&mut ResetOffsets)| {
        let mut request = request("a");
        change(&mut request);
        check(&request).unwrap_err().to_string()
    };
    assert!(said(|of| of.id = "a b".into()).contains("id is \"a b\""));
    assert!(said(|of| of.to = ResetTo::Offset(7)).contains("queue"));
    assert!(said(|of| of.queue = Some("broker".into())).contains("broker-a/0"));
    assert_eq!(check(&request("a")), Ok(()));
}

proptest! {
    /// Against a count, offset by offset.
    #[test]
    fn what_is_skipped_and_what_comes_again_is_counted(
        watermark in 0u64..100, ranges in prop::collection::vec((0u64..100, 0u64..20), 0..5),
        min in 0u64..50, position in 0u64..100
    ) {
        let position = position.max(min);
        let mut finished = Finished::new(watermark);
        for (from, length) in ranges {
            finished.finish_range(from, (from + length).min(100));
        }
        let located = Located { position, min, max: 100 };
        let reset = reset("a", 3, None, &finished, located);
        let skipped = (min..position).filter(|offset| !finished.contains(*offset)).count();
        let replayed = (position..100).filter(|offset| finished.contains(*offset)).count();
        prop_assert_eq!((reset.skipped, reset.replayed), (skipped as u64, replayed as u64));
        prop_assert_eq!(reset.until, 100);
    }
}

#[test]
fn a_second_reset_does_not_forget_how_far_it_was_before_the_first() {
    let first = reset("a", 3, None, &Finished::new(50), located(0));
    let shorter = Located {
        max: 80,
        ..located(0)
    };
    let second = reset("b", 9, Some(&first), &Finished::new(5), shorter);
    assert_eq!(second.until, 100);
    assert_eq!(second.generation.epoch, 9);
}
