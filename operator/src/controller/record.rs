//! The second half of a round: what was found goes into the status and into Events.

use super::Context;
use super::error::Error;
use super::state::State;
use super::status::{self, Findings, Happened};
use crate::crd::{OrderedConsumer, OrderedConsumerStatus};
use crate::names;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tracing::warn;

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
        publish(context, object, event).await;
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
pub async fn publish(context: &Context, object: &OrderedConsumer, happened: Happened) {
    let event = Event {
        type_: if happened.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: happened.reason,
        note: Some(happened.note.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let about = object.object_ref(&());
    if let Err(error) = context.recorder.publish(&event, &about).await {
        context.metrics.failed("event");
        warn!(
            "an event of {} was not recorded: {error}",
            object.name_any()
        );
    }
}
