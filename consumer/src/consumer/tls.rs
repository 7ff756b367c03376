//! TLS to name servers and brokers, as a program asks for it.

use crate::source::rocketmq::Part;
use std::fmt;

/// How name servers and brokers prove who they are, and who we are to them; see
/// [`Builder::tls`](crate::Builder::tls). Certificates and keys are text in PEM.
#[derive(Clone)]
pub struct Tls {
    pub(super) server_name: Option<String>,
    pub(super) parts: Vec<(Part, Vec<u8>)>,
}

/// Shows nothing of what was given.
impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the authorities of these certificates, and nobody else: not those of the operating system.
    pub fn trusting(authorities: impl Into<Vec<u8>>) -> Self {
        Self {
            server_name: None,
            parts: vec![(Part::Authority, authorities.into())],
        }
    }

    /// The name that every name server's and broker's certificate must be for. Default: the host by which
    /// each is reached, which for brokers is the address they register (`brokerIP1`).
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The certificate chain, our own first, and the private key of that, to show to name servers and
    /// brokers that ask for one. Default: none is shown.
    #[must_use]
    pub fn client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        private_key: impl Into<Vec<u8>>,
    ) -> Self {
        self.parts.push((Part::Certificate, chain.into()));
        self.parts.push((Part::PrivateKey, private_key.into()));
        self
    }
}
