//! A registry of one's own, as `cargo demo -- --registry` uses it: what is pushed there is pulled by the nodes.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use keylane_tests::cluster::wait::{self, Pending};
use keylane_tests::cluster::{ClusterError, Paths, packages, run};
use keylane_tests::images::{self, Registry};

use crate::{Outcome, Space};

const START: Duration = Duration::from_secs(30);

/// A registry on this machine; it ends when it is dropped.
struct Running {
    process: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(paths: &Paths) -> Result<Self, ClusterError> {
        let io = |action| {
            move |source| ClusterError::Io {
                action,
                path: "docker-registry".into(),
                source,
            }
        };
        let program = packages::unpacked(paths, "docker-registry")?;
        let free = TcpListener::bind("127.0.0.1:0").map_err(io("find a port for"))?;
        let address = free.local_addr().map_err(io("find a port for"))?;
        drop(free);
        let address = address.to_string();
        let dir = tempfile::tempdir().map_err(io("make a directory for"))?;
        let config = dir.path().join("config.yml");
        let text = serde_json::json!({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": dir.path().join("images")}},
            "http": {"addr": address},
        });
        std::fs::write(&config, text.to_string()).map_err(io("configure"))?;
        let log = run::create_log(&paths.build_logs().join("docker-registry.log"))?;
        let process = run::command(program.join("usr/bin/docker-registry"))
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(io("start"))?;
        let running = Self {
            process,
            address,
            _dir: dir,
        };
        wait::until("the registry answers", START, None, || {
            TcpStream::connect(&running.address).map_err(|error| Pending::NotYet(error.to_string()))
        })?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_before = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn what_is_pushed_to_a_registry_is_pulled_from_there_and_runs() -> Outcome {
    let space = Space::new("registry")?;
    if !space.cluster.is_local() {
        println!("left out: the nodes of another cluster do not reach a registry on this machine");
        return Ok(());
    }
    let paths = space.cluster.paths();
    let running = Running::start(paths)?;
    let registry = format!("{}/demo", running.address);
    let registry: Registry = registry.parse().expect("a registry");
    let name = registry.push(paths, &images::toolbox(paths)?)?;
    space.pod_of("puller", &name, "Always", "echo pulled; exec sleep 600")?;
    let pulled = ["get", "events", "--field-selector=reason=Pulled"];
    space.until("the image pulled", &pulled, |events| {
        events.contains("Successfully pulled image") && events.contains(&name)
    })?;
    assert_eq!(space.kubectl(&["logs", "puller"])?.trim(), "pulled");
    Ok(())
}
