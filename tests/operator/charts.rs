//! The charts: what they render, and that every value is documented and checked.

mod upgrade;

use anyhow::{Context as _, Result};
use keylane_tests::cluster::{self, Cluster, run};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn chart(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../charts").join(name)
}

fn render(cluster: &Cluster, args: &[&str]) -> Result<Vec<Value>> {
    let mut helm = cluster.helm()?;
    helm.args(["template", "kl"]).arg(chart("keylane"));
    let text = run::output("rendering", helm.args(["--namespace", "system"]).args(args))?;
    let documents = serde_norway::Deserializer::from_str(&text);
    let all = documents.map(Value::deserialize);
    let all: Vec<Value> = all.collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|one| !one.is_null()).collect())
}

fn kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

const EVERYTHING: [&str; 2] = [
    "--set",
    "monitoring.enabled=true,monitoring.rules=true,dashboard.enabled=true,liveApi.enabled=true,priorityClassName=high",
];

#[test]
fn helm_finds_nothing_wrong_with_the_charts() -> Result<()> {
    let cluster = cluster::up()?;
    for name in ["keylane", "keylane-crds"] {
        let mut helm = cluster.helm()?;
        let lint = helm.args(["lint", "--strict"]).arg(chart(name));
        run::output("helm lint", lint)?;
    }
    Ok(())
}

#[test]
fn pods_of_the_operator_are_restricted_and_one_decides() -> Result<()> {
    let objects = render(&cluster::up()?, &EVERYTHING)?;
    let deployment = kind(&objects, "Deployment")[0];
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"][0],
        "ALL"
    );
    assert_eq!(pod["priorityClassName"], "high");
    let args = container["args"].to_string();
    assert!(
        args.contains("--lease-duration=12s") && args.contains("--log-json"),
        "{args}"
    );
    for wanted in [
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
        "PodMonitor",
        "PrometheusRule",
        "ValidatingAdmissionPolicy",
        "APIService",
    ] {
        assert_eq!(kind(&objects, wanted).len(), 1, "{wanted}");
    }
    let dashboard = kind(&objects, "ConfigMap")[0]["data"]["keylane.json"].as_str();
    let dashboard: Value = serde_json::from_str(dashboard.context("no dashboard")?)?;
    assert!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() >= 8)
    );
    for alert in kind(&objects, "PrometheusRule")[0]["spec"]["groups"][0]["rules"]
        .as_array()
        .context("no rules")?
    {
        let runbook = alert["annotations"]["description"]
            .as_str()
            .unwrap_or_default();
        assert!(runbook.len() > 80, "{}", alert["alert"]);
    }
    Ok(())
}

#[test]
fn one_namespace_takes_no_rights_beyond_it() -> Result<()> {
    let cluster = cluster::up()?;
    let objects = render(
        &cluster,
        &["--set", "watchNamespace=shop,aggregateRoles=false"],
    )?;
    assert!(kind(&objects, "ClusterRoleBinding").is_empty());
    let namespaces: Vec<_> = kind(&objects, "Role")
        .iter()
        .map(|role| role["metadata"]["namespace"].clone())
        .collect();
    assert_eq!(namespaces, ["shop", "system"]);
    let args =
        &kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(args.to_string().contains("--watch-namespace=shop"));
    // People's roles are bound to nobody.
    for role in kind(&objects, "ClusterRole") {
        assert!(
            !role["metadata"]["labels"].to_string().contains("aggregate"),
            "{role}"
        );
    }
    let everywhere = render(&cluster, &[])?;
    assert_eq!(kind(&everywhere, "ClusterRoleBinding").len(), 1);
    Ok(())
}

#[test]
fn roles_for_people_are_named_as_they_are_asked_for_and_not_shared_by_releases() -> Result<()> {
    let cluster = cluster::up()?;
    let roles = |set: &[&str]| -> Result<Vec<(String, String)>> {
        let objects = render(&cluster, set)?;
        let roles = kind(&objects, "ClusterRole")
            .into_iter()
            .filter_map(|role| {
                let name = role["metadata"]["name"].as_str()?;
                let aggregated = role["metadata"]["labels"].as_object()?.keys();
                let aggregated = aggregated.filter_map(|label| {
                    label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")
                });
                let mut aggregated: Vec<_> = aggregated.collect();
                aggregated.sort_unstable();
                Some((name.to_owned(), aggregated.join(",")))
            });
        let mut roles: Vec<_> = roles
            .filter(|(name, _)| name.starts_with("keylane-"))
            .collect();
        roles.sort_unstable();
        Ok(roles)
    };
    let named = |edit: &str, view: &str| {
        let edit = (edit.to_owned(), "admin,edit".to_owned());
        vec![edit, (view.to_owned(), "view".to_owned())]
    };
    assert_eq!(roles(&[])?, named("keylane-edit", "keylane-view"));
    let shop = roles(&["--set", "watchNamespace=shop"])?;
    assert_eq!(shop, named("keylane-edit-shop", "keylane-view-shop"));
    Ok(())
}

