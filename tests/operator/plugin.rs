//! `kubectl keylane` against a real API server.

use crate::is_true;
use crate::space::{Space, consumer};
use anyhow::{Context as _, Result};
use keylane_operator::plugin::{PluginError, Verdict};
use keylane_tests::plugin;
use serde_json::{Value, json};
use std::path::Path;

/// Runs a command as an administrator types it, in the namespace.
fn keylane(space: &Space, args: &[&str]) -> Result<(Verdict, String), PluginError> {
    run_with(space, space.cluster().kubeconfig(), args)
}

/// The same with another kubeconfig.
pub fn run_with(
    space: &Space,
    kubeconfig: &Path,
    args: &[&str],
) -> Result<(Verdict, String), PluginError> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(plugin::keylane(kubeconfig, &space.name, args))
}

/// The administrator's kubeconfig, who asks as somebody else.
fn kubeconfig_of(space: &Space, user: &str) -> Result<tempfile::NamedTempFile> {
    plugin::kubeconfig_as(space.cluster().kubeconfig(), user)
}

#[test]
fn status_tells_what_the_operator_found_and_the_pods_there_are() -> Result<()> {
    let space = Space::with_operator("status")?;
    space.apply(&consumer("orders"))?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["decision"]["reason"].is_string() && object["status"]["replicas"] == 1
    })?;
    let (_, text) = keylane(&space, &["status", "orders"])?;
    for part in [
        "orders  PodsNotReady: 0 of 1 pods are ready",
        "topic ORDERS (queues unknown), group orders",
        "lag: unknown",
        "└─ orders-keylane-",
        "0/2 containers ready",
        "BrokerUnavailable: ",
        "127.0.0.1:1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, json) = keylane(&space, &["status", "orders", "-o", "json"])?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(
        (&json["topic"], json["pods"].as_array().map(Vec::len)),
        (&"ORDERS".into(), Some(1))
    );
    Ok(())
}

#[test]
fn a_name_that_is_not_there_is_answered_with_those_that_are() -> Result<()> {
    let space = Space::new("absent")?;
    space.apply(&consumer("orders"))?;
    let error = keylane(&space, &["status", "order"])
        .err()
        .map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(error.contains("there are: orders"), "{error}");
    Ok(())
}

