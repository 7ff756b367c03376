//! Dead letters, and what became of them, for people.

use super::Resend;
use crate::broker::letters::{Content, DeadLetter, Listing, Replayed};
use crate::plugin::paint::Paint;
use std::fmt::Write as _;

/// What is sent or held is shown in full up to here.
const SHOWN: usize = 20;

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// A key as it is shown; messages without one have none.
fn key(key: &Option<String>) -> &str {
    key.as_deref().unwrap_or("(no key)")
}

pub(super) fn table(listing: &Listing, paint: Paint) -> String {
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

pub(super) fn inside(content: &Content, paint: Paint) -> String {
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

pub(super) fn told(replayed: &Replayed, what: &Resend, namespace: &str, paint: Paint) -> String {
    let mut text = String::new();
    let name = format!("{namespace}/{}", what.name);
    let number = replayed.sent.len();
    let or_more = if replayed.more { " or more" } else { "" };
    let _ = match (replayed.dry_run, number) {
        (true, 0) => writeln!(text, "{name}: there is nothing to send again."),
        (false, 0) => writeln!(text, "{name}: nothing was sent again."),
        (true, 1) if !replayed.more => {
            writeln!(text, "{name}: 1 dead letter would be sent again:")
        }
        (true, _) => writeln!(
            text,
            "{name}: {number}{or_more} dead letters would be sent again:"
        ),
        (false, 1) => writeln!(text, "{name}: 1 dead letter was sent again:"),
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
