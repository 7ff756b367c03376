//! Carries out a schedule: members and servers on their ground, load, and what happens to them.

mod ending;

use crate::course::Course;
use crate::gaps::Arrivals;
use crate::ground::Ground;
use crate::happened::{Happened, note_listed};
use crate::load::{self, Regression, Seen};
use crate::record::Call;
use crate::schedule::Planned;
use anyhow::Result;
use keylane_tests::rocketmq::Offsets;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const PROGRESS_EVERY: Duration = Duration::from_secs(20);

/// How much is sent and to how many queues.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages a second.
    pub rate: u32,
    /// Keys.
    pub keys: u64,
    /// Queues.
    pub queues: u32,
}

/// What came of a run.
pub struct Outcome {
    /// Every handler call.
    pub calls: Vec<Call>,
    /// When each message was stored, as far as its sender learnt it.
    pub arrivals: Arrivals,
    /// What happened.
    pub events: Vec<Happened>,
    /// Committed offsets that went back.
    pub regressions: Vec<Regression>,
    /// By queue: its end, and what was committed at last.
    pub queues: BTreeMap<String, (u64, Option<u64>)>,
    /// Exit codes of members that were asked to end.
    pub exits: Vec<Option<i32>>,
    /// Members that ended without being asked to.
    pub crashed: u32,
}

struct Run<'a, G> {
    ground: G,
    course: Course<'a>,
    /// Place in the course of what began, by its place in the plan.
    begun: BTreeMap<usize, usize>,
}

/// Runs the plan from its beginning to the last message.
pub async fn run<G: Ground>(
    plan: &[Planned],
    length: Duration,
    load: Load,
    ground: G,
    course: Course<'_>,
) -> Result<Outcome> {
    let target = ground.target().clone();
    let mut run = Run {
        ground,
        course,
        begun: BTreeMap::new(),
    };
    let (no_more, unwatched) = (CancellationToken::new(), CancellationToken::new());
    let seen = Arc::new(Lock::new(Seen::default()));
    let producing = load::produce(target.clone(), load.rate, load.keys, no_more.clone());
    let producing = beside(producing);
    let watching = beside(load::watch(target.clone(), seen.clone(), unwatched.clone()));
    run.carry_out(plan, length).await?;
    no_more.cancel();
    let arrivals = producing.await?;
    let offsets = Offsets::connect(&target.broker.0, &target.topic, &target.group).await?;
    let mut ends = BTreeMap::new();
    for queue in 0..load.queues {
        ends.insert(queue, offsets.end(queue).await?);
    }
    run.until_handled(ends.values().sum()).await?;
    run.until_committed(&offsets, &ends).await;
    let exits = run.ground.end_all(&mut run.course).await?;
    unwatched.cancel();
    watching.await?;
    let mut queues = BTreeMap::new();
    for (queue, end) in ends {
        let name = format!("{}/{queue}", target.broker.1);
        queues.insert(name, (end, offsets.committed(queue).await?));
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let listed = seen.listed.iter().filter_map(|(client, (first, last))| {
        let member = run.ground.member_of(client)?;
        Some((member, *first, *last))
    });
    let listed: Vec<_> = listed.collect();
    let (recorder, mut events, crashed) = run.course.end();
    note_listed(&mut events, &listed);
    Ok(Outcome {
        calls: recorder.calls().await?,
        arrivals,
        regressions: seen.regressions(),
        events,
        queues,
        exits,
        crashed,
    })
}

/// Runs it beside everything else, and no longer than what it belongs to.
fn beside<T: 'static>(task: impl Future<Output = T> + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::task::spawn_local(task))
}

impl<G: Ground> Run<'_, G> {
    async fn carry_out(&mut self, plan: &[Planned], length: Duration) -> Result<()> {
        let start = Instant::now();
        let begins = plan
            .iter()
            .enumerate()
            .map(|(index, event)| (event.at, index, true));
        let lasting = plan
            .iter()
            .enumerate()
            .filter(|(_, event)| !event.lasts.is_zero());
        let ends = lasting.map(|(index, event)| (event.until(), index, false));
        let mut steps: Vec<_> = begins.chain(ends).collect();
        steps.sort();
        let mut steps = steps.into_iter().peekable();
        let mut progress = start + PROGRESS_EVERY;
        loop {
            let next = steps.peek().map_or(start + length, |step| start + step.0);
            tokio::select! {
                () = sleep_until(next) => {
                    let Some((_, index, begins)) = steps.next() else { break };
                    self.step(index, &plan[index], begins).await?;
                }
                news = self.ground.news() => self.ground.hear(&mut self.course, news).await?,
                () = sleep_until(progress) => {
                    progress += PROGRESS_EVERY;
                    self.look_after()?;
                    let count = self.course.recorder.count().await?;
                    self.course.teller.progress(self.course.events().len(), count);
                }
            }
        }
        while !self.ground.is_whole() {
            let news = self.ground.news().await;
            self.ground.hear(&mut self.course, news).await?;
        }
        Ok(())
    }

    async fn step(&mut self, index: usize, planned: &Planned, begins: bool) -> Result<()> {
        if begins {
            if let Some(event) = self.ground.begin(&mut self.course, planned).await? {
                self.begun.insert(index, event);
            }
        } else if let Some(event) = self.begun.get(&index).copied() {
            self.ground.end(&mut self.course, planned, event).await?;
        }
        Ok(())
    }

    /// Notices members that ended by themselves.
    fn look_after(&mut self) -> Result<()> {
        self.course.recorder.is_well()?;
        self.ground.look_after(&mut self.course);
        Ok(())
    }
}
