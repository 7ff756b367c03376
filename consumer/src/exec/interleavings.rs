//! The parts that threads share, in every order in which their threads may come: the same sources,
//! compiled over the locks of loom, which tries at each of them who goes next.
//!
//! All orders where they are few enough, else those in which a thread that could go on has to wait at
//! most [`PREEMPTIONS`] times.

mod sync {
    pub use super::lock::{Mutex, MutexGuard};
}

#[path = "gate.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source over other locks")]
mod gate;
mod lock;
mod with_condvar;

use gate::Gate;
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::collections::BTreeSet;
use with_condvar::runners::Line;

const PREEMPTIONS: usize = 2;

fn all_orders(test: impl Fn() + Send + Sync + 'static) {
    loom::model(test);
}

fn most_orders(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(test);
}

fn record(served: &mut Vec<u32>, items: &mut Vec<u32>) {
    served.append(items);
}

/// This thread and others put items in, and then perhaps go in themselves: all is served once when they
/// are outside, and what one thread put in keeps its order.
fn everything_is_served_once_all_are_outside(others: u32, items: u32, enters: bool) {
    let gate = Arc::new(Gate::<Vec<u32>, u32>::new(Vec::new()));
    let work = move |gate: &Gate<Vec<u32>, u32>, thread: u32| {
        for item in 0..items {
            gate.put(thread * 100 + item, record);
        }
        if enters {
            gate.enter(|served| served.push(thread * 100 + 99), record);
        }
    };
    let threads: Vec<_> = (1..=others)
        .map(|thread| {
            let gate = gate.clone();
            thread::spawn(move || work(&gate, thread))
        })
        .collect();
    work(&gate, 0);
    for thread in threads {
        thread.join().unwrap();
    }
    // `serve` must have nothing to do any more.
    let served = gate.enter(std::mem::take, |_, left| {
        panic!("left in the inbox: {left:?}")
    });
    for thread in 0..=others {
        let own = served.iter().filter(|item| **item / 100 == thread);
        let put: Vec<u32> = own
            .map(|item| item % 100)
            .filter(|item| *item != 99)
            .collect();
        assert_eq!(put, Vec::from_iter(0..items));
    }
    let each = items + u32::from(enters);
    assert_eq!(served.len() as u32, (others + 1) * each);
}

#[test]
fn a_gate_serves_everything_once_in_most_orders_of_two_threads() {
    most_orders(|| everything_is_served_once_all_are_outside(1, 2, false));
    most_orders(|| everything_is_served_once_all_are_outside(1, 1, true));
}

#[test]
fn a_gate_serves_everything_once_in_most_orders_of_three_threads() {
    most_orders(|| everything_is_served_once_all_are_outside(2, 1, false));
}

#[test]
fn what_is_put_in_while_somebody_is_inside_is_served_by_that_one() {
    all_orders(|| {
        let gate = Arc::new(Gate::<Vec<u32>, u32>::new(Vec::new()));
        gate.enter(
            |served| {
                // Another thread finds the gate closed and goes away.
                let other = gate.clone();
                let other = thread::spawn(move || {
                    other.put(7, |_, _| panic!("somebody is inside"));
                });
                other.join().unwrap();
                assert!(served.is_empty());
            },
            record,
        );
        assert_eq!(gate.enter(|served| served.clone(), record), [7]);
    });
}

/// Runners take calls that this thread and others put in; each call may give its runner another one.
/// Every call runs once, and the runners end after `close`: a wake-up that is lost would be a deadlock.
fn every_call_runs_once(runners: u32, pushes: &'static [&'static [u32]], follow: bool) {
    let line = Arc::new(Line::<u32>::default());
    let ran = Arc::new(std::sync::Mutex::new(Vec::new()));
    let runners: Vec<_> = (0..runners)
        .map(|_| {
            let (line, ran) = (line.clone(), ran.clone());
            thread::spawn(move || {
                line.run(|call| {
                    ran.lock().unwrap().push(call);
                    // The end of a call lets the next of its lane run, perhaps on this thread.
                    (follow && call < 100)
                        .then(|| line.push_and_pop(&mut vec![call + 100]))
                        .flatten()
                });
            })
        })
        .collect();
    let (own, others) = pushes.split_first().unwrap();
    let pushers: Vec<_> = others
        .iter()
        .map(|calls| {
            let line = line.clone();
            thread::spawn(move || line.push(&mut calls.to_vec()))
        })
        .collect();
    line.push(&mut own.to_vec());
    for pusher in pushers {
        pusher.join().unwrap();
    }
    line.close();
    for runner in runners {
        runner.join().unwrap();
    }
    let mut ran = ran.lock().unwrap().clone();
    let mut expected: Vec<u32> = pushes.concat();
    if follow {
        expected.extend(pushes.concat().iter().map(|call| call + 100));
    }
    ran.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ran, expected);
}

#[test]
fn every_call_runs_once_in_all_orders_of_one_runner_and_one_pusher() {
    all_orders(|| every_call_runs_once(1, &[&[1, 2]], true));
}

#[test]
fn every_call_runs_once_in_most_orders_of_two_runners_and_two_pushers() {
    most_orders(|| every_call_runs_once(2, &[&[1, 2], &[3]], false));
    most_orders(|| every_call_runs_once(2, &[&[1, 2]], true));
}

/// A call that blocks its thread keeps no other from running: it goes on only after the others ran, so one
/// that nobody takes while it is blocked would be a deadlock.
#[test]
fn a_call_that_blocks_its_thread_delays_no_other() {
    most_orders(|| {
        let line = Arc::new(Line::<u32>::default());
        let ran = Arc::new((Mutex::new(BTreeSet::new()), loom::sync::Condvar::new()));
        let runners: Vec<_> = (0..2)
            .map(|_| {
                let (line, ran) = (line.clone(), ran.clone());
                thread::spawn(move || {
                    line.run(|call| {
                        let mut done = ran.0.lock().unwrap();
                        while call == 0 && done.is_empty() {
                            done = ran.1.wait(done).unwrap();
                        }
                        done.insert(call);
                        ran.1.notify_all();
                        None
                    });
                })
            })
            .collect();
        line.push(&mut vec![0, 1]);
        let mut done = ran.0.lock().unwrap();
        while done.len() < 2 {
            done = ran.1.wait(done).unwrap();
        }
        drop(done);
        // Only now: it wakes everybody.
        line.close();
        for runner in runners {
            runner.join().unwrap();
        }
    });
}

#[test]
fn calls_run_in_the_order_they_came_and_those_withdrawn_do_not() {
    all_orders(|| {
        let line = Line::default();
        line.push(&mut vec![1, 2, 3, 4]);
        assert_eq!(line.withdraw(|call| call % 2 == 0), [2, 4]);
        assert_eq!(line.push_and_pop(&mut vec![5]), Some(1));
        line.close();
        let mut ran = Vec::new();
        line.run(|call| {
            ran.push(call);
            None
        });
        assert_eq!(ran, [3, 5]);
    });
}
