//! The second half of a round: what was found goes into the status and into Events.

use super::Context;
use super::error::Error;
use super::state::State;
use super::status::{self, Findings, Happened, bounded};
use crate::crd::{OrderedConsumer, OrderedConsumerStatus};
use crate::names;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::warn;

/// The same words so soon count up the Event that said them first. A Recorder does not count longer either.
const SAME_WITHIN: Duration = Duration::from_secs(360);
/// Bytes of a note; the API server refuses more than 1024.
const LONGEST_NOTE: usize = 1000;

/// What was said of a consumer lately. A Recorder knows its Events by their reasons and goes on saying what it said
/// first, so all that is said in other words, as each change of pods with its numbers, has one of its own.
pub struct Told<R = Recorder>(HashMap<Happened, (R, Instant)>);

impl<R> Default for Told<R> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<R: Clone> Told<R> {
    fn recorder(&mut self, happened: &Happened, now: Instant, new: impl FnOnce() -> R) -> R {
        self.0
            .retain(|_, (_, at)| now.saturating_duration_since(*at) < SAME_WITHIN);
        let (recorder, at) = self
            .0
            .entry(happened.clone())
            .or_insert_with(|| (new(), now));
        *at = now;
        recorder.clone()
    }
}

/// The API of the consumers in an object's namespace.
pub fn consumers(context: &Context, object: &OrderedConsumer) -> Api<OrderedConsumer> {
    let namespace = object.namespace().unwrap_or_default();
    Api::namespaced(context.client.clone(), &namespace)
}

/// Writes the status if it is worth it. An error if the object is not any more what was decided on.
pub async fn write_status(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    found: &Findings,
) -> Result<(), Error> {
    // The watch may lag behind what was written.
    let last = state
        .last_written()
        .cloned()
        .or_else(|| object.status.clone())
        .unwrap_or_default();
    let (status, happened) = status::status(Timestamp::now(), &last, found);
    if state.must_write(&status, found.history.as_ref()) {
        patch_status(context, state, object, &status).await?;
        state.wrote(status);
    }
    for event in happened {
        publish(context, state, object, event).await;
    }
    Ok(())
}

async fn patch_status(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    status: &OrderedConsumerStatus,
) -> Result<(), Error> {
    let watched = object.resource_version().unwrap_or_default();
    // An applied status drops what is not known any more; a merge would keep it.
    let patch = json!({
        "apiVersion": OrderedConsumer::api_version(&()),
        "kind": OrderedConsumer::kind(&()),
        "metadata": {
            "name": object.name_any(),
            "uid": object.uid(),
            // What another leader or a person wrote meanwhile is not overwritten unseen.
            "resourceVersion": state.version(&watched),
        },
        "status": serde_json::to_value(status)?,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let api = consumers(context, object);
    match api
        .patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch))
        .await
    {
        Ok(written) => {
            state.made(&watched, written.resource_version().unwrap_or_default());
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            Err(Error::Changed {
                name: object.name_any(),
            })
        }
        Err(source) => Err(Error::Status {
            name: object.name_any(),
            source,
            retry: state.failed(),
        }),
    }
}

/// Makes an Event. The same again within minutes counts up the first.
pub async fn publish(
    context: &Context,
    state: &mut State,
    object: &OrderedConsumer,
    happened: Happened,
) {
    let recorder = state.told.recorder(&happened, Instant::now(), || {
        Recorder::new(context.client.clone(), context.reporter.clone())
    });
    let event = Event {
        type_: if happened.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: happened.reason,
        note: Some(bounded(&happened.note, LONGEST_NOTE)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let about = object.object_ref(&());
    if let Err(error) = recorder.publish(&event, &about).await {
        context.metrics.failed("event");
        warn!(
            "an event of {} was not recorded: {error}",
            object.name_any()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_have_a_recorder_of_their_own_and_the_same_ones_keep_theirs_for_some_minutes() {
        let (start, mut told, mut made) = (Instant::now(), Told::default(), 0);
        let mut recorder = |note: &str, seconds| {
            let happened = Happened {
                warning: false,
                reason: "ScaledUp".to_owned(),
                note: note.to_owned(),
            };
            let now = start + Duration::from_secs(seconds);
            told.recorder(&happened, now, || {
                made += 1;
                made
            })
        };
        assert_eq!(recorder("1 -> 2 pods", 0), 1);
        assert_eq!(recorder("2 -> 6 pods", 30), 2);
        assert_eq!(recorder("1 -> 2 pods", 60), 1);
        // Of the one nothing was said for six minutes, of the other a little less.
        assert_eq!(recorder("2 -> 6 pods", 400), 3);
        assert_eq!(recorder("1 -> 2 pods", 400), 1);
    }
}
