//! The last decisions that changed something, kept in a ConfigMap with all they were made of, so that a
//! person can look into them and a program can make them again.
//!
//! A status has no room for that: the inputs of one decision grow with queues and pods. A ConfigMap is
//! written when pods change, and for lanes alone once a minute at most, as they change every few seconds
//! under a load that moves. Failing to keep a decision never holds it up.

use super::state::State;
use super::validate::Consumer;
use super::{Context, build};
use crate::names;
use crate::scale::Recorded;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::warn;

/// Most decisions that are kept.
const MOST: usize = 16;
/// Most bytes of them all. A ConfigMap may have 1 MiB; with hundreds of consumers they add up in etcd.
const BYTES: usize = 256 << 10;
/// What one decision alone may have beyond that.
const LARGEST: usize = 900 << 10;
/// Changes of lanes alone are kept this often.
const LANES_EVERY: Duration = Duration::from_secs(60);
/// The same change of pods so soon is one: watches may lag behind what was written.
const SAME_WITHIN: Duration = Duration::from_secs(2);

/// Which decisions were kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    at: Option<Instant>,
    /// Pods before and after, by the last one.
    pods: (u32, u32),
}

impl Kept {
    fn is_due(&self, now: Instant, recorded: &Recorded) -> bool {
        let since = self.at.map(|at| now.saturating_duration_since(at));
        let wait = match recorded.moves_pods() {
            true if pods(recorded) == self.pods => SAME_WITHIN,
            true => Duration::ZERO,
            false => LANES_EVERY,
        };
        since.is_none_or(|since| since >= wait)
    }
}

fn pods(recorded: &Recorded) -> (u32, u32) {
    (recorded.inputs.replicas(), recorded.replicas)
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(
        "ConfigMap {0:?} exists and is not controlled by this OrderedConsumer: rename or delete it; it was not touched"
    )]
    NameConflict(String),
    #[error("{0} bytes are too many for a ConfigMap")]
    TooLarge(usize),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Keeps a decision, before it is carried out.
pub async fn keep(context: &Context, state: &mut State, consumer: &Consumer, recorded: &Recorded) {
    let now = Instant::now();
    if !state.kept.is_due(now, recorded) {
        return;
    }
    state.kept = Kept {
        at: Some(now),
        pods: pods(recorded),
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), consumer.namespace());
    if let Err(error) = write(&api, consumer, recorded).await {
        context.metrics.failed("decisions");
        warn!("{}: a decision is not kept: {error}", consumer.name());
    }
}

/// Makes the ConfigMap by a request that cannot change one that somebody else made first, and changes it by
/// one that carries its uid.
async fn write(
    api: &Api<ConfigMap>,
    consumer: &Consumer,
    recorded: &Recorded,
) -> Result<(), KeepError> {
    let name = names::decisions(consumer.name());
    let manager = Some(names::FIELD_MANAGER.to_owned());
    let Some(found) = api.get_opt(&name).await? else {
        let new = build::decisions(consumer, with(BTreeMap::new(), recorded)?);
        let parameters = PostParams {
            field_manager: manager,
            ..PostParams::default()
        };
        return match api.create(&parameters, &new).await {
            // Somebody was faster; the next decision sees who.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                Err(KeepError::NameConflict(name))
            }
            made => Ok(made.map(drop)?),
        };
    };
    if !consumer.controls(&found) {
        return Err(KeepError::NameConflict(name));
    }
    let parameters = PatchParams {
        field_manager: manager,
        ..PatchParams::default()
    };
    // Not applied: fields that were made by a create are not taken away by an apply.
    let patch = Patch::Merge(change(&found, recorded)?);
    api.patch(&name, &parameters, &patch).await?;
    Ok(())
}

/// What changes of the ConfigMap: the new decision comes, and those go for which there is no room any more.
/// One that was replaced in between has another uid and is not touched.
fn change(found: &ConfigMap, recorded: &Recorded) -> Result<Value, KeepError> {
    let kept = found.data.clone().unwrap_or_default();
    let gone = kept.keys().map(|key| (key.clone(), Value::Null));
    let mut data: Map<String, Value> = gone.collect();
    let new = key(recorded.inputs.now());
    for (key, text) in with(kept, recorded)? {
        if key == new {
            data.insert(key, Value::from(text));
        } else {
            data.remove(&key);
        }
    }
    Ok(json!({"metadata": {"uid": found.uid()}, "data": data}))
}

