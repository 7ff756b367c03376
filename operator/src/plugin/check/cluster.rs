//! Whether the API server answers and is new enough, and what the user may do there.

use super::Line;
use crate::plugin::PluginError;
use crate::plugin::connect::Cluster;
use crate::plugin::error::{NOT_IN, cause};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

/// Oldest Kubernetes 1.x, as the chart has it.
const OLDEST: u32 = 30;

/// The API server.
pub(super) async fn server(cluster: &Cluster) -> Line {
    match cluster.client.apiserver_version().await {
        Ok(version) => about(&cluster.server, &version.git_version, &version.minor),
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => Line::failed(
            format!(
                "the API server at {} does not let you in: {}",
                cluster.server, status.message
            ),
            NOT_IN,
        ),
        Err(error) => Line::failed(
            format!(
                "the API server at {} does not answer: {}",
                cluster.server,
                cause(&error)
            ),
            "is it the cluster you mean (kubectl config current-context), and does kubectl get nodes work?",
        ),
    }
}

fn about(server: &str, version: &str, minor: &str) -> Line {
    // Some clouds write 30+.
    let number = minor.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    match number.parse::<u32>() {
        Ok(minor) if minor < OLDEST => Line::failed(
            format!("Kubernetes {version} is too old"),
            format!("Keylane needs 1.{OLDEST} or newer"),
        ),
        _ => Line::well(format!("the API server at {server} answers: {version}")),
    }
}

/// Whether the API that tells what pods and brokers know is served: everybody may ask what is.
pub(super) async fn live(cluster: &Cluster) -> Line {
    let version = format!("{}/{}", crate::live::GROUP, crate::live::VERSION);
    match cluster.client.list_api_group_resources(&version).await {
        Ok(_) => Line::well(format!(
            "{version} answers (keys, top, offsets, dlq, migrate)"
        )),
        Err(error) => Line::note(
            format!(
                "{version} does not answer, so that keys, top, offsets show, dlq and migrate do not work: {}",
                cause(&error)
            ),
            "helm upgrade keylane charts/keylane --namespace keylane-system --reuse-values --set liveApi.enabled=true; kubectl get apiservice v1alpha1.live.keylane.dev tells how it is",
        ),
    }
}

/// A right, what it is for, and whether nothing works without it.
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    used_by: &'static str,
    needed: bool,
}

const fn right(
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    used_by: &'static str,
    needed: bool,
) -> Right {
    Right {
        verb,
        group,
        resource,
        used_by,
        needed,
    }
}

const OURS: &str = "keylane.dev";
const LIVE: &str = crate::live::GROUP;

const RIGHTS: [Right; 9] = [
    right("get", OURS, "orderedconsumers", "all commands", true),
    right("list", OURS, "orderedconsumers", "check", true),
    right("list", "", "pods", "status", false),
    right("get", "", "configmaps", "explain --replay", false),
    right(
        "get",
        LIVE,
        "consumerstats",
        "top, keys, offsets show",
        false,
    ),
    right("get", LIVE, "deadletters", "dlq list, dlq show", false),
    right("create", LIVE, "deadletters/replay", "dlq replay", false),
    right("create", LIVE, "groups", "migrate", false),
    right(
        "patch",
        OURS,
        "orderedconsumers",
        "suspend, resume, offsets reset",
        false,
    ),
];

/// What the user may do in the namespace.
pub(super) async fn rights(cluster: &Cluster) -> Result<Vec<Line>, PluginError> {
    let mut lines = Vec::new();
    for right in &RIGHTS {
        let (resource, part) = match right.resource.split_once('/') {
            Some((resource, part)) => (resource, Some(part.to_owned())),
            None => (right.resource, None),
        };
        let attributes = ResourceAttributes {
            namespace: Some(cluster.namespace.clone()),
            verb: Some(right.verb.to_owned()),
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: part,
            ..ResourceAttributes::default()
        };
        lines.push(said(right, may(cluster, attributes).await?));
    }
    Ok(lines)
}

/// Whether the user may do that.
pub(super) async fn may(
    cluster: &Cluster,
    attributes: ResourceAttributes,
) -> Result<bool, PluginError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| cluster.error("ask for your rights", error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn said(right: &Right, allowed: bool) -> Line {
    let what = format!("{} {} ({})", right.verb, right.resource, right.used_by);
    if allowed {
        return Line::well(what);
    }
    let hint = match right.verb {
        "patch" | "create" => "ask for the role edit, or Keylane's ClusterRole keylane-edit",
        _ => {
            "ask for the role view, or Keylane's ClusterRole keylane-view and the right to read pods and ConfigMaps"
        }
    };
    if right.needed {
        Line::failed(format!("you may not {what}"), hint)
    } else {
        Line::note(format!("you may not {what}"), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_kubernetes_is_the_one_the_chart_names() {
        let chart = include_str!("../../../../charts/keylane/Chart.yaml");
        assert!(
            chart.contains(&format!("kubeVersion: \">=1.{OLDEST}.0-0\"")),
            "{chart}"
        );
        let old = about("https://a", "v1.29.4", "29");
        assert_eq!(
            (old.level, old.hint.as_deref()),
            (
                super::super::Level::Failed,
                Some("Keylane needs 1.30 or newer")
            )
        );
        for minor in ["30", "34+", "unknown"] {
            assert_eq!(
                about("https://a", "v1", minor),
                Line::well("the API server at https://a answers: v1")
            );
        }
    }

    #[test]
    fn a_right_that_only_some_commands_use_is_no_failure() {
        let levels = RIGHTS.each_ref().map(|right| said(right, false).level);
        use super::super::Level::{Failed, Note};
        assert_eq!(levels[..2], [Failed, Failed]);
        assert_eq!(levels[2..], [Note; 7]);
        // What the chart's roles give is what is asked for here.
        let roles = include_str!("../../../../charts/keylane/templates/users.yaml");
        for right in RIGHTS.iter().filter(|right| right.group == LIVE) {
            assert!(roles.contains(right.resource), "{}", right.resource);
        }
    }
}
