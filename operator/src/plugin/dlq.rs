//! The dead letters of an OrderedConsumer's group, by the API live.keylane.dev: the operator asks the brokers, and
//! the API server decides who may have it asked.

use super::connect::Cluster;
use super::paint::Paint;
use super::{Format, PluginError, Verdict};
use crate::broker::letters::{Content, DeadLetter, LetterId, Listing, Replay, Replayed};
use crate::live::letters_path;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use hyper::Request;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io::Write;

/// Letters that are asked for at once.
const PAGE: usize = 500;
/// What is sent is shown in full up to here.
const SHOWN: usize = 20;

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

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// A key as it is shown; messages without one have none.
fn key(key: &Option<String>) -> &str {
    key.as_deref().unwrap_or("(no key)")
}

fn table(listing: &Listing, paint: Paint) -> String {
    let mut text = String::new();
    let head = format!(
        "{:<20} {:<24} {:<16} {:>10} {:<20} {:>8}  {}",
        "LETTER", "KEY", "QUEUE", "OFFSET", "GIVEN UP", "ATTEMPTS", "WHY"
    );
    if !listing.letters.is_empty() {
        let _ = writeln!(text, "{}", paint.strong(&head));
    }
    for letter in &listing.letters {
        let why = match (&letter.last_error, letter.replayed) {
            (_, true) => "sent again".to_owned(),
            (why, false) => known(why.as_ref()),
        };
        let _ = writeln!(
            text,
            "{:<20} {:<24} {:<16} {:>10} {:<20} {:>8}  {}",
            letter.id,
            key(&letter.key),
            known(letter.queue.as_ref()),
            known(letter.offset),
            seconds(&letter.given_up_at),
            known(letter.attempts),
            why
        );
    }
    if listing.letters.is_empty() && listing.unknown.is_empty() {
        text.push_str("There are no dead letters that were not sent again.\n");
    }
    if listing
        .letters
        .iter()
        .any(|letter| letter.attempts.is_none() && !letter.replayed)
    {
        text.push_str("?: no pod remembers it; each does of its last 64, until it ends.\n");
    }
    if listing.after.is_some() {
        text.push_str("There are more: --limit shows them.\n");
    }
    for unknown in &listing.unknown {
        let line = format!("Not known of {}: {}", unknown.queue, unknown.reason);
        let _ = writeln!(text, "{}", paint.bad(&line));
    }
    text
}

/// A time without fractions.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

fn inside(content: &Content, paint: Paint) -> String {
    let DeadLetter { id, .. } = &content.letter;
    let letter = &content.letter;
    let mut text = String::new();
    let _ = writeln!(text, "{}", paint.strong(id));
    let place = match (&letter.queue, letter.offset) {
        (Some(queue), Some(offset)) => format!("{queue} at {offset}"),
        _ => "not known: its broker does not keep the message there any more".to_owned(),
    };
    for (name, value) in [
        ("key", key(&letter.key).to_owned()),
        ("came from", place),
        ("message id", letter.message_id.clone()),
        ("born", letter.born_at.clone()),
        ("given up", letter.given_up_at.clone()),
        ("attempts", known(letter.attempts)),
        ("last error", known(letter.last_error.as_ref())),
        ("sent again", letter.replayed.to_string()),
    ] {
        let _ = writeln!(text, "  {name:<12} {value}");
    }
    let Some(properties) = &content.properties else {
        text.push_str("What is in it is not shown: spec.redactKeys is set.\n");
        return text;
    };
    let _ = writeln!(text, "{}", paint.strong("Properties"));
    for (name, value) in properties {
        let _ = writeln!(text, "  {name:<24} {value}");
    }
    let body = match (&content.text, &content.base64, &content.defect) {
        (Some(text), ..) => text.clone(),
        (_, Some(base64), _) => format!("(no text; in base64) {base64}"),
        (.., defect) => known(defect.as_ref()),
    };
    let _ = writeln!(text, "{}\n{body}", paint.strong("Body"));
    text
}

