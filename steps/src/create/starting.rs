//! Step 1, `starting`: holds the request against the live cluster before anything is made.
//!
//! Reads only. Whatever cannot work out is said here, while there is nothing yet to take back.

use std::sync::Arc;

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::cluster::errors::{Asked, step_error};
use crate::elastic::Elastic;
use crate::gitlab::GitLab;
use crate::input::Input;
use crate::kept::Kept;
use crate::overlay::Overlay;
use crate::render::Kind;
use crate::request::Request;
use crate::vectors::VectorSizing;

/// The step's name, and the status of its report.
pub(crate) const NAME: &str = "starting";

/// The API groups that the objects of a cluster come from, besides the core.
const GROUPS: [&str; 2] = ["apps", "policy"];

pub(super) struct Starting {
    pub(super) cluster: Cluster,
    pub(super) gitlab: GitLab,
    pub(super) elastic: Elastic,
    pub(super) overlay: Option<Arc<Overlay>>,
}

/// What was found out, and all that was asked for (S9).
#[derive(Serialize)]
struct Checked {
    request: Request,
    /// What this workflow installs, whatever the settings say later.
    elastic: Elastic,
    /// What is laid over its objects, whatever the directory has later.
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<Arc<Overlay>>,
    kubernetes: String,
    storage_class: String,
    vectors: VectorSizing,
    warnings: Vec<String>,
}

#[async_trait]
impl Step for Starting {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let Input { request, origin, .. } = cx.input()?;
        if let Some(url) = &request.gitlab_url {
            self.gitlab.permits(url)?;
        }
        let kubernetes = self.version().await?;
        self.groups().await?;
        let storage_class = self.storage_class().await?;
        if let Some(kept) = origin.and_then(|origin| origin.kept) {
            self.data_is_there(&request, &kept).await?;
        }
        let vectors = VectorSizing::of(&request);
        let mut warnings = vectors.warnings(&request);
        warnings.extend(gpus(&self.cluster, &request).await?);
        let mut message = format!("checked against Kubernetes {kubernetes}");
        for warning in &warnings {
            message.push_str("; warning: ");
            message.push_str(warning);
        }
        Ok(Output::new(
            message,
            &Checked {
                request,
                elastic: self.elastic.clone(),
                overlay: self.overlay.clone(),
                kubernetes,
                storage_class,
                vectors,
                warnings,
            },
        )?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was made".to_owned())
    }
}

impl Starting {
    async fn version(&self) -> Result<String, StepError> {
        let version = self.cluster.client().apiserver_version().await;
        let version = version.map_err(|error| step_error(Asked::Read, "ask the cluster for its version", &error))?;
        Ok(version.git_version)
    }

    async fn groups(&self) -> Result<(), StepError> {
        let groups = self.cluster.client().list_api_groups().await;
        let groups = groups.map_err(|error| step_error(Asked::Read, "ask the cluster for its APIs", &error))?;
        let missing = GROUPS.iter().find(|wanted| !groups.groups.iter().any(|group| group.name == **wanted));
        match missing {
            Some(group) => Err(StepError::permanent(format!("the cluster does not serve the API group {group}"))),
            None => Ok(()),
        }
    }

    /// A cluster over data that is gone would be an empty one, and nobody would know before it is asked for something.
    async fn data_is_there(&self, request: &Request, kept: &Kept) -> Result<(), StepError> {
        let namespace = request.namespace.as_str();
        let claims = self.cluster.list(Kind::PersistentVolumeClaim, namespace).await?;
        let missing = kept.missing(&claims);
        if missing.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "the data that was kept is not whole: somebody has deleted {} in namespace {namespace}; DELETE what is left of it, \
             and create the cluster anew",
            missing.join(", ")
        )))
    }

    /// The class that the claims will get: the default one, as a request names none (C5).
    async fn storage_class(&self) -> Result<String, StepError> {
        let api: Api<StorageClass> = Api::all(self.cluster.client().clone());
        let classes = api.list(&ListParams::default()).await;
        let classes = classes.map_err(|error| step_error(Asked::Read, "list the storage classes", &error))?;
        let default = classes.items.into_iter().find(|class| {
            let annotations = class.metadata.annotations.as_ref();
            annotations
                .and_then(|annotations| annotations.get("storageclass.kubernetes.io/is-default-class"))
                .is_some_and(|value| value == "true")
        });
        let name = default.and_then(|class| class.metadata.name);
        name.ok_or_else(|| {
            StepError::permanent(
                "the cluster has no default StorageClass, so disks would never be made: \
                 the operator marks one with storageclass.kubernetes.io/is-default-class",
            )
        })
    }
}

/// GPUs must be known to the cluster at all, for a creation and for a change that asks for some (C6).
pub(crate) async fn gpus(cluster: &Cluster, request: &Request) -> Result<Option<String>, StepError> {
    cluster.gpus_for(request).await
}
