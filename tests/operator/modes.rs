//! Who owns the number of pods: what each mode of autoscaling writes at a real API server, and what a change
//! of mode brings. There are no brokers and no pods that run, so that bounds, missing figures and people are
//! all that moves pods here.

use crate::is_true;
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

fn with(autoscaling: Value) -> Value {
    let mut object = consumer("orders");
    object["spec"]["autoscaling"] = autoscaling;
    object
}

/// Waits until the operator has decided on the spec as it is now, in this mode.
fn until_decided(space: &Space, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
            && wanted(&object["status"]["decision"])
    })
}

/// Notes of the events with this reason, once each of these parts is in one.
fn notes(space: &Space, reason: &str, parts: &[&str]) -> Result<Vec<String>> {
    let of = |list: &Value| -> Vec<String> {
        let events = list["items"].as_array().into_iter().flatten();
        let notes = events.filter_map(|event| event["message"].as_str());
        notes.map(str::to_owned).collect()
    };
    let field = format!("--field-selector=reason={reason}");
    let list = space.until_object("events", &field, |list| {
        let notes = of(list);
        let said = |part: &&str| notes.iter().any(|note| note.contains(*part));
        parts.iter().all(said)
    })?;
    Ok(of(&list))
}

#[test]
fn each_mode_writes_what_it_owns_and_a_change_of_mode_moves_no_more_than_bounds_ask() -> Result<()>
{
    let space = Space::with_operator("modes")?;
    let bounds = |mode: &str, least: i32, most: i32| {
        with(json!({"mode": mode, "minReplicas": least, "maxReplicas": most}))
    };
    // Advise says it and does not do it.
    space.apply(&bounds("Advise", 2, 4))?;
    let advised = until_decided(&space, |decision| decision["advisedReplicas"] == 2)?;
    assert_eq!(advised["spec"]["replicas"], 1);
    assert_eq!(advised["status"]["decision"]["replicas"], 1);
    let deployment = space.get("deployment", "orders-keylane")?;
    assert_eq!(deployment["spec"]["replicas"], 1);

    // Auto does it, and says so with numbers.
    space.apply(&bounds("Auto", 2, 4))?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["spec"]["replicas"] == 2
    })?;
    let up = notes(&space, "ScaledUp", &["1 -> 2 pods"])?;
    assert_eq!(up.len(), 1, "{up:?}");

    // What somebody else writes within the bounds is where it goes on from; beyond them it is put right.
    space.kubectl(&["scale", "orderedconsumer/orders", "--replicas=9"])?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["spec"]["replicas"] == 4
    })?;
    notes(&space, "ScaledDown", &["9 -> 4 pods"])?;

    // Hold leaves them to people.
    space.apply(&bounds("Hold", 2, 4))?;
    until_decided(&space, |decision| decision["reason"] == "Held")?;
    space.kubectl(&["scale", "orderedconsumer/orders", "--replicas=3"])?;
    let held = until_decided(&space, |decision| decision["replicas"] == 3)?;
    assert_eq!(held["status"]["decision"]["reason"], "Held");

    // And Auto goes on from what it finds.
    space.apply(&bounds("Auto", 2, 4))?;
    let taken = until_decided(&space, |decision| decision["reason"] != "Held")?;
    assert_eq!(taken["spec"]["replicas"], 3);
    assert_eq!(taken["status"]["decision"]["replicas"], 3);
    Ok(())
}

#[test]
fn each_change_of_pods_has_an_event_with_its_numbers_and_what_is_said_again_has_one_for_all()
-> Result<()> {
    let space = Space::with_operator("events")?;
    let at_least =
        |least: i32| with(json!({"mode": "Auto", "minReplicas": least, "maxReplicas": 8}));
    for least in [2, 6] {
        space.apply(&at_least(least))?;
        space.until_object("orderedconsumer", "orders", |object| {
            object["spec"]["replicas"] == least
        })?;
    }
    let up = notes(&space, "ScaledUp", &["1 -> 2 pods", "2 -> 6 pods"])?;
    assert_eq!(up.len(), 2, "{up:?}");

    let mut wrong = at_least(6);
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = json!("Never");
    for _ in 0..2 {
        space.apply(&wrong)?;
        space.until_object("orderedconsumer", "orders", |object| {
            is_true(object, "TemplateInvalid")
        })?;
        space.apply(&at_least(6))?;
        space.until_object("orderedconsumer", "orders", |object| {
            !is_true(object, "TemplateInvalid")
        })?;
    }
    // Once for each of the two conditions it makes, each time.
    let events = space.until_object(
        "events",
        "--field-selector=reason=TemplateInvalid",
        |list| list["items"][0]["series"]["count"] == 4,
    )?;
    assert_eq!(
        events["items"].as_array().map(Vec::len),
        Some(1),
        "{events}"
    );
    Ok(())
}

#[test]
fn pods_that_each_get_all_messages_are_not_scaled() -> Result<()> {
    let space = Space::with_operator("broadcast")?;
    let mut all = with(json!({"mode": "Auto", "minReplicas": 2, "maxReplicas": 4}));
    all["spec"]["consumption"] = json!("Broadcasting");
    space.apply(&all)?;
    let decided = until_decided(&space, |decision| decision["replicas"] == 1)?;
    assert_eq!(decided["status"]["decision"].get("advisedReplicas"), None);
    assert_eq!(decided["spec"]["replicas"], 1);
    Ok(())
}

#[test]
fn once_figures_have_been_missing_for_a_minute_there_are_as_many_pods_as_the_fallback_says()
-> Result<()> {
    let space = Space::with_operator("fallback")?;
    space.apply(&with(json!({
        "mode": "Auto", "minReplicas": 1, "maxReplicas": 5, "fallback": {"replicas": 3}
    })))?;
    let early = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "BrokerUnavailable")
    })?;
    ensure!(!is_true(&early, "MetricsStale"), "{}", early["status"]);
    assert_eq!(early["spec"]["replicas"], 1);
    let stale = space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "MetricsStale") && object["spec"]["replicas"] == 3
    })?;
    let decision = &stale["status"]["decision"];
    assert_eq!(decision["reason"], "MetricsMissing");
    let said = decision["message"].as_str().context("no message")?;
    ensure!(said.contains("figures of brokers missing"), "{said}");
    let up = notes(&space, "ScaledUp", &["1 -> 3 pods"])?;
    assert_eq!(up.len(), 1, "{up:?}");
    Ok(())
}

#[test]
fn a_cost_that_is_left_on_a_pod_that_stays_is_taken_away() -> Result<()> {
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let space = Space::with_operator("cost")?;
    space.apply(&consumer("orders"))?;
    space.until_object("deployment", "orders-keylane", |deployment| {
        deployment["status"]["replicas"] == 1
    })?;
    let pods = [
        "get",
        "pods",
        "--selector=keylane.dev/ordered-consumer=orders",
    ];
    let pods = space.kubectl(&[&pods[..], &["-o", "name"]].concat())?;
    let pod = pods
        .trim()
        .strip_prefix("pod/")
        .context("there is no pod")?;
    let costs = format!("{COST}=7");
    space.kubectl(&["annotate", "pod", pod, &costs, "team=shop"])?;
    let after = space.until_object("pod", pod, |pod| {
        pod["metadata"]["annotations"].get(COST).is_none()
    })?;
    assert_eq!(after["metadata"]["annotations"]["team"], "shop");
    Ok(())
}
