//! What the operator's service account may do, tried as that account.

use crate::space::{Space, consumer};
use anyhow::{Context as _, Result, ensure};
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

/// Each right of these rules by itself: a verb, with a URL or with a resource and, where it is bound to one, a
/// name.
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
        let mut objects = texts(&rule["nonResourceURLs"]);
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let named = names.iter();
                objects.extend(named.map(|name| format!("{resource}.{group} {name}")));
            }
        }
        for verb in texts(&rule["verbs"]) {
            rights.extend(objects.iter().map(|object| format!("{verb} {object}")));
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
    let mut rights = each(&answer["status"]["resourceRules"]);
    rights.append(&mut each(&answer["status"]["nonResourceRules"]));
    Ok(rights)
}

/// Somebody, as requests and as bindings name them.
struct Who {
    user: String,
    subject: Value,
}

impl Who {
    fn account(namespace: &str, name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            subject: json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}),
        }
    }

    fn person(name: &str) -> Self {
        Self {
            user: name.to_owned(),
            subject: json!({
                "kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"
            }),
        }
    }
}

/// Roles and bindings of what was rendered.
fn rights_in(text: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let object = Value::deserialize(document)?;
        if object["apiVersion"] == "rbac.authorization.k8s.io/v1" {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// The rights that these roles and bindings list for somebody in a namespace.
fn listed(
    space: &Space,
    objects: &[Value],
    who: &Who,
    namespace: &str,
) -> Result<BTreeSet<String>> {
    let mut rights = BTreeSet::new();
    for binding in objects {
        let here = match binding["kind"].as_str() {
            Some("ClusterRoleBinding") => true,
            Some("RoleBinding") => binding["metadata"]["namespace"] == namespace,
            _ => false,
        };
        let mut subjects = binding["subjects"].as_array().into_iter().flatten();
        if !here || !subjects.any(|subject| *subject == who.subject) {
            continue;
        }
        let (kind, name) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
        let mut roles = objects
            .iter()
            .filter(|role| role["kind"] == *kind && role["metadata"]["name"] == *name);
        let rules = match roles.next() {
            Some(role) => role["rules"].clone(),
            // One of Kubernetes' own.
            None => {
                let (kind, name) = (kind.as_str(), name.as_str());
                let mut get = space.cluster().kubectl();
                get.args(["get", kind.context("no kind")?, name.context("no name")?]);
                get.args(["--namespace", namespace, "--output=json"]);
                let role: Value = serde_json::from_str(&run::output("reading a role", &mut get)?)?;
                role["rules"].clone()
            }
        };
        rights.append(&mut each(&rules));
    }
    Ok(rights)
}

/// Fails unless somebody has each right that is listed for them in a namespace, and beyond that only what
/// everybody of their kind has; returns how many are listed.
fn exactly(space: &Space, objects: &[Value], who: &Who, namespace: &str) -> Result<usize> {
    let listed = listed(space, objects, who, namespace)?;
    let everybody = has(space, &format!("{}-stranger", who.user), namespace)?;
    let common = |right: &String| right.starts_with("create self") || right.starts_with("get /");
    ensure!(everybody.iter().all(common), "everybody: {everybody:?}");
    let what = format!("the rights of {} in {namespace}", who.user);
    // The API server takes a moment to learn of new roles.
    let has = wait::until(&what, Duration::from_secs(30), None, || {
        let has =
            has(space, &who.user, namespace).map_err(|error| Pending::NotYet(error.to_string()))?;
        let less: Vec<_> = listed.difference(&has).cloned().collect();
        match less.is_empty() {
            true => Ok(has),
            false => Err(Pending::NotYet(format!("less: {less:?}"))),
        }
    })?;
    let more = has.difference(&listed);
    let more: Vec<_> = more.filter(|right| !everybody.contains(*right)).collect();
    ensure!(more.is_empty(), "{what}: more: {more:?}");
    Ok(listed.len())
}

#[test]
fn it_has_each_right_of_the_chart_and_not_one_more() -> Result<()> {
    let space = Space::new("exact")?;
    let watch = format!("watchNamespace={}", space.name);
    let scraper = format!("scraper@{}.example.com", space.name);
    let reviewed = format!(
        "metrics.access=TokenReview,metrics.readers[0].kind=User,metrics.readers[0].name={scraper}"
    );
    // A template, values, and how many rights the operator and one who scrapes have at least, in the operator's
    // own namespace and in others.
    let cases = [
        ("rbac", watch.as_str(), (50, 0), (0, 0)),
        ("rbac", "watchNamespace=", (50, 0), (40, 0)),
        ("rbac", "admissionPolicy=false", (50, 0), (40, 0)),
        ("live", "liveApi.enabled=true", (5, 0), (2, 0)),
        ("metrics", reviewed.as_str(), (5, 1), (2, 1)),
    ];
    for (template, values, own, other) in cases {
        // Cluster-wide names: those of this case alone.
        let release = format!("kl-{:08x}", rand::random::<u32>());
        let template = format!("{template}.yaml");
        let text = space.render_as(&release, &[template.as_str()], &["--set", values])?;
        let objects = rights_in(&text)?;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let _applied = space.with("rights of the chart", &list.to_string())?;
        let operator = Who::account(&space.name, &format!("{release}-operator"));
        let scraper = Who::person(&scraper);
        for (namespace, least) in [
            (space.name.as_str(), own),
            ("default", other),
            ("kube-system", other),
        ] {
            let has = (
                exactly(&space, &objects, &operator, namespace)?,
                exactly(&space, &objects, &scraper, namespace)?,
            );
            ensure!(
                has.0 >= least.0 && has.1 == least.1,
                "{template} with {values} lists {has:?} in {namespace}"
            );
        }
    }
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

/// What the policy says to a change of anything but the cost.
const BY_POLICY: &str = "and nothing else";

/// Changes of a pod, and whether to each is said what should be.
fn changes(space: &Space, user: &str) -> Result<Vec<(&'static str, bool)>> {
    let image = "--image=localhost/not-there:1";
    space.kubectl(&["run", "pod", image, "--annotations=team=shop"])?;
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let image = json!({"spec": {"containers": [{"name": "pod", "image": "localhost/other:1"}]}});
    let annotation = |name: &str, value: Value| json!({"metadata": {"annotations": {name: value}}});
    let of = |uid: &str| {
        let mut patch = annotation(cost, json!("9"));
        patch["metadata"]["uid"] = json!(uid);
        patch
    };
    let pod = space.get("pod", "pod")?;
    let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
    let allowed = None;
    let by_policy = Some(BY_POLICY);
    let tries = [
        ("the cost", annotation(cost, json!("7")), allowed),
        ("the cost again", annotation(cost, json!("8")), allowed),
        ("that of this very pod", of(uid), allowed),
        (
            "that of another of its name",
            of("7f6c2a52-1d1b-4a4e-9a39-0a4d3c1f8e11"),
            Some("uid"),
        ),
        ("no cost", annotation(cost, Value::Null), allowed),
        (
            "another annotation",
            annotation("team", json!("bank")),
            by_policy,
        ),
        ("one less", annotation("team", Value::Null), by_policy),
        ("one more", annotation("new", json!("1")), by_policy),
        (
            "a label",
            json!({"metadata": {"labels": {"run": "other"}}}),
            by_policy,
        ),
        (
            "a finalizer",
            json!({"metadata": {"finalizers": ["keylane.dev/x"]}}),
            by_policy,
        ),
        ("an image", image, by_policy),
    ];
    let tried = tries.into_iter().map(|(what, patch, refused)| {
        let right = match space.patch_pod("pod", user, &patch) {
            Ok(()) => refused.is_none(),
            Err(error) => {
                println!("{what}: {error}");
                let said = error.to_string().to_lowercase();
                refused.is_some_and(|words| said.contains(words))
            }
        };
        (what, right)
    });
    Ok(tried.collect())
}
