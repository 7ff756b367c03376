//! What the executor tells others of itself.

use super::Executor;
use crate::contract::admin::{Lane, LaneTarget, Lanes, QueueStats, Stats};
use crate::exec::control::Request;
use crate::handler::Handler;
use crate::lane::Input;
use crate::source::Source;

const LISTED_LANES: usize = 1_000;

impl<S: Source, H: Handler> Executor<S, H> {
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Stats(reply) => drop(reply.send(self.stats())),
            Request::Lanes(reply) => drop(reply.send(self.lane_list())),
            Request::Ready(reply) => drop(reply.send(self.ready && self.handler_ready)),
            Request::SetLanes(target, reply) => {
                if (target.term, target.sequence) >= (self.target.term, self.target.sequence) {
                    self.target = LaneTarget {
                        lanes: target.lanes.max(1),
                        ..target
                    };
                    self.lanes
                        .handle(self.clock.now(), Input::SetLanes(self.target.lanes));
                }
                let _ = reply.send(self.target);
            }
        }
    }

    fn stats(&mut self) -> Stats {
        let now = self.clock.now();
        self.lanes.handle(now, Input::Tick);
        let summary = self.lanes.summary();
        let queues = self.ownership.phases().map(|(queue, phase, assignment)| {
            let progress = assignment.and_then(|assignment| self.lanes.progress(assignment));
            let committed =
                assignment.and_then(|assignment| self.commits.get(assignment)?.acknowledged);
            QueueStats {
                broker: queue.broker.to_string(),
                id: queue.id,
                phase,
                watermark: progress.map(|progress| progress.watermark),
                committed,
                pulled: progress.map(|progress| progress.pulled),
                buffered: progress.map_or(0, |progress| progress.buffered),
                finished_above_watermark: progress.map_or(0, |progress| progress.finished_above),
            }
        });
        Stats {
            incarnation: self.options.incarnation.clone(),
            uptime_seconds: now.as_secs_f64(),
            draining: self.draining.is_some(),
            lanes: self.target,
            busy_lanes: summary.busy,
            busy_lane_seconds: summary.busy_time.as_secs_f64(),
            waiting_lanes: summary.waiting,
            live_keys: summary.live_keys,
            completed: summary.completed,
            failed: summary.failed,
            handler_available: self.handler_ready && summary.handler_available,
            broker_error: self.broker_error.clone(),
            blocked: summary.blocked_keys,
            blocked_keys: summary.blocked,
            queues: queues.collect(),
        }
    }

    fn lane_list(&self) -> Lanes {
        let mut views: Vec<_> = self.lanes.lane_views().collect();
        let live_keys = views.len() as u64;
        views.sort_by_key(|view| std::cmp::Reverse(view.messages));
        views.truncate(LISTED_LANES);
        let lanes = views.into_iter().map(|view| Lane {
            key: view.key.as_deref().unwrap_or_default().to_owned(),
            broker: view.queue.broker.to_string(),
            queue_id: view.queue.id,
            head_offset: view.head,
            messages: view.messages,
            state: view.state,
            attempts: view.attempts,
        });
        Lanes {
            target: self.target,
            live_keys,
            lanes: lanes.collect(),
        }
    }
}
