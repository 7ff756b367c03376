//! Which cluster is meant, with kubectl's own defaults, and what is read from it.

use super::PluginError;
use crate::crd::OrderedConsumer;
use crate::live::{self, ConsumerStats, GROUP, RESOURCE};
use crate::names;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hyper::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Longest time to a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of the API server.
const READ: Duration = Duration::from_secs(15);

/// Which cluster and namespace are meant.
#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// Namespace. Default: that of the context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Kubeconfig. Default: KUBECONFIG, else ~/.kube/config, else the service account of the pod.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Ask as this user. You must be allowed to impersonate it.
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        value_parser = NonEmptyStringValueParser::new()
    )]
    as_user: Option<String>,
    /// With --as: ask as a member of this group. May be given more than once.
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    as_groups: Vec<String>,
}

impl Target {
    /// Asks as the user who was named instead of as the one of the kubeconfig.
    fn impersonate(&self, who: &mut AuthInfo) -> Result<(), PluginError> {
        let Some(user) = &self.as_user else {
            if self.as_groups.is_empty() {
                return Ok(());
            }
            return Err(PluginError::Input {
                path: "--as-group".to_owned(),
                reason: "a group alone cannot ask; name the user with --as, too".to_owned(),
            });
        };
        who.impersonate = Some(user.clone());
        who.impersonate_groups = Some(self.as_groups.clone()).filter(|groups| !groups.is_empty());
        // These would be another user's.
        who.impersonate_uid = None;
        who.impersonate_user_extra = None;
        Ok(())
    }
}

fn has_context(kubeconfig: &Kubeconfig, name: &str) -> Result<(), PluginError> {
    let found = kubeconfig
        .contexts
        .iter()
        .map(|context| context.name.clone());
    let found: Vec<_> = found.collect();
    if found.iter().any(|found| found == name) {
        return Ok(());
    }
    Err(PluginError::NoContext {
        name: name.to_owned(),
        found,
    })
}

/// A cluster to ask, and the namespace that is meant.
pub(super) struct Cluster {
    pub client: Client,
    pub namespace: String,
    /// Address of the API server.
    pub server: String,
    /// The user who is named instead of the one of the kubeconfig.
    pub as_user: Option<String>,
}

