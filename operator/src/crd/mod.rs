//! The resource `OrderedConsumer` of `keylane.dev/v1alpha1`. What the executor obeys comes from the
//! contract; here is what concerns pods. Rules between fields are CEL with a message for people.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keylane_consumer::contract::duration::DurationText;
use keylane_consumer::contract::spec::ConsumerSpec;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest name of an OrderedConsumer: names of pods and labels are made from it.
pub const LONGEST_NAME: usize = 40;

/// Consumes a RocketMQ topic with order per key: every key is a FIFO lane of its own, many keys of one
/// queue run at once, and the number of lanes and pods follows the load.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "keylane.dev",
    version = "v1alpha1",
    kind = "OrderedConsumer",
    plural = "orderedconsumers",
    shortname = "oc",
    category = "keylane",
    namespaced,
    derive = "PartialEq",
    status = "OrderedConsumerStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("metadata.name must not be longer than 40 characters: names of pods are made from it; choose a shorter one"),
    validation = Rule::new("self.spec.topic == oldSelf.spec.topic && self.spec.consumerGroup == oldSelf.spec.consumerGroup")
        .message("spec.topic and spec.consumerGroup cannot be changed: that would be another consumer; create a new OrderedConsumer and delete this one"),
    validation = Rule::new("self.spec.consumption == oldSelf.spec.consumption")
        .message("spec.consumption cannot be changed: pods of both kinds would handle the same messages side by side; create a new OrderedConsumer and delete this one"),
    validation = Rule::new("oldSelf.spec.ordering.mode != 'None' || self.spec.ordering.mode == 'None'")
        .message("spec.ordering.mode cannot be changed from None: messages that failed may wait in the topic %RETRY%<group>, which other modes do not consume; once nothing waits there (mqadmin consumerProgress -g <group> -t %RETRY%<group>), create a new OrderedConsumer and delete this one"),
    validation = Rule::new("self.spec.ordering.mode != 'None' || self.spec.consumption != 'Broadcasting'")
        .message("spec.consumption Broadcasting needs spec.ordering.mode Key or Queue: what is sent back to the broker would come to every pod again"),
    validation = Rule::new("self.spec.ordering.mode != 'None' || self.spec.retry.onExhausted != 'Block'")
        .message("spec.retry.onExhausted Block needs spec.ordering.mode Key or Queue: in mode None messages wait at the broker"),
    validation = Rule::new("self.spec.ordering.mode != 'None' || self.spec.handler.batch.maxMessages == 1")
        .message("spec.handler.batch.maxMessages above 1 needs spec.ordering.mode Key or Queue: in mode None no two messages belong together"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".spec.topic"),
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.consumerGroup"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Lanes", type_ = "integer", json_path = ".status.lanes"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.lag.unfinished"),
    printcolumn(name = "Oldest", type_ = "string", json_path = ".status.lag.oldest"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.rates.completed"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.decision.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct OrderedConsumerSpec {
    /// What to consume, how to order it and whom to hand it to.
    #[serde(flatten)]
    pub consumer: ConsumerSpec,
    /// Number of pods. In autoscaling mode Auto the operator writes it; leave it out of Git then. Default: 1.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Who decides how many lanes and pods there are.
    #[serde(default)]
    pub autoscaling: Autoscaling,
    /// The container Keylane adds to each pod.
    #[serde(default)]
    pub executor: Executor,
    /// Template of the pods: metadata.labels, metadata.annotations and a pod spec with the handler's
    /// container. The handler is run as a sidecar of the executor, started before and stopped after it.
    #[schemars(schema_with = "opaque")]
    pub template: Value,
}

fn default_replicas() -> i32 {
    1
}

fn opaque(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Who decides how many lanes and pods there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "autoscaling.minReplicas must not be larger than autoscaling.maxReplicas"
}]))]
pub struct Autoscaling {
    /// Auto: the operator tunes lanes and writes spec.replicas. LanesOnly: it tunes lanes; replicas are
    /// yours, or an HPA's. Advise: it changes neither and says in the status what it would do. Hold: it
    /// changes neither. With consumption Broadcasting Auto is LanesOnly: each pod gets all messages, and
    /// more pods would not take any from the others. Default: Auto.
    #[serde(default)]
    pub mode: Mode,
    /// Fewest pods in mode Auto. Default: 1.
    #[serde(default = "default_min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most pods in mode Auto; never more than the topic has queues. Default: 10.
    #[serde(default = "default_max_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// What is to be reached.
    #[serde(default)]
    pub objective: Objective,
    /// Loads that are known before they come, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub schedules: Vec<Schedule>,
    /// When pods go, in mode Auto.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// How many pods there are while the load is not known, in mode Auto. Default: those there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What holds while the load is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// At least so many pods once a broker or a ready pod has told no figures for a minute, within maxReplicas.
    /// Where there are more, they stay: nothing goes while figures are missing.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
}

