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
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// The queues of each member. Members without a queue are absent.
pub fn allocate<'m>(
    queues: &BTreeSet<QueueId>,
    members: &'m BTreeSet<String>,
) -> BTreeMap<&'m str, BTreeSet<QueueId>> {
    let names: Vec<&'m str> = members.iter().map(String::as_str).collect();
    let owners = Allocator::new(queues).owners(&names);
    let mut allocation: BTreeMap<&str, BTreeSet<QueueId>> = BTreeMap::new();
    for (queue, owner) in queues.iter().zip(owners) {
        let owned = allocation.entry(names[owner]).or_default();
        owned.insert(queue.clone());
    }
    allocation
}

/// Allocates the same queues to one set of members after the other. What was hashed for a member is kept, so
/// that it costs little to ask what another number of members would have.
#[derive(Debug)]
pub struct Allocator<'q> {
    queues: Vec<&'q QueueId>,
    known: BTreeMap<String, Member>,
}

impl<'q> Allocator<'q> {
    /// Of these queues.
    pub fn new(queues: impl IntoIterator<Item = &'q QueueId>) -> Self {
        Self {
            queues: queues.into_iter().collect(),
            known: BTreeMap::new(),
        }
    }

    /// Which of `members`, by its place among them, each queue is meant for, in the order of the queues;
    /// nothing without a member. Names of members differ; their order does not matter.
    pub fn owners(&mut self, members: &[&str]) -> Vec<usize> {
        for name in members {
            if !self.known.contains_key(*name) {
                let member = Member::new(name, &self.queues);
                self.known.insert((*name).to_owned(), member);
            }
        }
        let known = members
            .iter()
            .filter_map(|name| self.known.get_key_value(*name));
        let round = Round::new(&self.queues, known.collect());
        let mut owners = vec![0; self.queues.len()];
        // First everybody's equal share; then what is left over, at most one queue each.
        let mut rest: Vec<usize> = (0..owners.len()).collect();
        let share = rest.len().checked_div(members.len());
        for capacity in share.into_iter().flat_map(|share| [share, 1]) {
            rest = round.accept(&rest, capacity, &mut owners);
        }
        if members.is_empty() {
            owners.clear();
        }
        owners
    }
}

/// A member, and how much each queue prefers its pod.
#[derive(Debug)]
struct Member {
    /// Hash of its name so far.
    hash: u64,
    scores: Vec<u64>,
}

impl Member {
    fn new(name: &str, queues: &[&QueueId]) -> Self {
        let pod = begin(pod_of(name).unwrap_or(name));
        // Queues of one broker follow each other.
        let mut last: Option<(&str, u64)> = None;
        let scores = queues.iter().map(|queue| {
            let with_broker = match last {
                Some((broker, hash)) if broker == &*queue.broker => hash,
                _ => with_broker(pod, queue),
            };
            last = Some((&queue.broker, with_broker));
            finish(with_broker, queue)
        });
        Self {
            scores: scores.collect(),
            hash: begin(name),
        }
    }
}

/// One allocation.
struct Round<'r> {
    queues: &'r [&'r QueueId],
    members: Vec<(&'r String, &'r Member)>,
    /// How much each queue prefers the pod of each member, queue by queue.
    scores: Vec<u64>,
}

/// How much a queue prefers a pod, and within it a member.
type Score = (u64, u64);

