//! A pod as the cluster tells of it, and what follows for its member. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use keylane_tests::judge::Micros;

/// The containers of a pod.
pub const EXECUTOR: &str = "executor";
pub const HANDLER: &str = "handler";

/// The others miss an executor that is away for longer.
const MISSED: Micros = 3_000_000;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id, if it runs.
    pub id: Option<String>,
    /// When it was started, if it runs; a second, rounded down.
    pub started: Option<Micros>,
    /// Its exit code, if it has ended and was not started again.
    pub exit: Option<i32>,
    /// The exit code of the one before it.
    pub last_exit: Option<i32>,
}

impl Container {
    /// As the kubelet reports it.
    pub fn of(status: &ContainerStatus) -> Self {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.clone().unwrap_or_default();
        let started = state.running.as_ref().and_then(|running| {
            let at = running.started_at.as_ref()?.0.as_microsecond();
            Micros::try_from(at).ok()
        });
        Self {
            id: state.running.and(status.container_id.clone()),
            started,
            exit: state.terminated.map(|ended| ended.exit_code),
            last_exit: last.terminated.map(|ended| ended.exit_code),
        }
    }
}

/// A pod at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Its name.
    pub name: String,
    /// Whether it was told to go.
    pub leaving: bool,
    /// Whether its object is gone.
    pub vanished: bool,
    /// Its containers.
    pub executor: Container,
    /// The handler's.
    pub handler: Container,
}

impl Look {
    /// As the cluster tells of it.
    pub fn of(pod: &Pod, vanished: bool) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let container = |name: &str| {
            let lists = [&status.container_statuses, &status.init_container_statuses];
            let mut all = lists.into_iter().flatten().flatten();
            all.find(|container| container.name == name)
                .map(Container::of)
                .unwrap_or_default()
        };
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            leaving: vanished || pod.metadata.deletion_timestamp.is_some(),
            vanished,
            executor: container(EXECUTOR),
            handler: container(HANDLER),
        }
    }
}

/// What the cluster is to report of a pod before an event is known of or over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Another container of the handler than this one runs.
    Handler(Option<String>),
    /// These containers, of executor and handler, run no more.
    Report(Option<String>, Option<String>),
    /// Nothing of it runs, nor will again.
    End,
}

impl Awaited {
    fn is_so(&self, look: &Look) -> bool {
        let (executor, handler) = (&look.executor, &look.handler);
        match self {
            Self::Handler(old) => handler.id.is_some() && handler.id != *old,
            Self::Report(of_executor, of_handler) => {
                executor.id != *of_executor && handler.id != *of_handler
            }
            Self::End => look.leaving && executor.exit.is_some() && handler.exit.is_some(),
        }
    }
}

/// What follows from what is told of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// A container of its executor runs.
    Runs,
    /// Its executor joins the group, or comes back after others have missed it.
    Starts(Micros),
    /// Its executor ended, and nobody did anything to it.
    Crashed(i32),
    /// This event is known of, or over.
    Known(usize),
    /// It was told to go.
    Leaves,
    /// Its executor was asked to end, and ended with this code; none if that was never told.
    Exit(Option<i32>),
}

/// A member that is a pod: how it was last seen, and what is awaited of it.
#[derive(Debug, Default)]
pub struct Member {
    /// How it was last seen.
    pub look: Look,
    /// Whether it is ended by an event, and how: in good order or not.
    pub asked: Option<bool>,
    /// What is awaited, by event.
    pub awaited: Vec<(usize, Awaited)>,
    /// Since when its executor is away by our doing.
    away: Option<Micros>,
    /// Until when it is no surprise if its executor ends.
    expected: Micros,
    ran: bool,
    exited: bool,
}

impl Member {
    /// Its executor is killed now, or stands still.
    pub fn goes_away(&mut self, at: Micros) {
        self.away = Some(at);
        self.expected = Micros::MAX;
    }

    /// It goes on, but the kubelet may have ended it meanwhile or be about to.
    pub fn goes_on(&mut self, within: Micros) {
        self.expected = within;
    }

    /// Whether executor and handler run.
    pub fn runs(&self) -> bool {
        !self.look.leaving && self.look.executor.id.is_some() && self.look.handler.id.is_some()
    }

