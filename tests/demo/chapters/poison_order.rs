//! One message that its handler cannot take: found, given up, and sent again once the handler can.

use crate::look::{Look, condition};
use crate::story::{COUPON, Story, USUAL, Version, stretch};
use anyhow::{Context, Result, ensure};
use keylane_operator::broker::letters::Listing;
use std::time::Duration;

const KEY: &str = "order-4711";
const BEFORE: u32 = 3;
const BEHIND: u32 = 2;
const LOAD: u32 = 150;
const NAMED_WITHIN: Duration = Duration::from_secs(60);
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(120);

/// The whole way of it, as a person would go it.
pub async fn tell(story: &Story<'_>) -> Result<()> {
    println!(
        "\nA poison order: among {USUAL} orders/s, the fourth event of {KEY} has a {COUPON}, which this version of the handler fails for. {BEHIND} more of its events wait behind it."
    );
    story.say_where_to_look(&["keys", "status", "dlq list"]);
    let earlier = listed(story).await?;
    let events: Vec<String> = (0..=BEFORE + BEHIND).map(message).collect();
    let load = stretch(USUAL, LOAD);
    let mut args = vec![load.as_str()];
    args.extend(events.iter().map(String::as_str));
    let sending = story.produce(&args)?;
    let mut look = Look::new(story.stack);
    let named = look
        .until(NAMED_WITHIN, |object| {
            Ok(condition(object, "KeyStuck").is_some_and(|message| message.contains(KEY)))
        })
        .await?;
    let named = named.with_context(|| {
        format!("KeyStuck does not name {KEY} after {NAMED_WITHIN:?}; kubectl keylane keys tells what pods see")
    })?;
    let stuck = condition(&named, "KeyStuck").unwrap_or_default();
    println!("\nNamed after {} s: {stuck}", look.seconds());
    story.keylane(&["keys"], &[]).await?;
    println!(
        "Other keys go on. After 16 attempts, or a minute, it is given up and its key goes on."
    );

    let letter = given_up(story, &mut look, &earlier).await?;
    println!("\nGiven up after {} s:", look.seconds());
    story.keylane(&["dlq", "list"], &[]).await?;
    story.keylane(&["dlq", "show"], &[&letter]).await?;
    println!("The handler is repaired: version 2 is rolled out, a pod at a time.");
    story.deploy(Version::Two).await?;
    story.keylane(&["dlq", "replay"], &["--key", KEY]).await?;
    story
        .keylane(&["dlq", "replay"], &["--key", KEY, "--yes"])
        .await?;

    // Its first copy is never handled, the one that was sent again is.
    let sent = sending.finish().await?;
    let verdict = story.finish(&mut look, sent).await?;
    let ours = verdict.examples.iter();
    let others = ours.filter(|example| example.key.as_deref() != Some(KEY));
    println!(
        "\nWhat came of it: {} orders handled, {} failed attempts. {} calls began before an earlier event of their order was handled: those of {KEY} behind the one that was given up, which onExhausted: Block would have held back.",
        verdict.distinct, verdict.failed, verdict.inversions
    );
    ensure!(
        others.count() == 0 && verdict.overlaps == 0,
        "order was broken: {:?}",
        verdict.examples
    );
    Ok(())
}

/// An event of the order; the one in the middle has a coupon.
fn message(event: u32) -> String {
    let more = if event == BEFORE {
        format!(r#","{COUPON}":"NOV-11""#)
    } else {
        String::new()
    };
    format!(r#"--message={KEY}={{"order":"{KEY}","event":{event}{more}}}"#)
}

async fn listed(story: &Story<'_>) -> Result<Vec<String>> {
    let text = story
        .asked(&["dlq", "list"], &["--all", "-o", "json"])
        .await?;
    let listing: Listing = serde_json::from_str(&text)?;
    Ok(listing
        .letters
        .into_iter()
        .map(|letter| letter.id)
        .collect())
}

/// The dead letter that was not there before.
async fn given_up(story: &Story<'_>, look: &mut Look<'_>, earlier: &[String]) -> Result<String> {
    let end = look.seconds() + GIVEN_UP_WITHIN.as_secs();
    while look.seconds() < end {
        look.once().await?;
        let found = listed(story).await?;
        if let Some(new) = found.into_iter().find(|id| !earlier.contains(id)) {
            return Ok(new);
        }
    }
    anyhow::bail!(
        "{KEY} is not given up after {GIVEN_UP_WITHIN:?}; kubectl keylane keys tells where it is"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn one_event_of_the_order_has_a_coupon_and_all_are_orders() {
        let coupons = (0..=BEFORE + BEHIND).filter(|event| {
            let option = message(*event);
            let (key, body) = option
                .strip_prefix("--message=")
                .and_then(|text| text.split_once('='))
                .expect("key=body");
            let body: Value = serde_json::from_str(body).expect("JSON");
            assert_eq!((key, &body["event"]), (KEY, &Value::from(*event)));
            body.get(COUPON).is_some()
        });
        assert_eq!(coupons.collect::<Vec<_>>(), [BEFORE]);
    }
}
