//! Members that are processes of this machine, with a broker of their own.
//!
//! Each has TCP relays of its own to broker, name server and handler, which is where connections are cut.

mod gone;
mod leaving;
mod member;
mod relay;

use crate::course::Course;
use crate::ground::Ground;
use crate::load::Target;
use crate::record::{Manner, now};
use crate::recording::Recorder;
use crate::schedule::{Kind, Planned};
use crate::settings::has_idle_probe;
use crate::subject::Subject;
use anyhow::Result;
use keylane_tests::rocketmq::Broker;
use keylane_tests::wait;
use leaving::Leaving;
use member::Member;
use relay::Mode;
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};

/// How long processes may take to drain.
const DRAIN: Duration = Duration::from_secs(60);

/// What was away and is back.
pub enum Back {
    BrokerListens,
    Serves(usize),
}

/// A broker and processes.
pub struct Processes<'a> {
    subject: &'a Subject,
    target: Target,
    broker: Arc<Mutex<Broker>>,
    members: Vec<Member>,
    modes: Vec<Mode>,
    broker_away: bool,
    name_server_away: bool,
    /// Uids of the pods that are gone and told of.
    gone: watch::Sender<Vec<String>>,
    leaving: Leaving,
    away: u32,
    back: (mpsc::UnboundedSender<Back>, mpsc::UnboundedReceiver<Back>),
}

impl<'a> Processes<'a> {
    /// A broker with the topic, and places for so many processes.
    pub async fn start(
        subject: &'a Subject,
        (queues, members): (u32, usize),
    ) -> Result<(Self, Recorder)> {
        let broker = Broker::start().await?;
        broker.create_topic(&subject.topic, queues).await?;
        let recorder = Recorder::start(members).await?;
        let (gone, told) = watch::channel(Vec::new());
        let mut places = Vec::new();
        for index in 0..members {
            let handler = recorder.handler(index);
            let probe = has_idle_probe(index, members);
            places.push(Member::new(index, &broker, handler, probe, told.clone()).await?);
        }
        let processes = Self {
            subject,
            target: Target {
                name_server: broker.name_server(),
                broker: (broker.address(), broker.name()),
                topic: subject.topic.clone(),
                group: subject.group.clone(),
                queues,
            },
            broker: Arc::new(Mutex::new(broker)),
            members: places,
            modes: vec![Mode::Open; members],
            broker_away: false,
            name_server_away: false,
            gone,
            leaving: Leaving::default(),
            away: 0,
            back: mpsc::unbounded_channel(),
        };
        Ok((processes, recorder))
    }

    async fn begin_for_all(&mut self, kind: Kind) {
        let mut broker = self.broker.lock().await;
        if kind == Kind::BrokerKilled {
            broker.kill();
            self.broker_away = true;
        } else {
            broker.kill_name_server();
            self.name_server_away = true;
        }
        drop(broker);
        self.connect_all();
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
}

impl Ground for Processes<'_> {
    type News = Back;

    fn target(&self) -> &Target {
        &self.target
    }

    fn member_of(&self, client: &str) -> Option<usize> {
        member::of_client(client)
    }

    async fn begin(&mut self, course: &mut Course<'_>, planned: &Planned) -> Result<Option<usize>> {
        // Before it takes a process away of which nobody would learn that it had ended by itself.
        self.look_after(course);
        // On a machine that is very busy the servers may still be on their way back.
        if planned.kind.is_global() && self.broker.try_lock().is_err() {
            let name = planned.kind.name();
            course.teller.say(&format!("{name} is left out"));
            return Ok(None);
        }
        // Before it is done: nothing that follows from it may be older.
        let event = course.begins(planned.kind, planned.member, now(), planned.lasts);
        let Some(member) = planned.member else {
            self.begin_for_all(planned.kind).await;
            return Ok(Some(event));
        };
        let recorder = &course.recorder;
        let place = &mut self.members[member];
        match planned.kind {
            Kind::Start => {
                recorder.live(member).await?;
                place.connect_handler(Mode::Open);
                place.start(self.subject)?;
            }
            Kind::Terminate => self.leaving.add(place.terminate()),
            Kind::Kill => place.stop_now(),
            Kind::ExecutorKilled | Kind::ExecutorKilledUnprobed => {
                place.start_again(self.subject)?;
            }
            Kind::PodGone => {
                place.stop_now();
                place.connect_handler(Mode::Closed);
                recorder.die(member).await?;
                // Told only what is true: from here on nothing of it runs.
                let pod = place.pod();
                self.gone.send_modify(|pods| pods.push(pod));
                course.is_known(event, now());
            }
            Kind::Freeze => place.signal(Signal::STOP),
            Kind::Cut => self.connect(member, Mode::Closed),
            Kind::Silence => self.connect(member, Mode::Silent),
            Kind::HandlerSlow => recorder.behave(member, Manner::Slow).await?,
            Kind::HandlerFailing => recorder.behave(member, Manner::Failing).await?,
            Kind::HandlerDead => {
                place.connect_handler(Mode::Closed);
                recorder.die(member).await?;
            }
            Kind::HandlerCut => place.connect_handler(Mode::Closed),
            // Of all members, or of pods.
            Kind::BrokerKilled
            | Kind::NameServerLost
            | Kind::OperatorKilled
            | Kind::PodDeleted
            | Kind::ForcedDeletion
            | Kind::ContainersKilled => {}
        }
        Ok(Some(event))
    }

    async fn end(
        &mut self,
        course: &mut Course<'_>,
        planned: &Planned,
        event: usize,
    ) -> Result<()> {
        course.ends(event, now());
        let Some(member) = planned.member else {
            self.bring_back(event, planned.kind);
            return Ok(());
        };
        match planned.kind {
            Kind::Freeze => self.members[member].signal(Signal::CONT),
            Kind::Cut | Kind::Silence => self.connect(member, Mode::Open),
            Kind::HandlerSlow | Kind::HandlerFailing => {
                course.recorder.behave(member, Manner::Well).await?;
            }
            Kind::HandlerDead => {
                course.recorder.live(member).await?;
                self.members[member].connect_handler(Mode::Open);
            }
            _ => self.members[member].connect_handler(Mode::Open),
        }
        Ok(())
    }

    async fn news(&mut self) -> Back {
        match self.back.1.recv().await {
            Some(back) => back,
            // One sender is here.
            None => std::future::pending().await,
        }
    }

    async fn hear(&mut self, course: &mut Course<'_>, back: Back) -> Result<()> {
        match back {
            Back::BrokerListens => {
                self.broker_away = false;
                self.connect_all();
            }
            Back::Serves(event) => {
                self.away -= 1;
                course.serves(event);
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.away == 0
    }

    fn look_after(&mut self, course: &mut Course<'_>) {
        for (index, member) in self.members.iter_mut().enumerate() {
            if let Some(code) = member.ended() {
                course.crashed(index, code);
                member.stop_now();
            }
        }
    }

    async fn end_all(&mut self, course: &mut Course<'_>) -> Result<Vec<Option<i32>>> {
        for member in &mut self.members {
            self.leaving.add(member.terminate());
        }
        let leaving = &mut self.leaving;
        let ended = wait::until(DRAIN, "the end of all processes", async || {
            match leaving.running() {
                0 => Ok(()),
                running => Err(format!("{running} run")),
            }
        });
        if let Err(late) = ended.await {
            course.teller.say(&late.to_string());
        }
        Ok(self.leaving.end())
    }
}
