//! What the executor tells others of itself.

use super::Executor;
use crate::contract::admin::{
    BlockedKey, GoneQueue, HotKey, Lane, LaneState, LaneTarget, Lanes, LastReset, LongKey,
    QueuePhase, QueueStats, SplitKey, Stats, StuckKey, Suspended,
};
use crate::contract::spec::ConsumerSpec;
use crate::exec::control::Request;
use crate::exec::live;
use crate::exec::redact::Redact;
use crate::handler::Handler;
use crate::journal::Reset;
use crate::lane::{self, Assignment, Input, QueueSummary, Time};
use crate::message::{QueueId, Topic};
use crate::source::Source;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::info;

const LISTED_LANES: usize = 1_000;
const LISTED_MEMBERS: usize = 32;

impl<S: Source, H: Handler> Executor<S, H> {
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Stats(reply) => drop(reply.send(self.stats())),
            Request::Lanes(reply) => drop(reply.send(self.lane_list())),
            Request::Drain(reply) => {
                self.drain();
                let _ = reply.send(());
            }
            Request::Ready(reply) => {
                let ready = self.ready && self.handler_ready && self.draining.is_none();
                let _ = reply.send(ready);
            }
            Request::PodsGone(uids, reply) => {
                for uid in uids {
                    info!("every container of pod {uid} is reported terminated");
                    self.membership.pod_gone(&uid);
                    self.owner.pod_gone(&uid);
                }
                let _ = reply.send(());
            }
            Request::ResetOffsets(request, reply) => self.reset_offsets(request, reply),
            Request::Reconfigure(spec, reply) => drop(reply.send(self.reconfigure(*spec))),
            Request::SetLanes(target, reply) => {
                if (target.term, target.sequence) >= (self.target.term, self.target.sequence) {
                    self.target = LaneTarget {
                        lanes: target.lanes.max(1),
                        ..target
                    };
                    self.calls.handle(Input::SetLanes(self.target.lanes));
                }
                let _ = reply.send(self.target);
            }
        }
    }

    /// Takes over what can change while we run; returns the other fields that differ.
    fn reconfigure(&mut self, spec: ConsumerSpec) -> Vec<String> {
        if spec.limits != self.spec.limits {
            self.calls
                .handle(Input::SetLimits(live::limits(&spec.limits)));
            self.spec.limits = spec.limits;
        }
        if spec.retry != self.spec.retry {
            self.calls.handle(Input::SetRetry(live::retry(&spec.retry)));
            self.spec.retry = spec.retry.clone();
        }
        if spec.suspend != self.spec.suspend {
            self.spec.suspend = spec.suspend.clone();
            self.suspend();
        }
        self.spec.redact_keys = spec.redact_keys;
        live::need_restart(&self.spec, &spec)
    }

    pub(super) fn redact(&self) -> Redact<'_> {
        Redact {
            group: self
                .spec
                .redact_keys
                .then_some(self.spec.consumer_group.as_str()),
        }
    }

    fn stats(&self) -> Stats {
        let now = self.clock.now();
        let redact = self.redact();
        let phases = self.owner.phases();
        let (summary, queues) = self.calls.with(|lanes| {
            lanes.handle(now, Input::Tick);
            let queues: Vec<_> = phases
                .into_iter()
                .map(|(queue, phase, assignment)| {
                    let known = assignment.and_then(|of| lanes.queue_summary(of));
                    (queue, phase, assignment, known)
                })
                .collect();
            (lanes.summary(now), queues)
        });
        let counters = summary.counters;
        let suspend = &self.spec.suspend;
        Stats {
            incarnation: self.options.incarnation.clone(),
            uptime_seconds: now.as_secs_f64(),
            draining: self.draining.is_some(),
            drained: self.drained,
            resets_offsets: true,
            lanes: self.target,
            busy_lanes: summary.busy,
            busy_lane_seconds: summary.busy_time.as_secs_f64(),
            waiting_lanes: u32::try_from(summary.waiting).unwrap_or(u32::MAX),
            live_keys: summary.live_keys,
            pulled_messages: counters.pulled,
            dispatched: counters.dispatched,
            completed: counters.finished,
            failed: counters.failed,
            retried: counters.retried,
            refused: counters.refused,
            exhausted: counters.exhausted,
            dead_lettered: counters.dead_lettered,
            dead_letters: self.given_up.told(redact),
            sent_back: counters.sent_back,
            expired: self.expired,
            skipped: self.resets.skipped,
            replayed: self.resets.replayed,
            buffered: summary.in_memory.messages,
            buffered_bytes: summary.in_memory.bytes,
            usual_handler_seconds: summary.usual_service.as_secs_f64(),
            suspended: Suspended {
                all: suspend.all,
                queues: suspend.queues.clone(),
                keys: suspend.keys.iter().map(|key| redact.key(key)).collect(),
            },
            hot_keys: summary
                .hot_keys
                .iter()
                .map(|hot| HotKey {
                    key: redact.key(&hot.key),
                    queue: hot.queue.to_string(),
                    rate: hot.rate,
                    error: hot.error,
                })
                .collect(),
            long_keys: summary
                .longest
                .iter()
                .map(|long| LongKey {
                    key: redact.key(long.key.as_str()),
                    queue: long.queue.to_string(),
                    messages: long.messages,
                })
                .collect(),
            stuck_keys: summary
                .stuck_keys
                .iter()
                .map(|stuck| stuck_key(redact, now, stuck))
                .collect(),
            split_keys: summary
                .split_keys
                .iter()
                .map(|split| SplitKey {
                    key: redact.key(&split.key),
                    queues: split.queues.clone().map(|queue| queue.to_string()),
                })
                .collect(),
            handler_available: self.handler_ready && summary.handler_available,
            foreign_members: self
                .membership
                .foreign()
                .into_iter()
                .take(LISTED_MEMBERS)
                .map(str::to_owned)
                .collect(),
            broker_error: self.troubles.latest().map(str::to_owned),
            gone_queues: self
                .gone
                .stranded()
                .take(LISTED_MEMBERS)
                .map(|(queue, stranded)| GoneQueue {
                    queue: queue.to_string(),
                    stranded,
                })
                .collect(),
            blocked: summary
                .blocked_keys
                .iter()
                .map(|blocked| BlockedKey {
                    key: redact.key(blocked.key.as_str()),
                    broker: blocked.queue.broker.to_string(),
                    queue_id: blocked.queue.id,
                    offset: blocked.offset,
                    attempts: blocked.attempts,
                    last_error: blocked.error.clone(),
                })
                .collect(),
            blocked_keys: summary.blocked,
            queues: queues
                .into_iter()
                .map(|(queue, phase, assignment, known)| {
                    self.queue_stats(&queue, phase, assignment, known)
                })
                .collect(),
        }
    }

    fn queue_stats(
        &self,
        queue: &QueueId,
        phase: QueuePhase,
        assignment: Option<Assignment>,
        known: Option<QueueSummary>,
    ) -> QueueStats {
        let stats = QueueStats {
            retry: queue.topic == Topic::Retry,
            broker: queue.broker.to_string(),
            id: queue.id,
            phase,
            committed: assignment.and_then(|of| self.commits.get(of)?.acknowledged),
            reset: assignment.and_then(|of| last_reset(self.assigned.get(&of)?.reset.as_ref()?)),
            ..QueueStats::default()
        };
        let Some(known) = known else { return stats };
        let (progress, counters) = (known.progress, known.counters);
        QueueStats {
            watermark: Some(progress.watermark),
            pulled: Some(progress.pulled),
            buffered: progress.buffered,
            finished_above_watermark: progress.finished_above,
            bytes: progress.bytes,
            live_keys: known.live_keys,
            waiting_lanes: known.waiting,
            running_lanes: progress.running,
            dispatched: counters.dispatched,
            finished: counters.finished,
            failed: counters.failed,
            retried: counters.retried,
            exhausted: counters.exhausted,
            oldest_age_seconds: known.oldest.map(|oldest| age(oldest.stored_at_ms)),
            stopped_by_limit: known.stopped,
            suspended: known.suspended,
            ..stats
        }
    }

    fn lane_list(&self) -> Lanes {
        let redact = self.redact();
        let (live_keys, views) = self.calls.with(|lanes| {
            let mut views: Vec<_> = lanes.lane_views().collect();
            let live_keys = views.len() as u64;
            views.sort_by_key(|view| std::cmp::Reverse(view.messages));
            views.truncate(LISTED_LANES);
            (live_keys, views)
        });
        let lanes = views.into_iter().map(|view| Lane {
            key: redact.key(view.key.as_str()),
            broker: view.queue.broker.to_string(),
            queue_id: view.queue.id,
            head_offset: view.head,
            messages: view.messages,
            state: state(view.state),
            attempts: view.attempts,
        });
        Lanes {
            target: self.target,
            live_keys,
            lanes: lanes.collect(),
        }
    }
}

