//! What is pulled when more waits at the broker than may be in memory.

use super::*;

/// Messages that brokers gave and messages that were finished, with so many queues, until that many were:
/// every queue has always more, and a reply takes until all of a round are asked for.
fn pulled_and_finished(queues: u64, reply: u64, until: u64) -> (u64, u64) {
    let limits = Limits {
        messages: 2_000,
        ..Limits::default()
    };
    let mut rig = Rig::new(Settings {
        lanes: 100,
        limits,
        ..Settings::default()
    });
    for queue in 0..queues {
        rig.assign(queue, queue as u32, 0);
    }
    let (mut pulled, mut finished) = (0, 0);
    while finished < until {
        for (Assignment(queue), from, most) in std::mem::take(&mut rig.pulls) {
            let most = reply.min(u64::from(most));
            pulled += most;
            rig.deliver(queue, from, &vec!["*"; most as usize]);
        }
        for Call { id, .. } in std::mem::take(&mut rig.calls) {
            finished += 1;
            rig.give(Input::CallEnded {
                id,
                acked: 1,
                result: CallResult::Done,
            });
        }
    }
    assert_eq!(rig.summary().counters.pulled, pulled);
    (pulled, finished)
}

/// Each would get room that all see, and what does not fit when it comes is pulled again.
#[test]
fn queues_that_ask_at_the_same_time_pull_little_twice() {
    // At most so many are pulled for a hundred that are finished; up to 2,000 are in memory at the end.
    for (queues, reply, most) in [
        (8, 1_024, 130),
        (64, 32, 115),
        (64, 1_024, 170),
        (300, 32, 145),
    ] {
        let (pulled, finished) = pulled_and_finished(queues, reply, 30_000);
        assert!(
            pulled * 100 < finished * most,
            "{queues} queues, {reply} a reply: {pulled} pulled for {finished}"
        );
    }
}

/// Pulls that are long in coming, because their queues have nothing new, do not keep the others small.
#[test]
fn what_is_expected_and_does_not_come_leaves_room_to_the_others() {
    let limits = Limits {
        messages: 1_000,
        ..Limits::default()
    };
    let mut rig = Rig::new(Settings {
        lanes: 1,
        limits,
        ..Settings::default()
    });
    for queue in 0..10 {
        rig.assign(queue, queue as u32, 0);
    }
    // All had a large reply, are done with it, and wait for the next.
    for queue in 0..10 {
        rig.deliver(queue, 0, &["*"; 80]);
    }
    while let Some(Call { id, .. }) = rig.calls.pop() {
        rig.give(Input::CallEnded {
            id,
            acked: 1,
            result: CallResult::Done,
        });
    }
    assert_eq!(rig.core.in_memory(), InMemory::default());
    rig.pulls.clear();
    rig.deliver(0, 80, &["*"; 10]);
    let (Assignment(queue), from, most) = rig.pulls.remove(0);
    assert_eq!((queue, from), (0, 90), "it is pulled on at once");
    assert!(most >= 100, "{most}");
}
