//! What lets the operator into a RocketMQ cluster: the Secrets that a spec names, each read by its name.

use k8s_openapi::api::core::v1::Secret;
use keylane_consumer::contract::spec::Rocketmq;
use keylane_consumer::source::rocketmq::{AccessError, Part, Parts, wanted};
use kube::{Api, Client};
use std::collections::BTreeMap;

/// Why Secrets let nobody in.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It does not exist.
    #[error(
        "{field}: there is no Secret {name:?} in namespace {namespace:?}: create it with {keys}"
    )]
    Missing {
        /// The field that names it.
        field: &'static str,
        /// Its name.
        name: String,
        /// The namespace of the OrderedConsumer.
        namespace: String,
        /// What it is to hold.
        keys: String,
    },
    /// It cannot be read.
    #[error("{field}: Secret {name:?} cannot be read: {source}")]
    Api {
        /// The field that names it.
        field: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// It holds what cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// What the Secrets hold that a spec names.
pub async fn read(
    client: &Client,
    namespace: &str,
    rocketmq: &Rocketmq,
) -> Result<Parts, SecretError> {
    let mut by_secret: BTreeMap<&str, Vec<Part>> = BTreeMap::new();
    for (part, name) in wanted(rocketmq) {
        by_secret.entry(name).or_default().push(part);
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut all = Vec::new();
    for (name, parts) in by_secret {
        let field = parts.first().map_or("spec.rocketmq", |part| part.field());
        let found = secrets
            .get_opt(name)
            .await
            .map_err(|source| SecretError::Api {
                field,
                name: name.to_owned(),
                source,
            })?;
        let found = found.ok_or_else(|| SecretError::Missing {
            field,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            keys: keys(&parts),
        })?;
        let data = found.data.unwrap_or_default();
        all.extend(parts.into_iter().filter_map(|part| {
            let held = data.get(part.key())?;
            Some((part, held.0.clone()))
        }));
    }
    Ok(all.into_iter().collect())
}

fn keys(parts: &[Part]) -> String {
    let keys: Vec<_> = parts.iter().map(|part| part.key()).collect();
    keys.join(" and ")
}
