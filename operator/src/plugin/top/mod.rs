//! OrderedConsumers as they work: what their pods say, and how that changes between two looks.

mod all;
mod one;

use super::connect::Cluster;
use super::paint::Paint;
use super::{Format, PluginError};
use clap::Args;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(2);
/// Looks of which a rate is drawn.
const DRAWN: usize = 40;
/// Nothing, and eight heights.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Cursor to the top left, and everything below cleared.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// What is to be seen.
#[derive(Args, Clone, Debug)]
pub(super) struct Top {
    /// Name of the OrderedConsumer. Default: a line for each of the namespace.
    name: Option<String>,
    /// A line for each OrderedConsumer of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Print it once, after two looks two seconds apart.
    #[arg(long)]
    once: bool,
    /// Print it for programs, once.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Looks until interrupted.
pub(super) async fn top(
    cluster: &Cluster,
    what: &Top,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), PluginError> {
    let once = what.once || !std::io::stdout().is_terminal();
    match (&what.name, what.output) {
        (Some(name), Some(format)) => format.write(&cluster.live(name).await?, out),
        (Some(name), None) => one(cluster, name, once, paint, out).await,
        (None, format) => all(cluster, what.all_namespaces, once, format, paint, out).await,
    }
}

async fn one(
    cluster: &Cluster,
    name: &str,
    once: bool,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), PluginError> {
    let mut before = cluster.live(name).await?;
    let mut looked = Instant::now();
    let mut rates = VecDeque::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let (now, consumer) = futures::try_join!(cluster.live(name), cluster.consumer(name))?;
        let seconds = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        remember(&mut rates, one::rate(&before, &now, seconds));
        let status = consumer.status.as_ref();
        let behind = status
            .and_then(|status| status.lag)
            .map(|lag| lag.unfinished);
        let rates = rates.make_contiguous();
        let frame = one::frame(&before, &now, seconds, rates, behind, paint);
        if once {
            return Ok(write!(out, "{frame}")?);
        }
        write!(out, "{CLEAR}{frame}")?;
        out.flush()?;
        before = now;
    }
}

async fn all(
    cluster: &Cluster,
    everywhere: bool,
    once: bool,
    format: Option<Format>,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), PluginError> {
    let mut seen = all::Seen::default();
    seen.look(cluster, everywhere).await?;
    loop {
        tokio::time::sleep(EVERY).await;
        seen.look(cluster, everywhere).await?;
        if let Some(format) = format {
            return format.write(&seen.rows(), out);
        }
        let frame = all::frame(&seen, paint);
        if once {
            return Ok(write!(out, "{frame}")?);
        }
        write!(out, "{CLEAR}{frame}")?;
        out.flush()?;
    }
}

/// Adds what was seen last.
fn remember(rates: &mut VecDeque<f64>, rate: f64) {
    rates.push_back(rate);
    if rates.len() > DRAWN {
        rates.pop_front();
    }
}

/// What is there at all is seen.
fn height(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return HEIGHTS[0];
    }
    let height = (value / most * 8.0).round() as usize;
    HEIGHTS[height.clamp(1, 8)]
}

fn sparkline(rates: &[f64]) -> String {
    let most = rates.iter().copied().fold(0.0, f64::max);
    rates.iter().map(|rate| height(*rate, most)).collect()
}
