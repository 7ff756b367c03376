//! The OrderedConsumer of a run, whose handlers hand their calls on to the recording process.

use super::look::HANDLER;
use crate::subject::Subject;
use keylane_tests::images::workspace::SAMPLE_HANDLER;
use serde_json::{Value, json};

/// Where handlers listen in their pods.
pub const PORT: u16 = 8080;

/// Its manifest, without pods. Handlers reach the recording process at `recorder`.
pub fn manifest(subject: &Subject, namespace: &str, recorder: &str) -> Value {
    let http = json!({"port": PORT, "path": "/events", "idlePath": "/idle"});
    let mut spec = subject.spec(&format!("rocketmq.{namespace}:9876"), http);
    spec["replicas"] = json!(0);
    // Nobody but the schedule changes anything.
    spec["autoscaling"] = json!({"mode": "Hold"});
    spec["lanes"] = json!({"min": 64, "max": 64});
    spec["template"] = json!({"spec": {
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532,
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": HANDLER,
            "image": SAMPLE_HANDLER,
            "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": "10m"}},
            "args": ["relay", format!("--to={recorder}/pods/$(POD_NAME)")],
            "env": [{"name": "POD_NAME",
                     "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]}},
        }],
    }});
    let mut resource = subject.resource(spec);
    resource["metadata"]["namespace"] = json!(namespace);
    resource
}