impl<'r> Round<'r> {
    fn new(queues: &'r [&'r QueueId], members: Vec<(&'r String, &'r Member)>) -> Self {
        let mut scores = vec![0; queues.len() * members.len()];
        for (at, (_, member)) in members.iter().enumerate() {
            let places = scores.iter_mut().skip(at).step_by(members.len());
            for (place, score) in places.zip(&member.scores) {
                *place = *score;
            }
        }
        Self {
            queues,
            members,
            scores,
        }
    }

    /// Deferred acceptance: every queue asks members in its order of preference; a member keeps the
    /// `capacity` queues with the highest scores. Writes who keeps which, and returns what nobody kept.
    fn accept(&self, queues: &[usize], capacity: usize, owners: &mut [usize]) -> Vec<usize> {
        if capacity == 0 {
            return queues.to_vec();
        }
        let mut kept = vec![BinaryHeap::new(); self.members.len()];
        let mut refused = Vec::new();
        for queue in queues {
            let (mut queue, mut asked) = (*queue, None);
            // The queue that finds no place asks on; each asks each member at most once.
            loop {
                let Some(member) = self.next(queue, asked) else {
                    refused.push(queue);
                    break;
                };
                let places: &mut BinaryHeap<Reverse<(Score, usize)>> = &mut kept[member];
                places.push(Reverse((self.score(queue, member), queue)));
                if places.len() <= capacity {
                    break;
                }
                let Some(Reverse((_, loser))) = places.pop() else {
                    break;
                };
                (queue, asked) = (loser, Some(member));
            }
        }
        for (member, places) in kept.into_iter().enumerate() {
            for Reverse((_, queue)) in places {
                owners[queue] = member;
            }
        }
        refused
    }

    /// The member that a queue asks first, or after the one it has asked.
    fn next(&self, queue: usize, asked: Option<usize>) -> Option<usize> {
        let scores = &self.scores[queue * self.members.len()..][..self.members.len()];
        let compare = |left: usize, right: usize| {
            scores[left].cmp(&scores[right]).then_with(|| {
                let of = |member: usize| (self.score(queue, member), self.members[member].0);
                of(left).cmp(&of(right))
            })
        };
        let mut best = None;
        for member in 0..scores.len() {
            let better = best.is_none_or(|best| compare(member, best) == Ordering::Greater);
            if better && asked.is_none_or(|asked| compare(member, asked) == Ordering::Less) {
                best = Some(member);
            }
        }
        best
    }

    fn score(&self, queue: usize, member: usize) -> Score {
        let pod = self.scores[queue * self.members.len() + member];
        let queue = self.queues[queue];
        let hash = with_broker(self.members[member].1.hash, queue);
        (pod, finish(hash, queue))
    }
}

// Hashes are the same on every machine and in every version: FNV-1a of a name, a zero, the broker's name, a
// zero and the queue's number, with the finalizer of MurmurHash3 (both in the public domain).

fn more(hash: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn begin(name: &str) -> u64 {
    more(0xcbf2_9ce4_8422_2325, name.bytes().chain([0]))
}

fn with_broker(hash: u64, queue: &QueueId) -> u64 {
    more(hash, queue.broker.bytes().chain([0]))
}

fn finish(hash: u64, queue: &QueueId) -> u64 {
    let mut hash = more(hash, queue.id.to_le_bytes());
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

    /// The same said plainly: of all pairs the one with the highest score is taken, while there is room.
    fn plain<'m>(
        queues: &BTreeSet<QueueId>,
        members: &'m BTreeSet<String>,
    ) -> BTreeMap<QueueId, &'m str> {
        let hash = |queue: &QueueId, name: &str| finish(with_broker(begin(name), queue), queue);
        let mut pairs = Vec::new();
        for (queue, member) in queues
            .iter()
            .flat_map(|q| members.iter().map(move |m| (q, m)))
        {
            let pod = hash(queue, pod_of(member).unwrap_or(member));
            pairs.push((pod, hash(queue, member), member.as_str(), queue));
        }
        pairs.sort_unstable_by(|left, right| right.cmp(left));
        let mut owners = BTreeMap::new();
        for capacity in [queues.len() / members.len(), 1] {
            let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, _, member, queue) in &pairs {
                let size = sizes.entry(member).or_default();
                if *size < capacity && !owners.contains_key(*queue) {
                    *size += 1;
                    owners.insert((*queue).clone(), *member);
                }
            }
        }
        owners
    }

    proptest! {
        #[test]
        fn nobody_prefers_another_who_would_have_it(
            count in 0u32..80,
            pods in 1u32..12,
            starts in 1u32..4,
            fewer in 0usize..12,
        ) {
            let queues = queues(count);
            let names = (0..pods * starts).map(|who| format!("keylane:pod-{}:{who:x}", who % pods));
            let members: BTreeSet<String> = names.collect();
            prop_assert_eq!(owners(&allocate(&queues, &members)), plain(&queues, &members));
            // What was hashed before is of no consequence, nor in which order members are named.
            let mut allocator = Allocator::new(&queues);
            let mut names: Vec<&str> = members.iter().rev().map(String::as_str).collect();
            allocator.owners(&names);
            names.truncate(names.len().saturating_sub(fewer).max(1));
            let members: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let asked: BTreeMap<QueueId, &str> = queues
                .iter()
                .cloned()
                .zip(allocator.owners(&names).into_iter().map(|owner| names[owner]))
                .collect();
            prop_assert_eq!(asked, plain(&queues, &members));
        }

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
