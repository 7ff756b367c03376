//! Whether the definition of OrderedConsumers is there, and is the one this program was built with.

use super::Line;
use crate::crd::OrderedConsumer;
use crate::plugin::connect::Cluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, CustomResourceExt, Resource};
use serde_json::Value;

const UPGRADE: &str = "upgrade the definition: helm upgrade --install keylane-crds charts/keylane-crds; or use the plugin of the installed version";
const INSTALL: &str = "install Keylane: helm install keylane charts/keylane --namespace keylane-system --create-namespace";
/// Fields that are named of those that differ.
const NAMED: usize = 5;

/// What was found.
pub(super) struct Found {
    pub lines: Vec<Line>,
    /// Whether OrderedConsumers can be asked for.
    pub served: bool,
}

/// Looks at the definition.
pub(super) async fn check(cluster: &Cluster) -> Found {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let name = OrderedConsumer::crd_name();
    match api.get_opt(name).await {
        Ok(Some(installed)) => compare(&installed, &OrderedConsumer::crd()),
        Ok(None) => Found {
            lines: vec![Line::failed(format!("{name} is not installed"), INSTALL)],
            served: false,
        },
        // Only those who see the whole cluster may read definitions; what is served everybody may ask.
        Err(kube::Error::Api(status)) if status.code == 403 => served(cluster).await,
        Err(error) => Found {
            lines: vec![Line::failed(
                format!("{name} cannot be read: {error}"),
                "does kubectl get crds work?",
            )],
            served: false,
        },
    }
}

async fn served(cluster: &Cluster) -> Found {
    let version = OrderedConsumer::api_version(&());
    let resources = cluster.client.list_api_group_resources(&version).await;
    let plural = OrderedConsumer::plural(&());
    let served = resources.is_ok_and(|list| list.resources.iter().any(|one| one.name == plural));
    let lines = if served {
        vec![
            Line::well(format!("{plural} of {version} are served")),
            Line::note(
                "you may not read CustomResourceDefinitions, so that its schema cannot be compared",
                "",
            ),
        ]
    } else {
        vec![Line::failed(
            format!("{plural} of {version} are not served"),
            INSTALL,
        )]
    };
    Found { lines, served }
}

fn compare(installed: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Found {
    let name = OrderedConsumer::crd_name();
    let version = OrderedConsumer::version(&());
    let of = |crd: &CustomResourceDefinition| {
        let versions = crd.spec.versions.iter();
        versions
            .filter(|one| one.served)
            .find(|one| one.name == version)
            .cloned()
    };
    let Some(theirs) = of(installed) else {
        let text = format!("{name} is installed, but does not serve {version}");
        return Found {
            lines: vec![Line::failed(text, UPGRADE)],
            served: false,
        };
    };
    let conditions = installed
        .status
        .iter()
        .flat_map(|status| &status.conditions);
    let established = conditions
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True");
    let mut lines = vec![if established {
        Line::well(format!("{name} is installed and serves {version}"))
    } else {
        Line::failed(
            format!("{name} is installed, but not established"),
            format!("kubectl describe crd {name} says why"),
        )
    }];
    let schema = |version: Option<_>| serde_json::to_value(version).unwrap_or_default();
    let mut different = Vec::new();
    differences(
        &schema(of(ours).and_then(|ours| ours.schema)),
        &schema(theirs.schema),
        "",
        &mut different,
    );
    let built = env!("CARGO_PKG_VERSION");
    lines.push(if different.is_empty() {
        Line::well(format!("its schema is that of this plugin ({built})"))
    } else {
        let more = different.len().saturating_sub(NAMED);
        different.truncate(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        Line::failed(
            format!(
                "its schema is not that of this plugin ({built}): {}{more}",
                different.join(", ")
            ),
            UPGRADE,
        )
    });
    Found {
        lines,
        served: established,
    }
}

/// The fields of a schema that differ, as paths such as spec.lanes.max.
fn differences(ours: &Value, theirs: &Value, path: &str, found: &mut Vec<String>) {
    if ours == theirs {
        return;
    }
    if let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) {
        let mut names: Vec<_> = ours.keys().chain(theirs.keys()).collect();
        names.sort();
        names.dedup();
        let missing = Value::Null;
        for name in names {
            // Words of the schema language are not part of a field's path.
            let structure = matches!(name.as_str(), "openAPIV3Schema" | "properties" | "items");
            let inner = match (structure, path.is_empty()) {
                (true, _) => path.to_owned(),
                (false, true) => name.clone(),
                (false, false) => format!("{path}.{name}"),
            };
            let ours = ours.get(name).unwrap_or(&missing);
            differences(ours, theirs.get(name).unwrap_or(&missing), &inner, found);
        }
        return;
    }
    found.push(match (ours, theirs) {
        (_, Value::Null) => format!("{path} is missing"),
        (Value::Null, _) => format!("{path} is not known here"),
        _ => format!("{path} differs"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::check::Level;
    use serde_json::json;

    fn installed(change: impl Fn(&mut Value)) -> Found {
        let ours = OrderedConsumer::crd();
        let mut crd = serde_json::to_value(&ours).unwrap();
        crd["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        change(&mut crd);
        compare(&serde_json::from_value(crd).unwrap(), &ours)
    }

    #[test]
    fn the_definition_of_another_version_is_told_by_its_fields() {
        let same = installed(|_| {});
        assert!(same.served && same.lines.iter().all(|line| line.level == Level::Well));

        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let other = installed(|crd| {
            let spec = crd
                .pointer_mut(spec)
                .and_then(Value::as_object_mut)
                .unwrap();
            spec.remove("redactKeys");
            spec.insert("shape".to_owned(), json!({"type": "string"}));
            spec["lanes"]["properties"]["max"]["maximum"] = json!(5.0);
        });
        let line = &other.lines[1];
        assert_eq!((line.level, other.served), (Level::Failed, true));
        for part in [
            "spec.redactKeys is missing",
            "spec.shape is not known here",
            "spec.lanes.max.maximum differs",
        ] {
            assert!(line.text.contains(part), "{part}: {}", line.text);
        }

        let unserved = installed(|crd| crd["spec"]["versions"][0]["served"] = json!(false));
        assert!(!unserved.served && unserved.lines[0].text.contains("does not serve v1alpha1"));
        let waiting = installed(|crd| crd["status"] = json!({"conditions": []}));
        assert!(!waiting.served && waiting.lines[0].text.contains("not established"));
    }
}
