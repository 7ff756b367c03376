//! Which member of the group each queue is meant for: a pure function of the queues and the members.
//!
//! Every member computes it from the same sets and comes to the same result; while the sets differ for
//! a moment, the broker's queue lock decides. Balanced: no member gets two queues more than another.
//! Few queues move when a member comes or goes, because every queue has its own order of preference
//! among members (rendezvous hashing; Thaler and Ravishankar, 1998) and members with all they may have
//! keep those that prefer them most (deferred acceptance; Gale and Shapley, 1962).
//!
//! What is preferred is a pod, not an incarnation in it: an executor that was killed alone gets its queues
//! back when it runs again, and only there is its death known at once. Members of one pod, or host, are
//! told apart by their whole names.

use super::membership::pod_of;
use crate::message::QueueId;
use std::collections::{BTreeMap, BTreeSet};

/// The queues of each member. Members without a queue are absent.
pub fn allocate<'m>(
    queues: &BTreeSet<QueueId>,
    members: &'m BTreeSet<String>,
) -> BTreeMap<&'m str, BTreeSet<QueueId>> {
    let mut allocation: BTreeMap<&str, BTreeSet<QueueId>> = BTreeMap::new();
    if members.is_empty() {
        return allocation;
    }
    // First everybody's equal share; then what is left over, at most one queue each.
    let mut rest: Vec<&QueueId> = queues.iter().collect();
    for capacity in [queues.len() / members.len(), 1] {
        let (accepted, refused) = accept(&rest, members, capacity);
        for (member, queue) in accepted {
            allocation.entry(member).or_default().insert(queue.clone());
        }
        rest = refused;
    }
    allocation
}

type Accepted<'m, 'q> = Vec<(&'m str, &'q QueueId)>;

/// Deferred acceptance: every queue asks members in its order of preference; a member keeps the
/// `capacity` queues with the highest scores. Returns pairs, and queues nobody kept.
fn accept<'m, 'q>(
    queues: &[&'q QueueId],
    members: &'m BTreeSet<String>,
    capacity: usize,
) -> (Accepted<'m, 'q>, Vec<&'q QueueId>) {
    if capacity == 0 {
        return (Vec::new(), queues.to_vec());
    }
    let mut kept: BTreeMap<&str, BTreeMap<(Score, usize), usize>> = BTreeMap::new();
    let preferences: Vec<Vec<(Score, &str)>> = queues
        .iter()
        .map(|queue| {
            let mut order: Vec<_> = members
                .iter()
                .map(|member| (score(queue, member), member.as_str()))
                .collect();
            order.sort_unstable_by(|left, right| right.cmp(left));
            order
        })
        .collect();
    let mut refused = Vec::new();
    for index in 0..queues.len() {
        let (mut queue, mut rank) = (index, 0);
        // The queue that finds no place asks on; each asks each member at most once.
        while let Some((score, member)) = preferences[queue].get(rank) {
            let places = kept.entry(member).or_default();
            places.insert((*score, queue), rank);
            if places.len() <= capacity {
                break;
            }
            let Some(((_, loser), its_rank)) = places.pop_first() else {
                break;
            };
            (queue, rank) = (loser, its_rank + 1);
        }
        if rank == members.len() {
            refused.push(queues[queue]);
        }
    }
    let accepted = kept
        .into_iter()
        .flat_map(|(member, places)| {
            places
                .into_keys()
                .map(move |(_, queue)| (member, queues[queue]))
        })
        .collect();
    (accepted, refused)
}

/// How much a queue prefers a pod, and within it a member.
type Score = (u64, u64);

fn score(queue: &QueueId, member: &str) -> Score {
    let pod = pod_of(member).unwrap_or(member);
    (hash(queue, pod), hash(queue, member))
}

/// The same on every machine and in every version: FNV-1a with the finalizer of MurmurHash3 (both in
/// the public domain).
fn hash(queue: &QueueId, name: &str) -> u64 {
    let bytes = name
        .bytes()
        .chain([0])
        .chain(queue.broker.bytes())
        .chain([0])
        .chain(queue.id.to_le_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(names: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
        names
            .into_iter()
            .map(|name| format!("keylane:pod-{name}"))
            .collect()
    }

    fn queues(count: u32) -> BTreeSet<QueueId> {
        (0..count)
            .map(|id| QueueId::new(if id % 2 == 0 { "a" } else { "b" }, id / 2))
            .collect()
    }

    fn owners<'m>(allocation: &BTreeMap<&'m str, BTreeSet<QueueId>>) -> BTreeMap<QueueId, &'m str> {
        allocation
            .iter()
            .flat_map(|(member, queues)| queues.iter().map(|queue| (queue.clone(), *member)))
            .collect()
    }

    proptest! {
        #[test]
        fn every_queue_has_one_owner_and_nobody_two_more_than_another(count in 0u32..80, who in 1u32..20) {
            let (queues, members) = (queues(count), members(0..who));
            let allocation = allocate(&queues, &members);
            let sizes: Vec<_> =
                members.iter().map(|member| allocation.get(member.as_str()).map_or(0, BTreeSet::len)).collect();
            prop_assert_eq!(sizes.iter().sum::<usize>(), queues.len());
            prop_assert_eq!(owners(&allocation).len(), queues.len());
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }

    /// Queues that move when a member comes, and how many had to.
    fn moves(name: impl Fn(u32) -> String) -> (usize, usize) {
        let (mut moved, mut least) = (0, 0);
        for count in [8, 16, 24, 64, 128] {
            let queues = queues(count);
            for who in 1..12 {
                let before: BTreeSet<String> = (0..who).map(&name).collect();
                let after: BTreeSet<String> = (0..=who).map(&name).collect();
                let (before, after) = (allocate(&queues, &before), allocate(&queues, &after));
                let (old, new) = (owners(&before), owners(&after));
                moved += new
                    .iter()
                    .filter(|(queue, owner)| old[*queue] != **owner)
                    .count();
                least += after.get(name(who).as_str()).map_or(0, BTreeSet::len);
            }
        }
        (moved, least)
    }

    #[test]
    fn few_queues_move_when_a_member_comes_or_goes() {
        let (moved, least) = moves(|who| format!("keylane:pod-{who}:{who:x}"));
        assert!(moved <= 2 * least, "{moved} queues moved, {least} had to");
        let (moved, least) = moves(|who| format!("keylane:host:{:x}", who.wrapping_mul(40503)));
        assert!(
            moved <= 2 * least,
            "on one host {moved} queues moved, {least} had to"
        );
    }

    #[test]
    fn an_executor_that_runs_again_in_its_pod_gets_its_queues_back() {
        let queues = queues(24);
        let name = |who: u32, start: u32| format!("keylane:pod-{who}:{:x}", start * 40503);
        let before: BTreeSet<String> = (0..5).map(|who| name(who, 1)).collect();
        let after: BTreeSet<String> = (0..5).map(|who| name(who, 1 + who % 2)).collect();
        let (before, after) = (allocate(&queues, &before), allocate(&queues, &after));
        for who in 0..5 {
            let (old, new) = (name(who, 1), name(who, 1 + who % 2));
            assert_eq!(before[old.as_str()], after[new.as_str()], "{new}");
        }
    }
}
