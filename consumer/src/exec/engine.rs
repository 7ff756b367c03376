//! The event loop.

mod journal;
mod queues;
mod report;
mod reset;

use super::absent::Absent;
use super::broadcast::Broadcast;
use super::calls::Calls;
use super::clock::Clock;
use super::commits::Commits;
use super::control::{Control, Request};
use super::given_up::GivenUp;
use super::gone::{self, Gone};
use super::idle;
use super::ledger::Ledger;
use super::live::{self, Placing};
use super::owner::Owner;
use super::recorded::Recorded;
use super::reset::Resets;
use super::start::Starts;
use super::tasks::{self, Event, Events, Group, ToRead};
use super::troubles::Troubles;
use super::{Measures, Options};
use crate::contract::admin::LaneTarget;
use crate::contract::spec::{ConsumerSpec, Consumption};
use crate::handler::Handler;
use crate::journal::Reset;
use crate::lane::{Assignment, Input, LaneExecutor, Time};
use crate::message::QueueId;
use crate::ownership::membership::{Allocation, Membership};
use crate::ownership::{LEASE, Ownership};
use crate::source::{Route, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::{Builder, Handle as Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

const EVENTS_AT_ONCE: usize = 512;
/// A process that takes a thousand queues of a broker at once reads where the group stands in so many of
/// them at a time: the answers to all at once would come too late.
const READINGS_AT_ONCE: usize = 32;
/// Members that are new are told of in the log, so many at a time.
const TOLD_MEMBERS: usize = 32;
/// How long locks are given back for at the end; after that the broker's own expiry has to do.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A queue that runs here.
struct Assigned {
    queue: QueueId,
    lease: Time,
    drained: bool,
    /// The topic was recreated: how far we were in it means nothing any more.
    discard: bool,
    /// When a queue that is given away stops waiting for its running calls.
    give_up_at: Option<Time>,
    recorded: Recorded,
    /// The reset since which its progress counts.
    reset: Option<Reset>,
}

/// Consumes one topic for one group with one handler.
pub struct Executor<S, H> {
    source: Arc<S>,
    handler: Arc<H>,
    clock: Arc<Clock>,
    starts: Arc<Starts<S>>,
    /// Whose turn it is to read, by broker.
    readings: BTreeMap<Arc<str>, Arc<Semaphore>>,
    /// Readings to begin of queues that run here.
    heads: Vec<ToRead>,
    spec: ConsumerSpec,
    placing: Arc<Placing>,
    options: Options,
    calls: Arc<Calls<H>>,
    measures: Arc<Measures>,
    target: LaneTarget,
    owner: Owner,
    membership: Membership,
    commits: Commits,
    ledger: Ledger,
    gone: Gone,
    given_up: GivenUp,
    assigned: BTreeMap<Assignment, Assigned>,
    resets: Resets,
    /// Queues that are given up to be begun anew.
    start_over: BTreeSet<QueueId>,
    route: Route,
    absent: Absent,
    route_asked_at: Time,
    queues: Arc<BTreeSet<QueueId>>,
    events: Events,
    inbox: mpsc::UnboundedReceiver<Event>,
    requests: mpsc::Receiver<Request>,
    requests_to: mpsc::Sender<Request>,
    tasks: TaskTracker,
    /// Where messages are pulled and handled.
    outside: Runtime,
    drains: watch::Sender<bool>,
    leave: watch::Sender<bool>,
    ready: bool,
    handler_ready: bool,
    /// Since when it gives everything away.
    draining: Option<Time>,
    /// Nothing is here any more, and the group was left.
    drained: bool,
    next_persist: Time,
    /// When to look next at what brokers have as committed.
    next_check: Time,
    unlocking: u32,
    expired: u64,
    troubles: Troubles,
    unkeyed_reported: bool,
}

impl<S: Source, H: Handler> Executor<S, H> {
    /// An executor that has not begun. Messages are pulled and handled on the runtime this is called on.
    pub fn new(
        spec: &ConsumerSpec,
        options: Options,
        source: S,
        handler: H,
        measures: Measures,
    ) -> Self {
        let (source, handler) = (Arc::new(source), Arc::new(handler));
        let (clock, measures) = (Arc::new(Clock::default()), Arc::new(measures));
        let (events, inbox) = mpsc::unbounded_channel();
        let (requests_to, requests) = mpsc::channel(64);
        let timeout = spec.handler.timeout.get();
        let lanes = options.lanes.max(1);
        let settings = live::settings(spec, lanes);
        let calls = Calls::new(
            LaneExecutor::new(settings, rand::random()),
            handler.clone(),
            clock.clone(),
            timeout,
            events.clone(),
            measures.clone(),
        );
        let broadcasting = spec.consumption == Consumption::Broadcasting;
        let call_bound = live::call_bound(spec);
        Self {
            starts: Arc::new(Starts::new(source.clone(), spec.start_from.clone())),
            readings: BTreeMap::new(),
            heads: Vec::new(),
            source,
            handler,
            clock,
            placing: Arc::new(Placing::new(&spec.ordering)),
            calls: Arc::new(calls),
            measures,
            target: LaneTarget {
                lanes,
                term: 0,
                sequence: 0,
            },
            owner: if broadcasting {
                Owner::Broadcasting(Broadcast::default())
            } else {
                let me = options.incarnation.as_str().into();
                let pod = options.pod.as_deref();
                Owner::Clustering(Box::new(Ownership::new(me, pod, call_bound)))
            },
            membership: Membership::default(),
            commits: Commits::default(),
            ledger: Ledger::default(),
            gone: Gone::default(),
            given_up: GivenUp::default(),
            assigned: BTreeMap::new(),
            resets: Resets::default(),
            start_over: BTreeSet::new(),
            route: Route::default(),
            absent: Absent::default(),
            route_asked_at: Time::ZERO,
            queues: Arc::default(),
            events,
            inbox,
            requests,
            requests_to,
            tasks: TaskTracker::new(),
            outside: Runtime::current(),
            drains: watch::Sender::new(false),
            leave: watch::Sender::new(false),
            ready: false,
            handler_ready: false,
            draining: None,
            drained: false,
            next_persist: options.persist_interval,
            next_check: options.persist_interval,
            unlocking: 0,
            expired: 0,
            troubles: Troubles::default(),
            unkeyed_reported: false,
            spec: spec.clone(),
            options,
        }
    }

    /// A handle to ask and steer it with.
    pub fn control(&self) -> Control {
        Control(self.requests_to.clone())
    }

    /// Runs until `shutdown`, then drains: nothing new is dispatched, running calls finish (at most
    /// `drain.timeout`), what is finished is committed and acknowledged, locks are released last. If this
    /// future is dropped everything stops where it is.
    ///
    /// # Panics
    /// If the thread of the event loop cannot be started, or panicked.
    pub async fn run(self, shutdown: CancellationToken) {
        let (ended, end) = oneshot::channel();
        let abandoned = CancellationToken::new();
        let abandon = abandoned.clone().drop_guard();
        // A thread of its own: handlers that block every thread of the runtime must not cost a lease.
        let event_loop = std::thread::Builder::new()
            .name("keylane-events".into())
            .spawn(move || {
                let own = Builder::new_current_thread().enable_all().build();
                let serve = async {
                    tokio::select! {
                        () = self.serve(shutdown) => {}
                        () = abandoned.cancelled() => {}
                    }
                };
                let done = own.map(|own| own.block_on(serve));
                drop(ended);
                done
            })
            .expect("a thread for the event loop");
        // Its end is told by the sender that is dropped, in whichever way it ends.
        let _: Result<(), _> = end.await;
        drop(abandon);
        match event_loop.join() {
            Ok(done) => done.expect("a runtime for the event loop"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    async fn serve(mut self, shutdown: CancellationToken) {
        self.suspend();
        {
            let _there = self.outside.enter();
            self.calls.start();
        }
        self.tasks.spawn_on(
            tasks::await_handler(self.handler.clone(), self.events.clone()),
            &self.outside,
        );
        self.tasks.spawn_on(
            idle::of_unanswered(
                self.calls.clone(),
                live::call_bound(&self.spec),
                self.leave.subscribe(),
            ),
            &self.outside,
        );
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
        self.leave().await;
        while !shutdown.is_cancelled() {
            tokio::select! {
                request = self.requests.recv() => {
                    if let Some(request) = request {
                        self.answer(request);
                    }
                }
                () = shutdown.cancelled() => {}
            }
        }
        self.calls.stop();
    }

    fn is_done(&self) -> bool {
        self.draining.is_some() && self.owner.is_empty() && self.unlocking == 0
    }

    /// When a drain has taken as long as it may.
    pub(super) fn drained_by(&self) -> Option<Time> {
        Some(self.draining? + self.spec.drain.timeout.get())
    }

    fn next_deadline(&self) -> Time {
        let give_up = self
            .assigned
            .values()
            .filter_map(|assigned| assigned.give_up_at)
            .min();
        [
            self.calls.with(|lanes| lanes.next_deadline()),
            self.owner.next_deadline(self.clock.now()),
            self.resets.next_deadline(self.clock.now()),
            give_up,
            self.drained_by()
                .filter(|drained_by| *drained_by > self.clock.now()),
        ]
        .into_iter()
        .flatten()
        .fold(self.next_persist, Time::min)
    }

    pub(super) fn drain(&mut self) {
        if self.draining.is_some() {
            return;
        }
        info!(
            "draining: nothing new is dispatched, running calls finish within {:?}",
            self.spec.drain.timeout.get()
        );
        let now = self.clock.now();
        self.draining = Some(now);
        self.drains.send_replace(true);
        self.owner.allocate(now, &Allocation::default());
        self.owner
            .stop_waiting(now, now + self.spec.drain.timeout.get());
    }

    async fn leave(&mut self) {
        self.leave.send_replace(true);
        let leave = async {
            // A broker that takes in our last heartbeat after our connections ended lists us for two minutes.
            let _late = tokio::time::timeout(LEAVE_WITHIN / 2, self.drains.closed()).await;
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
            self.calls
                .with(|lanes| lanes.summary(self.clock.now()).counters.finished)
        );
        self.drained = true;
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
                if self.options.pod.is_some() && self.owner.is_clustering() {
                    let idle = idle::of_predecessors(
                        self.handler.clone(),
                        live::call_bound(&self.spec),
                        self.events.clone(),
                    );
                    self.tasks.spawn_on(idle, &self.outside);
                }
                let follow = tasks::follow_group(
                    self.source.clone(),
                    self.clock.clone(),
                    self.options.incarnation.clone(),
                    self.events.clone(),
                    self.drains.subscribe(),
                    self.leave.subscribe(),
                );
                self.tasks.spawn(follow);
            }
            Event::HandlerIdle => {
                info!("the handler is idle: nothing of an earlier process of this pod runs in it");
                self.owner.handler_idle();
            }
            Event::Group(group) => self.group(now, group),
            Event::Locked {
                broker,
                asked,
                locked,
            } => {
                let locked = self.known("a queue lock", locked);
                let locked = locked.as_ref().filter(|_| self.route_is_young(now));
                self.owner.lock_reply(now, &broker, &asked, locked);
            }
            Event::Read {
                queue,
                ticket,
                standing,
            } => {
                let standing = self.known("where the group stands", standing);
                let head = standing.map(|standing| self.ledger.take(&queue, standing));
                self.owner.read(now, &queue, ticket, head.as_ref());
            }
            Event::Appended {
                queue,
                ticket,
                offset,
            } => {
                let offset = self.known("a journal record", offset);
                self.owner.appended(now, &queue, ticket, offset);
            }
            Event::Recorded { assignment, offset } => self.recorded(assignment, offset),
            Event::Located {
                assignment,
                located,
            } => self.located(now, assignment, located),
            Event::ResetWritten { assignment, offset } => {
                self.reset_written(now, assignment, offset);
            }
            Event::ResetConfirmed { assignment, head } => {
                self.reset_confirmed(now, assignment, head);
            }
            Event::Pulled {
                assignment,
                queue,
                from,
                pulled,
            } => self.pulled(now, assignment, &queue, from, pulled),
            Event::Output(output) => self.put_out(output),
            Event::SentBack { back, result } => {
                let result = match result {
                    Ok(()) => {
                        self.measures.finished(back.message.born_at_ms);
                        self.given_up.sent_back(&back, SystemTime::now());
                        Ok(())
                    }
                    Err(error) => {
                        let text = error.to_string();
                        self.known::<()>("a message that is sent back", Err(error));
                        Err(text)
                    }
                };
                let id = back.id;
                self.calls.handle(Input::SentBack { id, result });
            }
            Event::Committed { due, answer } => self.committed(due, answer),
            Event::Gone { broker, found } => {
                let found = self.known("queues that the topic has no more", found);
                let found = found.map(|found| self.gone.found(broker, found));
                for (queue, count) in found.into_iter().flatten() {
                    warn!(
                        "queue {queue} is not the topic's any more and has {count} messages that nobody consumes: give                          the topic its queues back until they are consumed (mqadmin updateTopic -r), or leave them"
                    );
                }
            }
            Event::Unlocked { queue, result } => {
                self.unlocking -= 1;
                self.owner.unlocked(&queue);
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
                if self.troubles.heard(self.clock.now(), &text) {
                    warn!("{text}");
                }
                None
            }
        }
    }

    /// Whether what brokers say of locks counts: a lock is good only at the address that a young route names as
    /// master.
    fn route_is_young(&self, now: Time) -> bool {
        now < self.route_asked_at + LEASE
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
            let route = self.absent.complete(now, &self.route, route);
            for (broker, address) in &route.masters {
                if self
                    .route
                    .masters
                    .get(broker)
                    .is_some_and(|known| known != address)
                {
                    warn!("broker {broker} has a new master at {address}: its queues start over");
                    self.owner.master_changed(now, broker);
                }
            }
            for queue in self.queues.difference(&route.queues) {
                warn!("queue {queue} is no longer readable; it is given away");
            }
            self.queues = Arc::new(route.queues.clone());
            self.route = route;
        }
        well &= !self.queues.is_empty();
        for broker in self.absent.brokers() {
            well = false;
            let me = &self.options.incarnation;
            self.membership.listed(now, broker, me, None, None);
        }
        for (broker, members) in members {
            let members = self.known("the members of the group", members);
            let started_at = members.as_ref().and_then(|members| members.started_at);
            let ids = members.map(|members| members.ids);
            let known = self.membership.members(&broker);
            self.membership
                .listed(now, &broker, &self.options.incarnation, ids, started_at);
            let members = self.membership.members(&broker);
            // Who leaves is told of where its locks are given back.
            let came: Vec<_> = members.difference(&known).take(TOLD_MEMBERS).collect();
            if !came.is_empty() {
                let all = members.len();
                info!("the group has {all} members at broker {broker}; new to us: {came:?}");
            }
            self.owner.members(&broker, members);
        }
        if well && self.troubles.all_answer(now) {
            info!("all brokers answer");
        }
        if self.draining.is_none() {
            let mut allocation = if self.owner.is_clustering() {
                self.membership
                    .allocation(&self.queues, &self.options.incarnation)
                    .clone()
            } else {
                Allocation {
                    ours: (*self.queues).clone(),
                    ..Allocation::default()
                }
            };
            // What starts over is let go first, and taken again in a later round.
            let here: BTreeSet<_> = self.assigned.values().map(|of| of.queue.clone()).collect();
            self.start_over.retain(|queue| here.contains(queue));
            allocation
                .ours
                .retain(|queue| !self.start_over.contains(queue));
            self.ready |= well;
            if self.owner.is_clustering() {
                for (broker, from) in self.gone.due(now, &self.queues, &allocation.ours) {
                    let (source, events) = (self.source.clone(), self.events.clone());
                    self.tasks.spawn(gone::look(source, broker, from, events));
                }
            }
            self.owner.allocate(now, &allocation);
            let queues = &self.queues;
            self.ledger.retain(|queue| queues.contains(queue));
        }
    }
}
