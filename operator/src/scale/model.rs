//! What is learned of the handler and the cluster: how long a call takes when nothing is overloaded, how
//! much a pod can do, and how long a pod takes from being asked for to its first messages.

use super::Policy;
use super::history::tidy;
use serde::{Deserialize, Serialize};

/// Completions after which the service time is believed.
const LEARNED_AFTER: f64 = 500.0;
/// With slow handlers: after this time of watching and a few completions.
const LEARNED_AFTER_SECONDS: f64 = 60.0;
const FEW: f64 = 20.0;
/// Part of what lanes could do on paper that is believed before a pod was seen to do no more: calls need
/// processors too.
const UNSEEN: f64 = 0.5;
/// Part of what lanes could do on paper that is hoped for until lanes have shown it.
const HOPED: f64 = 0.75;
/// A pod that did so much with ease can probably do so many times as much.
const PROBABLY: f64 = 1.15;
/// Starts that are remembered; the slowest of them counts.
const STARTS: usize = 3;
/// Believed until a start was seen.
const USUAL_START: f64 = 60.0;
const SHORTEST_START: f64 = 10.0;
const LONGEST_START: f64 = 300.0;

/// What is learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Model {
    /// Seconds a call takes when nothing is overloaded.
    service: Option<f64>,
    completions: f64,
    watched: f64,
    /// Most messages a second that one pod finished without slower calls.
    shown: f64,
    /// Messages a second of one pod that could not do more, and whether that was seen here.
    capacity: Option<f64>,
    seen: bool,
    starts: Vec<f64>,
}

impl Model {
    /// A model as it was learned elsewhere: seconds a call takes, messages a second one pod finishes,
    /// seconds a pod takes to start.
    pub fn given(service: f64, capacity: f64, start: f64) -> Self {
        Self {
            service: Some(service),
            completions: LEARNED_AFTER,
            watched: LEARNED_AFTER_SECONDS,
            shown: 0.0,
            capacity: Some(capacity),
            seen: false,
            starts: vec![start],
        }
    }

    /// Seconds a call takes when nothing is overloaded, once enough was seen.
    pub fn service(&self) -> Option<f64> {
        let enough = self.completions >= LEARNED_AFTER
            || (self.watched >= LEARNED_AFTER_SECONDS && self.completions >= FEW);
        self.service.filter(|_| enough)
    }

    /// Calls of these many messages took so long each, and nothing was overloaded (or nothing is known yet).
    pub fn served(&mut self, seconds: f64, completions: f64, elapsed: f64) {
        self.completions = (self.completions + completions).min(1e6).round();
        self.watched = tidy((self.watched + elapsed).min(1e6));
        let learned = match self.service {
            None => seconds,
            // Shorter is true at once: nothing makes a call shorter than it is.
            Some(old) if seconds < old => old + 0.3 * (seconds - old),
            Some(old) => old + 0.1 * (seconds - old),
        };
        self.service = Some((learned * 1e6).round() / 1e6);
    }

    /// The work itself takes so long now.
    pub fn works_at(&mut self, seconds: f64) {
        self.service = Some((seconds * 1e6).round() / 1e6);
    }

    /// A pod finished so many messages a second, and calls were not slower for it.
    pub fn showed(&mut self, rate: f64) {
        self.shown = tidy(self.shown.max(rate));
    }

    /// A pod with all lanes busy and slower calls finished so many messages a second: it can do no more.
    pub fn saturated_at(&mut self, rate: f64) {
        let learned = match self.capacity {
            Some(old) if self.seen && rate > old => old + 0.5 * (rate - old),
            // Less may have been there to do for a moment; what it did before it can do.
            Some(old) if self.seen => old + 0.05 * (rate - old),
            _ => rate,
        };
        self.seen = true;
        self.capacity = Some(tidy(learned));
        self.shown = tidy(self.shown.max(rate * 0.5).min(rate));
    }

    /// The most a pod has been seen to do without slower calls.
    pub fn shown(&self) -> f64 {
        self.shown
    }

    /// Messages a second a pod can do, as far as known: what it was seen to do at most, or half of what its
    /// lanes could do on paper, and at least what it was seen to do with ease.
    pub fn capacity(&self, policy: &Policy) -> Option<f64> {
        let paper = f64::from(policy.max_lanes) / self.service()?;
        let known = match self.capacity {
            // Told, and what was seen with ease says that it is too little: probably there is more.
            Some(told) if !self.seen => told.max(PROBABLY * self.shown),
            Some(seen) => seen.max(self.shown),
            None => (UNSEEN * paper).max(self.shown),
        };
        Some(known.min(paper).max(1e-6))
    }

    /// What a pod that is full with few lanes may turn out to do with more of them, where it was told what it
    /// can do and never seen: lanes show it at the next look, and pods that were asked for in vain until then
    /// would stay for a hold.
    pub fn hoped_capacity(&self, policy: &Policy) -> Option<f64> {
        let known = self.capacity(policy)?;
        if self.seen || self.capacity.is_none() {
            return Some(known);
        }
        let paper = f64::from(policy.max_lanes) / self.service()?;
        Some(known.max(HOPED * paper))
    }

    /// The same, but not more than what has been seen: for steps down.
    pub fn sure_capacity(&self, policy: &Policy) -> Option<f64> {
        let most = self
            .capacity
            .unwrap_or(PROBABLY * self.shown)
            .max(self.shown);
        Some(self.capacity(policy)?.min(most).max(1e-6))
    }

    /// Most lanes that are of use in one pod, once it was seen here to do no more: by what was only believed
    /// of it, lanes would keep it from ever showing that it can do more.
    pub fn useful_lanes(&self) -> Option<u32> {
        let capacity = self.capacity.filter(|_| self.seen)?;
        let service = self.service()?;
        let lanes = (capacity.max(self.shown) * service * 1.15).ceil();
        Some(lanes.clamp(1.0, 1e6) as u32)
    }

    /// A pod took so long from being asked for to its first messages.
    pub fn started_in(&mut self, seconds: f64) {
        self.starts.push(tidy(seconds));
        if self.starts.len() > STARTS {
            self.starts.remove(0);
        }
    }

    /// Seconds from asking for a pod to its first messages.
    pub fn start(&self) -> f64 {
        let slowest = self.starts.iter().copied().reduce(f64::max);
        slowest
            .unwrap_or(USUAL_START)
            .clamp(SHORTEST_START, LONGEST_START)
    }
}
