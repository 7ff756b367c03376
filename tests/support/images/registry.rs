//! A registry that a cluster pulls from: images are pushed there under names that tell what is in them, so that
//! no node takes an older one of the same name.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::build::{Image, Store};
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::lock::take_turn;
use crate::cluster::paths::Paths;
use crate::cluster::progress::step;
use crate::cluster::{packages, run};

/// A registry, and the path below which images are put, such as `registry.example.com/shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry(String);

impl std::str::FromStr for Registry {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let name = text.trim_end_matches('/');
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_/:".contains(letter);
        if name.is_empty() || name.contains("://") || !name.chars().all(plain) {
            return Err(format!(
                "{text:?} is no registry: write its host and a path, without a scheme, such as registry.example.com/shop or localhost:5001"
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

impl Registry {
    /// The name of an image there: that of what is in it.
    #[must_use]
    pub fn name(&self, image: &Image) -> String {
        let mut hasher = DefaultHasher::new();
        image.inputs.hash(&mut hasher);
        let (name, tag) = image.name.rsplit_once(':').unwrap_or((&image.name, "dev"));
        format!("{}/{name}:{tag}-{:016x}", self.0, hasher.finish())
    }

    /// Whether it is spoken to without TLS, as Docker does: it is on this machine.
    fn is_local(&self) -> bool {
        let host = self.0.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        matches!(host, "localhost" | "127.0.0.1") || host.ends_with(".localhost")
    }

    /// Pushes an image and gives its name there. Who may is in `~/.docker/config.json`, as `docker login` or
    /// `buildah login` leaves it.
    pub fn push(&self, paths: &Paths, image: &Image) -> Result<String> {
        let name = self.name(image);
        packages::ensure(paths, &packages::IMAGES)?;
        let _turn = take_turn(&paths.images_lock(), "another command that works on images")?;
        step(&format!("Pushing image {name}"), || {
            let store = Store::open(paths)?;
            let archive = format!("docker-archive:{}", image.archive.display());
            let mut pull = store.buildah();
            pull.args(["pull", "--quiet"]).args(store.policy());
            let what = format!("reading image {}", image.name);
            let id = run::output(&what, pull.arg(&archive))?;
            let id = id.trim();
            let mut push = store.buildah();
            push.args(["push", "--quiet"]).args(store.policy());
            if self.is_local() {
                push.arg("--tls-verify=false");
            }
            push.args([id, &format!("docker://{name}")]);
            let pushed = run::output(&format!("pushing image {name}"), &mut push);
            store.forget(id);
            pushed.map(drop).map_err(|error| ClusterError::Input {
                field: "--registry",
                value: self.0.clone(),
                reason: format!(
                    "{error}; is the address right, and may you push there (docker login {})?",
                    self.0.split('/').next().unwrap_or_default()
                ),
            })
        })?;
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_contents_have_another_name() {
        let registry: Registry = "registry.example.com/shop/".parse().unwrap();
        let image = |inputs: &str| Image {
            name: "keylane-operator:dev".to_owned(),
            archive: "a.tar".into(),
            inputs: inputs.to_owned(),
        };
        let name = registry.name(&image("one"));
        assert!(
            name.starts_with("registry.example.com/shop/keylane-operator:dev-"),
            "{name}"
        );
        assert_eq!(name, registry.name(&image("one")));
        assert_ne!(name, registry.name(&image("two")));
    }

    #[test]
    fn only_registries_of_this_machine_are_spoken_to_without_tls() {
        let is_local = |text: &str| text.parse::<Registry>().unwrap().is_local();
        assert!(is_local("localhost:5001") && is_local("127.0.0.1:5000/a"));
        assert!(is_local("k3d-registry.localhost:5000"));
        assert!(!is_local("registry.example.com") && !is_local("localhost.example.com/a"));
    }

    #[test]
    fn what_is_no_registry_is_refused_with_what_to_write() {
        for wrong in ["", "https://registry.example.com", "a b"] {
            let error = wrong.parse::<Registry>().unwrap_err();
            assert!(error.contains("localhost:5001"), "{error}");
        }
    }
}
