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
/// What is too long for a line is cut off rather than continued in the next one, and the other way round.
const CUT_OFF: &str = "\u{1b}[?7l";
const CONTINUED: &str = "\u{1b}[?7h";

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
        show(&frame, out)?;
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
        show(&frame, out)?;
    }
}

/// Shows a frame in place of the one before.
fn show(frame: &str, out: &mut dyn Write) -> Result<(), PluginError> {
    let shown = fitting(frame, rows().unwrap_or(usize::MAX));
    write!(out, "{CLEAR}{CUT_OFF}{shown}{CONTINUED}")?;
    Ok(out.flush()?)
}

/// Lines of the terminal; none if it does not say.
fn rows() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

/// As much of a frame as there is room for: with more its beginning would be out of sight. The last line is the
/// cursor's.
fn fitting(frame: &str, rows: usize) -> String {
    let lines: Vec<&str> = frame.lines().collect();
    if lines.len() < rows {
        return frame.to_owned();
    }
    let shown = rows.saturating_sub(2);
    let mut text: String = lines[..shown]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    let left = lines.len() - shown;
    text += &format!("... {left} more lines: a higher window shows them, or --once\n");
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_no_more_lines_than_the_terminal() {
        let frame: String = (0..10).map(|line| format!("{line}\n")).collect();
        assert_eq!(fitting(&frame, usize::MAX), frame);
        assert_eq!(fitting(&frame, 11), frame);
        let cut = fitting(&frame, 10);
        assert_eq!(cut.lines().count(), 9);
        assert!(
            cut.starts_with("0\n1\n") && cut.contains("7\n... 2 more lines"),
            "{cut}"
        );
        assert_eq!(fitting(&frame, 1).lines().count(), 1);
    }

    #[test]
    fn lines_are_continued_again_behind_a_frame() {
        let mut out = Vec::new();
        show("a\nb\n", &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.starts_with(CLEAR) && out.ends_with(CONTINUED),
            "{out:?}"
        );
    }
}
