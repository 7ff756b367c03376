//! Where things lie. One cache directory for every checkout on the machine, so that any checkout
//! finds the cluster another one started, and nothing is built twice.

use std::path::{Path, PathBuf};

/// The cache directory and the places below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    cache: PathBuf,
}

impl Paths {
    /// `KEYLANE_CACHE`, else `$XDG_CACHE_HOME/keylane`, else `~/.cache/keylane`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn from_vars(var: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.as_os_str().is_empty());
        let cache = set("KEYLANE_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("keylane")))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache/keylane")))
            .unwrap_or_else(|| PathBuf::from("/var/cache/keylane"));
        // Mount tables and command lines are compared with these paths: they have to be absolute.
        let cache = std::path::absolute(&cache).unwrap_or(cache);
        Self { cache }
    }

    /// Everything below the given cache directory.
    #[must_use]
    pub fn at(cache: &Path) -> Self {
        Self {
            cache: cache.to_path_buf(),
        }
    }

    /// The cache directory itself.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Programs built here.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// Where Go modules are laid out for building.
    #[must_use]
    pub fn go_modules(&self) -> PathBuf {
        self.cache.join("go")
    }

    /// Logs of builds; they stay when the cluster goes.
    #[must_use]
    pub fn build_logs(&self) -> PathBuf {
        self.cache.join("logs")
    }

    /// Base images, image archives and the image builder's storage.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// The running cluster's state: everything below it is removed by `down`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.cache.join("cluster")
    }

    /// The lock that keeps two commands from changing the cluster at once.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.cache.join("cluster.lock")
    }

    /// The lock that keeps two commands from building or loading images at once.
    #[must_use]
    pub fn images_lock(&self) -> PathBuf {
        self.cache.join("images.lock")
    }

    /// The kubeconfig of the local cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// The kubeconfig written for a context of the user's own.
    #[must_use]
    pub fn context_kubeconfig(&self, context: &str) -> PathBuf {
        let name: String = context
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        self.cache.join("contexts").join(name)
    }

    /// The log file of a part of the running cluster.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.state().join("logs").join(format!("{part}.log"))
    }

    /// A certificate (`.crt`) or key (`.key`) of the running cluster.
    #[must_use]
    pub fn pki(&self, file: &str) -> PathBuf {
        self.state().join("pki").join(file)
    }

    /// A configuration file of a part of the running cluster.
    #[must_use]
    pub fn config(&self, file: &str) -> PathBuf {
        self.state().join("config").join(file)
    }

    /// The container runtime's socket.
    #[must_use]
    pub fn containerd_socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_with(vars: &[(&str, &str)]) -> PathBuf {
        Paths::from_vars(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| PathBuf::from(value))
        })
        .cache
    }

    #[test]
    fn the_most_specific_variable_names_the_cache() {
        let home = ("HOME", "/home/a");
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(cache_with(&[home]), Path::new("/home/a/.cache/keylane"));
        assert_eq!(cache_with(&[home, xdg]), Path::new("/x/keylane"));
        let own = ("KEYLANE_CACHE", "/own");
        assert_eq!(cache_with(&[home, xdg, own]), Path::new("/own"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_a_relative_one_is_made_absolute() {
        let home = ("HOME", "/home/a");
        let empty = ("KEYLANE_CACHE", "");
        assert_eq!(
            cache_with(&[home, empty]),
            Path::new("/home/a/.cache/keylane")
        );
        assert!(cache_with(&[("KEYLANE_CACHE", "here")]).is_absolute());
    }

    #[test]
    fn a_context_name_becomes_one_file_name() {
        let paths = Paths::from_vars(|_| Some(PathBuf::from("/c")));
        let file = paths.context_kubeconfig("arn:aws:eks/../x");
        assert_eq!(file.parent(), Some(Path::new("/c/contexts")));
        assert_eq!(file.file_name().unwrap(), "arn-aws-eks----x");
    }
}
