//! Why a command could not be carried out, in words for the person who typed it.

use kube::config::{InClusterError, KubeconfigError};

const INSTALL: &str =
    "helm install keylane charts/keylane --namespace keylane-system --create-namespace";

/// What helps who is not known to the API server.
pub(super) const NOT_IN: &str = "log in again, as you do for kubectl (kubectl auth whoami tells who you are there); with --as you must be allowed to impersonate that user";

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The kubeconfig is not there or wrong.
    #[error(
        "no cluster to ask: {0}; set KUBECONFIG, or name a file with --kubeconfig and a context of it with --context"
    )]
    Kubeconfig(#[from] KubeconfigError),
    /// The kubeconfig has no such context.
    #[error("the kubeconfig has no context {name:?}; it has: {}", .found.join(", "))]
    NoContext {
        /// Its name.
        name: String,
        /// Those it has.
        found: Vec<String>,
    },
    /// There is neither a kubeconfig nor a service account.
    #[error(
        "no cluster to ask: there is no kubeconfig, and this is not a pod ({0}); set KUBECONFIG or give --kubeconfig"
    )]
    NoCluster(#[from] InClusterError),
    /// Nobody answers.
    #[error(
        "{server} does not answer: {}; is it the cluster you mean (kubectl config current-context), and does kubectl get nodes work?",
        cause(.source)
    )]
    Unreachable {
        /// Address of the API server.
        server: String,
        /// What happened.
        source: Box<kube::Error>,
    },
    /// The definition is not there.
    #[error(
        "this cluster has no OrderedConsumers: Keylane is not installed; install it with: {INSTALL}"
    )]
    NotInstalled,
    /// There is no such object.
    #[error("there is no OrderedConsumer {name:?} in namespace {namespace:?}; {}", there(.found))]
    NoSuch {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What is there instead; none if that may not be seen.
        found: Option<Vec<String>>,
    },
    /// The API server does not know the user.
    #[error("{server} does not know you, so that you may not {what}: {message}; {NOT_IN}")]
    NotKnown {
        /// Address of the API server.
        server: String,
        /// What was tried.
        what: String,
        /// What the API server said.
        message: String,
    },
    /// The user may not.
    #[error(
        "you may not {what}: {message}; ask for the role view or edit of the namespace, or for Keylane's ClusterRole keylane-view or keylane-edit"
    )]
    Forbidden {
        /// What was tried.
        what: String,
        /// What the API server said.
        message: String,
    },
    /// The API server did not take it.
    #[error("the API server refused to {what}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// What the API server said.
        message: String,
    },
    /// What the API server has cannot be read.
    #[error(
        "what the cluster has cannot be read by this plugin: {0}; use the plugin of the operator's version (kubectl keylane check tells both)"
    )]
    Unreadable(Box<kube::Error>),
    /// The live API is not there.
    #[error(
        "this cluster does not serve live.keylane.dev, which says what pods know at this moment ({0}); serve it with: helm upgrade keylane charts/keylane --namespace keylane-system --reuse-values --set liveApi.enabled=true (kubectl get apiservice v1alpha1.live.keylane.dev tells how it is)"
    )]
    NotLive(String),
    /// A file or an option cannot be used.
    #[error("{path}: {reason}")]
    Input {
        /// Its name.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// What lies at the bottom of an error, which says more than that a client had one.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let deepest = std::iter::successors(Some(error), |error| error.source()).last();
    deepest.unwrap_or(error).to_string()
}

fn there(found: &Option<Vec<String>>) -> String {
    match found {
        None => "kubectl get oc -A lists those you may see".to_owned(),
        Some(names) if names.is_empty() => {
            "there are none there; give the namespace with -n, kubectl get oc -A lists all"
                .to_owned()
        }
        Some(names) => format!("there are: {}", names.join(", ")),
    }
}

impl PluginError {
    /// What the API client met when it was to do `what`.
    pub(super) fn from_api(server: &str, what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) if status.code == 401 => Self::NotKnown {
                server: server.to_owned(),
                what,
                message: status.message,
            },
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden {
                what,
                message: status.message,
            },
            kube::Error::Api(status) => Self::Refused {
                what,
                message: status.message,
            },
            error @ kube::Error::SerdeError(_) => Self::Unreadable(Box::new(error)),
            source => Self::Unreachable {
                server: server.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_no_object_is_told_those_there_are() {
        let error = |found| PluginError::NoSuch {
            name: "order".to_owned(),
            namespace: "shop".to_owned(),
            found,
        };
        let some = error(Some(vec!["order-status".to_owned(), "stock".to_owned()])).to_string();
        assert_eq!(
            some,
            "there is no OrderedConsumer \"order\" in namespace \"shop\"; there are: order-status, stock"
        );
        assert!(error(Some(vec![])).to_string().contains("with -n"));
        assert!(error(None).to_string().contains("kubectl get oc -A"));
    }
}
