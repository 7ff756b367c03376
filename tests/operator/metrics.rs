//! Metrics for those whom the cluster lets read them: the real program asks the real API server about tokens.

use crate::process::{Process, get};
use crate::space::Space;
use anyhow::{Context as _, Result, ensure};
use keylane_tests::cluster::run;
use keylane_tests::cluster::wait::{self, Pending};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const SERVICE: &str = "kl-operator";
const LIMIT: Duration = Duration::from_secs(60);

/// A reader of metrics that trusts what the operator's Secret says and no more.
struct Reader<'s> {
    space: &'s Space,
    operator: Process,
}

impl Reader<'_> {
    /// The answer to a request with this header, over TLS.
    fn ask(&self, header: &str) -> Result<String> {
        let secret = self.space.get("secret", SERVICE)?;
        let trusted = secret["data"]["ca.crt"].as_str().context("no ca.crt")?;
        let trusted = json!(trusted);
        let trusted: k8s_openapi::ByteString = serde_json::from_value(trusted)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&trusted.0) {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(format!("{SERVICE}.{}.svc", self.space.name))?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let stream = StreamOwned::new(connection, self.operator.metrics_stream()?);
        get(stream, "/metrics", header)
    }

    fn until(&self, header: &str, status: &str) -> Result<String> {
        let probe = || match self.ask(header) {
            Ok(answer) if answer.starts_with(&format!("HTTP/1.1 {status}")) => Ok(answer),
            Ok(answer) => Err(Pending::NotYet(answer)),
            Err(error) => Err(Pending::NotYet(format!("{error:#}"))),
        };
        Ok(wait::until(
            &format!("answer {status}"),
            LIMIT,
            None,
            probe,
        )?)
    }
}

#[test]
fn metrics_are_for_those_whom_the_cluster_lets_read_them_and_for_nobody_else() -> Result<()> {
    let space = Space::new("metrics")?;
    let user = space.grant()?;
    // A run that was cut off may have left who reads.
    remove_rights(&space, &["clusterrolebinding"])?;
    let reviewed = ["--set", "metrics.access=TokenReview"];
    let rights = space.render(&["metrics.yaml"], &reviewed)?;
    space.cluster().apply("the right to review", &rights)?;
    let outcome = asked(&space, &user);
    remove_rights(&space, &["clusterrolebinding", "clusterrole"])?;
    outcome
}

/// They belong to the cluster, and would outlive the namespace.
fn remove_rights(space: &Space, kinds: &[&str]) -> Result<()> {
    for kind in kinds {
        let mut delete = space.cluster().kubectl();
        delete.args(["delete", kind, "--ignore-not-found"]);
        delete.args(["kl-operator-metrics-review", "kl-operator-metrics"]);
        run::output("removing the right to review", &mut delete)?;
    }
    Ok(())
}

fn asked(space: &Space, user: &str) -> Result<()> {
    let options = ["--metrics-service", SERVICE];
    let operator = Process::start_with(space, user, &options)?;
    operator.until_ready()?;
    let reader = Reader { space, operator };
    // It is served as soon as there is a certificate.
    reader.until("", "401")?;
    reader.until("Authorization: Bearer nobody's\r\n", "401")?;
    space.kubectl(&["create", "serviceaccount", "prometheus"])?;
    let token = space.kubectl(&["create", "token", "prometheus"])?;
    let header = format!("Authorization: Bearer {}\r\n", token.trim());
    reader.until(&header, "403")?;

    let account = format!("--serviceaccount={}:prometheus", space.name);
    space.kubectl(&[
        "create",
        "clusterrolebinding",
        "kl-operator-metrics",
        "--clusterrole=kl-operator-metrics",
        &account,
    ])?;
    // A refusal is remembered for a while.
    let page = reader.until(&header, "200")?;
    ensure!(page.contains("keylane_operator_leader"), "{page}");

    let clear = get(reader.operator.metrics_stream()?, "/metrics", &header);
    let clear = clear.unwrap_or_default();
    ensure!(!clear.contains("keylane_operator"), "in clear: {clear}");
    Ok(())
}
