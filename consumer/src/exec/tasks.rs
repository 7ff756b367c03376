//! The tasks that wait: for brokers and for the handler. Each reports by event.

use super::clock::Clock;
use super::commits::{Answer, Due};
use super::gone::Stranded;
use super::ledger::{self, Reading, Standing};
use super::live::Placing;
use super::reset::Located;
use super::start::Starts;
use crate::contract::offsets::ResetTo;
use crate::handler::Handler;
use crate::journal::{Head, Incarnation, Log, Record};
use crate::lane::{Assignment, Incoming, Output, SendBack, Time};
use crate::message::QueueId;
use crate::ownership::Ticket;
use crate::source::{Commit, Pulled, Route, Source, SourceError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};

const POLL_GROUP: Duration = Duration::from_millis(500);
const HEARTBEAT_EVERY: u32 = 6;
const LONG_POLL: Duration = Duration::from_secs(15);
const PULL_RETRY: Duration = Duration::from_millis(500);
const HANDLER_RETRY: Duration = Duration::from_millis(250);

/// What tasks report.
#[derive(Debug)]
pub enum Event {
    HandlerReady,
    HandlerMissing(String),
    /// Nothing runs in the handler of what a former process of this pod sent there.
    HandlerIdle,
    Group(Group),
    Locked {
        broker: Arc<str>,
        asked: BTreeSet<QueueId>,
        locked: Result<BTreeSet<QueueId>, SourceError>,
    },
    /// Where the group stands in a queue.
    Read {
        queue: QueueId,
        ticket: Ticket,
        standing: Result<Standing, SourceError>,
    },
    /// Where a record lies that ownership wanted written.
    Appended {
        queue: QueueId,
        ticket: Ticket,
        offset: Result<u64, SourceError>,
    },
    /// The same of a record that tells how far a queue is.
    Recorded {
        assignment: Assignment,
        offset: Result<u64, SourceError>,
    },
    /// Where a queue that is reset goes on.
    Located {
        assignment: Assignment,
        located: Result<Located, SourceError>,
    },
    /// Where the record of a reset lies.
    ResetWritten {
        assignment: Assignment,
        offset: Result<u64, SourceError>,
    },
    /// What the journal says after that.
    ResetConfirmed {
        assignment: Assignment,
        head: Result<Head, SourceError>,
    },
    Pulled {
        assignment: Assignment,
        queue: QueueId,
        from: u64,
        pulled: Result<Batch, SourceError>,
    },
    /// Something to do that is not a call.
    Output(Output),
    SentBack {
        back: Box<SendBack>,
        result: Result<(), SourceError>,
    },
    Committed {
        due: Due,
        answer: Result<Answer, SourceError>,
    },
    Unlocked {
        queue: QueueId,
        result: Result<(), SourceError>,
    },
    /// Messages in queues that the topic has no more at this broker.
    Gone {
        broker: Arc<str>,
        found: Result<Stranded, SourceError>,
    },
}

/// The route and, for each broker that answered, the members of the group.
#[derive(Debug)]
pub struct Group {
    pub route: Result<Route, SourceError>,
    /// When the route was asked for.
    pub asked_at: Time,
    pub members: BTreeMap<Arc<str>, Result<Members, SourceError>>,
}

/// The members of the group at a broker.
#[derive(Debug)]
pub struct Members {
    pub ids: BTreeSet<String>,
    /// When the broker was started, where that was asked: after each trouble with it.
    pub started_at: Option<u64>,
}

/// A pull's messages with their keys.
#[derive(Debug)]
pub enum Batch {
    /// Everything in `[from, next)` that is not among the messages is finished.
    Messages {
        next: u64,
        messages: Vec<Incoming>,
    },
    /// The broker has removed everything in `[from, next)`.
    Removed {
        next: u64,
    },
    NoNew,
    OutOfRange {
        min: u64,
        max: u64,
    },
}

pub type Events = mpsc::UnboundedSender<Event>;

/// Waits until the handler answers.
pub async fn await_handler<H: Handler>(handler: Arc<H>, events: Events) {
    let mut said = None;
    while let Err(reason) = handler.ready().await {
        if said.as_ref() != Some(&reason) {
            let _ = events.send(Event::HandlerMissing(reason.clone()));
            said = Some(reason);
        }
        tokio::time::sleep(HANDLER_RETRY).await;
    }
    let _ = events.send(Event::HandlerReady);
}

