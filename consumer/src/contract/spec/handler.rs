//! Whom to hand messages to.

use crate::contract::duration::DurationText;
use crate::contract::socket::SocketPath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom to hand messages to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.timeout) >= duration('10ms') && duration(self.timeout) <= duration('1h')",
    "message": "handler.timeout must be between 10ms and 1h"
}, {
    "rule": "has(self.http) != has(self.grpc)",
    "message": "give exactly one of handler.http and handler.grpc: where the handler listens, such as http: {port: 8080} or grpc: {port: 8080}"
}]))]
pub struct Handler {
    /// Name of the container of the template that handles messages. Default: handler.
    #[serde(default = "Handler::default_container")]
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// The handler's HTTP endpoint; it receives CloudEvents 1.0 in binary mode. Exactly one of http and grpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// The handler's gRPC endpoint; it serves keylane.v1.Handler. Exactly one of http and grpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
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
            grpc: None,
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
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.port) != has(self.unixSocket)",
    "message": "give exactly one of handler.http.port and handler.http.unixSocket"
}]))]
pub struct Http {
    /// Port the handler listens on, on 127.0.0.1 or all addresses of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Path of the Unix socket the handler listens on, such as /run/handler/handler.sock. In a pod its
    /// directory is an empty volume that handler and executor share. The executor runs as user 65532: let it
    /// connect (chmod 0666 once it is bound).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_socket: Option<SocketPath>,
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
    /// The version of HTTP it is called by. HTTP2: without TLS (h2c), from the first byte on. Default: HTTP1.
    #[serde(default)]
    pub version: HttpVersion,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum HttpVersion {
    /// HTTP/1.1: a connection for each call that runs, kept alive.
    #[default]
    #[serde(rename = "HTTP1")]
    Http1,
    /// HTTP/2 without TLS: many calls at a time on a connection.
    #[serde(rename = "HTTP2")]
    Http2,
}

impl Http {
    fn default_path() -> String {
        "/".into()
    }
}

/// A gRPC endpoint in the same pod. It serves keylane.v1.Handler, without TLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.port) != has(self.unixSocket)",
    "message": "give exactly one of handler.grpc.port and handler.grpc.unixSocket"
}]))]
pub struct Grpc {
    /// Port the handler listens on, on 127.0.0.1 or all addresses of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Path of the Unix socket the handler listens on, such as /run/handler/handler.sock. In a pod its
    /// directory is an empty volume that handler and executor share. The executor runs as user 65532: let it
    /// connect (chmod 0666 once it is bound).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_socket: Option<SocketPath>,
}

impl Handler {
    /// The port it listens on, if it does.
    pub fn port(&self) -> Option<u16> {
        let http = self.http.as_ref().and_then(|http| http.port);
        http.or_else(|| self.grpc.as_ref()?.port)
    }

    /// The socket it listens on, if it does.
    pub fn unix_socket(&self) -> Option<&SocketPath> {
        let http = self
            .http
            .as_ref()
            .and_then(|http| http.unix_socket.as_ref());
        http.or_else(|| self.grpc.as_ref()?.unix_socket.as_ref())
    }
}
