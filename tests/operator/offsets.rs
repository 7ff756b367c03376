//! The annotation that asks for a reset of offsets, as far as it needs no pods: what is wrong with it, what
//! holds it back, what the status remembers.

use crate::space::{Space, consumer};
use crate::{is_true, message};
use anyhow::Result;
use serde_json::Value;

const ANNOTATION: &str = "keylane.dev/reset-offsets";

fn reset(object: &Value) -> (&str, &str) {
    let reset = &object["status"]["offsetsReset"];
    let text = |field: &str| reset[field].as_str().unwrap_or_default();
    (text("id"), text("phase"))
}

#[test]
fn a_reset_that_cannot_be_made_says_why_and_is_remembered_by_its_id() -> Result<()> {
    let space = Space::with_operator("resets")?;
    space.apply(&consumer("orders"))?;
    space.until_object("orderedconsumer", "orders", |object| {
        !message(object, "ResetHeld").is_empty() && !is_true(object, "ResetHeld")
    })?;
    let annotate = |value: &str| {
        let value = format!("{ANNOTATION}{value}");
        space.kubectl(&[
            "annotate",
            "orderedconsumer",
            "orders",
            "--overwrite",
            &value,
        ])
    };
    annotate("=yesterday")?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "ResetHeld")
    })?;
    let text = message(&object, "ResetHeld");
    for part in [
        ANNOTATION,
        "\"yesterday\"",
        "no id and position",
        "\"<id>: earliest\"",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(reset(&object), ("", ""));

    // Nobody can be asked here; it waits, and says for what.
    annotate("=first: earliest")?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        reset(object) == ("first", "Pending")
            && message(object, "ResetHeld").contains("(first): the brokers do not tell")
    })?;
    assert_eq!(object["status"]["offsetsReset"]["queuesDone"], 0);
    // Of the round before, which is over.
    let events = [
        "get",
        "events",
        "--field-selector=reason=ResetHeld",
        "-o",
        "name",
    ];
    assert!(space.kubectl(&events)?.contains("event"), "no event tells");
    annotate("=first: latest")?;
    let object = space.until_object("orderedconsumer", "orders", |object| {
        message(object, "ResetHeld").contains("choose an id that was not used before")
    })?;
    assert_eq!(object["status"]["offsetsReset"]["to"], "earliest");
    annotate("=second: latest")?;
    space.until_object("orderedconsumer", "orders", |object| {
        reset(object) == ("second", "Pending") && object["status"]["offsetsReset"]["to"] == "latest"
    })?;
    // What is not wanted any more is not held back either.
    annotate("-")?;
    space.until_object("orderedconsumer", "orders", |object| {
        reset(object) == ("second", "Withdrawn") && !is_true(object, "ResetHeld")
    })?;
    Ok(())
}