fn told(replayed: &Replayed, what: &Resend, namespace: &str, paint: Paint) -> String {
    let mut text = String::new();
    let name = format!("{namespace}/{}", what.name);
    let (number, more) = (
        replayed.sent.len(),
        if replayed.more { " or more" } else { "" },
    );
    let _ = match (replayed.dry_run, number) {
        (true, 0) => writeln!(text, "{name}: there is nothing to send again."),
        (false, 0) => writeln!(text, "{name}: nothing was sent again."),
        (true, _) => writeln!(
            text,
            "{name}: {number}{more} dead letters would be sent again:"
        ),
        (false, _) => writeln!(text, "{name}: {number} dead letters were sent again:"),
    };
    for sent in replayed.sent.iter().take(SHOWN) {
        let at = sent
            .offset
            .map_or_else(String::new, |offset| format!(" at {offset}"));
        let _ = writeln!(
            text,
            "  {}  {}  to {}{at}",
            sent.id,
            key(&sent.key),
            sent.queue
        );
    }
    if number > SHOWN {
        let _ = writeln!(text, "  and {} more", number - SHOWN);
    }
    if replayed.copies > 0 {
        let _ = writeln!(
            text,
            "{} are second copies of these and are passed over.",
            replayed.copies
        );
    }
    if replayed.held_count > 0 {
        let line = format!(
            "Held back, and so is what follows them of their keys: {}",
            replayed.held_count
        );
        let _ = writeln!(text, "{}", paint.bad(&line));
        for held in replayed.held.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}  {}  {}", held.id, key(&held.key), held.reason);
        }
    }
    for unnoted in &replayed.unnoted {
        let line = format!(
            "{unnoted} was sent and could not be noted: sending again sends it twice (property KEYLANE_DEAD_LETTER tells)"
        );
        let _ = writeln!(text, "{}", paint.bad(&line));
    }
    for unknown in &replayed.unknown {
        let line = format!("Not done of {}: {}", unknown.queue, unknown.reason);
        let _ = writeln!(text, "{}", paint.bad(&line));
    }
    if number == 0 {
        return text;
    }
    match &replayed.other_groups {
        Some(groups) if groups.is_empty() => {}
        Some(groups) => {
            let line = format!(
                "Other groups consume the topic and get them, too: {}",
                groups.join(", ")
            );
            let _ = writeln!(text, "{}", paint.note(&line));
        }
        None => text
            .push_str("Whether other groups consume the topic, and get them too, is not known.\n"),
    }
    if replayed.dry_run {
        text.push_str("Nothing is sent. Once the handler takes them: the same with --yes\n");
    } else if replayed.more {
        text.push_str("There may be more: the same again goes on.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::letters::{Held, Sent, Unknown};

    fn letter(id: &str, attempts: Option<u32>) -> DeadLetter {
        DeadLetter {
            id: id.into(),
            key: Some("order-7".into()),
            queue: Some("broker-a/3".into()),
            offset: Some(70),
            given_up_at: "2026-11-11T00:00:01.234Z".into(),
            attempts,
            last_error: attempts.map(|_| "500 no stock".into()),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn letters_are_listed_with_why_and_what_is_not_known_is_said() {
        let listing = Listing {
            letters: vec![
                letter("broker-a/0/1", Some(16)),
                letter("broker-a/0/2", None),
            ],
            after: Some("broker-a/0/2".into()),
            unknown: vec![Unknown {
                queue: "broker-b/0".into(),
                reason: "no answer".into(),
            }],
        };
        let text = table(&listing, Paint::PLAIN);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows[1],
            [
                "broker-a/0/1",
                "order-7",
                "broker-a/3",
                "70",
                "2026-11-11T00:00:01Z",
                "16",
                "500",
                "no",
                "stock"
            ]
        );
        assert_eq!(rows[2][5..], ["?", "?"]);
        for said in [
            "each does of its last 64",
            "There are more",
            "Not known of broker-b/0: no answer",
        ] {
            assert!(text.contains(said), "{text}");
        }
        assert!(table(&Listing::default(), Paint::PLAIN).contains("There are no dead letters"));
    }

    #[test]
    fn what_would_be_sent_is_said_first_and_what_is_held_fails() {
        let what = |yes| Resend {
            name: "orders".into(),
            keys: Vec::new(),
            yes,
            output: None,
        };
        let mut replayed = Replayed {
            dry_run: true,
            sent: vec![Sent {
                id: "broker-a/0/1".into(),
                key: None,
                queue: "broker-a/3".into(),
                offset: None,
            }],
            other_groups: Some(vec!["billing".into()]),
            ..Replayed::default()
        };
        assert!(is_well(&replayed));
        let text = told(&replayed, &what(false), "shop", Paint::PLAIN);
        assert_eq!(
            text,
            "\
shop/orders: 1 dead letters would be sent again:
  broker-a/0/1  (no key)  to broker-a/3
Other groups consume the topic and get them, too: billing
Nothing is sent. Once the handler takes them: the same with --yes
"
        );
        replayed.held_count = 1;
        replayed.held.push(Held {
            id: "broker-a/0/2".into(),
            key: Some("order-7".into()),
            reason: "no queue".into(),
        });
        assert!(!is_well(&replayed));
        let text = told(&replayed, &what(false), "shop", Paint::PLAIN);
        assert!(text.contains("broker-a/0/2  order-7  no queue"), "{text}");
        let first = Replayed {
            sent: replayed.sent.clone(),
            held_count: 5,
            ..Replayed::default()
        };
        let both = together(first, replayed);
        assert_eq!((both.sent.len(), both.held_count), (2, 1));
    }

    #[test]
    fn what_is_inside_is_shown_unless_keys_are_redacted() {
        let mut content = Content {
            letter: letter("broker-a/0/1", None),
            properties: Some([("KEYS".to_owned(), "order-7".to_owned())].into()),
            text: Some("{\"paid\": true}".into()),
            ..Content::default()
        };
        let text = inside(&content, Paint::PLAIN);
        assert!(text.contains("came from    broker-a/3 at 70"), "{text}");
        assert!(text.ends_with("Body\n{\"paid\": true}\n"), "{text}");
        content.properties = None;
        let text = inside(&content, Paint::PLAIN);
        assert!(
            text.contains("redactKeys") && !text.contains("paid"),
            "{text}"
        );
    }
}
