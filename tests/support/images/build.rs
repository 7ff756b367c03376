//! One image: its recipe, and the archive made of it. The archive is made again only when the
//! recipe, a file in it or its base changed.

use std::fs;
use std::path::{Path, PathBuf};

use super::base::Base;
use crate::cluster::binaries::write;
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::lock::take_turn;
use crate::cluster::packages;
use crate::cluster::paths::Paths;
use crate::cluster::progress::step;
use crate::cluster::run;

/// What an image is made of.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// Its name and tag, such as `keylane-operator:dev`.
    pub name: &'a str,
    /// The text of its Containerfile.
    pub containerfile: &'a str,
    /// The image it starts from, given to the Containerfile as the build argument `BASE`.
    pub base: Option<Base>,
    /// Files and directories of the build context: name there, path here.
    pub files: &'a [(&'a str, &'a Path)],
}

/// An image in a file, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name and tag.
    pub name: String,
    /// The archive, in docker-archive format.
    pub archive: PathBuf,
    /// Everything that went into it, as text: equal means the same image.
    pub inputs: String,
}

/// Builds an image unless the archive of the same inputs is there.
pub fn build(paths: &Paths, recipe: &Recipe<'_>) -> Result<Image> {
    let _turn = take_turn(&paths.images_lock(), "another command that works on images")?;
    let image = Image {
        name: recipe.name.to_owned(),
        archive: archive(paths, recipe.name),
        inputs: inputs(recipe)?,
    };
    let stamp = image.archive.with_extension("inputs");
    let fresh = fs::read_to_string(&stamp).is_ok_and(|text| text == image.inputs);
    if fresh && image.archive.is_file() {
        return Ok(image);
    }
    packages::ensure(paths, &packages::IMAGES)?;
    let base = recipe.base.map(|base| base.ensure(paths)).transpose()?;
    let log = paths
        .build_logs()
        .join(format!("image-{}.log", file_stem(recipe.name)));
    step(
        &format!("Building image {} (log: {})", recipe.name, log.display()),
        || {
            let store = Store::open(paths)?;
            let local = store.bud(recipe, base.as_deref(), &log)?;
            // An archive is never half written under its own name.
            let partial = image.archive.with_extension("partial");
            let _none = fs::remove_file(&partial);
            run::output(
                &format!("saving image {}", recipe.name),
                store
                    .buildah()
                    .args(["push", "--quiet", &local])
                    .arg(format!(
                        "docker-archive:{}:{}",
                        partial.display(),
                        recipe.name
                    )),
            )?;
            fs::rename(&partial, &image.archive)
                .map_err(ClusterError::io("write", &image.archive))?;
            store.forget(&local);
            write(&stamp, &image.inputs)
        },
    )?;
    Ok(image)
}

/// The image builder's own storage, apart from a system's.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn open(paths: &Paths) -> Result<Self> {
        let dir = paths.images().join("builder");
        // Distributions differ in which of these files they install, so none of them is used.
        write(
            &dir.join("policy.json"),
            r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
        )?;
        write(&dir.join("registries.conf"), "")?;
        write(&dir.join("containers.conf"), "")?;
        Ok(Self { dir })
    }

    pub(super) fn buildah(&self) -> std::process::Command {
        let mut buildah = run::command("buildah");
        buildah
            .env("STORAGE_DRIVER", "vfs")
            .env("BUILDAH_ISOLATION", "chroot")
            .env(
                "CONTAINERS_REGISTRIES_CONF",
                self.dir.join("registries.conf"),
            )
            .env("CONTAINERS_CONF", self.dir.join("containers.conf"))
            .arg("--root")
            .arg(self.dir.join("storage"))
            .arg("--runroot")
            .arg(self.dir.join("run"));
        buildah
    }

    /// The storage's own policy for a command that asks for one.
    pub(super) fn policy(&self) -> [std::ffi::OsString; 2] {
        [
            "--signature-policy".into(),
            self.dir.join("policy.json").into(),
        ]
    }

    /// Builds a recipe and gives the local name of the result.
    pub(super) fn bud(
        &self,
        recipe: &Recipe<'_>,
        base: Option<&str>,
        log: &Path,
    ) -> Result<String> {
        let context = tempfile::Builder::new()
            .prefix("context-")
            .tempdir_in(&self.dir)
            .map_err(ClusterError::io("create a directory in", &self.dir))?;
        for (name, path) in recipe.files {
            place(path, &context.path().join(name))?;
        }
        let containerfile = context.path().join(".Containerfile");
        write(&containerfile, recipe.containerfile)?;
        let local = format!("localhost/{}", recipe.name);
        let mut bud = self.buildah();
        bud.args(["bud", "--pull-never", "--layers=false", "--format=docker"])
            .args(self.policy())
            .arg("--tag")
            .arg(&local)
            .arg("--file")
            .arg(&containerfile);
        if let Some(base) = base {
            bud.arg("--build-arg").arg(format!("BASE={base}"));
        }
        bud.arg(context.path());
        run::logged(&format!("building image {}", recipe.name), &mut bud, log)?;
        Ok(local)
    }

    /// Whether an image of that local name is in the storage.
    pub(super) fn has(&self, local: &str) -> bool {
        run::output(
            "buildah",
            self.buildah().args(["inspect", "--type=image", local]),
        )
        .is_ok()
    }

    /// Frees the space of every image whose local name starts so.
    pub(super) fn forget_all(&self, prefix: &str) {
        let mut list = self.buildah();
        list.args(["images", "--format", "{{.Name}}:{{.Tag}}"]);
        let names = run::output("buildah images", &mut list).unwrap_or_default();
        for name in names.lines().filter(|name| name.starts_with(prefix)) {
            self.forget(name);
        }
    }

    /// Frees an image's space; its archive is what counts.
    pub(super) fn forget(&self, local: &str) {
        let _only_space = run::output("buildah", self.buildah().args(["rmi", "--force", local]));
    }
}