/// Keeps this process a member of the group and reports route and members, until `leave` is set; from when on
/// `drain` is, one that takes no queues.
pub async fn follow_group<S: Source>(
    source: Arc<S>,
    clock: Arc<Clock>,
    me: String,
    events: Events,
    mut drain: watch::Receiver<bool>,
    mut leave: watch::Receiver<bool>,
) {
    let mut route = Route::default();
    let mut round = 0u32;
    // Brokers that listed us the last time, and those that know that we take no queues.
    let (mut well, mut retired) = (BTreeSet::new(), BTreeSet::new());
    let mut interval = tokio::time::interval(POLL_GROUP);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            Ok(()) = drain.changed() => {}
            _ = leave.changed() => break,
        }
        let drains = *drain.borrow_and_update();
        let asked_at = clock.now();
        // What a broker is told below is told to the end: its answer is what comes before our word that we leave.
        let fetched = tokio::select! {
            fetched = source.route() => fetched,
            _ = leave.changed() => break,
        };
        if let Ok(fetched) = &fetched {
            route = fetched.clone();
        }
        let polls = route.masters.keys().map(|broker| {
            let (source, broker) = (&source, broker.clone());
            let (is_well, retires) = (well.contains(&broker), drains && !retired.contains(&broker));
            async move {
                let polled = async {
                    let beats = round.is_multiple_of(HEARTBEAT_EVERY);
                    if beats {
                        source.heartbeat(&broker).await?;
                    }
                    if retires || drains && beats {
                        source.retire(&broker).await?;
                    }
                    let ids = source.members(&broker).await?;
                    let started_at = match is_well {
                        true => None,
                        false => source.started_at(&broker).await,
                    };
                    Ok(Members { ids, started_at })
                };
                let members = polled.await;
                (broker, members)
            }
        });
        let polled = futures::future::join_all(polls).await;
        let members: BTreeMap<_, Result<Members, SourceError>> = polled.into_iter().collect();
        let listed = |members: &Result<Members, _>| {
            members.as_ref().is_ok_and(|list| list.ids.contains(&me))
        };
        let lists_us = members.iter().filter(|(_, members)| listed(members));
        well = lists_us.map(|(broker, _)| broker.clone()).collect();
        if drains {
            retired.extend(well.iter().cloned());
        }
        // Where we are not on the list, the heartbeat must not wait for its turn.
        round = if well.len() == members.len() {
            round.wrapping_add(1)
        } else {
            0
        };
        if events
            .send(Event::Group(Group {
                route: fetched,
                asked_at,
                members,
            }))
            .is_err()
        {
            break;
        }
    }
}

pub async fn lock<S: Source>(
    source: Arc<S>,
    broker: Arc<str>,
    asked: BTreeSet<QueueId>,
    events: Events,
) {
    let locked = source.lock(&broker, &asked).await;
    let _ = events.send(Event::Locked {
        broker,
        asked,
        locked,
    });
}

/// Gives a lock back, in the name of `holder` if it is not ours.
pub async fn unlock<S: Source>(
    source: Arc<S>,
    queue: QueueId,
    holder: Option<Incarnation>,
    events: Events,
) {
    let queues = BTreeSet::from([queue.clone()]);
    let result = match holder {
        Some(holder) => source.unlock_for(&queue.broker, &queues, &holder).await,
        None => source.unlock(&queue.broker, &queues).await,
    };
    let _ = events.send(Event::Unlocked { queue, result });
}

/// Gives back the locks that `holder` may have at a broker; if that does not arrive, they end by themselves.
pub async fn free<S: Source>(
    source: Arc<S>,
    broker: Arc<str>,
    queues: Arc<BTreeSet<QueueId>>,
    holder: Incarnation,
) {
    let there = queues.iter().filter(|queue| queue.broker == broker);
    let there = there.cloned().collect();
    let _ = source.unlock_for(&broker, &there, &holder).await;
}

/// A reading to make: of which queue, on from where, and of what.
pub struct ToRead {
    pub queue: QueueId,
    pub ticket: Ticket,
    pub log: Log,
    pub reading: Reading,
}

