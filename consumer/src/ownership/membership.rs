//! Who is in the group, as far as each broker's consumer list can be trusted, and what that means for us.
//!
//! A broker's list is in memory: after its restart it is empty until the members' next heartbeats. So a
//! member that is missing stays a member for a while, longer if it was not listed since trouble with that broker:
//! one that was has come back already, and is missing because it left. Where the broker says that it is the same
//! process as before, the trouble was ours or the network's, and only connections may be missing that broke with it.
//!
//! Who gives all its queues away takes no others, which a second id on the list says: it is there, and nothing is
//! allocated to it.

use super::allocate;
use crate::lane::Time;
use crate::message::QueueId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Every client id of Keylane begins so; others in the group are foreign and get no queue.
pub const CLIENT_ID_PREFIX: &str = "keylane:";

/// What the second id of a member ends with that gives all its queues away. It is one more id, and not another in
/// place of the first, which locks and journal have: whoever is not listed counts as gone.
pub const DRAINING: &str = "~draining";

/// The pod, or host, that an incarnation names.
pub fn pod_of(incarnation: &str) -> Option<&str> {
    let (pod, _) = incarnation
        .strip_prefix(CLIENT_ID_PREFIX)?
        .rsplit_once(':')?;
    Some(pod)
}

const GONE_AFTER: Duration = Duration::from_millis(1500);
/// After trouble with a broker that may have restarted, and with one that did not.
const GONE_AFTER_RESTART: Duration = Duration::from_secs(15);
const GONE_AFTER_OUTAGE: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
struct BrokerMembers {
    last_seen: BTreeMap<String, Seen>,
    /// Those on the last list that had us.
    latest: BTreeSet<String>,
    /// When the broker last failed to answer.
    trouble: Option<Time>,
    /// When its process was started, by its last word.
    started_at: Option<u64>,
    /// It is the one that was there before the trouble.
    same: bool,
    /// It has not answered since.
    silent: bool,
    foreign: BTreeSet<String>,
}

/// A member, as a broker's lists had it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When a list last had it, or the broker answered again after it did not.
    at: Time,
    /// A list had it since the last trouble.
    since_trouble: bool,
    /// It takes no queues.
    drains: bool,
}

/// The members of the group, per broker.
#[derive(Debug, Default)]
pub struct Membership {
    brokers: BTreeMap<Arc<str>, BrokerMembers>,
    /// Pods in which nothing runs any more.
    gone: BTreeSet<String>,
    last: Allocated,
}

impl Membership {
    /// A broker's consumer list, or none if it did not answer. A list that once had `me` and has it no
    /// more says that the broker restarted or our connection broke: that is trouble too. `started_at` is when the
    /// broker's process was started, where it was asked, which is due after trouble.
    pub fn listed(
        &mut self,
        now: Time,
        broker: &Arc<str>,
        me: &str,
        members: Option<BTreeSet<String>>,
        started_at: Option<u64>,
    ) {
        let state = self.brokers.entry(broker.clone()).or_default();
        let complete = members
            .as_ref()
            .is_some_and(|members| members.contains(me) || !state.last_seen.contains_key(me));
        if !complete {
            state.trouble = Some(now);
            state.same = false;
            for seen in state.last_seen.values_mut() {
                seen.since_trouble = false;
            }
        }
        let Some(members) = members else {
            state.silent = true;
            return;
        };
        if std::mem::take(&mut state.silent) {
            // Nobody could be seen meanwhile: however long that was, the others have time to come back.
            state.last_seen.values_mut().for_each(|seen| seen.at = now);
        }
        let there = members
            .into_iter()
            .filter(|member| pod_of(member).is_none_or(|pod| !self.gone.contains(pod)));
        let (ours, foreign): (BTreeSet<String>, _) =
            there.partition(|member| member.starts_with(CLIENT_ID_PREFIX));
        let (drain, ours): (BTreeSet<String>, BTreeSet<String>) = ours
            .into_iter()
            .partition(|member| member.ends_with(DRAINING));
        let drains = |member: &String| drain.contains(&format!("{member}{DRAINING}"));
        state.foreign = foreign;
        if started_at.is_some() {
            state.same = state.started_at == started_at;
            state.started_at = started_at;
        }
        let seen = |member: &String| Seen {
            at: now,
            since_trouble: true,
            drains: drains(member),
        };
        let listed = ours.iter().map(|member| (member.clone(), seen(member)));
        state.last_seen.extend(listed);
        if ours.contains(me) {
            let takes = ours.into_iter().filter(|member| !drains(member));
            state.latest = takes.collect();
        }
        let trouble = state
            .trouble
            .is_some_and(|at| now < at + GONE_AFTER_RESTART);
        state.last_seen.retain(|_, seen| {
            let keep = match (trouble && !seen.since_trouble, state.same) {
                (true, false) => GONE_AFTER_RESTART,
                (true, true) => GONE_AFTER_OUTAGE,
                (false, _) => GONE_AFTER,
            };
            now < seen.at + keep
        });
    }

