//! What keeps pods from following their rule for a while, told for those who explain a decision.

use super::history::History;

/// What was in force when a history was last taken on. Times are seconds from then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Brakes {
    /// Something behind the handler was the limit not long ago: for so long a backlog asks for no pods.
    pub backlog_ignored_for: Option<f64>,
    /// So many messages a second get through something behind the handler, which is the limit.
    pub downstream: Option<f64>,
    /// Calls are slow, and it is not known yet why, or something behind the handler is the limit: no more
    /// pods.
    pub slow: bool,
    /// The last pods brought nothing: none are added for so long.
    pub no_more_for: Option<f64>,
    /// Pods that were asked for are not at work yet: from so many to so many.
    pub starting: Option<(u32, u32)>,
}

impl History {
    /// What was in force at the last look.
    pub fn brakes(&self) -> Brakes {
        let now = self.at.unwrap_or_default();
        let left = |until: Option<f64>| until.map(|until| until - now).filter(|left| *left > 0.0);
        let starting = self
            .change
            .as_ref()
            .filter(|change| change.arrived.is_none());
        Brakes {
            backlog_ignored_for: left(self.link.remembered_until()),
            downstream: self.link.bound(),
            slow: self.link.suspicious(),
            no_more_for: left(self.calm.no_up_before),
            starting: starting.map(|change| (change.from, change.to)),
        }
    }
}
