//! Whether an operator is installed, ready and decides.

use super::Line;
use crate::plugin::connect::Cluster;
use crate::plugin::{PluginError, time};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

/// Labels that the chart gives the operator.
const LABELS: &str = "app.kubernetes.io/name=keylane,app.kubernetes.io/component=operator";
/// Label with the version of the chart's programs.
const VERSION: &str = "app.kubernetes.io/version";
/// How far the clock of this machine may be from the cluster's, in seconds.
const SKEW: i64 = 30;

/// What is known of a Lease.
enum Held {
    Known(Option<Box<Lease>>),
    /// The user may not see it.
    Hidden,
}

/// Looks for operators in a namespace, or in all; one of them is to watch the namespace `watched`, or all.
pub(super) async fn check(
    cluster: &Cluster,
    namespace: Option<&str>,
    watched: Option<&str>,
) -> Result<Vec<Line>, PluginError> {
    let api: Api<Deployment> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let found = match api.list(&ListParams::default().labels(LABELS)).await {
        Ok(found) => found.items,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Ok(vec![Line::note(
                "you may not look for the operator's Deployment there",
                "name a namespace you may see with --operator-namespace, or ask who installed Keylane",
            )]);
        }
        Err(error) => return Err(cluster.error("list Deployments", error)),
    };
    if found.is_empty() {
        return Ok(vec![Line::failed(
            "no operator is installed",
            "helm install keylane charts/keylane --namespace keylane-system --create-namespace",
        )]);
    }
    let mut lines = Vec::new();
    for deployment in &found {
        let held = lease(cluster, deployment).await?;
        lines.extend(about(deployment, &held, Timestamp::now()));
    }
    lines.extend(scope(&found, watched));
    Ok(lines)
}

async fn lease(cluster: &Cluster, deployment: &Deployment) -> Result<Held, PluginError> {
    let namespace = deployment.namespace().unwrap_or_default();
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &namespace);
    let name = argument(deployment, "--lease-name=").unwrap_or_else(|| deployment.name_any());
    match api.get_opt(&name).await {
        Ok(lease) => Ok(Held::Known(lease.map(Box::new))),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Held::Hidden),
        Err(error) => Err(cluster.error(&format!("read Lease {name:?}"), error)),
    }
}

/// The value of an argument of the operator.
fn argument(deployment: &Deployment, name: &str) -> Option<String> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let arguments = pod.containers.iter().flat_map(|container| &container.args);
    let value = arguments.flatten().find_map(|text| text.strip_prefix(name));
    value.map(str::to_owned)
}

fn about(deployment: &Deployment, held: &Held, now: Timestamp) -> Vec<Line> {
    let (namespace, name) = (
        deployment.namespace().unwrap_or_default(),
        deployment.name_any(),
    );
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or(1);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas);
    let ready = ready.unwrap_or(0);
    let text = format!("{namespace}/{name}: {ready} of {wanted} operators are ready");
    let look = format!(
        "kubectl -n {namespace} describe deployment/{name}; kubectl -n {namespace} logs deployment/{name}"
    );
    let mut lines = vec![match ready {
        _ if wanted == 0 => Line::failed(
            format!("{namespace}/{name} is scaled to 0: nothing is decided"),
            format!("kubectl -n {namespace} scale deployment/{name} --replicas=2"),
        ),
        0 => Line::failed(text, look.clone()),
        ready if ready < wanted => Line::note(text, look.clone()),
        _ => Line::well(text),
    }];
    let built = env!("CARGO_PKG_VERSION");
    if let Some(version) = deployment.labels().get(VERSION).filter(|it| *it != built) {
        lines.push(Line::note(
            format!("{namespace}/{name} is version {version}, this plugin is {built}"),
            "use the plugin of the operator's version, or upgrade it",
        ));
    }
    lines.push(match held {
        Held::Hidden => Line::note(
            format!("you may not read Leases in namespace {namespace}, so that it is not known whether one decides"),
            "",
        ),
        Held::Known(lease) => leader(lease.as_deref(), &name, look, now),
    });
    lines
}

fn leader(lease: Option<&Lease>, name: &str, look: String, now: Timestamp) -> Line {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_ref());
    let Some((spec, holder)) = spec.zip(holder.filter(|holder| !holder.is_empty())) else {
        return Line::failed(
            format!("nobody holds the Lease {name}: nothing is decided"),
            look,
        );
    };
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    let silent = spec
        .renew_time
        .as_ref()
        .map(|renewed| now.as_second() - renewed.0.as_second());
    match silent {
        Some(silent) if silent <= lasts + SKEW => Line::well(format!("{holder} decides")),
        Some(silent) => Line::failed(
            format!(
                "{holder} held the Lease {name} last, {} ago by this machine's clock: nothing is decided",
                time::span(silent)
            ),
            look,
        ),
        None => Line::failed(format!("the Lease {name} was never renewed"), look),
    }
}

