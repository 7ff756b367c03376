//! Messages that were given up, through a real API server: who may look sees them and cannot have them sent
//! again, who may edit can, and each key keeps its order then.

use crate::people::Person;
use crate::shared::with_stack;
use anyhow::{Context as _, Result, ensure};
use keylane_operator::broker::letters::{Content, Listing, Replayed};
use keylane_tests::stack::{OrderedConsumer, Stack};
use keylane_tests::wait;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::block_in_place;

const NAMESPACE: &str = "keylane-e2e-letters";
const NAME: &str = "letters";
const KEY: &str = "order-7";
const QUEUES: u32 = 4;
const ORDERS: u64 = 10;
const MESSAGES: u64 = 100;
/// Messages of each order.
const EACH: u64 = MESSAGES / ORDERS;
const LIMIT: Duration = Duration::from_secs(180);
/// Cursor to the top left, and everything below cleared.
const CLEARED: &str = "\u{1b}[H\u{1b}[J";
const SELECTOR: &str = "--selector=keylane.dev/ordered-consumer=letters";

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_seen_by_who_may_look_and_sent_again_by_who_may_edit() -> Result<()> {
    with_stack(async |stack: &Stack| {
        let stack = block_in_place(|| stack.beside(NAMESPACE))?;
        case(&stack).await?;
        block_in_place(|| stack.remove_namespace())
    })
    .await
}

