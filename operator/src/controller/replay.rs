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
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
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
    #[error("ConfigMap {0:?} exists and is not controlled by this OrderedConsumer: delete it")]
    Foreign(String),
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
    if let Err(error) = write(context, consumer, recorded).await {
        context.metrics.failed("decisions");
        warn!("{}: a decision is not kept: {error}", consumer.name());
    }
}

async fn write(
    context: &Context,
    consumer: &Consumer,
    recorded: &Recorded,
) -> Result<(), KeepError> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), consumer.namespace());
    let name = names::decisions(consumer.name());
    let found = api.get_opt(&name).await?;
    if found
        .as_ref()
        .is_some_and(|found| !consumer.controls(found))
    {
        return Err(KeepError::Foreign(name));
    }
    let uid = found.as_ref().and_then(ResourceExt::uid);
    let before = found.and_then(|found| found.data).unwrap_or_default();
    let data = with(before, recorded)?;
    let mut patch = serde_json::to_value(build::decisions(consumer, data))?;
    patch["apiVersion"] = json!(ConfigMap::api_version(&()));
    patch["kind"] = json!(ConfigMap::kind(&()));
    if let Some(uid) = uid {
        // One that was replaced in between is not touched.
        patch["metadata"]["uid"] = Value::from(uid);
    }
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(&patch)).await?;
    Ok(())
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