#[test]
fn explain_decides_again_what_the_operator_kept() -> Result<()> {
    let space = Space::with_operator("explain")?;
    let mut wanted = consumer("orders");
    wanted["spec"]["autoscaling"] = json!({"mode": "Auto", "minReplicas": 2, "maxReplicas": 4});
    space.apply(&wanted)?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["spec"]["replicas"] == 2
    })?;
    let (verdict, text) = keylane(&space, &["explain", "orders", "--replay"])?;
    assert_eq!(verdict, Verdict::Well, "{text}");
    for part in [
        "lanes a pod, 2 pods (",
        "what would change it",
        "1 -> 2 pods",
        "come out the same",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // One that somebody changed is found out.
    let kept = space.get("configmap", "orders-keylane-decisions")?;
    let all = kept["data"].as_object().context("it has no data")?;
    let (moment, first) = all.iter().next().context("it keeps nothing")?;
    let mut recorded: Value = serde_json::from_str(first.as_str().unwrap_or_default())?;
    recorded["replicas"] = json!(3);
    let patch = json!({"data": {moment: recorded.to_string()}}).to_string();
    space.kubectl(&[
        "patch",
        "configmap",
        "orders-keylane-decisions",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    let (verdict, text) = keylane(&space, &["explain", "orders", "--replay", "-o", "json"])?;
    assert_eq!(verdict, Verdict::Failed, "{text}");
    let json: Value = serde_json::from_str(&text)?;
    assert_eq!(json["replayed"][0]["then"]["replicas"], 3);
    assert_eq!(json["replayed"][0]["now"]["replicas"], 2);
    Ok(())
}

#[test]
fn suspend_and_resume_write_spec_suspend_and_nothing_else() -> Result<()> {
    let space = Space::new("suspend")?;
    let mut wanted = consumer("orders");
    wanted["spec"]["suspend"] = json!({"queues": ["broker-a/1"]});
    space.apply(&wanted)?;
    let spec = || Ok::<_, anyhow::Error>(space.get("orderedconsumer", "orders")?["spec"].clone());
    let before = spec()?;

    let (_, text) = keylane(
        &space,
        &["suspend", "orders", "--queue", "broker-a/2", "--key", "-7"],
    )?;
    assert!(
        text.contains("queue broker-a/2, key \"-7\" suspended."),
        "{text}"
    );
    let way_back = format!(
        "resume orders -n {} --queue broker-a/2 --key '-7'",
        space.name
    );
    assert!(text.contains(&way_back), "{text}");
    let mut held = spec()?;
    assert_eq!(
        held["suspend"],
        json!({"all": false, "queues": ["broker-a/1", "broker-a/2"], "keys": ["-7"]})
    );
    held["suspend"] = before["suspend"].clone();
    assert_eq!(held, before);

    let (_, text) = keylane(&space, &["suspend", "orders"])?;
    assert!(
        text.contains("Suspended now: everything, queue broker-a/1"),
        "{text}"
    );
    assert_eq!(spec()?["suspend"]["all"], true);
    let (_, text) = keylane(&space, &["suspend", "orders"])?;
    assert!(text.contains("suspended already"), "{text}");

    let (_, text) = keylane(&space, &["resume", "orders", "-o", "json"])?;
    let resumed: Value = serde_json::from_str(&text)?;
    assert_eq!(
        (&resumed["changed"], &resumed["suspended"]["all"]),
        (&json!(["everything"]), &json!(false))
    );
    let (_, text) = keylane(
        &space,
        &["resume", "orders", "--queue", "broker-a/2", "--key", "-7"],
    )?;
    assert!(text.contains("Suspended now: queue broker-a/1."), "{text}");
    assert_eq!(spec()?, before);
    Ok(())
}

#[test]
fn a_reset_of_offsets_is_shown_first_and_asked_for_by_the_annotation_alone() -> Result<()> {
    let space = Space::with_operator("offsets")?;
    space.apply(&consumer("orders"))?;
    let reset = [
        "offsets", "reset", "orders", "--to", "earliest", "--id", "a",
    ];
    space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "BrokerUnavailable")
    })?;
    let object = || space.get("orderedconsumer", "orders");
    let before = object()?;
    let (_, text) = keylane(&space, &reset)?;
    assert!(
        text.contains("orders: every queue goes on at the oldest"),
        "{text}"
    );
    assert!(text.contains("Nothing is changed."), "{text}");
    assert_eq!(
        object()?["metadata"]["annotations"],
        before["metadata"]["annotations"]
    );

    let (_, text) = keylane(&space, &[&reset[..], &["--yes", "-o", "json"]].concat())?;
    let asked: Value = serde_json::from_str(&text)?;
    assert_eq!(
        (&asked["written"], &asked["id"]),
        (&true.into(), &"a".into())
    );
    let after = object()?;
    assert_eq!(
        after["metadata"]["annotations"]["keylane.dev/reset-offsets"],
        "a: earliest"
    );
    assert_eq!(after["spec"], before["spec"]);
    // It stays so while the brokers do not answer, and nobody asks for another meanwhile.
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["offsetsReset"]["phase"] == "Pending"
    })?;
    let again = ["offsets", "reset", "orders", "--to", "latest", "--yes"];
    let error = keylane(&space, &again).err().map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(
        error.contains("the reset a to earliest is not done yet"),
        "{error}"
    );
    Ok(())
}

#[test]
fn keys_that_are_suspended_at_the_same_time_are_all_suspended() -> Result<()> {
    let space = Space::new("race")?;
    space.apply(&consumer("orders"))?;
    let keys = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        let suspend = |key| {
            let space = &space;
            scope.spawn(move || keylane(space, &["suspend", "orders", "--key", key]))
        };
        for thread in keys.map(suspend) {
            thread.join().expect("a thread").expect("a suspended key");
        }
    });
    let suspended = space.get("orderedconsumer", "orders")?["spec"]["suspend"]["keys"].clone();
    let mut suspended: Vec<String> = serde_json::from_value(suspended)?;
    suspended.sort();
    assert_eq!(suspended, keys);
    Ok(())
}

