//! What lets us into a RocketMQ cluster: a user of its ACL, and who is trusted over TLS.
//!
//! It is what is in the Secrets that spec.rocketmq names, or what a program gives to the builder of its
//! consumer, and may change at any time: requests are signed, and connections made, with what is in force then.
//! So nothing has to be restarted, and no queue changes hands, when a Secret is rotated. Nothing here is ever
//! shown: what is printed names fields, Secrets and keys, and of what they hold the access key alone, which is a
//! user's name.

mod files;
mod parts;
mod said;
mod signer;
mod trust;

pub use files::{Files, FilesError};
pub use parts::{Part, Parts, wanted};
use said::Said;
pub(super) use signer::Signer;
pub(super) use trust::explain;

use crate::contract::spec::Rocketmq;
use rocketmq_client_rust::SessionCredentials;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Why what a Secret holds cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A key is missing.
    #[error("{field}: Secret {secret:?} has no {key:?}: {advice}", key = part.key(), field = part.field(), advice = part.advice())]
    Missing {
        /// What.
        part: Part,
        /// The Secret that is named.
        secret: String,
    },
    /// A key holds what cannot be used.
    #[error("{field}: {key:?} of Secret {secret:?} cannot be used: {reason}; {advice}", key = part.key(), field = part.field(), advice = part.advice())]
    Unusable {
        /// What.
        part: Part,
        /// The Secret that is named.
        secret: String,
        /// What is wrong with it; nothing of what it says.
        reason: String,
    },
    /// What a program gave cannot be used.
    #[error("{}: {} cannot be used: {reason}; {}", part.method(), part.words(), part.advice())]
    Given {
        /// What.
        part: Part,
        /// What is wrong with it; nothing of what it says.
        reason: String,
    },
    /// The name of servers is none.
    #[error(
        "{field} is {name:?}, which no certificate can be for: write a DNS name such as rocketmq.mq.svc"
    )]
    ServerName {
        /// Where it is said.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// The Secrets were not given.
    #[error(
        "{field} names Secret {secret:?}, and what it holds was not given: say where its keys are files (keylane-consumer run --rocketmq-secrets DIR)", field = part.field()
    )]
    NotGiven {
        /// What.
        part: Part,
        /// The Secret that is named.
        secret: String,
    },
}

/// What is in force.
#[derive(Clone, Default)]
struct InForce {
    parts: Parts,
    credentials: Option<SessionCredentials>,
    tls: Option<Arc<ClientConfig>>,
}

struct Shared {
    said: Said,
    server_name: Option<ServerName<'static>>,
    in_force: RwLock<InForce>,
}

/// What lets us into the cluster of a spec. Clones are the same access.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Access")
            .field("credentials", &self.0.said.secret(Part::AccessKey))
            .field("tls", &self.0.said.tls_of_spec())
            .finish_non_exhaustive()
    }
}

impl Access {
    /// With what the Secrets that the spec names hold. A spec that names none needs no parts.
    pub fn new(rocketmq: &Rocketmq, parts: Parts) -> Result<Self, AccessError> {
        let name = rocketmq.tls.as_ref();
        let name = name.and_then(|tls| tls.server_name.clone());
        Self::of(Said::InSecrets(rocketmq.clone()), name, parts)
    }

    /// With what a program gives, all of which is used.
    pub(crate) fn given(server_name: Option<String>, parts: Parts) -> Result<Self, AccessError> {
        Self::of(Said::InProgram, server_name, parts)
    }

    fn of(said: Said, server_name: Option<String>, parts: Parts) -> Result<Self, AccessError> {
        let field = said.server_name();
        let server_name = server_name.map(|name| {
            let parsed = ServerName::try_from(name.clone());
            parsed.map_err(|_| AccessError::ServerName { field, name })
        });
        let server_name = server_name.transpose()?;
        let in_force = RwLock::new(InForce::new(&said, parts)?);
        Ok(Self(Arc::new(Shared {
            said,
            server_name,
            in_force,
        })))
    }

    /// To a cluster that lets everybody in; an error if the spec says otherwise.
    pub fn open(rocketmq: &Rocketmq) -> Result<Self, AccessError> {
        match wanted(rocketmq).first() {
            None => Self::new(rocketmq, Parts::default()),
            Some((part, secret)) => Err(AccessError::NotGiven {
                part: *part,
                secret: (*secret).to_owned(),
            }),
        }
    }

    /// Takes over what the Secrets hold now; says whether that is something new. After an error everything is
    /// as it was.
    pub fn replace(&self, parts: Parts) -> Result<bool, AccessError> {
        if self.read().parts == parts {
            return Ok(false);
        }
        let new = InForce::new(&self.0.said, parts)?;
        let in_force = self.0.in_force.write();
        *in_force.unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }

    fn read(&self) -> InForce {
        let in_force = self.0.in_force.read();
        in_force.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether requests are signed.
    pub(super) fn signs(&self) -> bool {
        self.read().credentials.is_some()
    }

    /// Whether connections are made over TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.read().tls.is_some()
    }

    /// Whether servers that ask for a certificate are shown one.
    fn shows_certificate(&self) -> bool {
        self.0.said.uses(Part::Certificate, &self.read().parts)
    }

    fn credentials(&self) -> Option<SessionCredentials> {
        self.read().credentials
    }

    pub(super) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.read().tls
    }

    /// The name that certificates must be for, if it is not that of the host.
    pub(super) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.0.server_name.as_ref()
    }

    /// How what lets us in is called where it is said.
    pub(super) fn said(&self) -> &Said {
        &self.0.said
    }

    /// Who we are to the brokers, and where that is said.
    pub(super) fn who(&self) -> String {
        let Some(credentials) = self.credentials() else {
            return "who gives no credentials".to_owned();
        };
        let key = credentials.access_key();
        let key = key.map_or("", |key| key.as_str());
        match self.0.said.secret(Part::AccessKey) {
            Some(secret) => format!("access key {key:?} of Secret {secret:?}"),
            None => format!("access key {key:?}"),
        }
    }
}

impl InForce {
    fn new(said: &Said, parts: Parts) -> Result<Self, AccessError> {
        if let Said::InSecrets(rocketmq) = said {
            for (part, secret) in wanted(rocketmq) {
                if parts.get(part).is_none() {
                    return Err(AccessError::Missing {
                        part,
                        secret: secret.to_owned(),
                    });
                }
            }
        }
        let unusable = |(part, reason): (Part, String)| match said.secret(part) {
            Some(secret) => AccessError::Unusable {
                part,
                secret: secret.to_owned(),
                reason,
            },
            None => AccessError::Given { part, reason },
        };
        let credentials = said
            .uses(Part::AccessKey, &parts)
            .then(|| {
                let key = parts.text(Part::AccessKey)?;
                let secret = parts.text(Part::SecretKey)?;
                Ok(SessionCredentials::with_keys(key, secret))
            })
            .transpose()
            .map_err(unusable)?;
        let tls = said
            .uses(Part::Authority, &parts)
            .then(|| trust::config(&parts, said.uses(Part::Certificate, &parts)))
            .transpose()
            .map_err(unusable)?;
        Ok(Self {
            parts,
            credentials,
            tls,
        })
    }
}

#[cfg(test)]
mod tests;
