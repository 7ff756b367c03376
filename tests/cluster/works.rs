//! The cluster is a real one: what the product's tests take for granted holds on it. The cluster
//! stays up, so that the next run is warm.

mod registry;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use keylane_tests::cluster::run;
use keylane_tests::cluster::wait::{self, Pending};
use keylane_tests::cluster::{self, Cluster, ClusterError, binaries};
use keylane_tests::images;

const LIMIT: Duration = Duration::from_secs(180);

/// A namespace of one test, with the image its pods run.
struct Space {
    cluster: Cluster,
    name: String,
}

impl Space {
    fn new(test: &str) -> Result<Self, ClusterError> {
        let cluster = cluster::up()?;
        if cluster.is_local() {
            cluster.load(&images::toolbox(cluster.paths())?)?;
        }
        let space = Self {
            name: format!("works-{test}-{:08x}", rand::random::<u32>()),
            cluster,
        };
        space.cluster.apply(
            &format!("namespace {}", space.name),
            &serde_json::json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": space.name},
            })
            .to_string(),
        )?;
        space.until(
            "the default ServiceAccount",
            &["get", "serviceaccount", "default"],
            |_| true,
        )?;
        Ok(space)
    }

    fn kubectl(&self, args: &[&str]) -> Result<String, ClusterError> {
        let mut kubectl = self.cluster.kubectl();
        kubectl.args(["--namespace", &self.name]).args(args);
        run::output(&format!("kubectl {}", args.join(" ")), &mut kubectl)
    }

    /// Repeats a kubectl command until its output is as wanted.
    fn until(
        &self,
        what: &str,
        args: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, ClusterError> {
        wait::until(what, LIMIT, None, || match self.kubectl(args) {
            Ok(out) if wanted(&out) => Ok(out),
            Ok(out) => Err(Pending::NotYet(out)),
            Err(error) => Err(Pending::NotYet(error.to_string())),
        })
    }

    /// Starts a pod that runs a shell script and waits until it is ready.
    fn pod(&self, name: &str, script: &str) -> Result<(), ClusterError> {
        self.pod_of(name, images::workspace::TOOLBOX, "IfNotPresent", script)
    }

    /// The same of another image.
    fn pod_of(
        &self,
        name: &str,
        image: &str,
        policy: &str,
        script: &str,
    ) -> Result<(), ClusterError> {
        let manifest = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.name, "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": true,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": policy,
                    "command": ["/bin/sh", "-c", script],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        self.cluster
            .apply(&format!("pod {name}"), &manifest.to_string())?;
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.until(
            &format!("pod {name} ready"),
            &["get", "pod", name, "-o", ready],
            |out| out == "True",
        )?;
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let args = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(error) = self.kubectl(&args) {
            eprintln!("namespace {} stays: {error}", self.name);
        }
    }
}

type Outcome = Result<(), ClusterError>;

#[test]
fn the_node_is_ready_and_of_the_pinned_version() -> Outcome {
    let cluster = cluster::up()?;
    let query = "jsonpath={range .items[*]}{.status.nodeInfo.kubeletVersion} \
                 {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let nodes = run::output(
        "kubectl",
        cluster.kubectl().args(["get", "nodes", "-o", query]),
    )?;
    assert!(nodes.lines().any(|line| line.ends_with(" True")), "{nodes}");
    if cluster.is_local() {
        assert_eq!(
            nodes.trim(),
            format!("{} True", binaries::KUBERNETES_VERSION)
        );
    }
    Ok(())
}

#[test]
fn bringing_up_a_running_cluster_keeps_it() -> Outcome {
    let identity = |cluster: &Cluster| {
        let uid = [
            "get",
            "namespace",
            "kube-system",
            "-o",
            "jsonpath={.metadata.uid}",
        ];
        run::output("kubectl", cluster.kubectl().args(uid))
    };
    let first = cluster::up()?;
    let before = identity(&first)?;
    let second = cluster::up()?;
    assert_eq!(identity(&second)?, before);
    assert_eq!(second.kubeconfig(), first.kubeconfig());
    Ok(())
}

#[test]
fn a_pod_runs_and_its_logs_and_commands_can_be_reached() -> Outcome {
    let space = Space::new("pod")?;
    space.pod("speaker", "echo spoken once; exec sleep 1000")?;
    space.until("the log line", &["logs", "speaker"], |out| {
        out == "spoken once\n"
    })?;
    let user = space.kubectl(&["exec", "speaker", "--", "id", "-u"])?;
    assert_eq!(user.trim(), "65532");
    let failure = space.kubectl(&["exec", "speaker", "--", "sh", "-c", "exit 7"]);
    assert!(failure.is_err_and(|error| error.to_string().contains('7')));
    Ok(())
}

