//! Rounds that come too soon, steps that are not taken, and modes: what is owned, what is only said, and what
//! a change of mode brings.

use super::*;

fn sizes(decision: &Decision) -> Sizes {
    Sizes {
        lanes: decision.lanes,
        replicas: decision.replicas,
    }
}

#[test]
fn a_round_right_after_the_last_one_says_the_same() {
    let rough = Trace {
        hot_key_rate: Some(vec![40.0]),
        downstream_cap: Some(
            (0..900)
                .map(|second| if second < 300 { 5e3 } else { 400.0 })
                .collect(),
        ),
        ..trace(600.0, 0.0)
    };
    let policy = Setup::of(&rough).policy;
    let (mut history, mut last, mut limited) = (History::default(), None::<Decision>, 0);
    let start = Sizes {
        lanes: 4,
        replicas: 3,
    };
    by(&rough, start, |plant| {
        let since = plant.now() % 5;
        if since > 1 {
            return None;
        }
        let snapshot = Autopilot::snapshot(plant, true, true);
        let (decision, next) = decide(&snapshot, &policy, &history);
        if let Some(last) = last.as_ref().filter(|_| since == 1) {
            assert_eq!(decision.limits, last.limits);
            assert_eq!(decision.inputs, last.inputs);
            assert_eq!(decision.reason, last.reason);
            assert_eq!(sizes(&decision), sizes(last));
            assert_eq!(next.at, history.at);
            limited += u32::from(decision.limits.downstream.is_some());
        }
        history = next;
        let wanted = sizes(&decision);
        last = Some(decision);
        Some(wanted)
    });
    assert!(limited > 50, "{limited}");
}

#[test]
fn a_step_that_could_not_be_taken_is_decided_again_at_once() {
    let busy = trace(1500.0, 0.0);
    let policy = Setup::of(&busy).policy;
    let (mut history, mut refused) = (History::default(), None::<u32>);
    let mut again = Vec::new();
    let start = Sizes {
        lanes: 4,
        replicas: 1,
    };
    by(&busy, start, |plant| {
        if !plant.now().is_multiple_of(5) || again.len() > 1 {
            return None;
        }
        let snapshot = Autopilot::snapshot(plant, false, true);
        let (decision, next) = decide(&snapshot, &policy, &history);
        history = next;
        if refused.is_some() {
            again.push((decision.reason, decision.replicas));
        }
        let lanes = decision.lanes;
        if decision.replicas > 1 && refused.is_none() {
            refused = Some(decision.replicas);
            history.step_not_taken();
            return Some(Sizes { lanes, replicas: 1 });
        }
        Some(sizes(&decision))
    });
    let (reason, replicas) = again[0];
    assert_eq!(reason, Reason::ReplicasUp, "{again:?}");
    assert!(replicas >= refused.unwrap(), "{again:?}");
    // Once it was taken the next one waits for its pods.
    assert_ne!(again[1].0, Reason::ReplicasUp, "{again:?}");
}

#[test]
fn each_mode_changes_only_what_it_owns_and_says_what_it_would_do() {
    for (mode, lanes) in [
        (Mode::LanesOnly, true),
        (Mode::Advise, false),
        (Mode::Hold, false),
    ] {
        let (run, decisions) = play(&trace(1500.0, 0.0), 3, |setup| setup.policy.mode = mode);
        assert!(pods(&run).iter().all(|pods| *pods == 3), "{mode:?}");
        let most = decisions.iter().map(|decision| decision.lanes).max();
        assert_eq!(most > Some(4), lanes, "{mode:?}");
        let advised = decisions.iter().map(|decision| decision.advised).max();
        assert!(advised > Some(3), "{mode:?}");
        let advised = decisions.iter().map(|decision| decision.advised_lanes);
        assert!(advised.max() > Some(4), "{mode:?}");
        // Bounds of pods bind nobody here.
        let limited = |decision: &Decision| decision.limits.scaling.is_some();
        assert!(!decisions.iter().any(limited), "{mode:?}");
    }
}

#[test]
fn what_is_held_is_said_to_be() {
    let (_, decisions) = play(&trace(200.0, 0.0), 1, |setup| {
        setup.policy.mode = Mode::Hold
    });
    let held = |decision: &Decision| decision.reason == Reason::Held && decision.lanes == 4;
    assert!(decisions.iter().all(held));
}

