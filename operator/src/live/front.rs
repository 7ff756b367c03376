//! The API server as a client: by whom its certificate must be signed and what name must be in it, as the
//! cluster tells every aggregated API (ConfigMap `extension-apiserver-authentication` of `kube-system`).
//!
//! The name matters: where the front proxy has no authority of its own, its authority signs the certificates of
//! users too.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use std::collections::BTreeMap;
use std::sync::Arc;
use x509_parser::parse_x509_certificate;

const NAMESPACE: &str = "kube-system";
const CONFIG: &str = "extension-apiserver-authentication";
const AUTHORITY: &str = "requestheader-client-ca-file";
const NAMES: &str = "requestheader-allowed-names";

/// Why the API server cannot be told from others.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The ConfigMap cannot be read.
    #[error(
        "ConfigMap {NAMESPACE}/{CONFIG} cannot be read: {0}; bind the role extension-apiserver-authentication-reader to the operator"
    )]
    Api(#[from] kube::Error),
    /// It does not say what it should.
    #[error(
        "{key} of ConfigMap {NAMESPACE}/{CONFIG} cannot be used: {reason}; does this cluster aggregate APIs (--requestheader-client-ca-file)?"
    )]
    Config {
        /// Which part.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A verifier of the API server's certificate.
pub async fn verifier(
    client: &Client,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, FrontError> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let data = configs.get(CONFIG).await?.data.unwrap_or_default();
    of(&data, provider)
}

fn of(
    data: &BTreeMap<String, String>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, FrontError> {
    let wrong = |key, reason: String| FrontError::Config { key, reason };
    let text = |key| {
        let found = data.get(key).filter(|text| !text.trim().is_empty());
        found.ok_or_else(|| wrong(key, "it is missing".to_owned()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text(AUTHORITY)?.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(AUTHORITY, error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(AUTHORITY, error.to_string()))?;
    }
    // Absent or empty: any name.
    let names = match text(NAMES) {
        Ok(text) => serde_json::from_str(text).map_err(|error| wrong(NAMES, error.to_string()))?,
        Err(_) => Vec::new(),
    };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = builder
        .build()
        .map_err(|error| wrong(AUTHORITY, error.to_string()))?;
    Ok(Arc::new(FrontProxy { chain, names }))
}

#[derive(Debug)]
struct FrontProxy {
    chain: Arc<dyn ClientCertVerifier>,
    /// The common names it may have; any if there is none.
    names: Vec<String>,
}

impl FrontProxy {
    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
            return false;
        };
        let mut names = certificate.subject().iter_common_name();
        let named = names.any(|name| {
            name.as_str()
                .is_ok_and(|name| self.names.iter().any(|allowed| allowed == name))
        });
        self.names.is_empty() || named
    }
}

impl ClientCertVerifier for FrontProxy {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        if self.is_named(end_entity) {
            return Ok(verified);
        }
        let problem = format!("the client is none of {}", self.names.join(", "));
        Err(rustls::Error::General(problem))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose,
    };
    use rustls::crypto::ring;
    use serde_json::json;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn client(name: &str, by: &Authority) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, by).unwrap().der().clone()
    }

    fn config(authority: &Authority, names: &serde_json::Value) -> BTreeMap<String, String> {
        BTreeMap::from([
            (AUTHORITY.to_owned(), authority.pem()),
            (NAMES.to_owned(), names.to_string()),
        ])
    }

    #[test]
    fn only_a_certificate_of_the_front_proxy_is_the_api_servers() {
        let provider = Arc::new(ring::default_provider());
        let (front, other) = (authority(), authority());
        let verifier = of(&config(&front, &json!(["front-proxy-client"])), &provider).unwrap();
        let is_taken = |certificate: &CertificateDer<'_>| {
            let verified = verifier.verify_client_cert(certificate, &[], UnixTime::now());
            verified.is_ok()
        };
        assert!(is_taken(&client("front-proxy-client", &front)));
        // A user's certificate of the same authority, and the right name by another.
        assert!(!is_taken(&client("somebody", &front)));
        assert!(!is_taken(&client("front-proxy-client", &other)));
        assert!(verifier.client_auth_mandatory());
        let any = of(&config(&front, &json!([])), &provider).unwrap();
        let somebody = client("somebody", &front);
        assert!(
            any.verify_client_cert(&somebody, &[], UnixTime::now())
                .is_ok()
        );
    }

    #[test]
    fn what_the_cluster_does_not_tell_is_named() {
        let provider = Arc::new(ring::default_provider());
        let error = of(&BTreeMap::new(), &provider).unwrap_err().to_string();
        assert!(
            error.contains(AUTHORITY) && error.contains("is missing"),
            "{error}"
        );
        let mut data = config(&authority(), &json!([]));
        data.insert(NAMES.to_owned(), "front-proxy-client".to_owned());
        let error = of(&data, &provider).unwrap_err().to_string();
        assert!(error.contains(NAMES), "{error}");
    }
}