#[test]
fn check_passes_what_is_there_and_names_what_is_not() -> Result<()> {
    let space = Space::with_operator("check")?;
    space.apply(&consumer("orders"))?;
    space.until_object("orderedconsumer", "orders", |object| {
        is_true(object, "BrokerUnavailable")
    })?;
    let here = ["check", "orders", "--operator-namespace", &space.name];
    let (verdict, text) = keylane(&space, &here)?;
    assert_eq!(verdict, Verdict::Failed, "{text}");
    for part in [
        "answers: v1.",
        "ok    orderedconsumers.keylane.dev is installed and serves v1alpha1",
        "ok    its schema is that of this plugin",
        "ok    patch orderedconsumers (suspend, resume, offsets reset)",
        // The operator of this test is no Deployment.
        "FAIL  no operator is installed",
        "orders: BrokerUnavailable: ",
        "does topic ORDERS exist",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}

#[test]
fn who_may_only_read_consumers_gets_what_that_tells_and_hears_what_is_missing() -> Result<()> {
    let space = Space::new("viewer")?;
    space.apply(&consumer("orders"))?;
    space.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "viewer"},
        "rules": [{
            "apiGroups": ["keylane.dev"], "resources": ["orderedconsumers"], "verbs": ["get", "list"]
        }]
    }))?;
    space.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "viewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": space.name}]
    }))?;
    let file = kubeconfig_of(&space, &space.name)?;

    let (_, text) = run_with(&space, file.path(), &["status", "orders"])?;
    assert!(text.contains("pods: you may not list them"), "{text}");
    let (verdict, text) = run_with(&space, file.path(), &["check"])?;
    assert_eq!(verdict, Verdict::Failed, "no operator has looked: {text}");
    for part in [
        "ok    orderedconsumers of keylane.dev/v1alpha1 are served",
        "note  you may not read CustomResourceDefinitions",
        "ok    list orderedconsumers (check)",
        "note  you may not list pods (status)",
        "note  you may not patch orderedconsumers (suspend, resume, offsets reset)",
        "note  you may not look for the operator's Deployment",
        "orders: no operator has looked at it",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let error = run_with(&space, file.path(), &["suspend", "orders"]).err();
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.starts_with("you may not suspend OrderedConsumer \"orders\""),
        "{error}"
    );
    assert_eq!(
        space.get("orderedconsumer", "orders")?["spec"]["suspend"]["all"],
        false
    );
    // An administrator is told the same of them.
    let (_, text) = keylane(&space, &["check", "--as", &space.name])?;
    for part in [
        format!("Your rights as {0} in namespace {0}", space.name).as_str(),
        "ok    list orderedconsumers (check)",
        "note  you may not patch orderedconsumers (suspend, resume, offsets reset)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}

#[test]
fn who_may_install_is_told_so_before_and_who_may_not_whom_to_ask() -> Result<()> {
    let space = Space::new("before")?;
    let (verdict, text) = keylane(&space, &["check", "--pre"])?;
    assert_eq!(verdict, Verdict::Well, "{text}");
    assert!(
        text.contains("ok    create customresourcedefinitions"),
        "{text}"
    );
    let file = kubeconfig_of(&space, &space.name)?;
    let (verdict, text) = run_with(&space, file.path(), &["check", "--pre"])?;
    assert_eq!(verdict, Verdict::Failed, "{text}");
    for part in [
        "answers: v1.",
        "FAIL  you may not create customresourcedefinitions",
        "ask somebody who administers the cluster",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}

/// The chart's roles for people, tried as two of them.
#[test]
fn who_may_look_sees_dead_letters_and_only_who_may_edit_has_them_sent_again() -> Result<()> {
    let space = Space::new("people")?;
    // Roles of this namespace's own: those of an operator for the whole cluster may be there, and helm's.
    let set = format!("aggregateRoles=false,watchNamespace={}", space.name);
    let roles = space.render(&["users.yaml"], &["--set", &set])?;
    let _roles = space.with("the roles for people", &roles)?;
    let rights = [
        "get deadletters (dlq list, dlq show)",
        "create deadletters/replay (dlq replay)",
        "create groups (migrate)",
    ];
    for (role, wanted) in [("view", [true, false, false]), ("edit", [true; 3])] {
        let user = format!("{role}@{}.example.com", space.name);
        let named = format!("--clusterrole=keylane-{role}-{}", space.name);
        let bound = format!("--user={user}");
        space.kubectl(&["create", "rolebinding", role, &named, &bound])?;
        let file = kubeconfig_of(&space, &user)?;
        let (_, text) = run_with(&space, file.path(), &["check"])?;
        let may = rights.map(|right| text.contains(&format!("ok    {right}")));
        let may_not = rights.map(|right| text.contains(&format!("note  you may not {right}")));
        assert_eq!(
            (may, may_not),
            (wanted, wanted.map(|may| !may)),
            "{role}: {text}"
        );
    }
    Ok(())
}