#[test]
fn a_service_is_reached_by_its_name_and_by_its_address() -> Outcome {
    let space = Space::new("service")?;
    let body = "served by a pod";
    space.pod(
        "web",
        &format!("echo '{body}' > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"),
    )?;
    space.pod("client", "exec sleep 1000")?;
    space.kubectl(&[
        "expose",
        "pod",
        "web",
        "--port",
        "80",
        "--target-port",
        "8080",
    ])?;
    let address = space.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;

    let full_name = format!("web.{}.svc.cluster.local", space.name);
    let lookup = ["exec", "client", "--", "nslookup", "-type=a", &full_name];
    space.until("the Service's name resolves", &lookup, |out| {
        out.contains(&address)
    })?;
    for host in ["web", full_name.as_str(), address.as_str()] {
        let fetch = [
            "exec",
            "client",
            "--",
            "timeout",
            "5",
            "wget",
            "-q",
            "-O",
            "-",
            &format!("http://{host}/"),
        ];
        let got = space.until(&format!("http://{host}/ answers"), &fetch, |_| true)?;
        assert_eq!(got.trim(), body);
    }
    let absent = space.kubectl(&[
        "exec",
        "client",
        "--",
        "nslookup",
        "-type=a",
        "absent.example.",
    ]);
    assert!(absent.is_err(), "{absent:?}");
    if space.cluster.is_local() {
        assert!(fetch_from_here(&address).ends_with(&format!("{body}\n")));
    }
    Ok(())
}

#[test]
fn a_product_image_runs_without_shell_root_or_writable_files() -> Outcome {
    let space = Space::new("image")?;
    if !space.cluster.is_local() {
        // Only a local cluster can be given an image made here.
        return Ok(());
    }
    let containerfile = images::workspace::workspace().join("consumer/Containerfile");
    let recipe = images::Recipe {
        name: "keylane-works:dev",
        containerfile: &std::fs::read_to_string(&containerfile)
            .map_err(ClusterError::io("read", &containerfile))?,
        base: Some(images::Base::Runtime),
        // Any program of this workspace shows whether the base carries one.
        files: &[("keylane-consumer", Path::new(env!("CARGO_BIN_EXE_cluster")))],
    };
    let image = images::build(space.cluster.paths(), &recipe)?;
    space.cluster.load(&image)?;
    let spec = |command: serde_json::Value| {
        serde_json::json!({
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true},
            "containers": [{
                "name": "main",
                "image": image.name,
                "imagePullPolicy": "Never",
                "command": command,
                "args": ["--help"],
                "securityContext": {
                    "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        })
    };
    let outcome = |pod: &str, spec: serde_json::Value, wanted: &str| {
        let manifest = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": space.name},
            "spec": spec,
        });
        space
            .cluster
            .apply(&format!("pod {pod}"), &manifest.to_string())?;
        let phase = ["get", "pod", pod, "-o", "jsonpath={.status.phase}"];
        space.until(&format!("pod {pod} {wanted}"), &phase, |out| out == wanted)
    };
    outcome("program", spec(serde_json::Value::Null), "Succeeded")?;
    let said = space.kubectl(&["logs", "program"])?;
    assert!(said.contains("Usage: cargo cluster"), "{said}");
    outcome("shell", spec(serde_json::json!(["/bin/sh"])), "Failed")?;
    Ok(())
}

/// What a process of this machine gets from a Service.
fn fetch_from_here(address: &str) -> String {
    let mut stream = TcpStream::connect((address, 80)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_no_more() -> Outcome {
    let space = Space::new("rbac")?;
    space.kubectl(&["create", "serviceaccount", "reader"])?;
    space.kubectl(&["create", "role", "reader", "--verb=list", "--resource=pods"])?;
    let account = format!("{}:reader", space.name);
    space.kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        &format!("--serviceaccount={account}"),
    ])?;
    let user = format!("--as=system:serviceaccount:{account}");
    space.until("the role counts", &["get", "pods", &user], |_| true)?;
    for denied in [vec!["get", "secrets"], vec!["delete", "pod", "any"]] {
        let mut args = denied;
        args.push(&user);
        let denial = space.kubectl(&args).unwrap_err().to_string();
        assert!(
            denial.contains("Forbidden") || denial.contains("forbidden"),
            "{denial}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_client_library_reaches_the_api_server() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = tokio::task::spawn_blocking(cluster::up).await??;
    let version = cluster.client().await?.apiserver_version().await?;
    if cluster.is_local() {
        assert_eq!(version.git_version, binaries::KUBERNETES_VERSION);
    }
    Ok(())
}