/// Whether one of them watches the namespace, or all.
fn scope(operators: &[Deployment], watched: Option<&str>) -> Option<Line> {
    let scopes: Option<Vec<String>> = operators
        .iter()
        .map(|operator| argument(operator, "--watch-namespace="))
        .collect();
    // One that names none watches all.
    let scopes = scopes?;
    let scopes_text = scopes.join(", ");
    match watched {
        Some(namespace) if scopes.iter().any(|scope| scope == namespace) => None,
        Some(namespace) => Some(Line::failed(
            format!("no operator watches namespace {namespace}, only {scopes_text}"),
            "install one with watchNamespace for it, or one for all namespaces (watchNamespace: \"\")",
        )),
        None => Some(Line::note(
            format!("namespaces that are watched: {scopes_text}; no others"),
            "",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::check::Level;
    use serde_json::json;

    fn deployment(ready: i32, wanted: i32, arguments: &[&str]) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {
                "name": "kl-operator", "namespace": "keylane-system",
                "labels": {VERSION: env!("CARGO_PKG_VERSION")}
            },
            "spec": {
                "replicas": wanted, "selector": {},
                "template": {"spec": {"containers": [{"name": "operator", "args": arguments}]}}
            },
            "status": {"readyReplicas": ready}
        }))
        .unwrap()
    }

    fn lease(holder: &str) -> Held {
        let lease = serde_json::from_value(json!({
            "spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 12,
                "renewTime": "2026-11-11T00:00:00.000000Z"
            }
        }));
        Held::Known(Some(lease.unwrap()))
    }

    fn levels(deployment: &Deployment, held: &Held, now: &str) -> Vec<Level> {
        let lines = about(deployment, held, now.parse().unwrap());
        lines.iter().map(|line| line.level).collect()
    }

    #[test]
    fn the_chart_has_the_labels_and_arguments_that_are_looked_for() {
        let labels = include_str!("../../../../charts/keylane/templates/_helpers.tpl");
        for label in LABELS.split(',').chain([VERSION]) {
            assert!(labels.contains(&label.replace('=', ": ")), "{label}");
        }
        let deployment = include_str!("../../../../charts/keylane/templates/deployment.yaml");
        for argument in ["- --lease-name=", "- --watch-namespace="] {
            assert!(deployment.contains(argument), "{argument}");
        }
    }

    const SOON: &str = "2026-11-11T00:00:05Z";

    #[test]
    fn an_operator_is_well_when_all_are_ready_and_one_decides() {
        use Level::{Failed, Note, Well};
        let (two, half, none) = (
            deployment(2, 2, &[]),
            deployment(1, 2, &[]),
            deployment(0, 2, &[]),
        );
        assert_eq!(levels(&two, &lease("a_1"), SOON), [Well, Well]);
        assert_eq!(levels(&half, &lease("a_1"), SOON), [Note, Well]);
        assert_eq!(levels(&none, &lease("a_1"), SOON), [Failed, Well]);
        assert_eq!(
            levels(&deployment(0, 0, &[]), &Held::Hidden, SOON),
            [Failed, Note]
        );
        // Nobody, or somebody who is silent for longer than the lease lasts and clocks differ.
        assert_eq!(levels(&two, &lease(""), SOON), [Well, Failed]);
        assert_eq!(levels(&two, &Held::Known(None), SOON), [Well, Failed]);
        assert_eq!(
            levels(&two, &lease("a_1"), "2026-11-11T00:00:42Z"),
            [Well, Well]
        );
        assert_eq!(
            levels(&two, &lease("a_1"), "2026-11-11T00:00:43Z"),
            [Well, Failed]
        );
        let mut old = two;
        old.labels_mut()
            .insert(VERSION.to_owned(), "0.0.1".to_owned());
        assert_eq!(levels(&old, &lease("a_1"), SOON), [Well, Note, Well]);
    }

    #[test]
    fn an_operator_that_watches_another_namespace_does_not_help() {
        let bank = deployment(1, 1, &["run", "--watch-namespace=bank"]);
        let all = deployment(1, 1, &["run"]);
        let level =
            |operators: &[Deployment], watched| scope(operators, watched).map(|line| line.level);
        let only = std::slice::from_ref(&bank);
        assert_eq!(level(only, Some("shop")), Some(Level::Failed));
        assert_eq!(level(only, Some("bank")), None);
        assert_eq!(level(only, None), Some(Level::Note));
        assert_eq!(level(&[bank, all], Some("shop")), None);
    }
}