/// The decisions that are to be kept: the new one, and the last ones before it for which there is room.
fn with(
    mut kept: BTreeMap<String, String>,
    recorded: &Recorded,
) -> Result<BTreeMap<String, String>, KeepError> {
    let text = serde_json::to_string(recorded)?;
    if text.len() > LARGEST {
        return Err(KeepError::TooLarge(text.len()));
    }
    kept.insert(key(recorded.inputs.now()), text);
    let (mut count, mut bytes) = (0, 0);
    let first = kept.iter().rev().take_while(|(_, text)| {
        count += 1;
        bytes += text.len();
        count == 1 || (count <= MOST && bytes <= BYTES)
    });
    let first = first.last().map(|(key, _)| key.clone());
    Ok(match first {
        Some(first) => kept.split_off(&first),
        None => kept,
    })
}

/// The moment, as a key of a ConfigMap can be, in order of time: 20260131T235959.123Z.
fn key(now: Duration) -> String {
    let moment = Timestamp::from_millisecond(now.as_millis() as i64).unwrap_or_default();
    moment.strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::{tests, validate};
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use axum::{Json, Router};

    fn failure(code: StatusCode, reason: &str) -> (StatusCode, Json<Value>) {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code.as_u16(),
        });
        (code, Json(status))
    }

    /// No real API server can be told to have nothing when it is asked and something right afterwards. This one
    /// knows of no other change than to create, so that anything else fails as something else.
    #[tokio::test]
    async fn what_somebody_made_in_between_is_not_touched() {
        let all = "/api/v1/namespaces/shop/configmaps";
        let one = format!("{all}/order-status-keylane-decisions");
        let server: Router = Router::new()
            .route(
                &one,
                get(async || failure(StatusCode::NOT_FOUND, "NotFound")),
            )
            .route(
                all,
                post(async || failure(StatusCode::CONFLICT, "AlreadyExists")),
            );
        let client = kube::Client::new(server, "shop");
        let consumer = validate(&tests::object(tests::template())).unwrap();
        let api: Api<ConfigMap> = Api::namespaced(client, consumer.namespace());
        let outcome = write(&api, &consumer, &Recorded::example(1, 8)).await;
        assert!(
            matches!(outcome, Err(KeepError::NameConflict(_))),
            "{outcome:?}"
        );
    }

    #[test]
    fn a_change_is_of_one_very_object_and_brings_the_new_decision_alone() {
        let mut found = ConfigMap::default();
        found.metadata.uid = Some("u7".to_owned());
        let mut kept = BTreeMap::new();
        for second in 0..MOST as u64 {
            kept = with(kept, &Recorded::example(second, 8)).unwrap();
        }
        let oldest = kept.keys().next().unwrap().clone();
        found.data = Some(kept.clone());
        let recorded = Recorded::example(1_000, 8);
        let change = change(&found, &recorded).unwrap();
        assert_eq!(change["metadata"], json!({"uid": "u7"}));
        let wanted = with(kept, &recorded).unwrap();
        let (new, text) = wanted.last_key_value().unwrap();
        assert_eq!(change["data"], json!({oldest: null, new: text}));
    }

    #[test]
    fn what_is_kept_is_decided_again_in_the_same_way() {
        let recorded = Recorded::example(1_700_000_000, 8);
        assert!(recorded.moves_pods());
        let kept = with(BTreeMap::new(), &recorded).unwrap();
        let text = kept.get("20231114T221320.000Z").unwrap();
        let read: Recorded = serde_json::from_str(text).unwrap();
        assert_eq!(read.replay(), recorded);
    }

    #[test]
    fn the_last_ones_are_kept_as_far_as_there_is_room() {
        let mut kept = BTreeMap::new();
        for second in 0..40 {
            kept = with(kept, &Recorded::example(second, 8)).unwrap();
        }
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept.keys().next_back(), Some(&key(Duration::from_secs(39))));
        // A large one pushes the others out, and is kept even if it alone is more than all may be.
        let large = Recorded::example(40, 4_000);
        let kept = with(kept, &large).unwrap();
        assert_eq!(kept.len(), 1);
        let kept = with(kept, &Recorded::example(41, 8)).unwrap();
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn each_change_of_pods_is_worth_keeping_once_and_lanes_are_once_a_minute() {
        let (start, up) = (Instant::now(), Recorded::example(1, 8));
        let lanes = Recorded {
            replicas: 1,
            ..up.clone()
        };
        let never = Kept::default();
        assert!(never.is_due(start, &lanes) && never.is_due(start, &up));
        let kept = |recorded: &Recorded| Kept {
            at: Some(start),
            pods: pods(recorded),
        };
        assert!(kept(&lanes).is_due(start, &up) && !kept(&lanes).is_due(start, &lanes));
        assert!(kept(&lanes).is_due(start + LANES_EVERY, &lanes));
        assert!(!kept(&up).is_due(start, &up));
        assert!(kept(&up).is_due(start + SAME_WITHIN, &up));
        let more = Recorded { replicas: 4, ..up };
        assert!(kept(&Recorded::example(1, 8)).is_due(start, &more));
    }
}