#[test]
fn a_change_to_auto_moves_no_pods_down_before_their_hold_and_up_at_once() {
    let plant = Trace {
        seconds: 3000,
        ..trace(200.0, 0.0)
    };
    const SWITCH: u32 = 900;
    let mut policy = Setup::of(&plant).policy;
    let hold = policy.hold.as_secs() as usize;
    // It knows that a pod could do it all.
    let mut history = History::with_model(Model::given(0.05, 320.0, 40.0));
    let mut advised = 4;
    let start = Sizes {
        lanes: 4,
        replicas: 4,
    };
    let run = by(&plant, start, |plant| {
        if !plant.now().is_multiple_of(5) {
            return None;
        }
        policy.mode = if plant.now() < SWITCH {
            Mode::Advise
        } else {
            Mode::Auto
        };
        let snapshot = Autopilot::snapshot(plant, false, true);
        let (decision, next) = decide(&snapshot, &policy, &history);
        // An operator that starts in between knows as much.
        history = if plant.now() == SWITCH + 300 {
            serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap()
        } else {
            next
        };
        if plant.now() < SWITCH {
            advised = decision.advised;
        }
        Some(sizes(&decision))
    });
    assert!(advised < 4, "{advised}");
    let pods = pods(&run);
    let first = pods.iter().position(|pods| *pods < 4).unwrap();
    let switch = SWITCH as usize;
    assert!(first >= switch + hold, "after {} s", first - switch);
    assert!(first <= switch + hold + 60, "after {} s", first - switch);

    let (mut policy, mut history) = (Setup::of(&plant).policy, History::default());
    let busy = trace(1500.0, 0.0);
    let run = by(
        &busy,
        Sizes {
            replicas: 1,
            ..start
        },
        |plant| {
            if !plant.now().is_multiple_of(5) {
                return None;
            }
            policy.mode = if plant.now() < 300 {
                Mode::LanesOnly
            } else {
                Mode::Auto
            };
            let snapshot = Autopilot::snapshot(plant, false, true);
            let (decision, next) = decide(&snapshot, &policy, &history);
            history = next;
            Some(sizes(&decision))
        },
    );
    let first = run
        .course
        .iter()
        .position(|moment| moment.pods > 1)
        .unwrap();
    assert!((300..=310).contains(&first), "{first} s");
}

/// What of a history its next reader reads.
type Reads = fn(History) -> History;

/// Decides in one mode until a decision is as awaited, and in another from the next look on.
struct Switch {
    policy: Policy,
    to: Mode,
    awaited: fn(&Decision) -> bool,
    /// What the operator of the next look knows of what this one remembers, once modes were switched.
    reads: Reads,
    history: History,
    last: Option<Decision>,
    /// What each pod that was ready was told at each look, by name.
    told: Vec<BTreeMap<String, u32>>,
    /// Which look was the last one before the switch.
    at: Option<usize>,
}

impl Switch {
    fn new(trace: &Trace, from: Mode, to: Mode, awaited: fn(&Decision) -> bool) -> Self {
        let mut policy = Setup::of(trace).policy;
        policy.mode = from;
        Self {
            policy,
            to,
            awaited,
            reads: |history| history,
            history: History::default(),
            last: None,
            told: Vec::new(),
            at: None,
        }
    }

    /// Runs from 3 pods; returns what pods were told at the last look before the switch and at those after it.
    fn play(&mut self, trace: &Trace) -> (BTreeMap<String, u32>, Vec<BTreeMap<String, u32>>) {
        let start = Sizes {
            lanes: 4,
            replicas: 3,
        };
        run(trace, World::default(), start, self, &mut |_, _| {});
        let after = self.told.split_off(self.at.unwrap() + 1);
        assert!(after.len() > 20, "{} looks", after.len());
        (self.told.pop().unwrap(), after)
    }
}

impl Controller for Switch {
    fn decide(&mut self, plant: &Plant<'_>) -> Option<Sizes> {
        if !plant.now().is_multiple_of(5) {
            return None;
        }
        let snapshot = Autopilot::snapshot(plant, false, true);
        let (decision, next) = decide(&snapshot, &self.policy, &self.history);
        let told = plant.ready().map(|pod| &pod.name);
        let told = told.map(|pod| (pod.clone(), decision.lanes_of(pod)));
        self.told.push(told.collect());
        self.history = next;
        if self.at.is_none() && (self.awaited)(&decision) {
            self.at = Some(self.told.len() - 1);
            self.policy.mode = self.to;
        }
        if self.at.is_some() {
            self.history = (self.reads)(std::mem::take(&mut self.history));
        }
        let wanted = sizes(&decision);
        self.last = Some(decision);
        Some(wanted)
    }

