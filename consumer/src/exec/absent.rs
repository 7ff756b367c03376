//! Brokers that the name server does not name for a while.
//!
//! A name server forgets a broker whose connection ended, with all its queues, until it registers again.
//! Those queues are not gone: whoever has them keeps them, and goes on when the broker is back. A broker
//! that stays away is forgotten after [`FORGOTTEN_AFTER`].

use crate::lane::Time;
use crate::source::Route;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Brokers that a former route had and the last one has not, and since when.
#[derive(Debug, Default)]
pub struct Absent(BTreeMap<Arc<str>, Time>);

impl Absent {
    /// The route with what `former` says of brokers that are not in it.
    pub fn complete(&mut self, now: Time, former: &Route, mut route: Route) -> Route {
        self.0
            .retain(|broker, _| !route.masters.contains_key(broker));
        for (broker, address) in &former.masters {
            if route.masters.contains_key(broker) {
                continue;
            }
            let since = *self.0.entry(broker.clone()).or_insert(now);
            if now < since + FORGOTTEN_AFTER {
                route.masters.insert(broker.clone(), address.clone());
            }
        }
        self.0
            .retain(|broker, _| route.masters.contains_key(broker));
        let kept = |broker: &Arc<str>| self.0.contains_key(broker);
        let queues = former.queues.iter().filter(|queue| kept(&queue.broker));
        route.queues.extend(queues.cloned());
        route
    }

    /// Those that are away.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::QueueId;

    fn route(brokers: &[(&str, u32)]) -> Route {
        let mut route = Route::default();
        for (broker, queues) in brokers {
            route
                .masters
                .insert((*broker).into(), format!("{broker}:1"));
            route
                .queues
                .extend((0..*queues).map(|id| QueueId::new(*broker, id)));
        }
        route
    }

    #[test]
    fn a_broker_that_is_away_keeps_its_queues_and_one_that_has_fewer_does_not() {
        let (mut absent, second) = (Absent::default(), Duration::from_secs(1));
        let both = route(&[("a", 4), ("b", 4)]);
        let seen = absent.complete(second, &both, route(&[("a", 2)]));
        assert_eq!(seen, route(&[("a", 2), ("b", 4)]));
        assert_eq!(absent.brokers().count(), 1);
        // It is back, with fewer.
        let seen = absent.complete(second * 2, &seen, route(&[("a", 2), ("b", 1)]));
        assert_eq!(seen, route(&[("a", 2), ("b", 1)]));
        assert_eq!(absent.brokers().count(), 0);
        // It stays away for longer than it has been known to be.
        let seen = absent.complete(second * 3, &seen, route(&[("a", 2)]));
        let late = second * 3 + FORGOTTEN_AFTER;
        assert_eq!(
            absent.complete(late, &seen, route(&[("a", 2)])),
            route(&[("a", 2)])
        );
        assert_eq!(absent.brokers().count(), 0);
    }
}