fn last_reset(reset: &Reset) -> Option<LastReset> {
    Some(LastReset {
        id: reset.requests.first()?.to_string(),
        from: reset.from,
        position: reset.position,
        skipped: reset.skipped,
        replayed: reset.replayed,
    })
}

fn stuck_key(redact: Redact<'_>, now: Time, stuck: &lane::StuckKey) -> StuckKey {
    StuckKey {
        key: redact.key(stuck.key.key.as_str()),
        queue: stuck.key.queue.to_string(),
        offset: stuck.key.offset,
        seconds: now.saturating_sub(stuck.since).as_secs_f64(),
        state: state(stuck.state),
        attempts: stuck.key.attempts,
        messages: stuck.messages,
        last_error: stuck.key.error.clone(),
    }
}

fn state(state: lane::LaneState) -> LaneState {
    match state {
        lane::LaneState::Ready => LaneState::Ready,
        lane::LaneState::Running => LaneState::Running,
        lane::LaneState::Backoff => LaneState::Backoff,
        lane::LaneState::SendingBack => LaneState::SendingBack,
        lane::LaneState::Blocked => LaneState::Blocked,
        lane::LaneState::Suspended => LaneState::Suspended,
    }
}

/// Seconds since a time of the broker's clock, which may be ahead of ours.
fn age(at_ms: i64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    (now.unwrap_or_default().as_secs_f64() - at_ms as f64 / 1e3).max(0.0)
}
