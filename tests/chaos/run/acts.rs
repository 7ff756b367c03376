//! What an event of the schedule does, when it begins and when it is over.

use super::Run;
use crate::happened::Happened;
use crate::record::{Manner, now};
use crate::relay::Mode;
use crate::schedule::{Kind, Planned};
use anyhow::Result;
use rustix::process::Signal;
use std::time::Duration;

/// What was away and serves again.
pub(super) enum Back {
    BrokerListens,
    Serves(usize),
}

impl Run<'_> {
    pub(super) async fn begin(&mut self, index: usize, planned: &Planned) -> Result<()> {
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
            Kind::Terminate => self.leaving.add(place.terminate()),
            Kind::Kill => place.stop_now(),
            Kind::ExecutorKilled | Kind::ExecutorKilledUnprobed => {
                place.start_again(self.subject)?;
            }
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

    pub(super) async fn end(&mut self, index: usize, planned: &Planned) -> Result<()> {
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

    pub(super) fn is_back(&mut self, back: Back) {
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
}