async fn case(stack: &Stack) -> Result<()> {
    let topic = format!("LETTERS_{:08x}", rand::random::<u32>());
    stack.produce(&topic, QUEUES, ORDERS, MESSAGES).await?;
    apply(stack, &topic)?;
    let viewer = Person::with_role(stack, "view")?;
    let editor = Person::with_role(stack, "edit")?;

    let letters = wait::until(LIMIT, "all messages of a key given up", async || {
        let listing = list(&viewer, &[])
            .await
            .map_err(|error| format!("{error:#}"))?;
        let all = listing.letters.len() as u64 == EACH;
        all.then_some(listing.letters.clone())
            .ok_or_else(|| format!("{listing:?}"))
    })
    .await?;
    let offsets: Vec<_> = letters.iter().filter_map(|letter| letter.offset).collect();
    ensure!(
        offsets.len() as u64 == EACH && offsets.is_sorted(),
        "{letters:?}"
    );
    ensure!(
        letters
            .iter()
            .all(|letter| letter.key.as_deref() == Some(KEY) && !letter.replayed),
        "{letters:?}"
    );
    // The pod that gave it up remembers why.
    let first = letters.first().context("there is none")?;
    ensure!(
        first.attempts == Some(2) && first.last_error.is_some(),
        "{first:?}"
    );
    let shown = viewer
        .asks(&["dlq", "show", NAME, &first.id, "-o", "json"])
        .await?;
    let shown: Content = serde_json::from_str(&shown)?;
    ensure!(
        shown.text.as_deref() == Some(r#"{"order":"order-7","event":0}"#),
        "{shown:?}"
    );
    let offsets = viewer
        .asks(&["offsets", "show", NAME, "-o", "json"])
        .await?;
    let offsets: Value = serde_json::from_str(&offsets)?;
    let queues = offsets.as_array().context("no list")?;
    let main = queues.iter().filter(|queue| queue["retry"] == false);
    let known = main.filter(|queue| queue["watermark"].is_u64()).count();
    ensure!(known == QUEUES as usize, "{offsets}");

    let live: [(&[&str], &str); 3] = [
        (&["top", NAME, "--once"], "QUEUES OF EACH POD"),
        (&["top", "--once"], "keylane-e2e-letters/letters"),
        (&["status", NAME], "; 4 queues, "),
    ];
    for (words, part) in live {
        let text = viewer.asks(words).await?;
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }
    in_a_terminal(stack, &viewer).await?;

    rights(stack, &viewer).await?;
    println!("{EACH} dead letters are seen by who may look, and not sent again");
    repaired(stack, &editor).await
}

/// There top goes on by itself, a frame in place of the one before, in colour.
async fn in_a_terminal(stack: &Stack, viewer: &Person) -> Result<()> {
    let mut top = viewer.sees(stack, &["top", NAME])?;
    let screen = wait::until(LIMIT, "three frames of top", async || {
        let screen = top.screen();
        let frames = screen.matches(CLEARED).count();
        // The last one may not be whole yet.
        (frames > 3).then_some(screen.clone()).ok_or(screen)
    })
    .await?;
    ensure!(top.ended()?.is_none(), "it has ended: {screen:?}");
    let mut frames = screen.split(CLEARED);
    ensure!(
        frames.next() == Some(""),
        "something beside frames: {screen:?}"
    );
    let name = format!("\u{1b}[1m{NAMESPACE}/{NAME}\u{1b}[0m");
    for frame in frames.take(3) {
        ensure!(
            frame.contains(&name) && frame.contains("QUEUES OF EACH POD"),
            "{frame:?}"
        );
    }
    let status = top.stop()?;
    ensure!(!status.success(), "it ended by itself: {status}");
    Ok(())
}

/// Who may look, and who may not, cannot have them sent again, or have the operator call brokers.
async fn rights(stack: &Stack, viewer: &Person) -> Result<()> {
    viewer.is_refused(&["dlq", "replay", NAME]).await?;
    viewer.is_refused(&["dlq", "replay", NAME, "--yes"]).await?;
    let migrate = ["migrate", NAME, "--name-server", "127.0.0.1:9876"];
    viewer.is_refused(&migrate).await?;
    let reset = ["offsets", "reset", NAME, "--to", "earliest", "--yes"];
    viewer.is_refused(&reset).await?;
    let stranger = Person::stranger(stack)?;
    stranger.is_refused(&["dlq", "list", NAME]).await?;
    stranger.is_refused(&["offsets", "show", NAME]).await?;
    stranger.is_refused(&["top", NAME, "--once"]).await?;
    // Nothing was sent meanwhile.
    let left = list(viewer, &[]).await?.letters.len() as u64;
    ensure!(left == EACH, "{left} are left");
    Ok(())
}

/// The handler takes them now: sent again once, they are handled in order.
async fn repaired(stack: &Stack, editor: &Person) -> Result<()> {
    for pod in stack
        .kubectl(&["get", "pods", SELECTOR, "--output=name"])?
        .lines()
    {
        stack.control(pod.trim(), "handler", &json!({}))?;
    }
    // By its definition every call behind one that was given up is an inversion: only what comes now counts.
    stack.forget().await?;
    let replay = ["dlq", "replay", NAME, "--key", KEY, "-o", "json"];
    let said: Replayed = serde_json::from_str(&editor.asks(&replay).await?)?;
    ensure!(said.dry_run && said.sent.len() as u64 == EACH, "{said:?}");
    let again = [&replay[..], &["--yes"]].concat();
    let sent: Replayed = serde_json::from_str(&editor.asks(&again).await?)?;
    let offsets: Vec<_> = sent.sent.iter().filter_map(|sent| sent.offset).collect();
    ensure!(
        offsets.len() as u64 == EACH && offsets.is_sorted(),
        "{sent:?}"
    );
    let nothing: Replayed = serde_json::from_str(&editor.asks(&again).await?)?;
    ensure!(nothing.sent.is_empty(), "sent twice: {nothing:?}");

    let verdict = wait::until(LIMIT, "dead letters handled", async || {
        let verdict = stack.verdict().await.map_err(|error| error.to_string())?;
        (verdict.distinct >= EACH)
            .then_some(verdict.clone())
            .ok_or_else(|| format!("{verdict:?}"))
    })
    .await?;
    ensure!(
        verdict.distinct == EACH && verdict.inversions + verdict.overlaps == 0,
        "{verdict:?}"
    );
    ensure!(list(editor, &[]).await?.letters.is_empty(), "some are left");
    let all = list(editor, &["--all"]).await?.letters;
    ensure!(
        all.len() as u64 == EACH && all.iter().all(|letter| letter.replayed),
        "{all:?}"
    );
    println!("{EACH} dead letters were sent again once, and handled in order");
    Ok(())
}

async fn list(person: &Person, more: &[&str]) -> Result<Listing> {
    let words = [&["dlq", "list", NAME, "-o", "json"], more].concat();
    Ok(serde_json::from_str(&person.asks(&words).await?)?)
}

/// A handler that fails for one key, and gives up soon.
fn apply(stack: &Stack, topic: &str) -> Result<()> {
    let consumer = OrderedConsumer {
        name: NAME.to_owned(),
        topic: topic.to_owned(),
        work: Duration::ZERO,
        timeout: Duration::from_secs(5),
        lanes: (4, 16),
        mode: "LanesOnly",
        max_replicas: 1,
        stabilization_window: Duration::from_secs(660),
        handler: vec![format!("--fail-key={KEY}")],
    };
    let mut manifest = consumer.manifest(stack.namespace(), stack.brokers_in());
    // Brokers that an earlier run left have letters of it.
    manifest["spec"]["consumerGroup"] = json!(format!("{NAME}-{:08x}", rand::random::<u32>()));
    manifest["spec"]["retry"] = json!({"maxAttempts": 2, "backoff": {"initial": "10ms"}});
    let text = serde_norway::to_string(&manifest)?;
    stack.apply("an OrderedConsumer whose handler fails for one key", &text)
}
