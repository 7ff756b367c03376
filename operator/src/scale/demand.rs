//! How much work each queue asks for. A key is serial: what it wants beyond one message at a time is not
//! demand, more lanes or pods cannot serve it. Messages behind a head that does not move are none either;
//! other keys of that queue are.

use super::Snapshot;
use super::observe::Seen;
use keylane_consumer::message::QueueId;

/// A pod with idle lanes has at most so many seconds of arrivals at hand that it could work on.
const AT_HAND: f64 = 5.0;
/// And so many messages.
const FEW: f64 = 10.0;
/// More than this times what is finished arrives: the rest waits for its key.
const SURPLUS: f64 = 1.2;

/// What lanes and pods can do something about.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    /// Messages that arrive, a second, of each queue.
    pub rates: Vec<f64>,
    /// Unfinished messages of each queue.
    pub backlogs: Vec<f64>,
    /// The key that asks most beyond its lane, and its messages a second.
    pub hot: Option<(String, f64)>,
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

pub(super) fn demand(snapshot: &Snapshot, seen: &Seen, service: Option<f64>) -> Demand {
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
            take(&mut demand.backlogs[index], key.waiting as f64);
            take(&mut demand.rates[index], key.per_second);
        }
        demand.stuck.get_or_insert_with(|| key.key.clone());
    }
    let Some(service) = service.filter(|service| *service > 0.0) else {
        return demand;
    };
    let serial = 1.0 / service;
    let stuck = |key: &str| snapshot.stuck_keys.iter().any(|stuck| stuck.key == key);
    for key in &snapshot.hot_keys {
        // At nine tenths of what a lane can do, a queue forms that more lanes do not shorten.
        if key.per_second <= 0.9 * serial && key.waiting as f64 <= 20.0 * serial {
            continue;
        }
        if stuck(&key.key) {
            continue;
        }
        if let Some(index) = index(&key.queue) {
            take(&mut demand.rates[index], key.per_second - serial);
            take(&mut demand.backlogs[index], key.waiting as f64);
        }
        if demand
            .hot
            .as_ref()
            .is_none_or(|(_, rate)| *rate < key.per_second)
        {
            demand.hot = Some((key.key.clone(), key.per_second));
        }
    }
    demand
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

fn take(from: &mut f64, what: f64) {
    *from = (*from - what.max(0.0)).max(0.0);
}
