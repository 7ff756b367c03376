//! A trace: the traffic of a run and what goes wrong in it.

use serde::{Deserialize, Serialize};

/// The traffic of a run and what goes wrong in it. Lists have a value a second; the last one lasts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// How long it is.
    pub seconds: u32,
    /// Queues of the topic.
    pub queues: u32,
    /// Share of the load of each queue; empty: the same for all.
    #[serde(default)]
    pub queue_weights: Vec<f64>,
    /// Messages that are sent, a second.
    pub rate: Vec<f64>,
    /// More messages of one key, a second.
    #[serde(default)]
    pub hot_key_rate: Option<Vec<f64>>,
    /// Calls a second that get through what is behind the handlers.
    #[serde(default)]
    pub downstream_cap: Option<Vec<f64>>,
    /// Calls take so many times as long as usual.
    #[serde(default)]
    pub slowness: Option<Vec<f64>>,
    /// Messages that are there at the start.
    #[serde(default)]
    pub backlog: f64,
    /// A key whose head is never finished.
    #[serde(default)]
    pub poison: Option<Poison>,
    /// Brokers tell no figures.
    #[serde(default)]
    pub metrics_outage: Option<Span>,
    /// Brokers are down; what producers hold back is sent within 10 s after.
    #[serde(default)]
    pub broker_outage: Option<Span>,
    /// A load that was announced.
    #[serde(default)]
    pub schedule: Option<Scheduled>,
}

/// From a second to another, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// First second.
    pub from: u32,
    /// The second after the last.
    pub to: u32,
}

/// A key whose head is not finished for some time, in which 60 messages of it arrive a second. Then it does
/// what waits, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poison {
    /// First second.
    pub from: u32,
    /// The second after the last.
    pub to: u32,
    /// Its queue.
    pub queue: u32,
}

/// A load that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduled {
    /// First second.
    pub from: u32,
    /// The second after the last.
    pub to: u32,
    /// Messages a second.
    pub rate: f64,
}

/// Why a trace cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It is not what a trace looks like.
    #[error("not a trace: {0}")]
    Format(String),
    /// A value makes no sense.
    #[error("trace {name:?}: {what}")]
    Value {
        /// Name of the trace.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Trace {
    /// Reads a trace from JSON.
    pub fn from_json(text: &str) -> Result<Self, TraceError> {
        let trace: Self =
            serde_json::from_str(text).map_err(|error| TraceError::Format(error.to_string()))?;
        trace.check()?;
        Ok(trace)
    }

    /// Whether its values make sense.
    pub fn check(&self) -> Result<(), TraceError> {
        let sane = |values: &[f64]| values.iter().all(|value| (0.0..=1e9).contains(value));
        let lists = [&self.hot_key_rate, &self.downstream_cap, &self.slowness];
        let queue_of_poison = self.poison.is_none_or(|poison| poison.queue < self.queues);
        let weights = self.queue_weights.len();
        let total: f64 = self.queue_weights.iter().sum();
        let problems = [
            (
                self.seconds == 0 || self.seconds > 1_000_000,
                "seconds must be 1 to 1000000",
            ),
            (
                self.queues == 0 || self.queues > 4096,
                "queues must be 1 to 4096",
            ),
            (self.rate.is_empty(), "rate must have at least one value"),
            (!sane(&self.rate), "rate must be between 0 and 1e9"),
            (
                !sane(&self.queue_weights),
                "queueWeights must be between 0 and 1e9",
            ),
            (
                weights != 0 && weights != self.queues as usize,
                "queueWeights must have a value a queue, or none",
            ),
            (
                weights != 0 && total <= 0.0,
                "queueWeights must not all be 0",
            ),
            (!sane(&[self.backlog]), "backlog must be between 0 and 1e9"),
            (
                !lists.iter().all(|list| list.as_deref().is_none_or(sane)),
                "lists must be between 0 and 1e9",
            ),
            (!queue_of_poison, "poison.queue must be one of the queues"),
        ];
        match problems.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(TraceError::Value {
                name: self.name.clone(),
                what,
            }),
            None => Ok(()),
        }
    }

    /// Share of each queue; they add up to 1.
    pub fn weights(&self) -> Vec<f64> {
        let total: f64 = self.queue_weights.iter().sum();
        if self.queue_weights.len() != self.queues as usize || total <= 0.0 {
            return vec![1.0 / f64::from(self.queues); self.queues as usize];
        }
        self.queue_weights
            .iter()
            .map(|weight| weight / total)
            .collect()
    }

    /// The value of a list at a second.
    pub fn at(list: &[f64], second: u32) -> Option<f64> {
        list.get(second as usize).or(list.last()).copied()
    }

    /// Whether a span that may be there covers a second.
    pub fn within(span: Option<Span>, second: u32) -> bool {
        span.is_some_and(|span| (span.from..span.to).contains(&second))
    }
}
