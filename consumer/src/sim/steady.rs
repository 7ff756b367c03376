//! How close the core comes to what its lanes can give, in virtual time: an endless topic, a broker that
//! answers every pull in full, and calls that all take equally long.

use crate::lane::{
    Assignment, CallId, CallResult, Finished, Held, Incoming, Input, LaneExecutor, Output, Place,
    Settings, Time,
};
use crate::message::{Message, QueueId, Text};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

/// How long a pull takes.
const PULL: Duration = Duration::from_millis(1);
/// The first messages do not count: until then not all lanes can be busy.
const WARM_UP: Duration = Duration::from_secs(1);

/// A steady load.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// Lanes of the executor.
    pub lanes: u32,
    /// Queues of the topic.
    pub queues: u32,
    /// Keys, evenly used.
    pub keys: u64,
    /// What a call takes.
    pub service: Duration,
    /// The first call of the first key never ends.
    pub stuck: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    End(CallId),
    Reply(Assignment, u64, u32),
}

impl Steady {
    /// How many messages of all keys but the first are finished in so much time.
    pub fn finished_in(&self, time: Duration) -> u64 {
        let names: Vec<Text> = (0..self.keys).map(|key| key.to_string().into()).collect();
        let settings = Settings {
            lanes: self.lanes,
            ..Settings::default()
        };
        let mut core = LaneExecutor::new(settings, 1);
        let mut events = BinaryHeap::new();
        let (mut now, mut number, mut finished, mut stuck) = (Time::ZERO, 0u64, 0, false);
        for id in 0..self.queues {
            let input = Input::Assign {
                queue: QueueId::new("b", id),
                assignment: Assignment(u64::from(id)),
                start: 0,
                lease: Time::MAX,
                finished: Finished::default(),
                held: Held::default(),
            };
            core.handle(now, input);
        }
        loop {
            while let Some(output) = core.poll_output() {
                let (at, event) = match output {
                    Output::Dispatch(call) => {
                        let first = call.key.as_str() == "0";
                        if first && self.stuck && !std::mem::replace(&mut stuck, true) {
                            continue;
                        }
                        let end = now + self.service;
                        let counts = !first && end > WARM_UP && end <= WARM_UP + time;
                        finished += u64::from(counts);
                        (end, Event::End(call.id))
                    }
                    Output::Pull {
                        assignment,
                        offset,
                        max_messages,
                        ..
                    } => (now + PULL, Event::Reply(assignment, offset, max_messages)),
                    Output::SendBack(_) | Output::Record { .. } | Output::Drained { .. } => {
                        continue;
                    }
                };
                number += 1;
                events.push(Reverse((at, number, event)));
            }
            let Some(Reverse((at, _, event))) = events
                .pop()
                .filter(|Reverse((at, ..))| *at <= WARM_UP + time)
            else {
                return finished;
            };
            now = at;
            let input = match event {
                Event::End(id) => Input::CallEnded {
                    id,
                    acked: 1,
                    result: CallResult::Done,
                },
                Event::Reply(assignment, from, most) => Input::Pulled {
                    assignment,
                    from,
                    next: from + u64::from(most),
                    messages: self.messages(&names, assignment, from, most),
                },
            };
            core.handle(now, input);
        }
    }

    fn messages(&self, names: &[Text], queue: Assignment, from: u64, most: u32) -> Vec<Incoming> {
        let incoming = |offset: u64| {
            // Each key in one queue, in no regular order.
            let within = self.keys.div_ceil(u64::from(self.queues));
            let pick = (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % within;
            let key = (pick * u64::from(self.queues) + queue.0) % self.keys;
            let message = Message {
                offset,
                key: Some(names[key as usize].clone()),
                ..Message::default()
            };
            Incoming {
                place: Place::Key,
                message: Arc::new(message),
            }
        };
        (from..from + u64::from(most)).map(incoming).collect()
    }
}