pub async fn read<S: Source>(
    source: Arc<S>,
    starts: Arc<Starts<S>>,
    turns: Arc<Semaphore>,
    queues: Arc<BTreeSet<QueueId>>,
    to_read: ToRead,
    events: Events,
) {
    let ToRead {
        queue,
        ticket,
        log,
        reading,
    } = to_read;
    let _turn = turns.acquire().await;
    let standing = ledger::read(&*source, &starts, &queue, &queues, log, reading).await;
    let _ = events.send(Event::Read {
        queue,
        ticket,
        standing,
    });
}

/// Writes a record and reports where it lies.
pub async fn append<S: Source>(
    source: Arc<S>,
    queue: QueueId,
    record: Record,
    event: impl FnOnce(Result<u64, SourceError>) -> Event,
    events: Events,
) {
    let offset = ledger::append(source, &queue, record).await;
    let _ = events.send(event(offset));
}

/// Finds where a queue that is reset goes on, and between which offsets it is.
pub async fn locate<S: Source>(
    source: Arc<S>,
    queue: QueueId,
    to: ResetTo,
    assignment: Assignment,
    events: Events,
) {
    let locate = async {
        let (min, max) = source.bounds(&queue).await?;
        let position = match to {
            ResetTo::Earliest => min,
            ResetTo::Latest => max,
            ResetTo::Offset(offset) => offset,
            ResetTo::Time(time) => {
                let offset = source.offset_at(&queue, time.as_millisecond()).await?;
                offset.clamp(min, max)
            }
        };
        Ok(Located { position, min, max })
    };
    let located = locate.await;
    let _ = events.send(Event::Located {
        assignment,
        located,
    });
}

/// Reads whose a queue is, after the record of its reset.
pub async fn confirm<S: Source>(
    source: Arc<S>,
    queue: QueueId,
    assignment: Assignment,
    events: Events,
) {
    let head = ledger::head(&*source, &queue).await;
    let _ = events.send(Event::ResetConfirmed { assignment, head });
}

pub async fn pull<S: Source>(
    source: Arc<S>,
    placing: Arc<Placing>,
    assignment: Assignment,
    queue: QueueId,
    from: u64,
    max_messages: u32,
    events: Events,
) {
    let pulled = source
        .pull(&queue, from, max_messages, LONG_POLL)
        .await
        .map(|pulled| match pulled {
            Pulled::Found { messages, next } => {
                let messages = messages.into_iter();
                Batch::Messages {
                    next,
                    messages: messages.map(|message| placing.incoming(message)).collect(),
                }
            }
            Pulled::NoMatch { next } => Batch::Messages {
                next,
                messages: Vec::new(),
            },
            Pulled::Removed { next } => Batch::Removed { next },
            Pulled::NoNew => Batch::NoNew,
            Pulled::OutOfRange { min, max } => Batch::OutOfRange { min, max },
        });
    let _ = events.send(Event::Pulled {
        assignment,
        queue,
        from,
        pulled,
    });
}

/// When to pull again after a pull that failed.
pub fn pull_retry(now: Time) -> Time {
    now + PULL_RETRY
}

/// Sends a message back to the broker.
pub async fn send_back<S: Source>(source: Arc<S>, back: SendBack, events: Events) {
    let sent = source
        .send_back(&back.queue, &back.message, back.delay_level)
        .await;
    let _ = events.send(Event::SentBack {
        back: Box::new(back),
        result: sent,
    });
}

/// Looks at what the broker has as committed where that is due, and commits what is new unless the broker has
/// something else than it should, or the lease is over before it is sent.
pub async fn settle<S: Source>(
    source: Arc<S>,
    clock: Arc<Clock>,
    due: Due,
    lease: Time,
    events: Events,
) {
    if let Some(wanted) = due.look_for {
        let found = source.committed(&due.queue).await;
        let found = found.map(|offset| offset.map_or(Answer::Has(u64::MAX), Answer::Has));
        let right = [Answer::Has(wanted), Answer::Has(due.offset)];
        // Whether it can be reached is told by the commit, if there is one.
        let differs = found.as_ref().is_ok_and(|found| !right.contains(found));
        if due.verify_only || differs {
            let _ = events.send(Event::Committed { due, answer: found });
            return;
        }
    }
    let answer = if clock.now() < lease {
        source
            .commit(&due.queue, due.offset)
            .await
            .map(|commit| match commit {
                Commit::Stored => Answer::Has(due.offset),
                Commit::ResetPending => Answer::Unknown,
            })
    } else {
        Ok(Answer::Unknown)
    };
    let _ = events.send(Event::Committed { due, answer });
}