    /// Every container of this pod ended: none of its members is there, whatever lists say.
    pub fn pod_gone(&mut self, pod: &str) {
        self.gone.insert(pod.to_owned());
        let stays = |member: &String| pod_of(member) != Some(pod);
        for state in self.brokers.values_mut() {
            state.last_seen.retain(|member, _| stays(member));
            state.latest.retain(stays);
        }
    }

    /// Client ids in the group that are not Keylane's.
    pub fn foreign(&self) -> BTreeSet<&str> {
        self.brokers
            .values()
            .flat_map(|state| state.foreign.iter().map(String::as_str))
            .collect()
    }

    /// The members at a broker, as far as its list is trusted.
    pub fn members(&self, broker: &str) -> BTreeSet<String> {
        self.brokers
            .get(broker)
            .map(|state| state.last_seen.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The queues meant for `me`, and those that would be if their owner were not there. Brokers with the
    /// same members are balanced together. Nothing is allocated from a broker that does not list us yet.
    /// Costs little while queues and members stay the same.
    pub fn allocation(&mut self, queues: &BTreeSet<QueueId>, me: &str) -> &Allocation {
        let (mut groups, missing) = (Groups::new(), self.missing());
        for queue in queues {
            let Some(state) = self.brokers.get(&queue.broker) else {
                continue;
            };
            let takes = state.last_seen.iter().filter(|(_, seen)| !seen.drains);
            let members = takes.map(|(member, _)| member.clone()).collect();
            let lists = (members, state.latest.clone());
            groups.entry(lists).or_default().insert(queue.clone());
        }
        if (&groups, &missing) != (&self.last.groups, &self.last.missing) {
            let mut allocation = Allocation::default();
            for ((members, latest), queues) in &groups {
                allocation.add(queues, members, latest, &missing, me);
            }
            self.last = Allocated {
                groups,
                missing,
                allocation,
            };
        }
        &self.last.allocation
    }

    fn missing(&self) -> Missing {
        let members = self.brokers.iter().flat_map(|(broker, state)| {
            let seen = state.last_seen.iter();
            let missing = seen.filter(|(member, _)| !state.latest.contains(*member));
            missing.map(|(member, seen)| ((broker.clone(), member.clone()), seen.at))
        });
        members.collect()
    }
}

/// Queues of brokers with the same members, by the members and by the last list.
type Groups = BTreeMap<(BTreeSet<String>, BTreeSet<String>), BTreeSet<QueueId>>;

/// Members that are not on a broker's last list, and since when.
type Missing = BTreeMap<(Arc<str>, String), Time>;

/// An allocation, and what it was made from.
#[derive(Debug, Default)]
struct Allocated {
    groups: Groups,
    missing: Missing,
    allocation: Allocation,
}

/// The queues of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Those meant for it.
    pub ours: BTreeSet<QueueId>,
    /// Those that will be, if members that are not on the last list stay away: by the knowledge of who saw them
    /// leave they are already. With it, since when the one that has the queue until then is missing; none if it is
    /// on the list, and has to give the queue away.
    pub if_released: BTreeMap<QueueId, Option<Time>>,
    /// Those for which it is next in line.
    pub stand_in: BTreeSet<QueueId>,
}

impl Allocation {
    fn add(
        &mut self,
        queues: &BTreeSet<QueueId>,
        members: &BTreeSet<String>,
        latest: &BTreeSet<String>,
        missing: &Missing,
        me: &str,
    ) {
        if !members.contains(me) {
            return;
        }
        let owners = allocate(queues, members);
        self.ours
            .extend(owners.get(me).into_iter().flatten().cloned());
        if members != latest {
            let soon = allocate(queues, latest).remove(me).unwrap_or_default();
            let since = |queue: &QueueId| {
                let owner = owners.iter().find(|(_, owned)| owned.contains(queue))?.0;
                missing
                    .get(&(queue.broker.clone(), owner.to_string()))
                    .copied()
            };
            let soon = soon.into_iter().filter(|queue| !self.ours.contains(queue));
            self.if_released
                .extend(soon.map(|queue| (queue.clone(), since(&queue))));
        }
        for (owner, owned) in &owners {
            if *owner == me {
                continue;
            }
            let mut others = members.clone();
            others.remove(*owner);
            let next = allocate(queues, &others).remove(me).unwrap_or_default();
            self.stand_in.extend(next.intersection(owned).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn members(names: &[&str]) -> Option<BTreeSet<String>> {
        Some(names.iter().map(|name| name.to_string()).collect())
    }

    fn queues() -> BTreeSet<QueueId> {
        (0..4).map(|id| QueueId::new("a", id)).collect()
    }

    #[test]
    fn a_member_that_leaves_is_gone_after_a_moment_and_a_foreign_one_gets_nothing() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        membership.listed(
            SECOND,
            &broker,
            "keylane:x",
            members(&["keylane:x", "keylane:y", "10.0.0.1@7"]),
            None,
        );
        assert_eq!(membership.allocation(&queues(), "keylane:x").ours.len(), 2);
        assert_eq!(membership.foreign(), BTreeSet::from(["10.0.0.1@7"]));
        membership.listed(
            SECOND * 2,
            &broker,
            "keylane:x",
            members(&["keylane:x"]),
            None,
        );
        assert_eq!(membership.allocation(&queues(), "keylane:x").ours.len(), 2);
        membership.listed(
            SECOND * 3,
            &broker,
            "keylane:x",
            members(&["keylane:x"]),
            None,
        );
        assert_eq!(membership.allocation(&queues(), "keylane:x").ours.len(), 4);
        assert!(membership.foreign().is_empty());
    }

    #[test]
    fn after_trouble_with_a_broker_members_stay_for_fifteen_seconds() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        membership.listed(
            SECOND,
            &broker,
            "keylane:x",
            members(&["keylane:x", "keylane:y"]),
            None,
        );
        membership.listed(SECOND * 2, &broker, "keylane:x", None, None);
        for second in 3..15 {
            membership.listed(
                SECOND * second,
                &broker,
                "keylane:x",
                members(&["keylane:x"]),
                None,
            );
            assert_eq!(
                membership.allocation(&queues(), "keylane:x").ours.len(),
                2,
                "second {second}"
            );
        }
        membership.listed(
            SECOND * 18,
            &broker,
            "keylane:x",
            members(&["keylane:x"]),
            None,
        );
        assert_eq!(membership.allocation(&queues(), "keylane:x").ours.len(), 4);
    }

    #[test]
    fn who_has_come_back_after_trouble_and_leaves_is_gone_after_a_moment() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        let both = members(&["keylane:x", "keylane:y"]);
        let alone = members(&["keylane:x"]);
        membership.listed(SECOND, &broker, "keylane:x", both.clone(), None);
        membership.listed(SECOND * 2, &broker, "keylane:x", None, None);
        membership.listed(SECOND * 3, &broker, "keylane:x", alone.clone(), None);
        membership.listed(SECOND * 4, &broker, "keylane:x", both, None);
        membership.listed(SECOND * 5, &broker, "keylane:x", alone.clone(), None);
        assert_eq!(membership.members("a").len(), 2);
        membership.listed(SECOND * 6, &broker, "keylane:x", alone, None);
        assert_eq!(membership.members("a").len(), 1);
    }

