//! Who runs the members and the servers, and does to them what the schedule says: processes of this
//! machine, or a cluster.

use crate::course::Course;
use crate::load::Target;
use crate::schedule::Planned;
use anyhow::Result;

/// Where a run takes place.
pub trait Ground {
    /// What it notices by itself.
    type News;

    /// Where messages go to and offsets are.
    fn target(&self) -> &Target;

    /// The member that a client of the broker is, as far as its id says.
    fn member_of(&self, client: &str) -> Option<usize>;

    /// Lets an event begin. Gives its place in the course; none if it is left out, or noted when it has come
    /// about.
    async fn begin(&mut self, course: &mut Course<'_>, planned: &Planned) -> Result<Option<usize>>;

    /// Lets an event end that lasts and has that place.
    async fn end(&mut self, course: &mut Course<'_>, planned: &Planned, event: usize)
    -> Result<()>;

    /// Waits for news; none are lost if this is dropped.
    async fn news(&mut self) -> Self::News;

    /// Notes what is new.
    async fn hear(&mut self, course: &mut Course<'_>, news: Self::News) -> Result<()>;

    /// Whether everything is back that was away.
    fn is_whole(&self) -> bool;

    /// Notices members that ended by themselves.
    fn look_after(&mut self, course: &mut Course<'_>);

    /// Ends all members in good order; gives the exit codes of those that were ever asked to end, none for
    /// those that did not.
    async fn end_all(&mut self, course: &mut Course<'_>) -> Result<Vec<Option<i32>>>;
}
