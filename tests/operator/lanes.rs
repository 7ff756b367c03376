//! Lanes of pods that start again and of pods that are added. The pods are objects of the real API server which no
//! node runs; what an executor would say comes from this process, with the consumer's own certificate.

use crate::space::{Space, consumer};
use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::routing::{get, put};
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Secret;
use keylane_consumer::contract::ADMIN_PORT;
use keylane_consumer::contract::admin::{LaneTarget, Stats};
use keylane_consumer::program::tls::TlsListener;
use keylane_tests::cluster::wait::{self, Pending};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(60);
/// Lanes of a process that nobody has told anything.
const FEWEST: u32 = 3;
const MOST: u32 = 9;
const SELECTOR: &str = "--selector=keylane.dev/ordered-consumer=orders";

type Said = Arc<Mutex<Stats>>;

/// The admin endpoint of a pod.
struct Endpoint {
    address: Ipv4Addr,
    said: Said,
    _runtime: Runtime,
}

impl Endpoint {
    /// One with the certificate of consumer "orders".
    fn start(space: &Space) -> Result<Self> {
        let secret = space.until_object("secret", "orders-keylane-admin", |_| true)?;
        let secret: Secret = serde_json::from_value(secret)?;
        let data = secret.data.context("the Secret is empty")?;
        let part = |key: &str| data.get(key).context("the Secret is not complete");
        let certificate = CertificateDer::from_pem_slice(&part("tls.crt")?.0)?;
        let key = PrivateKeyDer::from_pem_slice(&part("tls.key")?.0)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let config = Arc::new(config);
        let said = Said::default();
        let router = Router::new()
            .route("/v1/stats", get(stats))
            .route("/v1/lanes", put(set_lanes))
            .with_state(said.clone());
        // All pods listen on the same port.
        let address = Ipv4Addr::new(127, 9, rand::random(), rand::random_range(1..=254));
        let runtime = Runtime::new()?;
        let listener = runtime.block_on(async {
            let listener = TcpListener::bind((address, ADMIN_PORT)).await?;
            TlsListener::new(listener, move || config.clone())
        })?;
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            said,
            _runtime: runtime,
        })
    }

    /// A process begins, with as many lanes as its file says.
    fn begin(&self, incarnation: &str, busy: bool) {
        *lock(&self.said) = Stats {
            incarnation: incarnation.to_owned(),
            handler_available: true,
            lanes: LaneTarget {
                lanes: FEWEST,
                ..LaneTarget::default()
            },
            waiting_lanes: u32::from(busy),
            ..Stats::default()
        };
    }

    /// Becomes that of a pod which has none yet.
    fn is_of_the_next_pod(&self, space: &Space) -> Result<()> {
        let without = |list: &Value| {
            let pods = list["items"].as_array().into_iter().flatten();
            let mut without = pods.filter(|pod| pod["status"]["podIP"].is_null());
            without.find_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        };
        let pods = space.until_object("pods", SELECTOR, |list| without(list).is_some())?;
        let name = without(&pods).context("no pod waits")?;
        let status = json!({"status": {
            "podIP": self.address, "podIPs": [{"ip": self.address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let status = status.to_string();
        space.kubectl(&["patch", "pod", &name, "--subresource=status", "-p", &status])?;
        Ok(())
    }

    /// Waits until the operator has told its process that it may run so many lanes.
    fn until_told(&self, lanes: u32) -> Result<()> {
        let probe = || {
            let target = lock(&self.said).lanes;
            if target.term > 0 && target.lanes == lanes {
                Ok(())
            } else {
                Err(Pending::NotYet(format!("{target:?}")))
            }
        };
        Ok(wait::until(&format!("{lanes} lanes"), LIMIT, None, probe)?)
    }
}

async fn stats(State(said): State<Said>) -> Json<Stats> {
    let mut stats = lock(&said).clone();
    if stats.waiting_lanes > 0 {
        stats.busy_lanes = stats.lanes.lanes;
    }
    Json(stats)
}

async fn set_lanes(State(said): State<Said>, Json(target): Json<LaneTarget>) -> Json<LaneTarget> {
    let mut said = lock(&said);
    let age = |target: &LaneTarget| (target.term, target.sequence);
    if age(&target) > age(&said.lanes) {
        said.lanes = target;
    }
    Json(said.lanes)
}

fn lock(said: &Said) -> MutexGuard<'_, Stats> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_process_that_starts_again_and_a_pod_that_is_added_get_the_lanes_that_are_in_force()
-> Result<()> {
    let space = Space::with_operator("lanes")?;
    let mut orders = consumer("orders");
    orders["spec"]["lanes"] = json!({"min": FEWEST, "max": MOST});
    orders["spec"]["template"]["spec"]["nodeSelector"] = json!({"keylane.dev/node": "none"});
    space.apply(&orders)?;
    let first = Endpoint::start(&space)?;
    first.begin("first", true);
    first.is_of_the_next_pod(&space)?;
    // Lanes that are all busy are doubled while it is not known how long a call takes.
    first.until_told(MOST)?;

    first.begin("first, again", false);
    first.until_told(MOST)?;

    // Where lanes are nobody's to change as well.
    orders["spec"]["autoscaling"]["mode"] = json!("Hold");
    space.apply(&orders)?;
    space.until_object("orderedconsumer", "orders", |object| {
        object["status"]["decision"]["reason"] == "Held"
    })?;
    first.begin("first, once more", false);
    first.until_told(MOST)?;

    space.kubectl(&["scale", "orderedconsumer/orders", "--replicas=2"])?;
    let second = Endpoint::start(&space)?;
    second.begin("second", false);
    second.is_of_the_next_pod(&space)?;
    second.until_told(MOST)?;
    first.until_told(MOST)
}
