//! The dead letters of an OrderedConsumer's group, by the API live.keylane.dev: the operator asks the brokers, and
//! the API server decides who may have it asked.

mod text;

use super::connect::Cluster;
use super::paint::Paint;
use super::{Format, PluginError, Verdict};
use crate::broker::letters::{Content, LetterId, Listing, Replay, Replayed};
use crate::live::letters_path;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use hyper::Request;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io::Write;
use text::{inside, table, told};

/// Letters that are asked for at once.
const PAGE: usize = 500;

/// What is to be done with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum Dlq {
    /// Messages that were given up and not sent again: key, queue, offset, when, attempts, why.
    #[command(after_help = "\
Examples:
  kubectl keylane dlq list order-status -n shop
  kubectl keylane dlq list order-status -n shop --all --limit 1000 -o json")]
    List(List),
    /// What is in one of them.
    #[command(after_help = "\
Examples:
  kubectl keylane dlq show order-status broker-a/0/17 -n shop
  kubectl keylane dlq show order-status broker-a/0/17 -n shop -o json")]
    Show(Show),
    /// Send them again to the queues they came from, each key in its order. Says what it would do, and does it
    /// with --yes.
    ///
    /// Each is sent once, however often this is said. It comes behind what its key has sent since. All groups of
    /// the topic get it.
    #[command(after_help = "\
Examples:
  kubectl keylane dlq replay order-status -n shop
  kubectl keylane dlq replay order-status -n shop --key order-7 --yes
  kubectl keylane dlq replay order-status -n shop --yes -o json")]
    Replay(Resend),
}

/// Whose dead letters are listed.
#[derive(Args, Clone, Debug)]
pub(super) struct List {
    /// Name of the OrderedConsumer.
    name: String,
    /// Those that were sent again, too.
    #[arg(long)]
    all: bool,
    /// So many at most.
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Which dead letter is shown.
#[derive(Args, Clone, Debug)]
pub(super) struct Show {
    /// Name of the OrderedConsumer.
    name: String,
    /// The letter, as dlq list names it.
    #[arg(value_name = "LETTER")]
    id: LetterId,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What is sent again.
#[derive(Args, Clone, Debug)]
pub(super) struct Resend {
    /// Name of the OrderedConsumer.
    name: String,
    /// Only letters with this key, itself or as dlq list shows it; may be given more than once.
    #[arg(long = "key", value_name = "KEY", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    keys: Vec<String>,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// Print it for programs.
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Carries it out; what there is to say goes to `out`.
pub(super) async fn dlq(
    cluster: &Cluster,
    what: &Dlq,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Verdict, PluginError> {
    match what {
        Dlq::List(what) => {
            let listing = list(cluster, what).await?;
            match what.output {
                Some(format) => format.write(&listing, out)?,
                None => write!(out, "{}", table(&listing, paint))?,
            }
            Ok(verdict(listing.unknown.is_empty()))
        }
        Dlq::Show(what) => {
            let query = format!("?id={}", what.id);
            let content: Content = read(cluster, &what.name, &query).await?;
            match what.output {
                Some(format) => format.write(&content, out)?,
                None => write!(out, "{}", inside(&content, paint))?,
            }
            Ok(Verdict::Well)
        }
        Dlq::Replay(what) => {
            let replayed = resend(cluster, what).await?;
            match what.output {
                Some(format) => format.write(&replayed, out)?,
                None => write!(out, "{}", told(&replayed, what, &cluster.namespace, paint))?,
            }
            Ok(verdict(is_well(&replayed)))
        }
    }
}

fn verdict(well: bool) -> Verdict {
    if well { Verdict::Well } else { Verdict::Failed }
}

async fn read<T: DeserializeOwned>(
    cluster: &Cluster,
    name: &str,
    query: &str,
) -> Result<T, PluginError> {
    let path = letters_path(&cluster.namespace, name);
    let request = Request::get(format!("{path}{query}")).body(Vec::new());
    let doing = format!("read the dead letters of OrderedConsumer {name:?}");
    cluster.ask_live(name, &doing, request).await
}

async fn list(cluster: &Cluster, what: &List) -> Result<Listing, PluginError> {
    let mut all = Listing::default();
    while let Some(left) = what
        .limit
        .checked_sub(all.letters.len())
        .filter(|left| *left > 0)
    {
        let mut query = format!("?all={}&limit={}", what.all, left.min(PAGE));
        if let Some(after) = &all.after {
            let _ = write!(query, "&after={after}");
        }
        let mut page: Listing = read(cluster, &what.name, &query).await?;
        let more = page.after.is_some() && !page.letters.is_empty();
        all.letters.append(&mut page.letters);
        for unknown in page.unknown {
            if !all.unknown.contains(&unknown) {
                all.unknown.push(unknown);
            }
        }
        all.after = page.after;
        if !more {
            break;
        }
    }
    Ok(all)
}

/// Asks until all is sent that can be: one request takes some thousands at most.
async fn resend(cluster: &Cluster, what: &Resend) -> Result<Replayed, PluginError> {
    let body = Replay {
        keys: what.keys.clone(),
        dry_run: !what.yes,
    };
    let body = serde_json::to_vec(&body).map_err(std::io::Error::from)?;
    let path = format!("{}/replay", letters_path(&cluster.namespace, &what.name));
    let doing = format!("send dead letters of OrderedConsumer {:?} again", what.name);
    let mut all = Replayed::default();
    loop {
        let request = Request::post(&path)
            .header("content-type", "application/json")
            .body(body.clone());
        let part: Replayed = cluster.ask_live(&what.name, &doing, request).await?;
        let go_on = part.more && !part.dry_run && !part.sent.is_empty() && part.unnoted.is_empty();
        all = together(all, part);
        if !go_on {
            return Ok(all);
        }
    }
}

/// What came of requests one after the other: what is held is told anew each time.
fn together(before: Replayed, part: Replayed) -> Replayed {
    let mut sent = before.sent;
    sent.extend(part.sent);
    let mut unnoted = before.unnoted;
    unnoted.extend(part.unnoted);
    Replayed {
        sent,
        unnoted,
        copies: before.copies + part.copies,
        ..part
    }
}

fn is_well(replayed: &Replayed) -> bool {
    replayed.held_count == 0 && replayed.unknown.is_empty() && replayed.unnoted.is_empty()
}

#[cfg(test)]
mod tests;