    fn decision(&self) -> Option<&Decision> {
        self.last.as_ref()
    }
}

/// What is behind the handlers gets slower after five minutes.
fn capped() -> Trace {
    let cap = (0..900).map(|second| if second < 300 { 5e3 } else { 400.0 });
    Trace {
        downstream_cap: Some(cap.collect()),
        ..trace(600.0, 0.0)
    }
}

/// What an operator reads of what its predecessor wrote into so many bytes.
fn written(history: &History, most: usize) -> History {
    serde_json::from_str(&history.written(most).unwrap()).unwrap()
}

#[test]
fn pods_keep_the_lanes_they_have_when_lanes_are_left_to_somebody_else_and_new_ones_get_the_most() {
    let readers: [Reads; 3] = [
        |history| history,
        // An operator that starts at each look, and one whose predecessor had no room for lanes of pods.
        |history| written(&history, 8 << 10),
        |history| written(&history, 0),
    ];
    for (to, reads) in [Mode::Advise, Mode::Hold]
        .into_iter()
        .flat_map(|to| readers.map(|reads| (to, reads)))
    {
        let shared = |decision: &Decision| {
            decision.reason == Reason::DownstreamBound && !decision.fewer_lanes.is_empty()
        };
        let plant = capped();
        let mut switch = Switch::new(&plant, Mode::Auto, to, shared);
        switch.reads = reads;
        let (before, after) = switch.play(&plant);
        let most = *before.values().max().unwrap();
        assert!(before.values().any(|lanes| *lanes < most), "{before:?}");
        for told in after {
            for (pod, lanes) in told {
                assert_eq!(
                    lanes,
                    *before.get(&pod).unwrap_or(&most),
                    "{pod}: {before:?}"
                );
            }
        }
        let last = switch.last.unwrap();
        assert_eq!(last.lanes_of("one that was started again"), most);
        assert_eq!(last.lanes, most);
    }
}

#[test]
fn lanes_taken_for_a_try_are_given_back_when_they_are_left_to_somebody_else_meanwhile() {
    let cases: [(Mode, Reads); 2] = [
        (Mode::Hold, |history| history),
        (Mode::Advise, |history| written(&history, 0)),
    ];
    for (to, reads) in cases {
        let probing = |decision: &Decision| decision.reason == Reason::Probing;
        let plant = capped();
        let mut switch = Switch::new(&plant, Mode::LanesOnly, to, probing);
        switch.reads = reads;
        let (halved, after) = switch.play(&plant);
        let before = switch.told.pop().unwrap();
        assert!(before.values().all(|lanes| *lanes > 4), "{before:?}");
        for (pod, lanes) in &before {
            assert_eq!(halved[pod], (lanes / 2).max(4), "{before:?}");
        }
        for told in after {
            assert_eq!(told, before);
        }
        assert_ne!(switch.last.unwrap().reason, Reason::Probing);
    }
}

#[test]
fn bounds_do_not_move_lanes_that_are_somebody_elses_between_looks_either() {
    let at = |seconds| Snapshot {
        now: Duration::from_secs(seconds),
        replicas: 1,
        ready: 1,
        pods: vec![PodSample {
            incarnation: "pod".to_owned(),
            lanes: 16,
            ..PodSample::default()
        }],
        ..Snapshot::default()
    };
    let with = |mode, max_lanes| Policy {
        mode,
        max_lanes,
        ..Policy::default()
    };
    for (mode, lanes) in [(Mode::Hold, 16), (Mode::Advise, 16), (Mode::LanesOnly, 8)] {
        let (first, history) = decide(&at(100), &with(mode, 32), &History::default());
        assert_eq!(first.lanes, 16);
        for seconds in [101, 105] {
            let (decision, _) = decide(&at(seconds), &with(mode, 8), &history);
            assert_eq!(decision.lanes, lanes, "{mode:?} after {seconds}");
        }
    }
}