    #[test]
    fn after_an_outage_of_a_broker_that_did_not_restart_its_list_is_complete_within_seconds() {
        for (restarted, members_left) in [(false, 1), (true, 2)] {
            let (mut membership, broker) = (Membership::default(), Arc::from("a"));
            let (both, alone) = (
                members(&["keylane:x", "keylane:y"]),
                members(&["keylane:x"]),
            );
            let before = Some(1);
            let after = Some(if restarted { 2 } else { 1 });
            membership.listed(SECOND, &broker, "keylane:x", both, before);
            for second in 2..60 {
                membership.listed(SECOND * second, &broker, "keylane:x", None, None);
            }
            membership.listed(SECOND * 60, &broker, "keylane:x", alone.clone(), after);
            assert_eq!(membership.members("a").len(), 2);
            membership.listed(SECOND * 64, &broker, "keylane:x", alone, None);
            assert_eq!(membership.members("a").len(), members_left);
        }
    }

    #[test]
    fn members_of_a_pod_that_is_gone_are_not_there_whatever_lists_say() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        let both = members(&["keylane:x:1", "keylane:y:1"]);
        membership.listed(SECOND, &broker, "keylane:x:1", both.clone(), None);
        membership.pod_gone("y");
        let alone = members(&["keylane:x:1"]).unwrap();
        assert_eq!(membership.members("a"), alone);
        assert_eq!(
            membership.allocation(&queues(), "keylane:x:1").ours,
            queues()
        );
        membership.listed(SECOND * 2, &broker, "keylane:x:1", both, None);
        assert_eq!(membership.members("a"), alone);
    }

