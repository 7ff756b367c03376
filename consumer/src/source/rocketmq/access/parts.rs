//! The keys of the Secrets that spec.rocketmq names, and what they hold; or a program gives in their place.

use crate::contract::spec::Rocketmq;
use std::collections::BTreeMap;
use std::fmt;

/// A key of a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Name of a user of RocketMQ's ACL.
    AccessKey,
    /// The user's password.
    SecretKey,
    /// Certificates of the authorities that are trusted.
    Authority,
    /// Our certificate chain.
    Certificate,
    /// Its private key.
    PrivateKey,
}

impl Part {
    /// Its name in the Secret, and as a file.
    pub fn key(self) -> &'static str {
        match self {
            Self::AccessKey => "accessKey",
            Self::SecretKey => "secretKey",
            Self::Authority => "ca.crt",
            Self::Certificate => "tls.crt",
            Self::PrivateKey => "tls.key",
        }
    }

    /// The field that names the Secret.
    pub fn field(self) -> &'static str {
        match self {
            Self::AccessKey | Self::SecretKey => "spec.rocketmq.credentialsSecretRef",
            Self::Authority => "spec.rocketmq.tls.caSecretRef",
            Self::Certificate | Self::PrivateKey => "spec.rocketmq.tls.clientCertificateSecretRef",
        }
    }

    /// What a program says it by.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::AccessKey | Self::SecretKey => "Builder::credentials",
            Self::Authority => "Builder::tls",
            Self::Certificate | Self::PrivateKey => "Tls::client_certificate",
        }
    }

    /// What it is, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::AccessKey => "the access key",
            Self::SecretKey => "the secret key",
            Self::Authority => "what is to be the authorities' certificates",
            Self::Certificate => "what is to be the certificate chain",
            Self::PrivateKey => "what is to be the private key",
        }
    }

    /// What to put there.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::AccessKey => "put the name of a user of the brokers' ACL there",
            Self::SecretKey => "put the password of the user there",
            Self::Authority => {
                "put the certificate (PEM) of the authority there that signed those of name servers and brokers"
            }
            Self::Certificate => "put the certificate chain (PEM) there, the client's own first",
            Self::PrivateKey => {
                "put the certificate's private key (PEM) there: PKCS #8, PKCS #1 or SEC 1, not encrypted"
            }
        }
    }
}

/// The keys that are needed for a spec, each with the name of its Secret.
pub fn wanted(rocketmq: &Rocketmq) -> Vec<(Part, &str)> {
    let mut wanted = Vec::new();
    if let Some(secret) = &rocketmq.credentials_secret_ref {
        let parts = [Part::AccessKey, Part::SecretKey];
        wanted.extend(parts.map(|part| (part, secret.name.as_str())));
    }
    if let Some(tls) = &rocketmq.tls {
        wanted.push((Part::Authority, tls.ca_secret_ref.name.as_str()));
        if let Some(secret) = &tls.client_certificate_secret_ref {
            let parts = [Part::Certificate, Part::PrivateKey];
            wanted.extend(parts.map(|part| (part, secret.name.as_str())));
        }
    }
    wanted
}

/// What keys hold. It is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Parts(BTreeMap<Part, Vec<u8>>);

impl fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(Part, Vec<u8>)> for Parts {
    fn from_iter<I: IntoIterator<Item = (Part, Vec<u8>)>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

impl Parts {
    pub(super) fn get(&self, part: Part) -> Option<&[u8]> {
        self.0.get(&part).map(Vec::as_slice)
    }

    /// A line of text; blanks round it do not count, as editors and shells leave them there.
    pub(super) fn text(&self, part: Part) -> Result<&str, (Part, String)> {
        let text = std::str::from_utf8(self.get(part).unwrap_or_default());
        match text.map(str::trim) {
            Ok("") => Err((part, "it is empty".to_owned())),
            Ok(text) if text.chars().any(char::is_control) => {
                Err((part, "it has more than one line".to_owned()))
            }
            Ok(text) => Ok(text),
            Err(_) => Err((part, "it is not text".to_owned())),
        }
    }
}
