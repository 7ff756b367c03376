//! What has happened so far, as it is told and recorded.

use crate::happened::Happened;
use crate::record::now;
use crate::recording::Recorder;
use crate::report::Teller;
use crate::schedule::Kind;
use anyhow::Result;
use keylane_tests::judge::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

/// The course of a run.
pub struct Course<'a> {
    /// Tells of it.
    pub teller: &'a Teller,
    /// Records the calls.
    pub recorder: Recorder,
    events: Vec<Happened>,
    /// Names of members that have one.
    names: BTreeMap<usize, String>,
    crashed: u32,
}

impl<'a> Course<'a> {
    /// Nothing has happened yet.
    pub fn new(teller: &'a Teller, recorder: Recorder) -> Self {
        Self {
            teller,
            recorder,
            events: Vec::new(),
            names: BTreeMap::new(),
            crashed: 0,
        }
    }

    /// The member that a pod is.
    pub async fn member(&mut self, pod: &str) -> Result<usize> {
        let member = self.recorder.pod(pod).await?;
        self.names.insert(member, pod.to_owned());
        Ok(member)
    }

    /// An event has begun, no later than anything that follows from it; gives its place in the list.
    pub fn begins(
        &mut self,
        kind: Kind,
        member: Option<usize>,
        at: Micros,
        lasts: Duration,
    ) -> usize {
        let happened = Happened {
            kind,
            member,
            at,
            until: at,
            listed: None,
        };
        self.teller.event(&happened, self.name(member), Some(lasts));
        self.events.push(happened);
        self.events.len() - 1
    }

    /// An event that lasted is over.
    pub fn ends(&mut self, event: usize, at: Micros) {
        self.events[event].until = at;
        let happened = &self.events[event];
        self.teller
            .event(happened, self.name(happened.member), None);
    }

    /// From now on others can know of it, and its time is counted.
    pub fn is_known(&mut self, event: usize, at: Micros) {
        self.events[event].until = at;
        self.teller.known(&self.events[event]);
    }

    /// What was away serves again.
    pub fn serves(&mut self, event: usize) {
        self.events[event].until = now();
        self.teller.serves(&self.events[event]);
    }

    /// A member ended without being asked to.
    pub fn crashed(&mut self, member: usize, code: i32) {
        self.crashed += 1;
        self.teller.crashed(member, code);
    }

    /// Everything that happened.
    pub fn events(&self) -> &[Happened] {
        &self.events
    }

    /// Everything that happened, and how many members ended by themselves.
    pub fn end(self) -> (Recorder, Vec<Happened>, u32) {
        (self.recorder, self.events, self.crashed)
    }

    fn name(&self, member: Option<usize>) -> Option<&str> {
        Some(self.names.get(&member?)?.as_str())
    }
}
