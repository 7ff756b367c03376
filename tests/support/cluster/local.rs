//! The cluster on this machine: started in order, found again, described, stopped.

use std::fs;
use std::time::{Duration, Instant};

use super::error::{ClusterError, Result};
use super::handle::{Cluster, Target};
use super::lock::take_turn;
use super::paths::Paths;
use super::progress::{note, step};
use super::wait::{self, Pending};
use super::{
    binaries, cgroup, components, config, disk, net, packages, pki, process, room, run, teardown,
};
use crate::images::build::file_stem;
use crate::images::{self, Image, Recipe};

const PAUSE_IMAGE: &str = "localhost/keylane-pause:dev";
const DNS_IMAGE: &str = "localhost/keylane-coredns:dev";

/// The parts, in the order they start.
const PARTS: [&str; 7] = [
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// Starts the local cluster, or finds it running. What an unclean end left is removed first.
pub fn up_local(paths: &Paths) -> Result<Cluster> {
    refuse_unfit_machine(paths)?;
    let _turn = take_turn(&paths.lock(), "another command that changes the cluster")?;
    if is_complete(paths) {
        let cluster = Cluster::new(paths, Target::Local, paths.kubeconfig())?;
        if answers(&cluster, Duration::from_secs(20)).is_ok() {
            return Ok(cluster);
        }
    }
    room::refuse_another_kubernetes(paths)?;
    disk::refuse_full(paths, disk::Work::Cluster)?;
    let start = Instant::now();
    packages::ensure(paths, &packages::CLUSTER)?;
    binaries::ensure_cluster(paths)?;
    let images = own_images(paths)?;
    if teardown::leftovers(paths) {
        step("Removing what an earlier cluster left", || {
            teardown::tear_down(paths)
        })?;
    }
    let cluster = start_parts(paths, &images).inspect_err(|_| {
        if !process::all_running(paths).is_empty() {
            note(
                "some parts run, so that their logs can be read; `cargo cluster down` removes them",
            );
        }
    })?;
    let took = start.elapsed().as_secs_f32();
    note(&format!(
        "cluster up after {took:.1} s, kubeconfig {}",
        cluster.kubeconfig().display()
    ));
    Ok(cluster)
}

/// Stops the local cluster and removes every trace of it; the build caches stay. Gives whether
/// there was anything to remove.
pub fn down(paths: &Paths) -> Result<bool> {
    if !teardown::leftovers(paths) {
        return Ok(false);
    }
    refuse_unfit_machine(paths)?;
    let _turn = take_turn(&paths.lock(), "another command that changes the cluster")?;
    step("Stopping the cluster and removing its traces", || {
        teardown::tear_down(paths)
    })?;
    Ok(true)
}

/// One line for each part and for the node, and whether all is well.
pub fn status(paths: &Paths) -> Result<(Vec<String>, bool)> {
    if !teardown::leftovers(paths) {
        return Ok((
            vec!["no cluster on this machine; `cargo cluster up` starts one".to_owned()],
            false,
        ));
    }
    let mut well = true;
    let mut lines = Vec::new();
    for part in PARTS {
        let log = paths.log(part);
        lines.push(match process::running(paths, part) {
            Some(identity) => {
                format!(
                    "{part:<24} running  pid {:<8} log {}",
                    identity.pid,
                    log.display()
                )
            }
            None => {
                well = false;
                format!("{part:<24} stopped  {:<12} log {}", "", log.display())
            }
        });
    }
    if well {
        let cluster = Cluster::new(paths, Target::Local, paths.kubeconfig())?;
        match answers(&cluster, Duration::from_secs(5)) {
            Ok(()) => lines.push(format!("node {} is Ready", net::NODE_NAME)),
            Err(reason) => {
                well = false;
                lines.push(format!("the cluster does not work: {reason}"));
            }
        }
    }
    if !well {
        lines.push("`cargo cluster up` makes it new, `cargo cluster down` removes it".to_owned());
    }
    Ok((lines, well))
}

/// Gives the container runtime an image, unless it has this very one.
pub(super) fn import(paths: &Paths, image: &Image) -> Result<()> {
    let _turn = take_turn(&paths.images_lock(), "another command that works on images")?;
    let stamp = paths.state().join("imported").join(file_stem(&image.name));
    if fs::read_to_string(&stamp).is_ok_and(|text| text == image.inputs) {
        return Ok(());
    }
    if !paths.containerd_socket().exists() {
        return Err(ClusterError::NotUp);
    }
    step(&format!("Loading image {}", image.name), || {
        run::output(
            &format!("loading image {}", image.name),
            run::command("ctr")
                .arg("--address")
                .arg(paths.containerd_socket())
                .args(["--namespace", "k8s.io", "images", "import"])
                .arg(&image.archive),
        )
    })?;
    binaries::write(&stamp, &image.inputs)
}

fn refuse_unfit_machine(paths: &Paths) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err(ClusterError::NotLinux(std::env::consts::OS));
    }
    let user = rustix::process::geteuid();
    if !user.is_root() {
        return Err(ClusterError::NotRoot(user.as_raw()));
    }
    // Socket addresses end at 107 bytes; the longest below the cache is the kubelet's.
    let cache = paths.cache().display().to_string();
    if cache.len() > 60 || cache.contains(char::is_whitespace) {
        return Err(ClusterError::Input {
            field: "the cache directory",
            value: cache,
            reason: "it holds sockets: at most 60 bytes and no spaces; set KEYLANE_CACHE"
                .to_owned(),
        });
    }
    Ok(())
}