    #[test]
    fn who_comes_back_may_take_what_others_release_for_it_before_it_knows_who_left() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        let names = ["keylane:w", "keylane:x", "keylane:y", "keylane:z"];
        let queues: BTreeSet<QueueId> = (0..16).map(|id| QueueId::new("a", id)).collect();
        membership.listed(SECOND, &broker, "keylane:x", members(&names), None);
        membership.listed(SECOND * 2, &broker, "keylane:x", None, None);
        let left = members(&["keylane:x", "keylane:y", "keylane:z"]);
        membership.listed(SECOND * 9, &broker, "keylane:x", left.clone(), None);
        let known = allocate(&queues, &left.unwrap()).remove("keylane:x");
        let all = members(&names).unwrap();
        let owned_by_w = &allocate(&queues, &all)["keylane:w"];
        let allocation = membership.allocation(&queues, "keylane:x");
        for (queue, missing) in &allocation.if_released {
            // Since the broker answered again, if its owner is the one that is not on the list.
            let since = owned_by_w.contains(queue).then_some(SECOND * 9);
            assert_eq!(*missing, since, "{queue:?}");
        }
        let of_w = allocation
            .if_released
            .values()
            .filter(|since| since.is_some());
        assert!(of_w.count() > 0);
        let taken = allocation.ours.iter().chain(allocation.if_released.keys());
        assert!(known.unwrap().is_subset(&taken.cloned().collect()));
    }

    #[test]
    fn who_gives_its_queues_away_is_there_and_gets_none() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        let both = members(&["keylane:x", "keylane:y"]);
        membership.listed(SECOND, &broker, "keylane:x", both, None);
        assert_eq!(membership.allocation(&queues(), "keylane:x").ours.len(), 2);
        let drains = members(&["keylane:x", "keylane:y", "keylane:y~draining"]);
        membership.listed(SECOND * 2, &broker, "keylane:x", drains, None);
        let allocation = membership.allocation(&queues(), "keylane:x");
        assert_eq!(allocation.ours, queues());
        assert!(allocation.if_released.is_empty() && allocation.stand_in.is_empty());
        assert_eq!(
            membership.members("a"),
            members(&["keylane:x", "keylane:y"]).unwrap()
        );
        let own = members(&["keylane:x", "keylane:x~draining", "keylane:y"]);
        membership.listed(SECOND * 3, &broker, "keylane:x", own, None);
        assert_eq!(membership.members("a").len(), 2);
        assert!(
            membership
                .allocation(&queues(), "keylane:x")
                .ours
                .is_empty()
        );
    }

    #[test]
    fn a_list_that_lost_us_is_not_believed_for_a_while() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        membership.listed(
            SECOND,
            &broker,
            "keylane:x",
            members(&["keylane:x", "keylane:y"]),
            None,
        );
        for second in 2..12 {
            membership.listed(SECOND * second, &broker, "keylane:x", members(&[]), None);
            assert_eq!(
                membership.allocation(&queues(), "keylane:x").ours.len(),
                2,
                "second {second}"
            );
        }
    }

    #[test]
    fn members_have_time_to_come_back_after_a_long_outage_of_the_broker() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        let both = members(&["keylane:x", "keylane:y"]);
        membership.listed(SECOND, &broker, "keylane:x", both, None);
        membership.listed(SECOND * 2, &broker, "keylane:x", None, None);
        membership.listed(
            SECOND * 60,
            &broker,
            "keylane:x",
            members(&["keylane:x"]),
            None,
        );
        assert_eq!(membership.members("a").len(), 2);
        membership.listed(
            SECOND * 76,
            &broker,
            "keylane:x",
            members(&["keylane:x"]),
            None,
        );
        assert_eq!(membership.members("a").len(), 1);
    }

    #[test]
    fn nothing_is_ours_until_the_broker_lists_us() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        assert!(
            membership
                .allocation(&queues(), "keylane:x")
                .ours
                .is_empty()
        );
        membership.listed(SECOND, &broker, "keylane:x", members(&["keylane:y"]), None);
        assert!(
            membership
                .allocation(&queues(), "keylane:x")
                .ours
                .is_empty()
        );
    }

    #[test]
    fn what_a_member_that_left_may_have_released_can_be_taken_at_once() {
        let (mut membership, broker) = (Membership::default(), Arc::from("a"));
        let both = members(&["keylane:x", "keylane:y"]);
        membership.listed(SECOND, &broker, "keylane:x", both, None);
        let before = membership.allocation(&queues(), "keylane:x").clone();
        assert!(before.if_released.is_empty());
        membership.listed(
            SECOND * 2,
            &broker,
            "keylane:x",
            members(&["keylane:x"]),
            None,
        );
        let after = membership.allocation(&queues(), "keylane:x");
        assert_eq!(after.ours, before.ours);
        assert!(
            after
                .if_released
                .values()
                .all(|since| *since == Some(SECOND))
        );
        let all = after.ours.iter().chain(after.if_released.keys()).cloned();
        assert_eq!(BTreeSet::from_iter(all), queues());
        // A list without us says nothing.
        membership.listed(SECOND * 3, &broker, "keylane:x", members(&[]), None);
        let trouble = membership.allocation(&queues(), "keylane:x");
        assert_eq!(trouble.ours.len(), 2);
    }

    #[test]
    fn a_queue_has_one_member_next_in_line_and_that_is_never_its_owner() {
        let names = ["keylane:x", "keylane:y", "keylane:z"];
        let mut next_in_line = Vec::new();
        for me in names {
            let (mut membership, broker) = (Membership::default(), Arc::from("a"));
            membership.listed(SECOND, &broker, me, members(&names), None);
            let allocation = membership.allocation(&queues(), me);
            assert!(allocation.ours.is_disjoint(&allocation.stand_in));
            next_in_line.extend(allocation.stand_in.clone());
        }
        next_in_line.sort();
        assert_eq!(next_in_line, Vec::from_iter(queues()));
    }
}
