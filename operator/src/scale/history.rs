//! What is remembered between two calls of `decide`. Small, and all of it that matters survives being
//! written as JSON: an operator that reads it goes on as its predecessor would. Not written are
//! readings that are old when it is read: counters of pods, and offsets of queues.

use super::decision::Decision;
use super::input::Mode;
use super::link::Link;
use super::model::Model;
use keylane_consumer::message::QueueId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, VecDeque};

/// Recent arrivals are kept for this long, one sample a call.
const RECENT: f64 = 90.0;
/// Samples of a short look back.
const SHORT: usize = 6;
/// One sample of the long record stands for so many seconds.
const BLOCK: f64 = 15.0;
/// A change in the other direction within this time is a reversal.
const SOON: f64 = 600.0;
/// The long record goes back so far.
const LONG: f64 = 1800.0;

/// What is remembered between two calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct History {
    /// When figures were last taken.
    pub(super) at: Option<f64>,
    pub(super) arrivals: Arrivals,
    pub(super) queues: Queues,
    #[serde(skip)]
    pub(super) pods: BTreeMap<String, PodMemory>,
    pub(super) completions: Option<f64>,
    pub(super) busy: Option<f64>,
    pub(super) model: Model,
    pub(super) link: Link,
    pub(super) lanes: Option<u32>,
    /// Messages finished a second when lanes were last doubled, while it is not known how long a call takes.
    pub(super) before_doubling: Option<f64>,
    /// Lanes of pods that are to have fewer, by incarnation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) fewer_lanes: BTreeMap<String, u32>,
    pub(super) change: Option<Change>,
    pub(super) calm: Calm,
    pub(super) missing: Missing,
    /// Until when arrivals are not believed to last: producers send again after an outage.
    pub(super) burst_until: Option<f64>,
    /// Who owned what at the last look.
    pub(super) mode: Option<Mode>,
    /// What was decided last. Not written: an operator that starts looks afresh.
    #[serde(skip)]
    pub(super) last: Option<Decision>,
    /// What was remembered of steps before the last decision made one.
    #[serde(skip)]
    pub(super) before_step: Option<(Calm, Option<Change>)>,
}

impl History {
    /// As JSON. Rates of queues, which make most of it where there are very many, are left out of what would
    /// be longer than `most` bytes: a predecessor's rates are of use for one look only. Then lanes of pods
    /// that have fewer: pods say themselves what they have.
    pub fn written(&self, most: usize) -> Option<String> {
        let text = serde_json::to_string(self).ok()?;
        if text.len() <= most {
            return Some(text);
        }
        let mut without = Self {
            queues: Queues::default(),
            ..self.clone()
        };
        let text = serde_json::to_string(&without).ok()?;
        if text.len() <= most || without.fewer_lanes.is_empty() {
            return Some(text);
        }
        without.fewer_lanes.clear();
        serde_json::to_string(&without).ok()
    }
}

/// Since when figures are missing, of each source by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Missing {
    /// Of a broker.
    pub brokers: Option<f64>,
    /// Of a pod that should answer.
    pub pods: Option<f64>,
}

impl Missing {
    /// What is missing now.
    pub fn note(&mut self, now: f64, brokers: bool, pods: bool) {
        self.brokers = brokers.then(|| self.brokers.unwrap_or(now));
        self.pods = pods.then(|| self.pods.unwrap_or(now));
    }

    /// Seconds for which that has been missing which has been for longest.
    pub fn longest(&self, now: f64) -> f64 {
        let since = [self.brokers, self.pods].into_iter().flatten();
        now - since.reduce(f64::min).unwrap_or(now)
    }
}

/// Readings of one pod at the last call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodMemory {
    pub busy_seconds: f64,
    pub completed: u64,
    /// Lanes it had.
    pub lanes: u32,
    /// Looks in a row at which lanes were idle.
    pub idle: u32,
    /// All lanes were busy and more waited.
    pub full: bool,
    /// Queues it dispatched from.
    pub queues: Vec<u32>,
}

/// A step up in replicas that is being carried out or judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    pub at: f64,
    pub from: u32,
    pub to: u32,
    /// Messages finished a second before, if pods were saturated.
    pub before: Option<f64>,
    /// When all pods were at work.
    pub arrived: Option<f64>,
}

/// What keeps replicas calm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Calm {
    direction: i8,
    /// When replicas changed last.
    pub changed_at: Option<f64>,
    /// When they changed in the other direction soon after a change.
    reversals: VecDeque<f64>,
    /// No step up before this, after one that brought nothing.
    pub no_up_before: Option<f64>,
    /// When replicas were taken over from somebody else, who had reasons for so many.
    pub owned_since: Option<f64>,
}

impl Calm {
    /// Replicas change in this direction now.
    pub fn turned(&mut self, direction: i8, now: f64) {
        let soon = self.changed_at.is_some_and(|at| now - at <= SOON);
        if self.direction == -direction && soon {
            self.reversals.push_back(tidy(now));
        }
        self.reversals.retain(|at| now - at <= LONG);
        self.direction = direction;
        self.changed_at = Some(tidy(now));
    }

