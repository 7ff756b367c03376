//! What pods use of the CPU they may use, where the cluster measures it (metrics.k8s.io, as metrics-server
//! serves it). It tells a pod that is at its limit from something behind the handler that is; where nobody
//! measures it, the controller has to find out by probing.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{debug, warn};

/// A metrics server takes new figures about so often.
const EVERY: Duration = Duration::from_secs(15);
/// Time to the next question where nobody measures, or the right to ask is missing.
const LATER: Duration = Duration::from_secs(60);
/// Rounds do not wait longer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Older figures say nothing of now.
const STALE: Duration = Duration::from_secs(60);

/// Cores that each container of each pod used.
type Measured = BTreeMap<String, BTreeMap<String, f64>>;

/// Asks for each namespace once, however many consumers are in it.
pub struct Usage {
    client: Client,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    next: Instant,
    measured: Arc<Measured>,
}

#[derive(Deserialize)]
struct Sample {
    timestamp: Timestamp,
    containers: Vec<Used>,
}

#[derive(Deserialize)]
struct Used {
    name: String,
    usage: BTreeMap<String, String>,
}

impl Usage {
    /// Nothing is asked yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// The used part of the CPU that each of these pods may use, 0 to 1 and a little beyond, by name: of
    /// that container which is nearest to its limit. Pods without a limit, or that nobody measured within
    /// the last minute, are absent.
    pub async fn of(&self, namespace: &str, pods: &[Arc<Pod>]) -> BTreeMap<String, f64> {
        if !pods.iter().any(|pod| limits(pod).next().is_some()) {
            return BTreeMap::new();
        }
        let measured = self.measured(namespace).await;
        let used = |pod: &Arc<Pod>| {
            let name = pod.name_any();
            let part = used(pod, measured.get(&name)?)?;
            Some((name, part))
        };
        pods.iter().filter_map(used).collect()
    }

    async fn measured(&self, namespace: &str) -> Arc<Measured> {
        let now = Instant::now();
        if let Some(known) = self.claim(namespace, now) {
            return known;
        }
        let (measured, pause) = match timeout(TIMEOUT, self.list(namespace)).await {
            Ok(Ok(all)) => (read(all, Timestamp::now()), EVERY),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                debug!("nobody measures the CPU of pods: metrics.k8s.io is not served");
                (Measured::new(), LATER)
            }
            Ok(Err(error)) => {
                warn!(
                    "the CPU of pods in namespace {namespace} is not known, decisions are made without it: {error}"
                );
                (Measured::new(), LATER)
            }
            Err(_) => (Measured::new(), EVERY),
        };
        let known = Known {
            next: now + pause,
            measured: Arc::new(measured),
        };
        let measured = known.measured.clone();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(namespace.to_owned(), known);
        measured
    }

    /// What is known, or nothing if the caller is to ask: others go on with what was known before.
    fn claim(&self, namespace: &str, now: Instant) -> Option<Arc<Measured>> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| now < known.next + LATER);
        let known = all.entry(namespace.to_owned()).or_insert_with(|| Known {
            next: now,
            measured: Arc::default(),
        });
        if now < known.next {
            return Some(known.measured.clone());
        }
        known.next = now + EVERY;
        None
    }

    async fn list(&self, namespace: &str) -> Result<Vec<DynamicObject>, kube::Error> {
        let kind = GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics");
        let kind = ApiResource::from_gvk_with_plural(&kind, "pods");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=keylane");
        Ok(api.list(&ours).await?.items)
    }
}

fn read(all: Vec<DynamicObject>, now: Timestamp) -> Measured {
    let all = all.into_iter().filter_map(|pod| {
        let name = pod.name_any();
        let sample: Sample = serde_json::from_value(pod.data).ok()?;
        let age = now.duration_since(sample.timestamp);
        if age > STALE.try_into().ok()? {
            return None;
        }
        let containers = sample.containers.into_iter().filter_map(|container| {
            let cpu = cores(container.usage.get("cpu")?)?;
            Some((container.name, cpu))
        });
        Some((name, containers.collect()))
    });
    all.collect()
}

/// Containers with a limit of CPU, in cores. Handlers are sidecars: init containers that stay.
fn limits(pod: &Pod) -> impl Iterator<Item = (&str, f64)> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    });
    all.filter_map(|container: &Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        let limit = cores(&limits.get("cpu")?.0)?;
        (limit > 0.0).then_some((container.name.as_str(), limit))
    })
}

fn used(pod: &Pod, measured: &BTreeMap<String, f64>) -> Option<f64> {
    let parts = limits(pod).filter_map(|(name, limit)| Some(measured.get(name)? / limit));
    parts.reduce(f64::max)
}

/// A quantity of CPU as Kubernetes writes it: "2", "0.5", "250m", "12345678n".
fn cores(quantity: &str) -> Option<f64> {
    let digits = quantity.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match &quantity[digits.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "u" => 1e-6,
        "n" => 1e-9,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        let limit = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "1Gi"}});
        serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {
                "containers": [
                    {"name": "executor", "resources": limit("2")},
                    {"name": "proxy"},
                ],
                "initContainers": [{"name": "handler", "resources": limit("500m")}],
            }
        }))
        .unwrap()
    }

    fn sample(timestamp: &str, handler: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": "a"}, "timestamp": timestamp, "window": "15s",
            "containers": [
                {"name": "executor", "usage": {"cpu": "400m", "memory": "1Mi"}},
                {"name": "proxy", "usage": {"cpu": "7", "memory": "1Mi"}},
                {"name": "handler", "usage": {"cpu": handler, "memory": "1Mi"}},
            ]
        }))
        .unwrap()
    }

    #[test]
    fn the_container_nearest_to_its_limit_counts_and_old_figures_do_not() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let part = |timestamp: &str, handler: &str| {
            let measured = read(vec![sample(timestamp, handler)], now);
            used(&pod(), measured.get("a")?)
        };
        let near = |part: Option<f64>, to: f64| part.is_some_and(|part| (part - to).abs() < 1e-9);
        assert!(near(part("2026-01-01T00:00:30Z", "475m"), 0.95));
        assert!(near(part("2026-01-01T00:00:00Z", "50000000n"), 0.2));
        assert_eq!(part("2025-12-31T23:59:59Z", "475m"), None);
        // A figure that cannot be read is none.
        assert!(near(part("2026-01-01T00:00:30Z", "much"), 0.2));
        assert_eq!(used(&Pod::default(), &BTreeMap::new()), None);
    }

    #[test]
    fn quantities_of_cpu_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("2", Some(2.0)),
            ("0.5", Some(0.5)),
            ("250m", Some(0.25)),
            ("1500u", Some(0.0015)),
            ("0", Some(0.0)),
            ("1Ki", None),
            ("-1", None),
            ("", None),
            ("inf", None),
        ] {
            assert_eq!(cores(text), expected, "{text:?}");
        }
    }
}