/// When pods go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.stabilizationWindow) <= duration('30m')",
    "message": "autoscaling.scaleDown.stabilizationWindow must be between 0s and 30m"
}]))]
pub struct ScaleDown {
    /// How long fewer pods must have been enough before some go, at most half of them at a time. Three
    /// times as long, 30m at most, for half an hour after pods that went had to come back. Default: 11m.
    #[serde(default = "default_window")]
    pub stabilization_window: DurationText,
}

fn default_window() -> DurationText {
    DurationText::from_secs(660)
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            stabilization_window: default_window(),
        }
    }
}

/// What autoscaling is to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.maxMessageAge) >= duration('1s') && duration(self.drainWithin) >= duration('1s')",
    "message": "autoscaling.objective.maxMessageAge and drainWithin must be at least 1s"
}]))]
pub struct Objective {
    /// No message should wait longer. Default: 30s.
    #[serde(default = "default_age")]
    pub max_message_age: DurationText,
    /// A backlog should be gone within this time. Default: 5m.
    #[serde(default = "default_drain")]
    pub drain_within: DurationText,
}

fn default_age() -> DurationText {
    DurationText::from_secs(30)
}

fn default_drain() -> DurationText {
    DurationText::from_secs(300)
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            max_message_age: default_age(),
            drain_within: default_drain(),
        }
    }
}

/// A load that is known before it comes: pods are there when it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.start) != has(self.cron)",
        "message": "a schedule has either start or cron"
    },
    {
        "rule": "!has(self.timeZone) || has(self.cron)",
        "message": "timeZone goes with cron; start says its offset itself"
    },
    {
        "rule": "duration(self.duration) >= duration('1m') && duration(self.duration) <= duration('168h')",
        "message": "the duration of a schedule must be between 1m and 168h"
    }
]))]
pub struct Schedule {
    /// When it begins, such as 2026-11-11T00:00:00+08:00.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub start: Option<String>,
    /// When it begins, again and again: minute, hour, day of month, month, day of week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 200))]
    pub cron: Option<String>,
    /// Time zone of cron, such as Asia/Shanghai. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// How long it lasts.
    pub duration: DurationText,
    /// Messages a second that will arrive, over all queues.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub expected_per_second: i64,
}

fn default_min_replicas() -> i32 {
    1
}

fn default_max_replicas() -> i32 {
    10
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            min_replicas: default_min_replicas(),
            max_replicas: default_max_replicas(),
            objective: Objective::default(),
            schedules: Vec::new(),
            scale_down: ScaleDown::default(),
            fallback: None,
        }
    }
}

/// Modes of autoscaling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    /// Lanes and replicas follow the load.
    #[default]
    Auto,
    /// Lanes follow the load, replicas are left alone.
    LanesOnly,
    /// Both are left alone; the status says what would be done.
    Advise,
    /// Both are left alone.
    Hold,
}

/// The container Keylane adds to each pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Executor {
    /// Image of the executor. Default: the one the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub image: Option<String>,
    /// Resource requests and limits of the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub resources: Option<ResourceRequirements>,
    /// More environment variables of the executor, such as RUST_LOG.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env")]
    pub env: Vec<EnvVar>,
}

fn env(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 100,
        "items": {
            "type": "object", "required": ["name"], "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 255}}
        }
    })
}

/// A duration as the operator writes it: nobody has to be told how to.
fn written(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    let text = json_schema!({"type": "string"});
    json_schema!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": text, "reason": text, "message": text,
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0}
            }
        }
    })
}

/// What the operator last saw and decided. A figure that is not known is absent, never 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderedConsumerStatus {
    /// Generation of the spec this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Number of pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Lanes a pod may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u32>,
    /// Queues of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// How far behind the group is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// Messages a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// The last decision about lanes and replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<LastDecision>,
    /// Keys that need more than their one lane can give, the one that asks most first, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hot_keys: Vec<HotKey>,
    /// Keys whose first message does not get done while others move, the longest first, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck_keys: Vec<StuckKey>,
    /// Keys that wait for a person, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_keys: Vec<String>,
    /// The reset of offsets that was last asked for by the annotation keylane.dev/reset-offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets_reset: Option<OffsetsReset>,
    /// What is well and what is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// A reset of the group's offsets. Counts are of queue offsets, over the queues that are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffsetsReset {
    /// Id in the annotation.
    pub id: String,
    /// Where the group goes on: earliest, latest or a time.
    pub to: String,
    /// How far it is.
    pub phase: ResetPhase,
    /// Queues that are done.
    pub queues_done: u32,
    /// Offsets that were not finished and are skipped.
    pub skipped: u64,
    /// Offsets that were finished and are consumed again.
    pub replayed: u64,
    /// When the last queue was seen done, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
}

/// How far a reset of offsets is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ResetPhase {
    /// Not every queue is done yet.
    Pending,
    /// Every queue goes on from its new position.
    Done,
    /// The annotation was removed before every queue was done.
    Withdrawn,
}

/// How far behind a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// Messages after the committed offsets, finished ones among them included.
    pub messages: u64,
    /// Messages that are not finished.
    pub unfinished: u64,
    /// For how long the oldest of these has been stored by its broker. Absent where the pods do not know it
    /// of every queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "written")]
    pub oldest: Option<DurationText>,
    /// When nothing will be left, if as much arrives and is finished as now. Absent where no more is finished
    /// than arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "written")]
    pub drained_in: Option<DurationText>,
}

