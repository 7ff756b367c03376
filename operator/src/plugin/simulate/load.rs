//! The load of a simulation, from a trace or from a few numbers.

use crate::plugin::PluginError;
use crate::simulate::Trace;
use clap::{ArgGroup, Args};
use keylane_consumer::contract::duration::DurationText;
use std::path::PathBuf;

/// What arrives.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("arrivals").required(true).args(["rate", "trace"])))]
pub(super) struct Load {
    /// A trace as JSON: name, seconds, queues, rate (a value a second, the last one lasts), and more.
    #[arg(long, value_name = "FILE", conflicts_with = "peak")]
    trace: Option<PathBuf>,
    /// Messages a second that arrive.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Messages a second during the peak.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    peak: Option<f64>,
    /// When the peak begins.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    peak_at: DurationText,
    /// How long the peak lasts.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    peak_for: DurationText,
    /// How long to simulate.
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    lasts: DurationText,
    /// Messages that are there at the start.
    #[arg(long, value_name = "MESSAGES", default_value = "0", value_parser = rate)]
    backlog: f64,
    /// Queues of the topic.
    #[arg(long, default_value_t = 8)]
    queues: u32,
}

/// A rate or a number of messages.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e9).contains(&rate) => Ok(rate),
        _ => Err("write a number between 0 and 1e9".to_owned()),
    }
}

impl Load {
    /// The trace.
    pub fn trace(&self) -> Result<Trace, PluginError> {
        let wrong = |path: &str, reason: String| PluginError::Input {
            path: path.to_owned(),
            reason,
        };
        if let Some(path) = &self.trace {
            let name = path.display().to_string();
            let text =
                std::fs::read_to_string(path).map_err(|error| wrong(&name, error.to_string()))?;
            return Trace::from_json(&text).map_err(|error| wrong(&name, error.to_string()));
        }
        let seconds =
            |duration: &DurationText| u32::try_from(duration.get().as_secs()).unwrap_or(u32::MAX);
        let usual = self.rate.unwrap_or(0.0);
        let peak = seconds(&self.peak_at);
        let peak = peak..peak.saturating_add(seconds(&self.peak_for));
        // The last value lasts, so that no more are needed than there are seconds to the end of the peak.
        let lasts = seconds(&self.lasts);
        let rate = (0..=lasts.min(peak.end)).map(|second| match self.peak {
            Some(rate) if peak.contains(&second) => rate,
            _ => usual,
        });
        let trace = Trace {
            name: "the command line".to_owned(),
            seconds: lasts,
            queues: self.queues,
            rate: rate.collect(),
            backlog: self.backlog,
            ..Trace::default()
        };
        match trace.check() {
            Ok(()) => Ok(trace),
            Err(error) => Err(wrong("--for, --queues", error.to_string())),
        }
    }
}
