//! Secrets that the executor's container may have and no other of its pod: what lets it into RocketMQ, and what
//! opens the admin API. A template that shows one of them to a container is refused.
//!
//! So is one that hands them to a driver of volumes: what it makes of them is not known. Those that images are
//! pulled with are seen by no container.

use super::Invalid;
use crate::names;
use keylane_consumer::contract::spec::{Rocketmq, SecretRef};
use serde_json::Value;

/// Fields of a volume or a variable that name a Secret by its `name`.
const REFERENCES: [&str; 4] = [
    "secret",
    "secretRef",
    "secretKeyRef",
    "nodePublishSecretRef",
];
/// The field of a volume that is the name of a Secret.
const NAME: &str = "secretName";

/// Refuses a `spec.template` with a volume or a variable of a container that shows what only the executor may
/// have. The template must be known to have no fields but those of a pod template.
pub fn refuse(template: &Value, rocketmq: &Rocketmq) -> Result<(), Invalid> {
    let pod = &template["spec"];
    let volumes = (".spec.volumes".to_owned(), &pod["volumes"]);
    let containers = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|kind| {
            let all = pod[kind].as_array().into_iter().flatten().enumerate();
            all.flat_map(move |(index, container)| {
                ["env", "envFrom"].map(|field| {
                    let path = format!(".spec.{kind}[{index}].{field}");
                    (path, &container[field])
                })
            })
        });
    for (path, part) in [volumes].into_iter().chain(containers) {
        let withheld = |name: &str| reason(name, rocketmq);
        if let Some(error) = find(path, part, &withheld) {
            return Err(error);
        }
    }
    Ok(())
}

/// Why a Secret is withheld and what to do; none: it is not.
fn reason(name: &str, rocketmq: &Rocketmq) -> Option<&'static str> {
    let is = |one: &Option<SecretRef>| one.as_ref().is_some_and(|one| one.name == name);
    let tls = rocketmq.tls.as_ref();
    // Those of other consumers too: their names are Keylane's.
    if name.ends_with(&names::admin_secret("")) {
        Some("it opens the admin API of consumer pods, take it out")
    } else if is(&rocketmq.credentials_secret_ref) {
        Some(
            "spec.rocketmq.credentialsSecretRef names it, take it out; a handler that talks to RocketMQ itself gets a user of its own in another Secret",
        )
    } else if tls.is_some_and(|tls| is(&tls.client_certificate_secret_ref)) {
        Some(
            "spec.rocketmq.tls.clientCertificateSecretRef names it and it holds the private key, take it out; a handler that needs a certificate gets one of its own in another Secret, and one that needs ca.crt takes it from a ConfigMap",
        )
    } else {
        None
    }
}

