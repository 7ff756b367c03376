//! The event loop.

mod report;

use super::Options;
use super::clock::Clock;
use super::commits::{Commits, Due};
use super::control::{Control, Request};
use super::start::Starts;
use super::tasks::{self, Batch, Event, Events, Group};
use crate::contract::CANCEL_GRACE_SECONDS;
use crate::contract::admin::LaneTarget;
use crate::contract::spec::{ConsumerSpec, Key};
use crate::handler::Handler;
use crate::lane::{Assignment, Input, LaneExecutor, Output, Settings, Time};
use crate::message::QueueId;
use crate::ownership::membership::Membership;
use crate::ownership::{Action, LEASE, Ownership};
use crate::source::{Route, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

const EVENTS_AT_ONCE: usize = 512;
/// How long locks are given back for at the end; after that the broker's own expiry has to do.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A queue that runs here.
struct Assigned {
    queue: QueueId,
    lease: Time,
    drained: bool,
    /// When a queue that is given away stops waiting for its running calls.
    give_up_at: Option<Time>,
}

/// Consumes one topic for one group with one handler.
pub struct Executor<S, H> {
    source: Arc<S>,
    handler: Arc<H>,
    clock: Arc<Clock>,
    starts: Arc<Starts<S>>,
    key: Arc<Key>,
    timeout: Duration,
    drain_timeout: Duration,
    options: Options,
    lanes: LaneExecutor,
    target: LaneTarget,
    ownership: Ownership,
    membership: Membership,
    commits: Commits,
    assigned: BTreeMap<Assignment, Assigned>,
    route: Route,
    route_asked_at: Time,
    queues: Arc<BTreeSet<QueueId>>,
    events: Events,
    inbox: mpsc::UnboundedReceiver<Event>,
    requests: mpsc::Receiver<Request>,
    requests_to: mpsc::Sender<Request>,
    tasks: TaskTracker,
    leave: watch::Sender<bool>,
    ready: bool,
    handler_ready: bool,
    /// Since when the process is to end.
    draining: Option<Time>,
    next_persist: Time,
    unlocking: u32,
    broker_error: Option<String>,
    unkeyed_reported: bool,
}

impl<S: Source, H: Handler> Executor<S, H> {
    /// An executor that has not begun.
    pub fn new(spec: &ConsumerSpec, options: Options, source: S, handler: H) -> Self {
        let (source, clock) = (Arc::new(source), Arc::new(Clock::default()));
        let (events, inbox) = mpsc::unbounded_channel();
        let (requests_to, requests) = mpsc::channel(64);
        let timeout = spec.handler.timeout.get();
        let cancel_grace = Duration::from_secs(CANCEL_GRACE_SECONDS);
        let lanes = options.lanes.max(1);
        let settings = Settings {
            retry: spec.retry.clone(),
            limits: options.limits,
            timeout,
            cancel_grace,
            lanes,
        };
        Self {
            starts: Arc::new(Starts::new(
                source.clone(),
                clock.clone(),
                spec.start_from.clone(),
            )),
            source,
            handler: Arc::new(handler),
            clock,
            key: Arc::new(spec.ordering.key.clone()),
            timeout,
            drain_timeout: spec.drain.timeout.get(),
            lanes: LaneExecutor::new(settings, rand::random()),
            target: LaneTarget {
                lanes,
                term: 0,
                sequence: 0,
            },
            ownership: Ownership::new(timeout + cancel_grace),
            membership: Membership::default(),
            commits: Commits::default(),
            assigned: BTreeMap::new(),
            route: Route::default(),
            route_asked_at: Time::ZERO,
            queues: Arc::default(),
            events,
            inbox,
            requests,
            requests_to,
            tasks: TaskTracker::new(),
            leave: watch::Sender::new(false),
            ready: false,
            handler_ready: false,
            draining: None,
            next_persist: options.persist_interval,
            unlocking: 0,
            broker_error: None,
            unkeyed_reported: false,
            options,
        }
    }

    /// A handle to ask and steer it with.
    pub fn control(&self) -> Control {
        Control(self.requests_to.clone())
    }

    /// Runs until `shutdown`, then drains: nothing new is dispatched, running calls finish (at most
    /// `drain.timeout`), what is finished is committed and acknowledged, locks are released last.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.tasks.spawn(tasks::await_handler(
            self.handler.clone(),
            self.events.clone(),
        ));
        let mut arrived = Vec::with_capacity(EVENTS_AT_ONCE);
        while !self.is_done() {
            let wait = self.next_deadline().saturating_sub(self.clock.now());
            tokio::select! {
                _ = self.inbox.recv_many(&mut arrived, EVENTS_AT_ONCE) => {}
                request = self.requests.recv() => {
                    if let Some(request) = request {
                        self.answer(request);
                    }
                }
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled(), if self.draining.is_none() => self.drain(),
            }
            for event in arrived.drain(..) {
                self.take(event);
            }
            self.act();
        }
        self.end().await;
    }

    fn is_done(&self) -> bool {
        self.draining.is_some() && self.ownership.is_empty() && self.unlocking == 0
    }

    fn next_deadline(&self) -> Time {
        let give_up = self
            .assigned
            .values()
            .filter_map(|assigned| assigned.give_up_at)
            .min();
        [
            self.lanes.next_deadline(),
            self.ownership.next_deadline(),
            give_up,
        ]
        .into_iter()
        .flatten()
        .fold(self.next_persist, Time::min)
    }

    fn drain(&mut self) {
        info!(
            "draining: nothing new is dispatched, running calls finish within {:?}",
            self.drain_timeout
        );
        self.draining = Some(self.clock.now());
        self.ownership.allocate(BTreeSet::new());
    }

    async fn end(self) {
        self.leave.send_replace(true);
        let leave = async {
            for broker in self.route.masters.keys() {
                if let Err(error) = self.source.leave(broker).await {
                    warn!("leaving the group: {error}");
                }
            }
        };
        if tokio::time::timeout(LEAVE_WITHIN, leave).await.is_err() {
            warn!(
                "leaving the group took longer than {LEAVE_WITHIN:?}; the brokers will notice by themselves"
            );
        }
        info!(
            "drained: {} messages finished in this process",
            self.lanes.summary().completed
        );
    }

    fn take(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::HandlerMissing(reason) => {
                warn!("waiting for the handler, no queue is taken until it answers: {reason}");
            }
            Event::HandlerReady => {
                info!("the handler answers");
                self.handler_ready = true;
                let follow = tasks::follow_group(
                    self.source.clone(),
                    self.clock.clone(),
                    self.starts.clone(),
                    self.options.incarnation.clone(),
                    self.events.clone(),
                    self.leave.subscribe(),
                );
                self.tasks.spawn(follow);
            }
            Event::Group(group) => self.group(now, group),
            Event::Locked {
                broker,
                sent,
                asked,
                locked,
            } => {
                let locked = self.known("a queue lock", locked);
                // A renewal counts only at the address that a young route names as master.
                let route_is_young = now < self.route_asked_at + LEASE;
                self.ownership.lock_reply(
                    now,
                    sent,
                    &broker,
                    &asked,
                    locked.as_ref().filter(|_| route_is_young),
                );
            }
            Event::Start { queue, start } => match self.known("the starting offset", start) {
                Some(start) => self.ownership.start_found(now, &queue, start),
                None => self.ownership.start_failed(now, &queue),
            },
            Event::Pulled {
                assignment,
                queue,
                from,
                pulled,
            } => self.pulled(now, assignment, &queue, from, pulled),
            Event::Ended { id, result } => self.lanes.handle(now, Input::CallEnded { id, result }),
            Event::Committed { due, answer } => self.committed(due, answer),
            Event::Unlocked { queue, result } => {
                self.unlocking -= 1;
                if let Err(error) = result {
                    warn!(
                        "queue {queue} is not given back, its lock ends within a minute: {error}"
                    );
                }
            }
        }
    }

    /// Unwraps a broker's answer; an error is remembered for people to see.
    fn known<T>(&mut self, what: &str, answer: Result<T, SourceError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                let text = format!("{what}: {error}");
                if self.broker_error.as_ref() != Some(&text) {
                    warn!("{text}");
                    self.broker_error = Some(text);
                }
                None
            }
        }
    }

    fn group(
        &mut self,
        now: Time,
        Group {
            route,
            asked_at,
            members,
        }: Group,
    ) {
        let mut well = route.is_ok() && members.values().all(Result::is_ok);
        if let Some(route) = self.known("the route of the topic", route) {
            self.route_asked_at = asked_at;
            for (broker, address) in &route.masters {
                if self
                    .route
                    .masters
                    .get(broker)
                    .is_some_and(|known| known != address)
                {
                    warn!("broker {broker} has a new master at {address}: its queues start over");
                    self.ownership.master_changed(now, broker);
                }
            }
            for queue in self.queues.difference(&route.queues) {
                warn!("queue {queue} is no longer readable; it is given away");
            }
            self.queues = Arc::new(route.queues.clone());
            self.route = route;
        }
        well &= !self.queues.is_empty();
        for (broker, members) in members {
            let members = self.known("the members of the group", members);
            self.membership
                .listed(now, &broker, &self.options.incarnation, members);
        }
        if well && self.broker_error.take().is_some() {
            info!("all brokers answer");
        }
        if self.draining.is_none() {
            let allocation = self
                .membership
                .allocation(&self.queues, &self.options.incarnation);
            self.ready |= well;
            self.ownership.allocate(allocation);
        }
    }

    fn pulled(
        &mut self,
        now: Time,
        assignment: Assignment,
        queue: &QueueId,
        from: u64,
        pulled: Result<Batch, SourceError>,
    ) {
        let failed = |at| Input::PullFailed {
            assignment,
            retry_at: at,
        };
        let input = match self.known("a pull", pulled) {
            None => failed(tasks::pull_retry(now)),
            Some(Batch::NoNew) => failed(now),
            Some(Batch::Messages { next, messages }) => {
                if !self.unkeyed_reported && messages.iter().any(|keyed| keyed.key.is_none()) {
                    self.unkeyed_reported = true;
                    warn!(
                        "queue {queue} has messages without a key ({:?}): they share one lane of their queue; \
                         let producers set the key, or change spec.ordering.key",
                        self.key.from
                    );
                }
                Input::Pulled {
                    assignment,
                    from,
                    next,
                    messages,
                }
            }
            Some(Batch::OutOfRange { min, .. }) if from < min => {
                error!(
                    "queue {queue}: offsets {from} to {min} have expired at the broker; {} are lost",
                    min - from
                );
                Input::Pulled {
                    assignment,
                    from,
                    next: min,
                    messages: Vec::new(),
                }
            }
            Some(Batch::OutOfRange { min, max }) => {
                // Within the bounds a reset is pending and pulling again at ours works.
                if from > max {
                    let text = format!(
                        "queue {queue}: offset {from} is beyond the broker's {min} to {max}: the topic was recreated \
                         or truncated; nothing is consumed from it until it is reset (mqadmin resetOffsetByTime) and \
                         the pods restarted"
                    );
                    self.broker_error = Some(text).inspect(|text| error!("{text}"));
                }
                failed(now + Duration::from_secs(if from > max { 5 } else { 1 }))
            }
        };
        self.lanes.handle(now, input);
    }

    fn committed(&mut self, due: Due, answer: Result<super::commits::Answer, SourceError>) {
        let answer = self
            .known("a commit", answer)
            .unwrap_or(super::commits::Answer::Unknown);
        if self.commits.answered(&due, answer) {
            warn!(
                "queue {}: the broker had {answer:?} instead of {} as committed; put right",
                due.queue, due.offset
            );
        }
    }

    /// Carries out what the pure parts ask for, until they ask for nothing more.
    fn act(&mut self) {
        let now = self.clock.now();
        self.lanes.handle(now, Input::Tick);
        self.persist(now);
        loop {
            let actions = self.ownership.poll(now);
            let idle = actions.is_empty();
            for action in actions {
                self.carry_out(now, action);
            }
            while let Some(output) = self.lanes.poll_output() {
                self.put_out(output);
            }
            self.give_back(now);
            if idle {
                break;
            }
        }
    }

    fn carry_out(&mut self, now: Time, action: Action) {
        match action {
            Action::Lock { broker, queues } => {
                let (source, clock, events) =
                    (self.source.clone(), self.clock.clone(), self.events.clone());
                self.tasks
                    .spawn(tasks::lock(source, clock, broker, queues, events));
            }
            Action::FindStart { queue } => {
                let (starts, queues) = (self.starts.clone(), self.queues.clone());
                self.tasks.spawn(tasks::find_start(
                    starts,
                    queue,
                    queues,
                    self.events.clone(),
                ));
            }
            Action::Assign {
                queue,
                assignment,
                start,
                lease,
            } => {
                info!("queue {queue} is ours from offset {start}");
                let assigned = Assigned {
                    queue: queue.clone(),
                    lease,
                    drained: false,
                    give_up_at: None,
                };
                self.assigned.insert(assignment, assigned);
                self.commits.assigned(assignment, queue.clone());
                self.lanes.handle(
                    now,
                    Input::Assign {
                        queue,
                        assignment,
                        start,
                        lease,
                    },
                );
            }
            Action::Renew { assignment, lease } => {
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    assigned.lease = lease;
                }
                self.lanes.handle(now, Input::Renew { assignment, lease });
            }
            Action::Release { assignment } => {
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    assigned.give_up_at = Some(now + self.drain_timeout);
                }
                self.lanes.handle(now, Input::Release { assignment });
            }
            Action::Drop { queue, assignment } => {
                if self
                    .assigned
                    .remove(&assignment)
                    .is_some_and(|assigned| assigned.give_up_at.is_none())
                {
                    warn!(
                        "queue {queue} is lost; what was not committed will run again with its next owner"
                    );
                }
                self.commits.dropped(assignment);
                self.lanes.handle(now, Input::Drop { assignment });
            }
            Action::Unlock { queue } => {
                info!("queue {queue} is given back");
                self.unlocking += 1;
                self.tasks.spawn(tasks::unlock(
                    self.source.clone(),
                    queue,
                    self.events.clone(),
                ));
            }
        }
    }

    fn put_out(&mut self, output: Output) {
        match output {
            Output::Dispatch(call) => {
                let (handler, clock) = (self.handler.clone(), self.clock.clone());
                self.tasks.spawn(tasks::call(
                    handler,
                    clock,
                    call,
                    self.timeout,
                    self.events.clone(),
                ));
            }
            Output::Pull {
                assignment,
                queue,
                offset,
                max_messages,
            } => {
                let (source, key, events) =
                    (self.source.clone(), self.key.clone(), self.events.clone());
                self.tasks.spawn(tasks::pull(
                    source,
                    key,
                    assignment,
                    queue,
                    offset,
                    max_messages,
                    events,
                ));
            }
            Output::Drained { assignment } => {
                if let Some(assigned) = self.assigned.get_mut(&assignment) {
                    assigned.drained = true;
                    // Its last commit is due now, not at the next interval.
                    self.next_persist = Time::ZERO;
                }
            }
        }
    }

    /// Sends what is due to be committed.
    fn persist(&mut self, now: Time) {
        if now < self.next_persist {
            return;
        }
        self.next_persist = now + self.options.persist_interval;
        for (assignment, assigned) in &self.assigned {
            let Some(progress) = self.lanes.progress(*assignment) else {
                continue;
            };
            if let Some(due) = self.commits.due(*assignment, progress.watermark) {
                let (source, clock, events) =
                    (self.source.clone(), self.clock.clone(), self.events.clone());
                self.tasks
                    .spawn(tasks::commit(source, clock, due, assigned.lease, events));
            }
        }
    }

    /// Gives back queues that are drained and committed, or that took too long.
    fn give_back(&mut self, now: Time) {
        let mut done = Vec::new();
        for (assignment, assigned) in &self.assigned {
            let Some(give_up_at) = assigned.give_up_at else {
                continue;
            };
            let watermark = self
                .lanes
                .progress(*assignment)
                .map(|progress| progress.watermark);
            let committed = watermark
                .is_some_and(|watermark| self.commits.is_committed(*assignment, watermark));
            if assigned.drained && committed {
                done.push(assigned.queue.clone());
            } else if now >= give_up_at {
                let what = if assigned.drained {
                    "its last commit"
                } else {
                    "running calls"
                };
                warn!(
                    "queue {} is given away without waiting longer for {what}",
                    assigned.queue
                );
                done.push(assigned.queue.clone());
            } else if assigned.drained {
                // Commits that failed are sent again soon.
                self.next_persist = self.next_persist.min(now + Duration::from_millis(100));
            }
        }
        for queue in done {
            self.ownership.released(&queue);
        }
    }
}
