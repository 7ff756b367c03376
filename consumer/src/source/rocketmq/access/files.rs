//! Secrets as files: in a pod a mounted volume, elsewhere a directory that somebody keeps.

use super::{Access, AccessError, Parts, wanted};
use crate::contract::spec::Rocketmq;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where the kubelet has the files of a volume: a link that it exchanges, so that they change together.
const TOGETHER: &str = "..data";

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{field}: file {} cannot be read ({source}): it is to hold {key:?} of Secret {secret:?}", path.display())]
    Unreadable {
        /// The field that names the Secret.
        field: &'static str,
        /// The key.
        key: &'static str,
        /// The Secret.
        secret: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// They say what cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// A directory with a file for each key that a spec needs: accessKey, secretKey, ca.crt, tls.crt, tls.key.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
    rocketmq: Rocketmq,
}

impl Files {
    /// Those of a directory, for a spec.
    pub fn new(directory: &Path, rocketmq: &Rocketmq) -> Self {
        Self {
            directory: directory.to_owned(),
            rocketmq: rocketmq.clone(),
        }
    }

    /// What they let us into.
    pub fn access(&self) -> Result<Access, FilesError> {
        Ok(Access::new(&self.rocketmq, self.read()?)?)
    }

    fn read(&self) -> Result<Parts, FilesError> {
        // Followed once: files of before and after a change do not fit together.
        let together = std::fs::canonicalize(self.directory.join(TOGETHER));
        let directory = together.unwrap_or_else(|_| self.directory.clone());
        let read = |(part, secret): (super::Part, &str)| {
            let path = directory.join(part.key());
            match std::fs::read(&path) {
                Ok(bytes) => Ok((part, bytes)),
                Err(source) => Err(FilesError::Unreadable {
                    field: part.field(),
                    key: part.key(),
                    secret: secret.to_owned(),
                    path: self.directory.join(part.key()),
                    source,
                }),
            }
        };
        wanted(&self.rocketmq).into_iter().map(read).collect()
    }

    /// Takes over changes; never returns. Files that cannot be used change nothing.
    pub async fn follow(self, access: Access) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        let mut last_problem = None;
        loop {
            interval.tick().await;
            let found = self.read();
            match found.and_then(|parts| Ok(access.replace(parts)?)) {
                Ok(changed) => {
                    last_problem = None;
                    if changed {
                        info!(
                            "what lets us into RocketMQ has changed and was taken over: {}",
                            access.who()
                        );
                    }
                }
                Err(problem) => {
                    let problem = problem.to_string();
                    if last_problem.as_ref() != Some(&problem) {
                        warn!("what lets us into RocketMQ stays as it is: {problem}");
                    }
                    last_problem = Some(problem);
                }
            }
        }
    }
}
