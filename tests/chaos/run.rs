//! Carries out a schedule: a broker, processes, load, and what happens to them.

use crate::gaps::Arrivals;
use crate::happened::Happened;
use crate::load::{self, Regression, Seen, Target};
use crate::processes::{Member, Recorder, Subject};
use crate::record::{Call, Manner, now};
use crate::relay::Mode;
use crate::report::Teller;
use crate::schedule::{Kind, Planned};
use anyhow::Result;
use keylane_tests::rocketmq::{Broker, Offsets};
use keylane_tests::wait;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::Child;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long what is left over may take when nothing happens any more.
const LEFT_OVER: Duration = Duration::from_secs(180);
/// How long processes may take to drain.
const DRAIN: Duration = Duration::from_secs(60);
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

/// What was away and serves again.
enum Back {
    BrokerListens,
    Serves(usize),
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
    leaving: Vec<Child>,
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
        places.push(Member::new(index, &broker, handler, told.clone()).await?);
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
        leaving: Vec::new(),
        events: Vec::new(),
        begun: BTreeMap::new(),
        away: 0,
        back: mpsc::unbounded_channel(),
        crashed: 0,
    };
    let (no_more, unwatched) = (CancellationToken::new(), CancellationToken::new());
    let seen = Arc::new(Lock::new(Seen::default()));
    let producing = tokio::task::spawn_local(load::produce(
        target.clone(),
        load.rate,
        load.keys,
        no_more.clone(),
    ));
    let watching = load::watch(target.clone(), seen.clone(), unwatched.clone());
    let watching = tokio::task::spawn_local(watching);
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

    async fn begin(&mut self, index: usize, planned: &Planned) -> Result<()> {
        // On a machine that is very busy the servers may still be on their way back.
        if planned.kind.is_global() && self.broker.try_lock().is_err() {
            self.teller
                .say(&format!("{} is left out", planned.kind.name()));
            return Ok(());
        }
        // Before it is done: nothing that follows from it may be older.
        let at = now();
        let event = self.events.len();
        self.begun.insert(index, event);
        self.events.push(Happened {
            kind: planned.kind,
            member: planned.member,
            at,
            until: at,
        });
        self.teller.event(planned, at, true);
        let Some(member) = planned.member else {
            let mut broker = self.broker.lock().await;
            if planned.kind == Kind::BrokerKilled {
                broker.kill();
                self.broker_away = true;
            } else {
                broker.kill_name_server();
                self.name_server_away = true;
            }
            drop(broker);
            self.connect_all();
            return Ok(());
        };
        let place = &mut self.members[member];
        match planned.kind {
            Kind::Start => {
                self.recorder.live(member).await?;
                place.connect_handler(Mode::Open);
                place.start(self.subject)?;
            }
            Kind::Terminate => self.leaving.extend(place.terminate()),
            Kind::Kill => place.stop_now(),
            Kind::ExecutorKilled => place.start_again(self.subject)?,
            Kind::PodGone => {
                place.stop_now();
                place.connect_handler(Mode::Closed);
                self.recorder.die(member).await?;
                // Told only what is true: from here on nothing of it runs.
                let pod = place.pod();
                self.gone.send_modify(|pods| pods.push(pod));
                self.events[event].until = now();
            }
            Kind::Freeze => place.signal(Signal::STOP),
            Kind::Cut => self.connect(member, Mode::Closed),
            Kind::Silence => self.connect(member, Mode::Silent),
            Kind::HandlerSlow => self.recorder.behave(member, Manner::Slow).await?,
            Kind::HandlerFailing => self.recorder.behave(member, Manner::Failing).await?,
            Kind::HandlerDead => {
                place.connect_handler(Mode::Closed);
                self.recorder.die(member).await?;
            }
            Kind::HandlerCut => place.connect_handler(Mode::Closed),
            Kind::BrokerKilled | Kind::NameServerLost => {}
        }
        Ok(())
    }

    async fn end(&mut self, index: usize, planned: &Planned) -> Result<()> {
        let at = now();
        let Some(event) = self.begun.get(&index).copied() else {
            return Ok(());
        };
        self.teller.event(planned, at, false);
        let Some(member) = planned.member else {
            self.bring_back(event, planned.kind);
            return Ok(());
        };
        self.events[event].until = at;
        match planned.kind {
            Kind::Freeze => self.members[member].signal(Signal::CONT),
            Kind::Cut | Kind::Silence => self.connect(member, Mode::Open),
            Kind::HandlerSlow | Kind::HandlerFailing => {
                self.recorder.behave(member, Manner::Well).await?;
            }
            Kind::HandlerDead => {
                self.recorder.live(member).await?;
                self.members[member].connect_handler(Mode::Open);
            }
            _ => self.members[member].connect_handler(Mode::Open),
        }
        Ok(())
    }

    /// Starts broker or name server again, beside everything else.
    fn bring_back(&mut self, event: usize, kind: Kind) {
        self.away += 1;
        let (broker, back) = (self.broker.clone(), self.back.0.clone());
        if kind == Kind::NameServerLost {
            self.name_server_away = false;
            self.connect_all();
        }
        tokio::task::spawn_local(async move {
            let mut broker = broker.lock().await;
            let served = if kind == Kind::BrokerKilled {
                let address = broker.address();
                let listens = async {
                    while tokio::net::TcpStream::connect(&address).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let _ = back.send(Back::BrokerListens);
                };
                let (served, ()) = tokio::join!(broker.restart(), listens);
                served
            } else {
                broker.restart_name_server().await
            };
            if let Err(error) = served {
                eprintln!("RocketMQ is not back: {error}");
            }
            let _ = back.send(Back::Serves(event));
        });
    }

    fn is_back(&mut self, back: Back) {
        match back {
            Back::BrokerListens => {
                self.broker_away = false;
                self.connect_all();
            }
            Back::Serves(event) => {
                self.away -= 1;
                self.events[event].until = now();
                self.teller.serves(&self.events[event]);
            }
        }
    }

    fn connect(&mut self, member: usize, mode: Mode) {
        self.modes[member] = mode;
        self.connect_all();
    }

    /// A server that is away refuses connections, whatever the cut.
    fn connect_all(&self) {
        for (member, mode) in self.members.iter().zip(&self.modes) {
            let to = |away: bool| if away { Mode::Closed } else { *mode };
            member.connect(to(self.broker_away), to(self.name_server_away));
        }
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

    async fn until_handled(&mut self, messages: u64) -> Result<()> {
        self.teller.say(&format!(
            "no more events; {messages} messages are to be handled"
        ));
        let recorder = &self.recorder;
        let handled = wait::until(LEFT_OVER, "every message handled", async || {
            let count = recorder.count().await.map_err(|error| error.to_string())?;
            if count.handled >= messages && count.running == 0 {
                Ok(())
            } else {
                Err(format!("{count:?} of {messages} messages"))
            }
        });
        if let Err(late) = handled.await {
            // What was not handled is lost, and told as such.
            self.teller.say(&late.to_string());
        }
        self.look_after()
    }

    /// A broker may have come back only now: whoever runs a queue commits, and whoever does not cannot when
    /// it is ended.
    async fn until_committed(&self, offsets: &Offsets, ends: &BTreeMap<u32, u64>) {
        let committed = wait::until(LEFT_OVER, "every message committed", async || {
            for (queue, end) in ends {
                let committed = offsets.committed(*queue).await;
                let committed = committed.map_err(|error| error.to_string())?;
                if committed.unwrap_or(0) < *end {
                    return Err(format!("queue {queue}: {committed:?} of {end}"));
                }
            }
            Ok(())
        });
        if let Err(late) = committed.await {
            // What was not committed is told as such.
            self.teller.say(&late.to_string());
        }
    }

    async fn terminate_all(&mut self) -> Vec<Option<i32>> {
        for member in &mut self.members {
            self.leaving.extend(member.terminate());
        }
        let leaving = &mut self.leaving;
        let ended = wait::until(DRAIN, "the end of all processes", async || {
            let running = leaving.iter_mut().filter_map(|child| child.try_wait().ok());
            match running.filter(Option::is_none).count() {
                0 => Ok(()),
                running => Err(format!("{running} run")),
            }
        });
        if let Err(late) = ended.await {
            self.teller.say(&late.to_string());
        }
        let codes = leaving.iter_mut().map(|child| {
            let status = child.try_wait().ok().flatten();
            let _gone = child.kill();
            let _reaped = child.wait();
            status.and_then(|status| status.code())
        });
        codes.collect()
    }
}
