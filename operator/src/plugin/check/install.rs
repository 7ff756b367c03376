//! Whether the user may install Keylane: what is the cluster's own is made by the charts, too.

use super::Line;
use super::cluster::may;
use crate::plugin::PluginError;
use crate::plugin::connect::Cluster;
use k8s_openapi::api::authorization::v1::ResourceAttributes;

/// Namespace of the operator, as the documentation installs it.
const NAMESPACE: &str = "keylane-system";

/// What the charts make: API group, resource, whether it is in the operator's namespace, and what for.
const MADE: [(&str, &str, bool, &str); 7] = [
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        false,
        "the definition of OrderedConsumers",
    ),
    ("", "namespaces", false, "--create-namespace"),
    ("apps", "deployments", true, "the operator"),
    (
        "rbac.authorization.k8s.io",
        "clusterroles",
        false,
        "the operator's rights and the roles for people",
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        false,
        "the operator's rights; a Role with watchNamespace",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        false,
        "admissionPolicy",
    ),
    (
        "apiregistration.k8s.io",
        "apiservices",
        false,
        "liveApi.enabled",
    ),
];

/// A line for each kind of object.
pub(super) async fn rights(cluster: &Cluster) -> Result<Vec<Line>, PluginError> {
    let mut lines = Vec::new();
    for (group, resource, inside, what) in MADE {
        let attributes = ResourceAttributes {
            namespace: inside.then(|| NAMESPACE.to_owned()),
            verb: Some("create".to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            ..ResourceAttributes::default()
        };
        let said = format!("create {resource} ({what})");
        lines.push(if may(cluster, attributes).await? {
            Line::well(said)
        } else {
            Line::failed(
                format!("you may not {said}"),
                "ask somebody who administers the cluster to install Keylane; using it needs only the role edit of a namespace",
            )
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds that are the cluster's own, of which a namespace's administrator may make none.
    #[test]
    fn what_the_chart_makes_of_the_clusters_own_is_asked_for() {
        let templates = [
            include_str!("../../../../charts/keylane/templates/rbac.yaml"),
            include_str!("../../../../charts/keylane/templates/users.yaml"),
            include_str!("../../../../charts/keylane/templates/live.yaml"),
            include_str!("../../../../charts/keylane/templates/admission.yaml"),
        ];
        let kinds = templates.iter().flat_map(|text| text.lines());
        let kinds = kinds.filter_map(|line| line.strip_prefix("kind: "));
        let own = kinds.filter(|kind| {
            kind.starts_with("Cluster")
                || kind.starts_with("API")
                || *kind == "ValidatingAdmissionPolicy"
        });
        let mut found = 0;
        for kind in own {
            let plural = match kind.to_lowercase() {
                kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
                kind => format!("{kind}s"),
            };
            assert!(
                MADE.iter().any(|(_, resource, ..)| *resource == plural),
                "{plural}"
            );
            found += 1;
        }
        assert!(found >= 4, "{found}");
    }
}
