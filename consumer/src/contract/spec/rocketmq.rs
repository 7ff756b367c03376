//! Which RocketMQ, and how to be let in. What is secret is only named here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A RocketMQ cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rocketmq {
    /// Addresses of the name servers, as host:port.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 3, max = 260),
            regex(pattern = r"^[^:;,/\s]+:[0-9]{1,5}$")
        ),
        extend("x-kubernetes-validations" = [{
            "rule": r"self.all(server, server.matches('^[^:;,/\\s]+:[0-9]{1,5}$'))",
            "message": "write each name server as host:port, such as namesrv.mq:9876"
        }])
    )]
    pub name_servers: Vec<String>,
    /// Secret in the namespace of the OrderedConsumer with accessKey and secretKey, a user of RocketMQ's
    /// ACL. Changes of the Secret are taken over without a restart. Default: requests are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// Talk to name servers and brokers over TLS, and check that it is them. Default: in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How name servers and brokers prove who they are, and who we are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Secret in the namespace of the OrderedConsumer with ca.crt: the certificates (PEM) of the authorities
    /// that name servers and brokers have theirs from. Nobody else is trusted. Changes of the Secret are
    /// taken over for new connections.
    pub ca_secret_ref: SecretRef,
    /// The name that every name server's and broker's certificate must be for. Default: the host by which
    /// each is reached, which for brokers is the address they register (brokerIP1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$')",
            "message": "write a DNS name that is in the certificates, such as rocketmq.mq.svc, without a port"
        }])
    )]
    pub server_name: Option<String>,
    /// Secret in the namespace of the OrderedConsumer with tls.crt and tls.key: the certificate chain and the
    /// private key (PEM) to show to name servers and brokers that ask for one. Default: none is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<SecretRef>,
}

/// A Secret in the namespace of the OrderedConsumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Its name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
            "message": "write the name of a Secret: lower case letters, digits, - and . only"
        }])
    )]
    pub name: String,
}