    /// It is told of as it was at `at`.
    pub fn see(&mut self, at: Micros, look: Look) -> Vec<Noted> {
        let mut noted = Vec::new();
        let before = std::mem::replace(&mut self.look, look);
        let look = &self.look;
        if look.executor.id.is_some() && look.executor.id != before.executor.id {
            noted.push(Noted::Runs);
            self.ran = true;
            let started = look.executor.started.unwrap_or(at).min(at);
            match look.executor.last_exit {
                Some(code) => {
                    if at > self.expected {
                        noted.push(Noted::Crashed(code));
                    }
                    let away = self.away.take();
                    if away.is_none_or(|away| started > away + MISSED) {
                        noted.push(Noted::Starts(started));
                    }
                    self.expected = 0;
                }
                None => noted.push(Noted::Starts(started)),
            }
        }
        self.awaited.retain(|(event, awaited)| {
            let so = awaited.is_so(look);
            if so {
                noted.push(Noted::Known(*event));
            }
            !so
        });
        if look.leaving && !before.leaving {
            noted.push(Noted::Leaves);
        }
        let over = look.vanished || look.executor.exit.is_some();
        if look.leaving && over && self.ran && !self.exited {
            self.exited = true;
            noted.push(Noted::Exit(look.executor.exit));
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Micros = 1_000_000;

    fn container(id: &str, started: Micros, last_exit: Option<i32>) -> Container {
        Container {
            id: Some(id.into()),
            started: Some(started),
            last_exit,
            ..Container::default()
        }
    }

    fn ended(exit: i32) -> Container {
        Container {
            exit: Some(exit),
            ..Container::default()
        }
    }

    fn look(executor: Container) -> Look {
        Look {
            executor,
            handler: container("h", 0, None),
            ..Look::default()
        }
    }

    fn running() -> Member {
        let mut member = Member::default();
        let noted = member.see(2 * S, look(container("a", S, None)));
        assert_eq!(noted, [Noted::Runs, Noted::Starts(S)]);
        assert_eq!(member.see(3 * S, member.look.clone()), []);
        member
    }

    #[test]
    fn an_executor_that_is_back_before_it_is_missed_has_not_started_anew() {
        let mut member = running();
        member.goes_away(10 * S);
        let back = look(container("b", 11 * S, Some(137)));
        assert_eq!(member.see(12 * S, back), [Noted::Runs]);
        member.goes_away(20 * S);
        assert_eq!(member.see(21 * S, look(ended(137))), []);
        let late = look(container("c", 31 * S, Some(137)));
        let noted = member.see(32 * S, late);
        assert_eq!(noted, [Noted::Runs, Noted::Starts(31 * S)]);
    }

    #[test]
    fn an_end_that_nobody_brought_about_is_a_crash() {
        let mut member = running();
        let back = look(container("b", 11 * S, Some(1)));
        let noted = member.see(12 * S, back);
        let starts = Noted::Starts(11 * S);
        assert_eq!(noted, [Noted::Runs, Noted::Crashed(1), starts]);
        // The kubelet ends one that it finds frozen, also when it goes on already.
        member.goes_away(20 * S);
        member.goes_on(80 * S);
        let back = look(container("c", 60 * S, Some(137)));
        let noted = member.see(61 * S, back);
        assert_eq!(noted, [Noted::Runs, Noted::Starts(60 * S)]);
    }

    #[test]
    fn what_is_awaited_is_known_with_the_kubelets_word_for_it() {
        let mut member = running();
        member.goes_away(10 * S);
        let (executor, handler) = (Some("a".to_owned()), Some("h".to_owned()));
        member.awaited = vec![
            (3, Awaited::Report(executor, handler.clone())),
            (4, Awaited::Handler(handler)),
            (5, Awaited::End),
        ];
        assert_eq!(member.see(11 * S, look(ended(137))), []);
        let both = Look {
            handler: ended(137),
            ..look(ended(137))
        };
        assert_eq!(member.see(12 * S, both.clone()), [Noted::Known(3)]);
        let leaving = Look {
            leaving: true,
            ..both
        };
        let noted = member.see(13 * S, leaving);
        let exit = Noted::Exit(Some(137));
        assert_eq!(noted, [Noted::Known(5), Noted::Leaves, exit]);
        let mut member = running();
        member.awaited = vec![(4, Awaited::Handler(Some("h".into())))];
        let again = Look {
            handler: container("i", 14 * S, Some(137)),
            ..member.look.clone()
        };
        assert_eq!(member.see(14 * S, again), [Noted::Known(4)]);
    }

    #[test]
    fn the_exit_of_a_pod_is_told_once_and_is_unknown_if_it_vanishes_first() {
        let mut member = running();
        let mut going = look(container("a", S, None));
        going.leaving = true;
        assert_eq!(member.see(5 * S, going.clone()), [Noted::Leaves]);
        let clean = Look {
            executor: ended(0),
            ..going.clone()
        };
        assert_eq!(member.see(6 * S, clean.clone()), [Noted::Exit(Some(0))]);
        let gone = |of: Look| Look {
            vanished: true,
            ..of
        };
        assert_eq!(member.see(7 * S, gone(clean)), []);
        let mut member = running();
        let noted = member.see(5 * S, gone(going));
        assert_eq!(noted, [Noted::Leaves, Noted::Exit(None)]);
        // One that never ran was never asked to end.
        let mut member = Member::default();
        let never = Look {
            leaving: true,
            ..Look::default()
        };
        let noted = member.see(5 * S, gone(never));
        assert_eq!(noted, [Noted::Leaves]);
    }
}
