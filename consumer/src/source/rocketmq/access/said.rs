//! Who said what lets us in: it is named as they know it, where they put it right.

use super::{Part, Parts, wanted};
use crate::contract::spec::{Rocketmq, Tls};

/// Who said it.
pub enum Said {
    /// An OrderedConsumer, in Secrets that it names.
    InSecrets(Rocketmq),
    /// A program, to the builder of its consumer.
    InProgram,
}

impl Said {
    /// Whether a part is used: one of a Secret that is named, or whatever a program gave.
    pub fn uses(&self, part: Part, parts: &Parts) -> bool {
        match self {
            Self::InSecrets(rocketmq) => wanted(rocketmq).iter().any(|(wanted, _)| *wanted == part),
            Self::InProgram => parts.get(part).is_some(),
        }
    }

    /// The Secret that a part is in.
    pub fn secret(&self, part: Part) -> Option<&str> {
        let Self::InSecrets(rocketmq) = self else {
            return None;
        };
        let wanted = wanted(rocketmq);
        let found = wanted.into_iter().find(|(wanted, _)| *wanted == part);
        found.map(|(_, secret)| secret)
    }

    /// Where a part is, or what would say it.
    pub fn place(&self, part: Part) -> String {
        let field = self.field(part);
        match self.secret(part) {
            Some(secret) => format!("{field} (Secret {secret:?}, {})", part.key()),
            None => field.to_owned(),
        }
    }

    /// What says a part.
    pub fn field(&self, part: Part) -> &'static str {
        match self {
            Self::InSecrets(_) => part.field(),
            Self::InProgram => part.method(),
        }
    }

    /// What says the name of servers.
    pub fn server_name(&self) -> &'static str {
        match self {
            Self::InSecrets(_) => "spec.rocketmq.tls.serverName",
            Self::InProgram => "Tls::server_name",
        }
    }

    /// What says that connections are made over TLS.
    pub fn tls(&self) -> &'static str {
        match self {
            Self::InSecrets(_) => "spec.rocketmq.tls",
            Self::InProgram => "Builder::tls",
        }
    }

    /// What to do for a certificate of ours to be shown.
    pub fn how_to_show_a_certificate(&self) -> &'static str {
        match self {
            Self::InSecrets(_) => {
                "name a Secret with one in spec.rocketmq.tls.clientCertificateSecretRef"
            }
            Self::InProgram => "give one to Tls::client_certificate",
        }
    }

    /// What a spec says of TLS.
    pub fn tls_of_spec(&self) -> Option<&Tls> {
        match self {
            Self::InSecrets(rocketmq) => rocketmq.tls.as_ref(),
            Self::InProgram => None,
        }
    }
}
