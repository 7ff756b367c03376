//! Programs built from Go modules whose versions are pinned by the `go.sum` beside them: built once
//! per pin, then taken from the cache.

use std::path::{Path, PathBuf};

use super::error::{ClusterError, Result};
use super::packages::ensure_go;
use super::paths::Paths;
use super::progress::step;
use super::run;

/// The Kubernetes version that is built and run.
pub const KUBERNETES_VERSION: &str = "v1.34.4";

/// A Go module and the programs built from it.
#[derive(Debug)]
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    tools_go: &'static str,
    ldflags: &'static str,
}

const KUBERNETES: Module = Module {
    name: "kubernetes",
    go_mod: include_str!("../../cluster/kubernetes/go.mod"),
    go_sum: include_str!("../../cluster/kubernetes/go.sum"),
    tools_go: include_str!("../../cluster/kubernetes/tools.go"),
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 \
              -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=34",
};

const COREDNS: Module = Module {
    name: "coredns",
    go_mod: include_str!("../../cluster/coredns/go.mod"),
    go_sum: include_str!("../../cluster/coredns/go.sum"),
    tools_go: include_str!("../../cluster/coredns/tools.go"),
    ldflags: "-s -w",
};

const HELM: Module = Module {
    name: "helm",
    go_mod: include_str!("../../cluster/helm/go.mod"),
    go_sum: include_str!("../../cluster/helm/go.sum"),
    tools_go: include_str!("../../cluster/helm/tools.go"),
    // The versions charts see in their templates.
    ldflags: "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0 \
              -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 \
              -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=34 \
              -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
              -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34",
};

/// The programs of Kubernetes itself, in the order they are started.
pub const COMPONENTS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// Builds what a cluster runs, if it is not built yet (minutes the first time).
pub fn ensure_cluster(paths: &Paths) -> Result<()> {
    let packages: Vec<String> = COMPONENTS
        .iter()
        .map(|name| format!("k8s.io/kubernetes/cmd/{name}"))
        .collect();
    ensure(paths, &KUBERNETES, &packages)?;
    ensure(paths, &COREDNS, &["github.com/coredns/coredns".to_owned()])?;
    ensure_pause(paths)
}

/// kubectl: the one on the search path, else one built here.
pub fn kubectl(paths: &Paths) -> Result<PathBuf> {
    if let Some(found) = run::find("kubectl") {
        return Ok(found);
    }
    ensure(
        paths,
        &KUBERNETES,
        &["k8s.io/kubernetes/cmd/kubectl".to_owned()],
    )?;
    Ok(paths.bin().join("kubectl"))
}

/// Helm 3: the one on the search path, else one built here.
pub fn helm(paths: &Paths) -> Result<PathBuf> {
    if let Some(found) = run::find("helm") {
        let version = run::output(
            "helm version",
            run::command(&found).args(["version", "--short"]),
        );
        if version.is_ok_and(|version| version.starts_with("v3.")) {
            return Ok(found);
        }
    }
    ensure(paths, &HELM, &["helm.sh/helm/v3/cmd/helm".to_owned()])?;
    Ok(paths.bin().join("helm"))
}

fn ensure(paths: &Paths, module: &Module, packages: &[String]) -> Result<()> {
    let missing: Vec<&String> = packages
        .iter()
        .filter(|package| !is_built(paths, module, program(package)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure_go()?;
    let dir = lay_out(paths, module)?;
    let log = paths.build_logs().join(format!("go-{}.log", module.name));
    let names: Vec<&str> = missing.iter().map(|package| program(package)).collect();
    step(
        &format!(
            "Building {} from source, minutes when nothing is cached (log: {})",
            names.join(" "),
            log.display()
        ),
        || {
            let mut build = go(&dir);
            build
                .args(["build", "-trimpath", "-ldflags", module.ldflags, "-o"])
                .arg(format!("{}/", paths.bin().display()))
                .args(&missing);
            run::logged(&format!("building {}", names.join(" ")), &mut build, &log)
        },
    )?;
    for name in names {
        write(&stamp(paths, name), &pin(module))?;
    }
    Ok(())
}

/// The pause program of pod sandboxes, from the Kubernetes module's own C source.
fn ensure_pause(paths: &Paths) -> Result<()> {
    if is_built(paths, &KUBERNETES, "pause") {
        return Ok(());
    }
    ensure_go()?;
    let dir = lay_out(paths, &KUBERNETES)?;
    let source = run::output(
        "finding the Kubernetes sources",
        go(&dir).args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]),
    )?;
    let source = Path::new(source.trim()).join("build/pause/linux/pause.c");
    let target = paths.bin().join("pause");
    step("Building pause", || {
        run::output(
            "building pause",
            run::command("cc")
                .args(["-Os", "-static", "-DVERSION=v1.34.4", "-o"])
                .arg(&target)
                .arg(&source),
        )
    })?;
    write(&stamp(paths, "pause"), &pin(&KUBERNETES))
}

fn go(dir: &Path) -> std::process::Command {
    let mut go = run::command("go");
    go.current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("GOWORK", "off");
    go
}

/// Builds run on a copy, so that Go never edits the checkout.
fn lay_out(paths: &Paths, module: &Module) -> Result<PathBuf> {
    let dir = paths.go_modules().join(module.name);
    for (file, text) in [
        ("go.mod", module.go_mod),
        ("go.sum", module.go_sum),
        ("tools.go", module.tools_go),
    ] {
        write(&dir.join(file), text)?;
    }
    let bin = paths.bin();
    std::fs::create_dir_all(&bin).map_err(ClusterError::io("create", &bin))?;
    Ok(dir)
}

fn is_built(paths: &Paths, module: &Module, name: &str) -> bool {
    paths.bin().join(name).is_file()
        && std::fs::read_to_string(stamp(paths, name)).is_ok_and(|text| text == pin(module))
}

fn stamp(paths: &Paths, name: &str) -> PathBuf {
    paths.bin().join(format!(".{name}.pin"))
}

/// All that a build depends on, kept whole beside the program.
fn pin(module: &Module) -> String {
    [module.go_mod, module.go_sum, module.ldflags].join("\n")
}

/// Writes a file and the directories above it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))?;
    }
    std::fs::write(path, text).map_err(ClusterError::io("write", path))
}

fn program(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_versions_are_the_ones_named() {
        let pin = format!("k8s.io/kubernetes {KUBERNETES_VERSION}");
        assert!(KUBERNETES.go_mod.contains(&pin));
        assert!(
            KUBERNETES
                .ldflags
                .contains(&format!("gitVersion={KUBERNETES_VERSION}"))
        );
        assert!(
            COREDNS
                .go_mod
                .contains("github.com/coredns/coredns v1.12.4")
        );
        assert!(HELM.go_mod.contains("helm.sh/helm/v3 v3.22.0"));
    }

    #[test]
    fn another_pin_means_another_build() {
        assert_ne!(pin(&COREDNS), pin(&HELM));
    }

    #[test]
    fn a_program_is_named_after_the_last_part_of_its_package() {
        assert_eq!(program("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
    }
}
