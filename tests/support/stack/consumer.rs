//! An OrderedConsumer with the sample handler.

use super::Stack;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;

/// What differs between the OrderedConsumers of tests and the demo.
#[derive(Clone, Debug)]
pub struct OrderedConsumer {
    /// metadata.name, and the consumer group.
    pub name: String,
    /// Topic.
    pub topic: String,
    /// Work of each call.
    pub work: Duration,
    /// handler.timeout; hand-overs of queues wait for it.
    pub timeout: Duration,
    /// Bounds of lanes.
    pub lanes: (u32, u32),
    /// autoscaling.mode.
    pub mode: &'static str,
    /// Most pods in mode Auto.
    pub max_replicas: u32,
    /// autoscaling.scaleDown.stabilizationWindow.
    pub stabilization_window: Duration,
    /// More options of the handler.
    pub handler: Vec<String>,
}

impl OrderedConsumer {
    /// Its manifest for a namespace, with the brokers of another one or the same. The name server is named
    /// as users name it: by its Service.
    pub fn manifest(&self, namespace: &str, brokers: &str) -> Value {
        let mut options = vec![
            "serve".to_owned(),
            format!("--work-ms={}", self.work.as_millis()),
            format!("--judge=http://judge.{namespace}:8080"),
        ];
        options.extend_from_slice(&self.handler);
        json!({
            "apiVersion": "keylane.dev/v1alpha1",
            "kind": "OrderedConsumer",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": {
                "rocketmq": {"nameServers": [format!("rocketmq.{brokers}:9876")]},
                "topic": self.topic,
                "consumerGroup": self.name,
                "handler": {
                    "http": {"port": 8080, "path": "/"},
                    "timeout": format!("{}s", self.timeout.as_secs()),
                },
                "lanes": {"min": self.lanes.0, "max": self.lanes.1},
                "autoscaling": {
                    "mode": self.mode,
                    "minReplicas": 1,
                    "maxReplicas": self.max_replicas,
                    "scaleDown": {
                        "stabilizationWindow": format!("{}s", self.stabilization_window.as_secs()),
                    },
                },
                "drain": {"timeout": "20s"},
                "template": {"spec": {
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532,
                                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "handler",
                        "image": super::HANDLER_IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}},
                        "args": options,
                        "env": [{"name": "HANDLER_NAME",
                                 "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                            "capabilities": {"drop": ["ALL"]}},
                    }],
                }},
            }
        })
    }

    /// Creates or changes it.
    pub fn apply(&self, stack: &Stack) -> Result<()> {
        let manifest = self.manifest(&stack.namespace, &stack.brokers);
        // kubectl reads JSON as YAML only if it does not begin with a brace.
        let text = serde_norway::to_string(&manifest).context("the manifest cannot be written")?;
        stack.apply(&format!("OrderedConsumer {}", self.name), &text)
    }
}