fn complete_mark(paths: &Paths) -> std::path::PathBuf {
    paths.state().join("complete")
}

fn is_complete(paths: &Paths) -> bool {
    complete_mark(paths).exists()
        && PARTS
            .iter()
            .all(|part| process::running(paths, part).is_some())
}

fn answers(cluster: &Cluster, limit: Duration) -> std::result::Result<(), String> {
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let said = run::output(
        "asking for the node",
        cluster
            .kubectl()
            .args(["get", "node", net::NODE_NAME, "-o", ready])
            .arg(format!("--request-timeout={}s", limit.as_secs())),
    )
    .map_err(|error| error.to_string())?;
    match said.trim() {
        "True" => Ok(()),
        other => Err(format!("node {} has Ready={other:?}", net::NODE_NAME)),
    }
}

fn own_images(paths: &Paths) -> Result<Vec<Image>> {
    let programs = [(PAUSE_IMAGE, "pause", "65535"), (DNS_IMAGE, "coredns", "0")];
    programs
        .iter()
        .map(|(name, program, user)| {
            let containerfile = format!(
                "FROM scratch\nCOPY {program} /{program}\nUSER {user}\nENTRYPOINT [\"/{program}\"]\n"
            );
            let recipe = Recipe {
                name,
                containerfile: &containerfile,
                base: None,
                files: &[(program, &paths.bin().join(program))],
            };
            images::build(paths, &recipe)
        })
        .collect()
}

fn start_parts(paths: &Paths, images: &[Image]) -> Result<Cluster> {
    step(
        "Making certificates, configuration and the pod network",
        || {
            pki::create(paths)?;
            net::set_up(paths)?;
            room::refuse_taken_ports()?;
            config::write_all(paths, snapshotter(paths))?;
            cgroup::create()
        },
    )?;
    let cluster = Cluster::new(paths, Target::Local, paths.kubeconfig())?;
    let log = paths.log("kube-apiserver");
    step(
        &format!(
            "Starting etcd, containerd and the API server (log: {})",
            log.display()
        ),
        || {
            process::start(paths, &components::etcd(paths)?)?;
            process::start(paths, &components::containerd(paths)?)?;
            process::start(paths, &components::api_server(paths))?;
            wait_for_api_server(paths, &cluster)
        },
    )?;
    let log = paths.log("kubelet");
    step(
        &format!(
            "Starting the controllers and the node (log: {})",
            log.display()
        ),
        || {
            process::start(paths, &components::controller_manager(paths))?;
            process::start(paths, &components::scheduler(paths))?;
            process::start(paths, &components::kubelet(paths))?;
            process::start(paths, &components::kube_proxy(paths))?;
            wait_for_containerd(paths)?;
            cluster.load_all(images)?;
            wait_for_node(paths, &cluster)
        },
    )?;
    cluster.apply("the name server", &config::dns_manifest(DNS_IMAGE))?;
    step(
        "Waiting for the name server and the default ServiceAccount",
        || wait_for_workloads(paths, &cluster),
    )?;
    binaries::write(&complete_mark(paths), "")?;
    Ok(cluster)
}

