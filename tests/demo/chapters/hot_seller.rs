//! One key with more than its lane can do.

use crate::look::{Look, condition, wanted_pods};
use crate::story::{Story, USUAL, stretch};
use crate::tell as tell_verdict;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const KEY: &str = "seller-42";
/// Three times what one lane does at 20 ms a call.
const RATE: u32 = 150;
const HOT: u32 = 30;
const LOAD: u32 = 60;
const NAMED_WITHIN: Duration = Duration::from_secs(60);

/// It is named, waits for itself alone, and brings no pods.
pub async fn tell(story: &Story<'_>) -> Result<()> {
    println!(
        "\nA hot seller: beside {USUAL} orders/s, key {KEY} gets {RATE}/s for {HOT} s. Its lane does 50/s, as a call takes 20 ms: no number of pods could do more in order."
    );
    story.say_where_to_look(&["keys", "top", "explain"]);
    let key_rate = format!("--key-rate={RATE}:{HOT}");
    let sending = story.produce(&[&stretch(USUAL, LOAD), "--key", KEY, &key_rate])?;
    let mut look = Look::new(story.stack);
    let pods = wanted_pods(&look.once().await?);
    let named = look
        .until(NAMED_WITHIN, |object| {
            Ok(condition(object, "HotKeyBound").is_some_and(|message| message.contains(KEY)))
        })
        .await?
        .with_context(|| {
            format!("HotKeyBound does not name {KEY} after {NAMED_WITHIN:?}; kubectl keylane keys tells what pods see")
        })?;
    let after = look.seconds();
    println!(
        "\nNamed after {after} s: {}",
        condition(&named, "HotKeyBound").unwrap_or_default()
    );
    story.keylane(&["keys"], &[]).await?;
    let sent = sending.finish().await?;
    let verdict = story.finish(&mut look, sent).await?;
    let most = look.most_wanted;
    ensure!(
        most <= pods,
        "pods were added for one key: {pods} -> {most}"
    );
    println!(
        "\nWhat came of it: the key was named after {after} s, and no pod was added for it ({pods} wanted before, {most} at most)."
    );
    tell_verdict(&verdict, sent)
}
