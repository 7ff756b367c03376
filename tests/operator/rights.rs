//! What the operator's service account may do, tried as that account.

use crate::space::{Space, consumer};
use anyhow::Result;
use keylane_tests::cluster::run;
use keylane_tests::cluster::wait::{self, Pending};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Verb and resource, with more arguments of `kubectl auth can-i`.
const REFUSED: [&[&str]; 23] = [
    &["list", "secrets"],
    &["watch", "secrets"],
    &["list", "configmaps"],
    &["delete", "secrets"],
    &["delete", "deployments"],
    &["update", "deployments"],
    &["delete", "pods"],
    &["update", "pods"],
    &["patch", "pods", "--subresource=ephemeralcontainers"],
    &["create", "pods", "--subresource=exec"],
    &["create", "pods", "--subresource=eviction"],
    &["get", "pods", "--subresource=log"],
    &["create", "orderedconsumers"],
    &["patch", "orderedconsumers"],
    &["delete", "orderedconsumers"],
    &["create", "roles"],
    &["create", "rolebindings"],
    &["create", "serviceaccounts", "--subresource=token"],
    &["impersonate", "serviceaccounts"],
    &["update", "leases/other"],
    &["delete", "leases/kl-operator"],
    &["get", "secrets", "--namespace=kube-system"],
    &["list", "nodes"],
];
const ALLOWED: [&[&str]; 6] = [
    &["get", "secrets"],
    &["watch", "orderedconsumers"],
    &["patch", "orderedconsumers", "--subresource=status"],
    &["patch", "deployments.apps"],
    &["update", "leases/kl-operator"],
    &["create", "events.events.k8s.io"],
];

#[test]
fn the_account_can_do_what_the_chart_lists_and_nothing_else() -> Result<()> {
    let space = Space::new("rights")?;
    let user = space.grant()?;
    let may = |what: &[&str]| {
        let mut args = vec!["auth", "can-i", "--quiet", "--as", &user];
        args.extend(what);
        space.kubectl(&args).is_ok()
    };
    for what in ALLOWED {
        assert!(may(what), "{what:?}");
    }
    for what in REFUSED {
        assert!(!may(what), "{what:?}");
    }
    space.apply(&consumer("orders"))?;
    let patch = [
        "patch",
        "orderedconsumer",
        "orders",
        "--type=merge",
        "--as",
        &user,
    ];
    let spec =
        space.kubectl(&[&patch[..], &["-p", r#"{"spec":{"suspend":{"all":true}}}"#]].concat());
    assert!(spec.is_err_and(|error| error.to_string().contains("orbidden")));
    Ok(())
}

/// Each right of these rules by itself: a verb, a resource and, where it is bound to one, a name.
fn each(rules: &Value) -> BTreeSet<String> {
    let texts = |of: &Value| -> Vec<String> {
        let texts = of
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push("*".to_owned());
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    for verb in texts(&rule["verbs"]) {
                        rights.insert(format!("{verb} {resource}.{group} {name}"));
                    }
                }
            }
        }
    }
    rights
}

/// All rights a user has in a namespace, by the API server's word.
fn has(space: &Space, user: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    });
    let mut ask = space.cluster().kubectl();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    ask.args(["create", "--raw", path, "-f", "-", "--as", user]);
    let answer = run::feed("asking for rights", &mut ask, &review.to_string())?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(each(&answer["status"]["resourceRules"]))
}

#[test]
fn it_has_each_right_of_the_chart_and_not_one_more() -> Result<()> {
    let space = Space::new("exact")?;
    let user = space.grant()?;
    let watch = format!("watchNamespace={}", space.name);
    let text = space.render(&["rbac.yaml"], &["--set", &watch])?;
    let mut listed = BTreeSet::new();
    for document in serde_norway::Deserializer::from_str(&text) {
        let object = Value::deserialize(document)?;
        if object["kind"] == "Role" {
            listed.append(&mut each(&object["rules"]));
        }
    }
    assert!(listed.len() > 40, "{listed:?}");
    // Where it has no role: what everybody has who is known at all, such as to ask what one may.
    let everybody = has(&space, &user, "default")?;
    assert!(
        everybody
            .iter()
            .all(|right| right.starts_with("create self")),
        "{everybody:?}"
    );
    let has = has(&space, &user, &space.name)?;
    let more: Vec<_> = has
        .difference(&listed)
        .filter(|right| !everybody.contains(*right))
        .collect();
    let less: Vec<_> = listed.difference(&has).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "more: {more:?}, less: {less:?}"
    );
    Ok(())
}

#[test]
fn it_creates_pods_as_a_dry_run_only_and_changes_one_annotation_of_them() -> Result<()> {
    let space = Space::new("dryrun")?;
    let user = space.grant()?;
    let policy = space.render(&["admission.yaml"], &[])?;
    space.cluster().apply("the admission policy", &policy)?;
    let create = |name: &str, more: &[&str]| {
        let image = "--image=localhost/not-there:1";
        space.kubectl(&[&["run", name, image, "--as", &user], more].concat())
    };
    let wanted = "as a dry run only";
    // The API server takes some seconds to obey a new policy.
    let refused = wait::until(
        "the policy in force",
        Duration::from_secs(60),
        None,
        || match create("real", &[]) {
            Err(error) if error.to_string().contains(wanted) => Ok(()),
            Err(error) => Err(Pending::NotYet(error.to_string())),
            Ok(_) => {
                let _gone = space.kubectl(&["delete", "pod", "real", "--force"]);
                Err(Pending::NotYet("a pod was created".to_owned()))
            }
        },
    );
    let tried = create("tried", &["--dry-run=server"]);
    let changed = changes(&space, &user);
    for kind in [
        "validatingadmissionpolicybinding",
        "validatingadmissionpolicy",
    ] {
        let name = format!("kl-operator.{}.keylane.dev", space.name);
        let mut delete = space.cluster().kubectl();
        run::output("removing the policy", delete.args(["delete", kind, &name]))?;
    }
    refused?;
    tried?;
    let wrong: Vec<_> = changed?.into_iter().filter(|(_, right)| !right).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// Changes of a pod, and whether the policy says to each what it should.
fn changes(space: &Space, user: &str) -> Result<Vec<(&'static str, bool)>> {
    let image = "--image=localhost/not-there:1";
    space.kubectl(&["run", "pod", image, "--annotations=team=shop"])?;
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let image = json!({"spec": {"containers": [{"name": "pod", "image": "localhost/other:1"}]}});
    let annotation = |name: &str, value: Value| json!({"metadata": {"annotations": {name: value}}});
    let tries = [
        ("the cost", annotation(cost, json!("7")), true),
        ("the cost again", annotation(cost, json!("8")), true),
        ("no cost", annotation(cost, Value::Null), true),
        (
            "another annotation",
            annotation("team", json!("bank")),
            false,
        ),
        ("one less", annotation("team", Value::Null), false),
        ("one more", annotation("new", json!("1")), false),
        (
            "a label",
            json!({"metadata": {"labels": {"run": "other"}}}),
            false,
        ),
        (
            "a finalizer",
            json!({"metadata": {"finalizers": ["keylane.dev/x"]}}),
            false,
        ),
        ("an image", image, false),
    ];
    let tried = tries.into_iter().map(|(what, patch, allowed)| {
        let right = match space.patch_pod("pod", user, &patch) {
            Ok(()) => allowed,
            Err(error) => {
                println!("{what}: {error}");
                !allowed && error.to_string().contains("and nothing else")
            }
        };
        (what, right)
    });
    Ok(tried.collect())
}
