//! The lane core, situation by situation; [`crate::sim`] puts it through all of them at once.

mod dispatch;
mod failures;
mod model;
mod pulls;
mod reports;
mod traps;

use super::*;

const BOUND: Duration = Duration::from_secs(35);

/// A core with what it put out.
struct Rig {
    core: LaneExecutor,
    now: Time,
    calls: Vec<Call>,
    pulls: Vec<(Assignment, u64, u32)>,
    backs: Vec<SendBack>,
    drained: Vec<Assignment>,
    /// The journal takes nothing.
    unrecordable: bool,
}

fn queue(id: u32) -> QueueId {
    QueueId::new("b", id)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A message in the lane of its key; `_` for the shared lane, `*` for one of its own.
fn incoming(offset: u64, key: &str) -> Incoming {
    let place = match key {
        "_" => Place::Shared,
        "*" => Place::Own,
        _ => Place::Key,
    };
    let message = Message {
        offset,
        key: (place == Place::Key).then(|| key.into()),
        ..Message::default()
    };
    Incoming {
        place,
        message: Arc::new(message),
    }
}

fn failed() -> CallResult {
    CallResult::Failed {
        error: "500".into(),
        retry_after: None,
    }
}

fn lost() -> CallResult {
    CallResult::Lost {
        error: "connection reset".into(),
    }
}

fn refused() -> CallResult {
    CallResult::NotTaken {
        error: "503".into(),
        retry_after: None,
    }
}

impl Rig {
    fn new(settings: Settings) -> Self {
        Self {
            core: LaneExecutor::new(settings, 1),
            now: Time::ZERO,
            calls: Vec::new(),
            pulls: Vec::new(),
            backs: Vec::new(),
            drained: Vec::new(),
            unrecordable: false,
        }
    }

    /// One queue, assignment 1, with messages of these keys at offsets from 0 on.
    fn loaded(lanes: u32, keys: &[&str]) -> Self {
        Self::with(
            Settings {
                lanes,
                ..Settings::default()
            },
            keys,
        )
    }

    fn with(settings: Settings, keys: &[&str]) -> Self {
        let mut rig = Self::new(settings);
        rig.assign(1, 0, 0);
        rig.deliver(1, 0, keys);
        rig
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Dispatch(call) => self.calls.push(call),
                Output::SendBack(back) => self.backs.push(back),
                Output::Pull {
                    assignment,
                    offset,
                    max_messages,
                    ..
                } => self.pulls.push((assignment, offset, max_messages)),
                Output::Record { assignment } if !self.unrecordable => self.record(assignment),
                Output::Record { .. } => {}
                Output::Drained { assignment } => self.drained.push(assignment),
            }
        }
    }

    fn record(&mut self, assignment: Assignment) {
        let suspects = self.core.suspects(assignment);
        let recorded = Input::Recorded {
            assignment,
            suspects,
        };
        self.core.handle(self.now, recorded);
    }

    fn assign(&mut self, assignment: u64, id: u32, start: u64) {
        self.assign_held(assignment, id, start, Held::default());
    }

    fn assign_held(&mut self, assignment: u64, id: u32, start: u64, held: Held) {
        self.give(Input::Assign {
            queue: queue(id),
            assignment: Assignment(assignment),
            start,
            lease: secs(1_000_000),
            finished: Finished::default(),
            held,
        });
    }

    /// Delivers messages of these keys from an offset on.
    fn deliver(&mut self, assignment: u64, from: u64, keys: &[&str]) {
        let messages = keys
            .iter()
            .zip(from..)
            .map(|(key, offset)| incoming(offset, key));
        self.give(Input::Pulled {
            assignment: Assignment(assignment),
            from,
            next: from + keys.len() as u64,
            messages: messages.collect(),
        });
    }

    /// Takes the call that runs for a message.
    fn take(&mut self, offset: u64) -> Call {
        let call = self
            .calls
            .iter()
            .position(|call| call.message.offset == offset);
        self.calls
            .remove(call.unwrap_or_else(|| panic!("{offset} is not called: {:?}", self.offsets())))
    }

    /// Ends the call of a message.
    fn end(&mut self, offset: u64, result: CallResult) -> CallId {
        let id = self.take(offset).id;
        self.give(Input::CallEnded {
            id,
            acked: 0,
            result,
        });
        id
    }

    fn done(&mut self, offset: u64) {
        self.end(offset, CallResult::Done);
    }

    /// First offsets of the calls that run, in the order of their dispatch.
    fn offsets(&self) -> Vec<u64> {
        self.calls.iter().map(|call| call.message.offset).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.give(Input::Tick);
    }

    /// Lets time pass as the core wants it, until there is a call or this much has passed.
    fn until_called(&mut self, longest: Duration) -> Duration {
        let begin = self.now;
        while self.calls.is_empty() && self.backs.is_empty() && self.now < begin + longest {
            self.now = self
                .core
                .next_deadline()
                .unwrap_or(Time::MAX)
                .min(begin + longest);
            self.give(Input::Tick);
        }
        self.now - begin
    }

    fn progress(&self, assignment: u64) -> Progress {
        self.core
            .progress(Assignment(assignment))
            .expect("an assigned queue")
    }

    fn summary(&self) -> Summary {
        self.core.summary(self.now)
    }

    fn suspend(&mut self, all: bool, queues: &[u32], keys: &[&str]) {
        self.give(Input::Suspend(Suspension {
            all,
            queues: queues.iter().map(|id| queue(*id)).collect(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        }));
    }

    fn sent_back(&mut self, result: Result<(), String>) {
        let id = self.backs.remove(0).id;
        self.give(Input::SentBack { id, result });
    }
}
