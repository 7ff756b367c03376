//! Carries out a schedule: a broker, processes, load, and what happens to them.

mod acts;
mod ending;

use crate::gaps::Arrivals;
use crate::happened::Happened;
use crate::load::{self, Regression, Seen, Target};
use crate::processes::{Member, Recorder, Subject};
use crate::record::Call;
use crate::relay::Mode;
use crate::report::Teller;
use crate::schedule::Planned;
use crate::settings::has_idle_probe;
use acts::Back;
use anyhow::Result;
use ending::Leaving;
use keylane_tests::rocketmq::{Broker, Offsets};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
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
    /// Exit codes of processes that were asked to end.
    pub exits: Vec<Option<i32>>,
    /// Processes that ended without being asked to.
    pub crashed: u32,
}

struct Run<'a> {
    subject: &'a Subject,
    teller: &'a Teller,
    broker: Arc<Mutex<Broker>>,
    members: Vec<Member>,
    modes: Vec<Mode>,
    broker_away: bool,
    name_server_away: bool,
    recorder: Recorder,
    /// Uids of the pods that are gone and told of.
    gone: watch::Sender<Vec<String>>,
    leaving: Leaving,
    events: Vec<Happened>,
    /// Place in `events` of what began, by its place in the plan.
    begun: BTreeMap<usize, usize>,
    away: u32,
    back: (mpsc::UnboundedSender<Back>, mpsc::UnboundedReceiver<Back>),
    crashed: u32,
}

/// Runs the plan from its beginning to the last message.
pub async fn run(
    plan: &[Planned],
    length: Duration,
    load: Load,
    subject: &Subject,
    teller: &Teller,
) -> Result<Outcome> {
    let members = plan.iter().filter_map(|event| event.member).max();
    let members = members.map_or(0, |last| last + 1);
    let broker = Broker::start().await?;
    broker.create_topic(&subject.topic, load.queues).await?;
    let target = Target::new(&broker, &subject.topic, &subject.group, load.queues);
    let recorder = Recorder::start(members).await?;
    let (gone, told) = watch::channel(Vec::new());
    let mut places = Vec::new();
    for index in 0..members {
        let handler = recorder.handler(index);
        let probe = has_idle_probe(index, members);
        places.push(Member::new(index, &broker, handler, probe, told.clone()).await?);
    }
    let mut run = Run {
        subject,
        teller,
        broker: Arc::new(Mutex::new(broker)),
        modes: vec![Mode::Open; members],
        members: places,
        broker_away: false,
        name_server_away: false,
        recorder,
        gone,
        leaving: Leaving::default(),
        events: Vec::new(),
        begun: BTreeMap::new(),
        away: 0,
        back: mpsc::unbounded_channel(),
        crashed: 0,
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
    let exits = run.terminate_all().await;
    unwatched.cancel();
    watching.await?;
    let mut queues = BTreeMap::new();
    for (queue, end) in ends {
        let name = format!("{}/{queue}", target.broker.1);
        queues.insert(name, (end, offsets.committed(queue).await?));
    }
    let regressions = {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.regressions()
    };
    Ok(Outcome {
        calls: run.recorder.calls().await?,
        arrivals,
        regressions,
        events: run.events,
        queues,
        exits,
        crashed: run.crashed,
    })
}

/// Runs it beside everything else, and no longer than what it belongs to.
fn beside<T: 'static>(task: impl Future<Output = T> + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::task::spawn_local(task))
}

impl Run<'_> {
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
                    if begins {
                        self.begin(index, &plan[index]).await?;
                    } else {
                        self.end(index, &plan[index]).await?;
                    }
                }
                Some(back) = self.back.1.recv() => self.is_back(back),
                () = sleep_until(progress) => {
                    progress += PROGRESS_EVERY;
                    self.look_after()?;
                    self.teller.progress(self.events.len(), self.recorder.count().await?);
                }
            }
        }
        while self.away > 0 {
            if let Some(back) = self.back.1.recv().await {
                self.is_back(back);
            }
        }
        Ok(())
    }

    /// Notices processes that ended by themselves.
    fn look_after(&mut self) -> Result<()> {
        self.recorder.is_well()?;
        for (index, member) in self.members.iter_mut().enumerate() {
            if let Some(code) = member.ended() {
                self.crashed += 1;
                self.teller.crashed(index, code);
                member.stop_now();
            }
        }
        Ok(())
    }
}