#[test]
fn without_the_admission_policy_there_is_no_right_to_change_pods() -> Result<()> {
    let cluster = cluster::up()?;
    let policies = [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    for (policy, patches) in [("true", true), ("false", false)] {
        let objects = render(&cluster, &["--set", &format!("admissionPolicy={policy}")])?;
        for one in policies {
            assert_eq!(kind(&objects, one).len(), usize::from(patches), "{one}");
        }
        let roles = kind(&objects, "ClusterRole").into_iter();
        let rules = roles.filter(|role| role["metadata"]["name"] == "kl-operator");
        let rules = rules.flat_map(|role| role["rules"].as_array().into_iter().flatten());
        let on_pods = rules.filter(|rule| {
            rule["apiGroups"] == json!([""]) && rule["resources"] == json!(["pods"])
        });
        let verbs: Vec<_> = on_pods.map(|rule| rule["verbs"].to_string()).collect();
        let has = |verb: &str| verbs.iter().any(|verbs| verbs.contains(verb));
        assert!(has("list") && has("create"), "{verbs:?}");
        assert_eq!(has("patch"), patches, "{verbs:?}");
    }
    Ok(())
}

#[test]
fn a_value_that_is_not_there_or_of_another_type_is_refused() -> Result<()> {
    let cluster = cluster::up()?;
    for wrong in [
        "replica=2",
        "replicas=two",
        "image.pullPolicy=Sometimes",
        "leaderElection.leaseDuration=12 seconds",
        "monitoring.enabled=yes",
        "networkPolicy.enabeld=true",
        "metrics.access=Everybody",
    ] {
        let error = render(&cluster, &["--set", wrong])
            .err()
            .map(|error| error.to_string());
        let field = wrong.split(['=', '.']).next().unwrap_or_default();
        assert!(error.is_some_and(|error| error.contains(field)), "{wrong}");
    }
    Ok(())
}

/// Who may come in at a port of the operator's pods, by its NetworkPolicy; none: nobody may.
fn let_in(objects: &[Value], port: &str) -> Option<Value> {
    let rules = kind(objects, "NetworkPolicy")[0]["spec"]["ingress"].as_array();
    let mut rules = rules.into_iter().flatten();
    let rule = rules.find(|rule| rule["ports"][0]["port"] == port)?;
    Some(rule["from"].clone())
}

#[test]
fn metrics_are_for_those_in_the_network_policy_or_for_those_the_cluster_lets() -> Result<()> {
    let cluster = cluster::up()?;
    let monitored = ["--set", "monitoring.enabled=true"];
    let objects = render(&cluster, &monitored)?;
    let labelled = json!([{"namespaceSelector": {"matchLabels": {"metrics": "enabled"}}}]);
    assert_eq!(let_in(&objects, "metrics"), Some(labelled));
    let container = |objects: &[Value]| {
        kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let endpoint =
        |objects: &[Value]| kind(objects, "ServiceMonitor")[0]["spec"]["endpoints"][0].clone();
    assert!(
        !container(&objects)["args"]
            .to_string()
            .contains("--metrics-service")
    );
    assert_eq!(endpoint(&objects)["scheme"], Value::Null);

    let reviewed = json!({
        "monitoring": {"enabled": true},
        "metrics": {"access": "TokenReview", "readers": [
            {"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"}
        ]},
    });
    let values = tempfile::NamedTempFile::new()?;
    std::fs::write(values.path(), reviewed.to_string())?;
    let path = values.path().display().to_string();
    let objects = render(&cluster, &["--values", &path])?;
    // The token decides, and not where somebody comes from.
    assert_eq!(let_in(&objects, "metrics"), Some(Value::Null));
    let args = container(&objects)["args"].to_string();
    assert!(args.contains("--metrics-service=kl-operator"), "{args}");
    let endpoint = endpoint(&objects);
    assert_eq!(endpoint["scheme"], "https");
    assert_eq!(
        endpoint["tlsConfig"]["serverName"],
        "kl-operator.system.svc"
    );
    let bindings = kind(&objects, "ClusterRoleBinding");
    let readers = bindings
        .iter()
        .find(|one| one["roleRef"]["name"] == "kl-operator-metrics");
    let readers = readers.context("readers are not bound")?;
    assert_eq!(readers["subjects"][0]["name"], "prometheus");
    Ok(())
}

#[test]
fn every_value_and_every_right_has_its_reason_beside_it() -> Result<()> {
    let values = std::fs::read_to_string(chart("keylane/values.yaml"))?;
    let mut before = "";
    for line in values.lines() {
        let is_field = line.contains(':') && !line.trim_start().starts_with(['#', '{']);
        let nested_in_documented =
            line.trim_start().starts_with("requests:") || line.trim_start().starts_with("limits:");
        if is_field && !nested_in_documented {
            assert!(
                before.trim_start().starts_with('#'),
                "{line:?} is not documented"
            );
        }
        before = line;
    }
    // What a rule can begin with.
    let begins = [
        "- apiGroups:",
        "- nonResourceURLs:",
        "- resourceNames:",
        "- resources:",
        "- verbs:",
    ];
    let mut with_rules = 0;
    for file in std::fs::read_dir(chart("keylane/templates"))? {
        let text = std::fs::read_to_string(file?.path())?;
        if !text.contains("rbac.authorization.k8s.io/v1") {
            continue;
        }
        let (mut before, mut rules) = ("", 0);
        for line in text.lines() {
            let is_rule = |begin: &&str| line.trim_start().starts_with(*begin);
            if begins.iter().any(is_rule) {
                rules += 1;
                assert!(
                    before.trim_start().starts_with('#'),
                    "{line:?} has no reason"
                );
            }
            before = line;
        }
        with_rules += usize::from(rules > 0);
    }
    // Those of the operator, of people, of the live API and of metrics.
    assert_eq!(with_rules, 4);
    Ok(())
}