fn wait_for_api_server(paths: &Paths, cluster: &Cluster) -> Result<()> {
    let log = paths.log("kube-apiserver");
    wait::until(
        "the API server ready",
        Duration::from_secs(120),
        Some(&log),
        || {
            process::still_running(paths, "etcd")?;
            process::still_running(paths, "kube-apiserver")?;
            ask(cluster, &["get", "--raw", "/readyz"]).map(|_| ())
        },
    )
}

fn wait_for_containerd(paths: &Paths) -> Result<()> {
    let log = paths.log("containerd");
    wait::until(
        "containerd ready",
        Duration::from_secs(60),
        Some(&log),
        || {
            process::still_running(paths, "containerd")?;
            let mut ctr = run::command("ctr");
            ctr.arg("--address").arg(paths.containerd_socket());
            run::output("ctr version", ctr.arg("version"))
                .map(|_| ())
                .map_err(|error| Pending::NotYet(error.to_string()))
        },
    )
}

fn wait_for_node(paths: &Paths, cluster: &Cluster) -> Result<()> {
    let log = paths.log("kubelet");
    wait::until(
        "the node Ready",
        Duration::from_secs(120),
        Some(&log),
        || {
            for part in PARTS {
                process::still_running(paths, part)?;
            }
            answers(cluster, Duration::from_secs(5)).map_err(Pending::NotYet)
        },
    )
}

fn wait_for_workloads(paths: &Paths, cluster: &Cluster) -> Result<()> {
    let log = paths.log("kubelet");
    wait::until(
        "the name server available",
        Duration::from_secs(120),
        Some(&log),
        || {
            ask(
                cluster,
                &["get", "serviceaccount", "default", "-n", "default"],
            )?;
            let available = "jsonpath={.status.availableReplicas}";
            match ask(
                cluster,
                &[
                    "get",
                    "deployment",
                    "coredns",
                    "-n",
                    "kube-system",
                    "-o",
                    available,
                ],
            )?
            .trim()
            {
                "1" => Ok(()),
                other => {
                    Err(format!("Deployment kube-system/coredns has {other:?} available").into())
                }
            }
        },
    )
}

fn ask(cluster: &Cluster, args: &[&str]) -> std::result::Result<String, Pending> {
    let mut kubectl = cluster.kubectl();
    kubectl.args(args).arg("--request-timeout=5s");
    run::output(&format!("kubectl {}", args.join(" ")), &mut kubectl)
        .map_err(|error| Pending::NotYet(error.to_string()))
}

/// Layers are stacked by the kernel where the cache's file system allows that, else copied.
fn snapshotter(paths: &Paths) -> &'static str {
    let probe = paths.state().join("overlay-probe");
    let works = try_overlay(&probe).is_ok();
    let _left_for_down = fs::remove_dir_all(&probe);
    if works {
        return "overlayfs";
    }
    note("the cache directory's file system cannot carry overlay mounts; layers are copied");
    "native"
}

fn try_overlay(dir: &std::path::Path) -> Result<()> {
    for name in ["lower", "upper", "work", "merged"] {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).map_err(ClusterError::io("create", &dir))?;
    }
    let show = |name: &str| dir.join(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        show("lower"),
        show("upper"),
        show("work")
    );
    let mut mount = run::command("mount");
    mount
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(dir.join("merged"));
    run::output("mount", &mut mount)?;
    run::output("umount", run::command("umount").arg(dir.join("merged")))?;
    Ok(())
}
