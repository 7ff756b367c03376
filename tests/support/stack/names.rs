//! What images are called in a cluster: by the names they are built under, or as a registry has them.

use crate::cluster::Cluster;
use crate::images::{Image, Registry};
use anyhow::Result;
use std::collections::BTreeMap;

/// Names of images, by those they are built under.
#[derive(Debug, Clone, Default)]
pub struct Names {
    registry: Option<Registry>,
    known: BTreeMap<String, String>,
}

impl Names {
    /// As they are built, or pushed to a registry first.
    pub fn new(registry: Option<Registry>) -> Self {
        Self {
            registry,
            known: BTreeMap::new(),
        }
    }

    /// Sees to it that the cluster can have an image.
    pub fn provide(&mut self, cluster: &Cluster, image: &Image) -> Result<()> {
        match &self.registry {
            Some(registry) => {
                let name = registry.push(cluster.paths(), image)?;
                self.set(&image.name, name);
            }
            None => cluster.load(image)?,
        }
        Ok(())
    }

    /// An image has another name there.
    pub fn set(&mut self, built: &str, name: String) {
        self.known.insert(built.to_owned(), name);
    }

    /// What an image is called there.
    pub fn of<'n>(&'n self, built: &'n str) -> &'n str {
        self.known.get(built).map_or(built, String::as_str)
    }

    /// Repository and tag, as charts take them.
    pub fn parts<'n>(&'n self, built: &'n str) -> (&'n str, &'n str) {
        self.of(built).rsplit_once(':').unwrap_or((built, "dev"))
    }

    /// A manifest with the names there in place of those they are built under.
    pub fn within(&self, manifest: &str) -> String {
        let mut text = manifest.to_owned();
        for (built, name) in &self.known {
            text = text.replace(built, name);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_images_as_the_registry_has_them() {
        let mut names = Names::default();
        assert_eq!(names.within("image: a:dev"), "image: a:dev");
        assert_eq!(names.parts("a:dev"), ("a", "dev"));
        names.set("a:dev", "localhost:5001/x/a:dev-1".to_owned());
        assert_eq!(
            names.within("image: a:dev"),
            "image: localhost:5001/x/a:dev-1"
        );
        assert_eq!(names.parts("a:dev"), ("localhost:5001/x/a", "dev-1"));
        assert_eq!(names.of("b:dev"), "b:dev");
    }
}