    /// How long fewer must have been enough, and since the last change: the usual hold; after a reversal in
    /// the last half hour three times as long, half an hour at most.
    pub fn hold(&self, usual: f64, now: f64) -> f64 {
        let reversals = self.reversals.iter().filter(|at| now - *at <= LONG);
        let factor = if reversals.count() > 0 { 3.0 } else { 1.0 };
        (usual * factor).min(LONG)
    }
}

/// Arrivals of all queues together: the last moments call by call, the last half hour in blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Arrivals {
    recent: VecDeque<(f64, f64)>,
    /// Start of each block, and the mean of its samples.
    blocks: VecDeque<(f64, f64)>,
    /// Samples in the last block.
    count: u32,
}

impl Arrivals {
    /// Adds a sample.
    pub fn push(&mut self, now: f64, rate: f64) {
        let rate = tidy(rate);
        self.recent.push_back((now, rate));
        self.recent.retain(|(at, _)| now - at <= RECENT);
        match self.blocks.back_mut() {
            Some((start, mean)) if now - *start < BLOCK => {
                self.count += 1;
                *mean = tidy(*mean + (rate - *mean) / f64::from(self.count));
            }
            _ => {
                self.blocks.push_back((now, rate));
                self.count = 1;
            }
        }
        self.blocks.retain(|(start, _)| now - start <= LONG);
    }

    /// The last samples, the newest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = f64> + '_ {
        self.recent.iter().rev().take(count).map(|(_, rate)| *rate)
    }

    /// How fast the rate rises, a second. Of a long and a short look back the smaller: a single step moves
    /// one or the other, a ramp both.
    pub fn rise(&self) -> f64 {
        let long = self.slope(self.recent.len());
        let short = self.slope(SHORT);
        long.min(short).max(0.0)
    }

    /// The median of the slopes between all pairs of the last samples (Theil, 1950; Sen, 1968).
    fn slope(&self, count: usize) -> f64 {
        let samples: Vec<_> = self.recent.iter().rev().take(count).rev().collect();
        if samples.len() < SHORT {
            return 0.0;
        }
        let mut slopes = Vec::with_capacity(samples.len() * samples.len() / 2);
        for (index, (at, rate)) in samples.iter().enumerate() {
            for (later, next) in &samples[index + 1..] {
                if later > at {
                    slopes.push((next - rate) / (later - at));
                }
            }
        }
        quantile(&mut slopes, 0.5).unwrap_or(0.0)
    }

    /// This part of the last `window` seconds had no more arrivals than that; none if the record does not
    /// go back so far.
    pub fn quantile(&self, now: f64, window: f64, part: f64) -> Option<f64> {
        let oldest = self.blocks.front()?.0;
        if oldest > now - window {
            return None;
        }
        let mut rates: Vec<_> = self
            .blocks
            .iter()
            .filter(|(start, _)| *start > now - window - BLOCK)
            .map(|(_, rate)| *rate)
            .collect();
        quantile(&mut rates, part)
    }
}

/// The value below which this part of the values lies.
pub(super) fn quantile(values: &mut [f64], part: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let rank = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len()) - 1;
    let (_, value, _) = values.select_nth_unstable_by(rank, f64::total_cmp);
    Some(*value)
}

/// Three decimals are enough, and short to write.
pub(super) fn tidy(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What is remembered of each queue, in order of the ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Queues(pub Vec<(QueueId, QueueMemory)>);

/// What is remembered of one queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueMemory {
    /// Offset of the next message, and when it was read.
    pub max_offset: Option<(f64, u64)>,
    /// Messages that arrive, a second.
    pub rate: f64,
    /// Messages not finished, as last known, and when.
    pub unfinished: Option<(f64, f64)>,
}

// Only rates are written, in order of queue ids: a list a broker, with nulls for ids there are none of.
impl Serialize for Queues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut brokers: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
        for (queue, memory) in &self.0 {
            // A number nobody would give a queue is not worth a list of that length.
            if queue.id < 65_536 {
                let rates = brokers.entry(&queue.broker).or_default();
                rates.resize(rates.len().max(queue.id as usize + 1), None);
                rates[queue.id as usize] = Some(short(memory.rate));
            }
        }
        brokers.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Queues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let brokers: BTreeMap<String, Vec<Option<f64>>> = Deserialize::deserialize(deserializer)?;
        let mut queues = Vec::new();
        for (broker, rates) in brokers {
            let broker: std::sync::Arc<str> = broker.into();
            for (id, rate) in (0u32..).zip(rates) {
                if let Some(rate) = rate {
                    let memory = QueueMemory {
                        rate,
                        ..QueueMemory::default()
                    };
                    queues.push((QueueId::new(broker.clone(), id), memory));
                }
            }
        }
        Ok(Self(queues))
    }
}

/// Three digits of a rate.
fn short(rate: f64) -> f64 {
    if rate < 0.01 {
        return 0.0;
    }
    let scale = 10f64.powi(2 - rate.log10().floor() as i32);
    (rate * scale).round() / scale
}