/// A key that needs more than its one lane can give. With spec.redactKeys the key is a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// Its queue, as broker name/queue id.
    pub queue: String,
    /// Messages of it that arrive, a second, as text with one decimal.
    pub per_second: String,
    /// How long its lane needs for what waits now.
    #[schemars(schema_with = "written")]
    pub waiting: DurationText,
}

/// A key whose first message does not get done while others move. With spec.redactKeys the key is a hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StuckKey {
    /// The key; empty for messages without a key.
    pub key: String,
    /// Its queue, as broker name/queue id.
    pub queue: String,
    /// Queue offset of its first message.
    pub offset: u64,
    /// For how long that message has been in hand.
    #[schemars(schema_with = "written")]
    pub stuck_for: DurationText,
    /// Failed attempts.
    pub attempts: u32,
    /// The last failure, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
}

/// Messages a second, as text with one decimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rates {
    /// Messages that arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<String>,
    /// Messages that are finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<String>,
}

/// A decision about lanes and replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDecision {
    /// Lanes a pod.
    pub lanes: u32,
    /// Pods.
    pub replicas: u32,
    /// Why, in one word.
    pub reason: String,
    /// Why, with numbers.
    pub message: String,
    /// Pods there would be if autoscaling owned them, where that is another number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advised_replicas: Option<u32>,
    /// Lanes a pod would have if autoscaling owned them, where that is another number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advised_lanes: Option<u32>,
    /// The numbers it was made of.
    #[serde(default)]
    pub inputs: DecisionInputs,
    /// What autoscaling remembers, as JSON: an operator that starts anew goes on from it. Of a topic with
    /// very many queues without their rates, for which a status has no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
}

/// The numbers a decision was made of, as text; what is not known is absent. Rates are messages a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionInputs {
    /// Arrivals expected when a pod asked for now would be at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_rate: Option<String>,
    /// Milliseconds a call takes, as measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_milliseconds: Option<String>,
    /// Milliseconds a call takes when nothing is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_milliseconds: Option<String>,
    /// Busy lanes over all pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_lanes: Option<String>,
    /// Messages a second one pod can finish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_capacity: Option<String>,
    /// Seconds from asking for a pod to its first messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_seconds: Option<String>,
    /// Percent of its CPU limit that the pod with least CPU left uses, where the cluster measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<String>,
}

/// The CustomResourceDefinition as YAML, as it lies in `crds/` and in the chart.
pub fn yaml() -> Result<String, serde_norway::Error> {
    let text = serde_norway::to_string(&OrderedConsumer::crd())?;
    Ok(format!(
        "# Generated from operator/src/crd; do not edit.\n{text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Rewrites the files when KEYLANE_REGENERATE is set.
    #[test]
    fn the_generated_files_are_those_of_the_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let plain = yaml().unwrap();
        // Helm would delete it with the chart, and every OrderedConsumer with it.
        let kept = plain.replacen(
            "metadata:\n",
            "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
            1,
        );
        for (file, expected) in [
            ("crds/orderedconsumers.yaml", &plain),
            ("charts/keylane/crds/orderedconsumers.yaml", &plain),
            ("charts/keylane-crds/templates/orderedconsumers.yaml", &kept),
        ] {
            assert!(
                !expected.contains("{{"),
                "Helm would take it for a template"
            );
            let path = root.join(file);
            if std::env::var_os("KEYLANE_REGENERATE").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, expected).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == *expected,
                "{file} is stale: run KEYLANE_REGENERATE=1 cargo test -p keylane-operator crd"
            );
        }
    }

    #[test]
    fn the_schema_has_every_field_of_the_contract_and_its_rules() {
        let crd = serde_json::to_value(OrderedConsumer::crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let spec = &schema["properties"]["spec"];
        for field in [
            "rocketmq",
            "topic",
            "consumerGroup",
            "consumption",
            "filter",
            "startFrom",
            "ordering",
            "handler",
            "lanes",
            "retry",
            "limits",
            "drain",
            "suspend",
            "redactKeys",
            "replicas",
            "autoscaling",
            "executor",
            "template",
        ] {
            assert!(
                spec["properties"].get(field).is_some(),
                "{field} is missing"
            );
        }
        for path in [
            "startFrom",
            "filter",
            "handler",
            "lanes",
            "limits",
            "drain",
            "autoscaling",
        ] {
            assert!(
                spec["properties"][path]
                    .get("x-kubernetes-validations")
                    .is_some(),
                "{path} has no rules"
            );
        }
        assert_eq!(
            schema["x-kubernetes-validations"].as_array().map(Vec::len),
            Some(7)
        );
        let required: Vec<_> = spec["required"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        for field in ["rocketmq", "topic", "consumerGroup", "handler", "template"] {
            assert!(required.contains(&field), "{field} is not required");
        }
        assert_eq!(required.len(), 5);
    }
}
