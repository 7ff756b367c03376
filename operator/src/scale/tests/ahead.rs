//! Pods take their time to start: what is asked for is what will be needed then, and what is on its way counts.

use super::made::{EVERY, Group, SERVICE};
use super::*;

/// What a pod can do with its 16 lanes, a second.
const CAPACITY: f64 = 320.0;
const LANES: u32 = 16;
const QUEUES: usize = 24;

/// A group of one pod that has been doing what arrives, and who decides for it.
struct Story {
    group: Group,
    policy: Policy,
    history: History,
}

impl Story {
    /// With this time believed from asking for a pod to its first messages, in seconds.
    fn of(queues: usize, start: f64) -> Self {
        Self {
            group: Group::new(queues, 1, LANES),
            policy: Policy {
                max_lanes: LANES,
                max_replicas: QUEUES as u32,
                max_message_age: Duration::from_secs(60),
                ..Policy::default()
            },
            history: History::with_model(Model::given(SERVICE, CAPACITY, start)),
        }
    }

    /// So much arrives of all queues together until the next look, and what pods at work can do is finished.
    /// There are as many pods to be as are asked for.
    fn look(&mut self, arriving: f64) -> Decision {
        let finished = arriving.min(CAPACITY * self.group.at_work as f64);
        let queues = self.group.queues.len() as f64;
        self.group.pass(|_| (arriving / queues, finished / queues));
        let (decision, next) = decide(&self.group.snapshot(), &self.policy, &self.history);
        self.history = next;
        self.group.replicas = decision.replicas;
        decision
    }

    /// Looks until nothing of what arrived before is remembered.
    fn settle(&mut self, arriving: f64) {
        for _ in 0..20 {
            let decision = self.look(arriving);
            assert_eq!(decision.replicas, 1, "{}", decision.message);
        }
    }
}

#[test]
fn pods_on_their_way_are_counted_and_not_asked_for_again() {
    let mut story = Story::of(QUEUES, 40.0);
    story.settle(240.0);
    // Of 1008/s 688/s stay behind until others come, about 31,000 by then; all but ten seconds of arrivals are
    // to be gone within a minute, which makes 1356/s. A pod can carry four of the 24 queues then.
    let asked = story.look(1008.0);
    assert_eq!(
        (asked.replicas, asked.reason),
        (6, Reason::ReplicasUp),
        "{}",
        asked.message
    );
    // What is behind grows with every look, and five pods more will have worked for so much longer by the
    // time that one that is asked for now begins.
    for _ in 0..7 {
        let decision = story.look(1008.0);
        assert_eq!(decision.replicas, 6, "{}", decision.message);
    }
}

#[test]
fn a_need_much_larger_than_what_is_on_its_way_asks_again() {
    let mut story = Story::of(QUEUES, 40.0);
    story.settle(240.0);
    assert_eq!(story.look(1008.0).replicas, 6);
    for _ in 0..2 {
        assert_eq!(story.look(1008.0).replicas, 6);
    }
    let again = story.look(2400.0);
    // At 80 % of what they can do, 2400/s alone need ten.
    assert!(again.replicas >= 10, "{}", again.message);
    assert_eq!(again.reason, Reason::ReplicasUp);
}

/// What arrives, a second, when a second pod is asked for because more and more does.
fn asked_at(start: f64) -> f64 {
    let mut story = Story::of(4, start);
    let rate = |look: u32| 128.0 + 1.6 * f64::from(look);
    let asked = (0..120).find(|look| story.look(rate(*look)).replicas > 1);
    rate(asked.expect("it gets more than a pod can do"))
}

#[test]
fn what_rises_is_answered_ahead_by_the_time_that_a_pod_takes_to_start() {
    // 0.32/s more each second; nine tenths of what a pod can do are 288/s.
    for start in [25.0, 50.0, 100.0] {
        let then = asked_at(start) + 0.32 * start;
        assert!((287.0..292.0).contains(&then), "{start}: {then}");
    }
}

#[test]
fn how_long_a_pod_takes_is_learned_up_to_its_first_messages_with_the_hand_over_of_its_queues() {
    let mut story = Story::of(8, 20.0);
    story.settle(240.0);
    let asked = story.look(400.0);
    assert_eq!(asked.replicas, 2, "{}", asked.message);
    let at = story.group.seconds();
    let mut start = || {
        let decision = story.look(400.0);
        // It is ready after 20 s, and has its queues 10 s later.
        let passed = story.group.seconds() - at;
        if passed >= 20.0 {
            story.group.ready(2);
        }
        if passed >= 30.0 {
            story.group.at_work = 2;
        }
        (passed, decision.inputs.start_seconds)
    };
    for _ in 0..6 {
        let (passed, believed) = start();
        assert_eq!(believed, Some(20.0), "after {passed} s");
    }
    // Within the last five seconds: half of them are taken off.
    assert_eq!(start(), (30.0 + EVERY, Some(32.5)));
}

#[test]
fn what_is_learned_of_a_start_is_what_pods_and_hand_overs_took() {
    for handoff in [2, 20] {
        let world = World {
            start_delay: 40,
            handoff,
            ..World::default()
        };
        let step = Trace {
            rate: (0..900)
                .map(|second| if second < 300 { 200.0 } else { 400.0 })
                .collect(),
            ..trace(0.0, 0.0)
        };
        let mut setup = Setup::of(&step);
        setup.model = Some(Model::given(world.service, world.pod_cap, 15.0));
        let start = Sizes {
            lanes: setup.policy.min_lanes,
            replicas: 1,
        };
        let mut controller = Autopilot::new(&step, setup);
        run(&step, world, start, &mut controller, &mut |_, _| {});
        let (learned, takes) = (
            controller.history().model().start(),
            f64::from(world.start_delay + handoff),
        );
        // A pod is seen at one look, and to have finished something at the next.
        assert!(
            (takes..takes + 2.0 * EVERY).contains(&learned),
            "{learned} of {takes}"
        );
    }
}
