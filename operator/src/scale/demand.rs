//! How much work each queue asks for. A key is serial: what it wants beyond one message at a time is not
//! demand, more lanes or pods cannot serve it. Messages behind a head that does not move are none either;
//! other keys of that queue are.

use super::observe::Seen;
use super::{History, HotKey, KeyLoad, Snapshot};
use keylane_consumer::message::QueueId;

/// A pod with idle lanes has at most so many seconds of arrivals at hand that it could work on.
const AT_HAND: f64 = 5.0;
/// And so many messages.
const FEW: f64 = 10.0;
/// More than this times what is finished arrives: the rest waits for its key.
const SURPLUS: f64 = 1.2;
/// At nine tenths of what a lane can do, a queue forms that more lanes do not shorten.
const NEARLY: f64 = 0.9;
/// What waits for less than so many seconds of work is no backlog.
const BACKLOG: f64 = 20.0;
/// Hot keys that are named.
const NAMED: usize = 10;

/// What lanes and pods can do something about.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    /// Messages that arrive, a second, of each queue.
    pub rates: Vec<f64>,
    /// Unfinished messages of each queue.
    pub backlogs: Vec<f64>,
    /// Keys that ask for more than their lane can give, the one that asks most first.
    pub hot: Vec<HotKey>,
    /// A key that does not move.
    pub stuck: Option<String>,
    /// Something is behind although lanes are idle: few keys hold it.
    pub key_bound: bool,
}

impl Demand {
    pub fn rate(&self) -> f64 {
        self.rates.iter().sum()
    }

    pub fn backlog(&self) -> f64 {
        self.backlogs.iter().sum()
    }
}

pub(super) fn demand(snapshot: &Snapshot, seen: &Seen, history: &History) -> Demand {
    let mut demand = Demand {
        rates: seen.queues.iter().map(|queue| queue.rate).collect(),
        backlogs: seen.queues.iter().map(|queue| queue.unfinished).collect(),
        ..Demand::default()
    };
    idle(&mut demand, snapshot, seen);
    if snapshot.hot_keys.is_empty() && snapshot.stuck_keys.is_empty() {
        return demand;
    }
    let index = |id: &QueueId| {
        snapshot
            .queues
            .binary_search_by(|queue| queue.id.cmp(id))
            .ok()
    };
    for key in &snapshot.stuck_keys {
        if let Some(index) = index(&key.queue) {
            let (per_second, waiting) = all_of(key, &snapshot.hot_keys);
            take(&mut demand.backlogs[index], waiting as f64);
            take(&mut demand.rates[index], per_second);
        }
        demand.stuck.get_or_insert_with(|| key.key.clone());
    }
    let Some(lanes) = Lanes::of(snapshot, history) else {
        return demand;
    };
    let stuck = |key: &str| snapshot.stuck_keys.iter().any(|stuck| stuck.key == key);
    for key in &snapshot.hot_keys {
        if !lanes.too_few_for(key) || stuck(&key.key) {
            continue;
        }
        if let Some(index) = index(&key.queue) {
            take(
                &mut demand.rates[index],
                key.per_second - 1.0 / lanes.service,
            );
            take(&mut demand.backlogs[index], key.waiting as f64);
        }
        demand.hot.push(HotKey {
            key: key.key.clone(),
            queue: key.queue.to_string(),
            per_second: key.per_second,
            waiting_seconds: key.waiting as f64 * lanes.service,
        });
    }
    demand.hot.sort_by(|left, right| {
        let asks = |key: &HotKey| (key.per_second, key.waiting_seconds);
        let (left, right) = (asks(left), asks(right));
        (right.0.total_cmp(&left.0)).then(right.1.total_cmp(&left.1))
    });
    demand.hot.truncate(NAMED);
    demand
}

/// What all lanes of the group work on.
struct Lanes {
    /// Seconds of a call.
    service: f64,
    /// Lanes that run.
    busy: f64,
    /// Messages in memory.
    at_hand: f64,
}

impl Lanes {
    fn of(snapshot: &Snapshot, history: &History) -> Option<Self> {
        let pods = snapshot.pods.iter();
        let running: u32 = pods.clone().map(|pod| pod.busy_lanes).sum();
        Some(Self {
            service: history.model.service().filter(|service| *service > 0.0)?,
            busy: history.busy.unwrap_or(f64::from(running)),
            at_hand: pods.map(|pod| pod.buffered as f64).sum(),
        })
    }

    /// Whether a key needs more than the one lane it can have.
    ///
    /// In a backlog of many keys each of them may have much waiting, and all of them have just been fetched
    /// at a pace that says nothing of how fast they are sent. There a key is too much for its lane if it
    /// has more of the messages at hand than one of the running lanes has of the lanes: when those are done
    /// with everything else, this key is not.
    fn too_few_for(&self, key: &KeyLoad) -> bool {
        let waiting = key.waiting as f64;
        if waiting * self.busy >= NEARLY * self.at_hand && waiting * self.service > BACKLOG {
            return true;
        }
        let backlog = self.at_hand * self.service > BACKLOG * self.busy;
        !backlog && key.per_second * self.service > NEARLY
    }
}

/// What is behind in the queues of a pod with idle lanes, more lanes would not work off: it belongs to few
/// keys, whether anybody has named them or not.
fn idle(demand: &mut Demand, snapshot: &Snapshot, seen: &Seen) {
    let owners = snapshot.queues.iter().map(|queue| queue.owner);
    let owners: Vec<Option<usize>> = owners.collect();
    for (index, pod) in seen.pods.iter().enumerate().filter(|(_, pod)| pod.idle) {
        let own = || (0..owners.len()).filter(|queue| owners[*queue] == Some(index));
        let arriving: f64 = own().map(|queue| demand.rates[queue]).sum();
        let part = match pod.rate {
            Some(rate) if arriving > SURPLUS * rate => rate / arriving,
            _ => 1.0,
        };
        for queue in own() {
            let most = AT_HAND * demand.rates[queue] + FEW;
            if demand.backlogs[queue] > most {
                demand.rates[queue] *= part;
                demand.backlogs[queue] = most;
                demand.key_bound = true;
            }
        }
    }
}

/// Messages of a key that does not move: those that arrive, a second, and those that wait. Pods tell how much of
/// a key arrives where they list the keys that get or have most, not where they list those that are stuck, and
/// of one that waits for a person they may tell of its head only.
fn all_of(stuck: &KeyLoad, listed: &[KeyLoad]) -> (f64, u64) {
    let same = listed
        .iter()
        .filter(|key| key.key == stuck.key && key.queue == stuck.queue);
    same.fold(
        (stuck.per_second, stuck.waiting),
        |(per_second, waiting), key| (per_second.max(key.per_second), waiting.max(key.waiting)),
    )
}

fn take(from: &mut f64, what: f64) {
    *from = (*from - what.max(0.0)).max(0.0);
}
