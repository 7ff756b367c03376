//! A reset of the group's offsets that is asked for by the annotation: while pods come and go every queue
//! goes back to its beginning once, and everything is handled again in order.

use crate::{MESSAGES, NAME, QUEUES, until};
use anyhow::{Result, ensure};
use keylane_tests::stack::Stack;
use keylane_tests::wait;
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);

/// Asks for it with a value that cannot be read first. Everything is committed before and afterwards.
pub async fn goes_back_to_the_beginning(stack: &Stack) -> Result<()> {
    annotate(stack, "yesterday")?;
    let held = |object: &Value| message(object, "ResetHeld").contains("\"yesterday\"");
    until_object(stack, "a value that cannot be read", held).await?;
    let before = stack.verdict().await?;
    annotate(stack, "e2e-1: earliest")?;
    // Queues move meanwhile.
    stack.kubectl(&["scale", "orderedconsumer", NAME, "--replicas=2"])?;
    let reset = |object: &Value| object["status"]["offsetsReset"].clone();
    let done = until_object(stack, "the reset", |object| {
        reset(object)["phase"] == "Done"
    })
    .await?;
    let told = reset(&done);
    println!("reset: {told}");
    ensure!(
        told["queuesDone"] == QUEUES && told["replayed"] == MESSAGES && told["skipped"] == 0,
        "{told}"
    );
    ensure!(message(&done, "ResetHeld").contains("no reset"), "{done}");
    let again = before.duplicates + MESSAGES;
    until(stack, "everything handled again", |verdict| {
        verdict.duplicates >= again
    })
    .await?;
    stack.kubectl(&["scale", "orderedconsumer", NAME, "--replicas=1"])?;
    Ok(())
}

fn annotate(stack: &Stack, value: &str) -> Result<()> {
    let annotation = format!("keylane.dev/reset-offsets={value}");
    let args = [
        "annotate",
        "orderedconsumer",
        NAME,
        "--overwrite",
        &annotation,
    ];
    stack.kubectl(&args)?;
    Ok(())
}

fn message<'o>(object: &'o Value, kind: &str) -> &'o str {
    let conditions = object["status"]["conditions"].as_array();
    let condition = conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
    condition
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
}

async fn until_object(stack: &Stack, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let object = wait::until(LIMIT, what, async || {
        let object = stack
            .get("orderedconsumer", NAME)
            .map_err(|error| error.to_string())?;
        if wanted(&object) {
            Ok(object)
        } else {
            Err(object["status"].to_string())
        }
    })
    .await?;
    Ok(object)
}