/// The first reference to a Secret that is withheld.
fn find(
    path: String,
    value: &Value,
    withheld: &dyn Fn(&str) -> Option<&'static str>,
) -> Option<Invalid> {
    let refused = |path: String, name: &Value| {
        let name = name.as_str()?;
        let reason = withheld(name)?;
        let name = name.to_owned();
        Some(Invalid::Withheld { path, name, reason })
    };
    match value {
        Value::Object(fields) => fields.iter().find_map(|(field, value)| {
            let path = format!("{path}.{field}");
            let named = match field.as_str() {
                NAME => refused(path.clone(), value),
                field if REFERENCES.contains(&field) => {
                    refused(format!("{path}.name"), &value["name"])
                }
                _ => None,
            };
            named.or_else(|| find(path, value, withheld))
        }),
        Value::Array(all) => {
            let mut all = all.iter().enumerate();
            all.find_map(|(index, value)| find(format!("{path}[{index}]"), value, withheld))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::controller::validate::tests::{object, template};
    use crate::controller::validate::{Invalid, validate};
    use serde_json::{Value, json};

    /// Why a template is refused whose consumer is let into RocketMQ by these Secrets.
    fn refusal(template: Value) -> Option<Invalid> {
        let mut object = object(template);
        object.spec.consumer.rocketmq = serde_json::from_value(json!({
            "nameServers": ["ns:9876"],
            "credentialsSecretRef": {"name": "mq-acl"},
            "tls": {
                "caSecretRef": {"name": "mq-ca"},
                "clientCertificateSecretRef": {"name": "mq-client"},
            },
        }))
        .unwrap();
        validate(&object).err()
    }

    fn with_volume(source: Value) -> Value {
        let mut volume = json!({"name": "mine"});
        let fields = volume.as_object_mut().unwrap();
        fields.extend(source.as_object().unwrap().clone());
        let mut template = template();
        template["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {}}, volume]);
        template
    }

    const WITHHELD: [&str; 4] = [
        "mq-acl",
        "mq-client",
        "order-status-keylane-admin",
        "payments-keylane-admin",
    ];
    /// Some that are the user's own affair: public, or not ours.
    const FREE: [&str; 3] = ["mq-ca", "mq-acl-2", "order-status-keylane"];

    /// Tries a template with each Secret in it.
    fn tried(path: &str, with: impl Fn(&str) -> Value) {
        for name in WITHHELD {
            match refusal(with(name)) {
                Some(Invalid::Withheld {
                    path: at,
                    name: of,
                    reason,
                }) => {
                    assert_eq!((at.as_str(), of.as_str()), (path, name));
                    assert!(reason.contains("take it out"), "{reason}");
                }
                other => panic!("{path} of {name}: {other:?}"),
            }
        }
        for name in FREE {
            assert_eq!(refusal(with(name)), None, "{path} of {name}");
        }
    }

    #[test]
    fn no_volume_shows_what_only_the_executor_may_have() {
        tried(".spec.volumes[1].secret.secretName", |name| {
            with_volume(json!({"secret": {"secretName": name}}))
        });
        tried(
            ".spec.volumes[1].projected.sources[1].secret.name",
            |name| {
                let items = json!([{"key": "tls.key", "path": "key"}]);
                with_volume(json!({"projected": {"sources": [
                    {"configMap": {"name": name}}, {"secret": {"name": name, "items": items}},
                ]}}))
            },
        );
        tried(".spec.volumes[1].csi.nodePublishSecretRef.name", |name| {
            with_volume(json!({"csi": {
                "driver": "secrets.example.com", "nodePublishSecretRef": {"name": name}
            }}))
        });
        tried(".spec.volumes[1].flexVolume.secretRef.name", |name| {
            with_volume(json!({"flexVolume": {
                "driver": "example.com/secrets", "secretRef": {"name": name}
            }}))
        });
    }

    #[test]
    fn no_variable_of_any_container_does() {
        let all = [
            ("containers", 0_usize),
            ("containers", 1),
            ("initContainers", 0),
        ];
        for (kind, index) in all {
            let with = |field: &str, value: Value| {
                let mut template = json!({"spec": {
                    "containers": [{"name": "handler", "image": "i"}, {"name": "log", "image": "i"}],
                    "initContainers": [{"name": "first", "image": "i"}],
                }});
                template["spec"][kind][index][field] = value;
                template
            };
            let container = format!(".spec.{kind}[{index}]");
            let path = format!("{container}.env[1].valueFrom.secretKeyRef.name");
            tried(&path, |name| {
                let key = json!({"secretKeyRef": {"name": name, "key": "secretKey"}});
                let plain = json!({"name": "PLAIN", "value": name});
                with("env", json!([plain, {"name": "KEY", "valueFrom": key}]))
            });
            tried(&format!("{container}.envFrom[0].secretRef.name"), |name| {
                with("envFrom", json!([{"secretRef": {"name": name}}]))
            });
        }
    }

    #[test]
    fn what_is_said_names_path_secret_reason_and_what_to_do() {
        let template = with_volume(json!({"secret": {"secretName": "mq-acl"}}));
        let said = refusal(template).unwrap().to_string();
        for part in [
            "spec.template.spec.volumes[1].secret.secretName",
            "\"mq-acl\"",
            "only the executor's container may have",
            "spec.rocketmq.credentialsSecretRef names it",
            "a user of its own in another Secret",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn an_authority_in_the_same_secret_as_a_private_key_is_withheld_with_it() {
        let mut object = object(with_volume(json!({"secret": {"secretName": "mq-tls"}})));
        let with = |client: Option<&str>| {
            let mut tls = json!({"caSecretRef": {"name": "mq-tls"}});
            if let Some(name) = client {
                tls["clientCertificateSecretRef"] = json!({"name": name});
            }
            json!({"nameServers": ["ns:9876"], "tls": tls})
        };
        object.spec.consumer.rocketmq = serde_json::from_value(with(None)).unwrap();
        assert!(validate(&object).is_ok());
        object.spec.consumer.rocketmq = serde_json::from_value(with(Some("mq-tls"))).unwrap();
        let said = validate(&object).unwrap_err().to_string();
        assert!(said.contains("takes it from a ConfigMap"), "{said}");
    }
}
