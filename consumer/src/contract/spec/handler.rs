//! Whom to hand messages to.

use crate::contract::duration::DurationText;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom to hand messages to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.timeout) >= duration('10ms') && duration(self.timeout) <= duration('1h')",
    "message": "handler.timeout must be between 10ms and 1h"
}]))]
pub struct Handler {
    /// Name of the container of the template that handles messages. Default: handler.
    #[serde(default = "Handler::default_container")]
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// The handler's HTTP endpoint; it receives CloudEvents 1.0 in binary mode.
    // Not `default`: the schema would not require it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub http: Option<Http>,
    /// Longest time one call may take. A call is cancelled then and counts as a failed attempt. Default: 30s.
    #[serde(default = "Handler::default_timeout")]
    pub timeout: DurationText,
    /// How many messages one call may carry.
    #[serde(default)]
    pub batch: Batch,
}

/// How many messages one call may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// Most messages of one call. They are consecutive messages of one key; the handler may acknowledge
    /// only the first of them. Default: 1.
    #[serde(default = "Batch::default_max_messages")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_messages: u32,
}

impl Batch {
    fn default_max_messages() -> u32 {
        1
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_messages: Self::default_max_messages(),
        }
    }
}

impl Default for Handler {
    /// Without an endpoint: of a handler in this process.
    fn default() -> Self {
        Self {
            container: Self::default_container(),
            http: None,
            timeout: Self::default_timeout(),
            batch: Batch::default(),
        }
    }
}

impl Handler {
    fn default_container() -> String {
        "handler".into()
    }

    fn default_timeout() -> DurationText {
        DurationText::from_secs(30)
    }
}

/// An HTTP endpoint in the same pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http {
    /// Port the handler listens on, on 127.0.0.1 or all addresses of the pod.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path to POST to. Default: /.
    #[serde(default = "Http::default_path")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^/[^\s#]*$"),
        extend("x-kubernetes-validations" = [{
            "rule": r"self.matches('^/[^\\s#]*$')",
            "message": "begin the path with /, without host, blanks and #, such as /events"
        }])
    )]
    pub path: String,
    /// Path to GET, answered with 200 when nothing runs in the handler and with anything else when
    /// something does, a request it has taken and not begun included. With it a key whose call was lost, and
    /// the queues of an executor that was restarted beside a handler that lives on, need not wait until calls
    /// must be over. Default: none, and they wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^/[^\s#]*$"),
        extend("x-kubernetes-validations" = [{
            "rule": r"self.matches('^/[^\\s#]*$')",
            "message": "begin the path with /, without host, blanks and #, such as /idle"
        }])
    )]
    pub idle_path: Option<String>,
}

impl Http {
    fn default_path() -> String {
        "/".into()
    }
}