/// The archive file of an image.
fn archive(paths: &Paths, name: &str) -> PathBuf {
    paths.images().join(format!("{}.tar", file_stem(name)))
}

/// A file name for an image name.
#[must_use]
pub fn file_stem(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn inputs(recipe: &Recipe<'_>) -> Result<String> {
    let mut text = format!("{}\n{}\n", recipe.name, recipe.containerfile);
    if let Some(base) = recipe.base {
        text.push_str(&base.inputs());
    }
    for (name, path) in recipe.files {
        for file in files_below(path)? {
            let below = file.strip_prefix(path).unwrap_or(Path::new("")).display();
            let sum = run::output(
                &format!("reading {}", file.display()),
                run::command("sha256sum").arg("--binary").arg(&file),
            )?;
            let sum = sum.split(' ').next().unwrap_or_default();
            text.push_str(&format!("{name} {below} {sum}\n"));
        }
    }
    Ok(text)
}

/// The path itself if it is a file, else every file below it, sorted.
fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(ClusterError::io("read", path))? {
        let entry = entry.map_err(ClusterError::io("read", path))?;
        found.extend(files_below(&entry.path())?);
    }
    found.sort();
    Ok(found)
}

/// Puts a file or directory into a build context, without copying the bytes where that can be.
fn place(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let target = match file.strip_prefix(from) {
            Ok(below) if !below.as_os_str().is_empty() => to.join(below),
            _ => to.to_path_buf(),
        };
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir).map_err(ClusterError::io("create", dir))?;
        }
        if fs::hard_link(&file, &target).is_err() {
            fs::copy(&file, &target).map_err(ClusterError::io("copy", &file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_or_containerfile_makes_other_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("program");
        fs::write(&binary, "one").unwrap();
        let inputs_with = |containerfile: &str| {
            inputs(&Recipe {
                name: "a:dev",
                containerfile,
                base: None,
                files: &[("program", &binary)],
            })
            .unwrap()
        };
        let first = inputs_with("FROM scratch");
        assert_eq!(first, inputs_with("FROM scratch"));
        assert_ne!(first, inputs_with("FROM scratch\nUSER 1"));
        fs::write(&binary, "two").unwrap();
        assert_ne!(first, inputs_with("FROM scratch"));
    }

    #[test]
    fn a_directory_is_placed_with_everything_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/a.jar"), "a").unwrap();
        fs::write(from.join("b.jar"), "b").unwrap();
        let to = dir.path().join("context/lib");
        place(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/a.jar")).unwrap(), "a");
        assert_eq!(fs::read_to_string(to.join("b.jar")).unwrap(), "b");
    }

    #[test]
    fn image_names_make_file_names() {
        assert_eq!(
            file_stem("keylane-rocketmq:5.3.3"),
            "keylane-rocketmq_5_3_3"
        );
    }
}