impl Cluster {
    pub async fn connect(target: &Target) -> Result<Self, PluginError> {
        let options = KubeConfigOptions {
            context: target.context.clone(),
            ..KubeConfigOptions::default()
        };
        let kubeconfig = match &target.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let nothing_given = target.kubeconfig.is_none() && target.context.is_none();
        if let (Some(name), Ok(kubeconfig)) = (&target.context, &kubeconfig) {
            has_context(kubeconfig, name)?;
        }
        let mut config = match kubeconfig {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await?,
            Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath) if nothing_given => {
                Config::incluster()?
            }
            Err(error) => return Err(error.into()),
        };
        target.impersonate(&mut config.auth_info)?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        let server = config.cluster_url.to_string();
        let namespace = target.namespace.clone();
        Ok(Self {
            namespace: namespace.unwrap_or_else(|| config.default_namespace.clone()),
            client: Client::try_from(config)
                .map_err(|error| PluginError::from_api(&server, "connect", error))?,
            server,
            as_user: target.as_user.clone(),
        })
    }

    pub fn consumers(&self) -> Api<OrderedConsumer> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An OrderedConsumer; an error that says which there are if there is none of that name.
    pub async fn consumer(&self, name: &str) -> Result<OrderedConsumer, PluginError> {
        let api = self.consumers();
        match api.get(name).await {
            Ok(consumer) => Ok(consumer),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(self.missing(name).await),
            Err(error) => Err(self.error(&format!("read OrderedConsumer {name:?}"), error)),
        }
    }

    async fn missing(&self, name: &str) -> PluginError {
        let found = match self.consumers().list_metadata(&ListParams::default()).await {
            Ok(list) => Some(list.iter().map(ResourceExt::name_any).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return PluginError::NotInstalled;
            }
            Err(_) => None,
        };
        PluginError::NoSuch {
            name: name.to_owned(),
            namespace: self.namespace.clone(),
            found,
        }
    }

    /// The OrderedConsumers of the namespace, or of all.
    pub async fn all_consumers(
        &self,
        everywhere: bool,
    ) -> Result<Vec<OrderedConsumer>, PluginError> {
        let api = if everywhere {
            Api::all(self.client.clone())
        } else {
            self.consumers()
        };
        match api.list(&ListParams::default()).await {
            Ok(found) => Ok(found.items),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(PluginError::NotInstalled),
            Err(error) => Err(self.error("list OrderedConsumers", error)),
        }
    }

    /// An error if the cluster does not know what an OrderedConsumer is.
    pub async fn installed(&self) -> Result<(), PluginError> {
        let any = ListParams::default().limit(1);
        match self.consumers().list_metadata(&any).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Err(PluginError::NotInstalled),
            // Whatever else there is to say of them is said by who needs them.
            _ => Ok(()),
        }
    }

    /// The pods that carry the name of an OrderedConsumer; none if the user may not see pods.
    pub async fn pods(&self, name: &str) -> Result<Option<Vec<Pod>>, PluginError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let of = ListParams::default().labels(&format!("{}={name}", names::NAME_LABEL));
        match api.list(&of).await {
            Ok(pods) => Ok(Some(pods.items)),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => Err(self.error("list pods", error)),
        }
    }

    /// The decisions that were kept, by the moment they were made; none if there is no ConfigMap of them.
    pub async fn decisions(&self, name: &str) -> Result<BTreeMap<String, String>, PluginError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = names::decisions(name);
        let found = api.get_opt(&name).await;
        let found =
            found.map_err(|error| self.error(&format!("read ConfigMap {name:?}"), error))?;
        Ok(found.and_then(|found| found.data).unwrap_or_default())
    }

    /// What the pods of an OrderedConsumer say at this moment.
    pub async fn live(&self, name: &str) -> Result<ConsumerStats, PluginError> {
        let request = Request::get(live::path(&self.namespace, name)).body(Vec::new());
        let doing = format!("read {RESOURCE}.{GROUP} {name:?}");
        self.ask_live(name, &doing, request).await
    }

    /// The same of one in another namespace.
    pub async fn live_in(&self, namespace: &str, name: &str) -> Result<ConsumerStats, PluginError> {
        let request = Request::get(live::path(namespace, name)).body(Vec::new());
        let doing = format!("read {RESOURCE}.{GROUP} {namespace}/{name}");
        self.ask_live_of(&doing, request).await
    }

    /// What live.keylane.dev answers to a request about an OrderedConsumer.
    pub async fn ask_live<T: DeserializeOwned>(
        &self,
        name: &str,
        doing: &str,
        request: hyper::http::Result<Request<Vec<u8>>>,
    ) -> Result<T, PluginError> {
        let request = request.map_err(|error| PluginError::Input {
            path: name.to_owned(),
            reason: error.to_string(),
        })?;
        match self.client.request(request).await {
            Ok(answer) => Ok(answer),
            // No such API, or nobody behind it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {
                // The name may be wrong instead.
                self.consumer(name).await?;
                Err(PluginError::NotLive(status.message.clone()))
            }
            Err(error) => Err(self.error(doing, error)),
        }
    }

    /// What live.keylane.dev answers to a request that is not about an OrderedConsumer.
    pub async fn ask_live_of<T: DeserializeOwned>(
        &self,
        doing: &str,
        request: hyper::http::Result<Request<Vec<u8>>>,
    ) -> Result<T, PluginError> {
        let request = request.map_err(|error| PluginError::Input {
            path: doing.to_owned(),
            reason: error.to_string(),
        })?;
        match self.client.request(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {
                Err(PluginError::NotLive(status.message))
            }
            Err(error) => Err(self.error(doing, error)),
        }
    }

    pub fn error(&self, what: &str, error: kube::Error) -> PluginError {
        PluginError::from_api(&self.server, what, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_as_somebody_else_is_nobody_of_the_kubeconfig_any_more() {
        let of_file = AuthInfo {
            impersonate: Some("deputy".to_owned()),
            impersonate_uid: Some("7".to_owned()),
            impersonate_groups: Some(vec!["admins".to_owned()]),
            ..AuthInfo::default()
        };
        let told = |user: Option<&str>, groups: &[&str]| {
            let target = Target {
                as_user: user.map(str::to_owned),
                as_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
                ..Target::default()
            };
            let mut who = of_file.clone();
            target.impersonate(&mut who).map(|()| {
                let groups = who.impersonate_groups.unwrap_or_default();
                (who.impersonate, who.impersonate_uid, groups)
            })
        };
        let (user, uid, groups) = told(Some("viewer"), &[]).unwrap();
        assert_eq!(
            (user.as_deref(), uid, groups),
            (Some("viewer"), None, vec![])
        );
        let (user, _, groups) = told(Some("viewer"), &["shop", "bank"]).unwrap();
        assert_eq!(
            (user.as_deref(), groups),
            (Some("viewer"), vec!["shop".to_owned(), "bank".to_owned()])
        );
        // Nobody is named: it stays as it is in the file.
        let (user, uid, groups) = told(None, &[]).unwrap();
        assert_eq!(
            (user.as_deref(), uid.as_deref(), groups.len()),
            (Some("deputy"), Some("7"), 1)
        );
        let error = told(None, &["shop"]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("name the user with --as")));
    }
}
