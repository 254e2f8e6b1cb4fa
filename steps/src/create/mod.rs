//! The creation of a cluster: the ten steps, as one list in order.
//!
//! - Nothing on the cluster starts before step 8, so steps 5 to 7 restart nobody, and no claim is resized once it is bound (C0).
//! - Every step that writes sends the complete intent so far, and can be run again at any point.
//! - A probe reads the cluster; the workflow's annotation is the only witness that it trusts.
//! - A compensation deletes only what bears the annotation **and** the UID that the journal has.

mod completed;
pub(crate) mod disk_configured;
mod gitlab_pulled;
mod gpu_configured;
mod k8s_applied;
mod namespace_created;
pub(crate) mod plan;
mod rehearsal;
mod resources_configured;
mod rollout_completed;
mod starting;
mod tenant_synced;

use std::sync::Arc;

use async_trait::async_trait;
use cairn_engine::{Definition, Effect, Residue, Step, StepContext, StepError};

use crate::cluster::Cluster;
use crate::cluster::rollout::RolloutRules;
use crate::elastic::Elastic;
use crate::gitlab::GitLab;
use crate::input::Input;
use crate::overlay::Overlay;

pub(crate) use gitlab_pulled::NAME as GITLAB_PULLED;
pub(crate) use plan::{elastic_in, made_in, overlay_in};
pub use rehearsal::{Rehearsal, rehearse};
pub(crate) use rollout_completed::NAME as ROLLOUT_COMPLETED;
pub(crate) use starting::{NAME as STARTING, gpus};

/// The name of the definition.
pub const NAME: &str = "create";
/// Its version: another list of steps is another version.
pub const VERSION: u32 = 1;

/// The names of the ten steps, in order: the statuses of their reports (S38).
pub const STEPS: [&str; 10] = [
    starting::NAME,
    namespace_created::NAME,
    gitlab_pulled::NAME,
    k8s_applied::NAME,
    resources_configured::NAME,
    disk_configured::NAME,
    gpu_configured::NAME,
    rollout_completed::NAME,
    tenant_synced::NAME,
    completed::NAME,
];

/// What the steps work with.
#[derive(Clone)]
pub struct Deps {
    /// The Kubernetes cluster.
    pub cluster: Cluster,
    /// Where settings are pulled from.
    pub gitlab: GitLab,
    /// How long a rollout is waited for.
    pub rollout: RolloutRules,
    /// What is installed.
    pub elastic: Elastic,
    /// What the operator lays over the objects of every cluster.
    pub overlay: Option<Arc<Overlay>>,
}

impl Deps {
    /// This cluster and these hosts, and all else as it is if nobody says otherwise.
    #[must_use]
    pub fn new(cluster: Cluster, gitlab: GitLab) -> Self {
        Self { cluster, gitlab, rollout: RolloutRules::default(), elastic: Elastic::default(), overlay: None }
    }
}

/// The creation of a cluster.
#[must_use]
pub fn create_definition(deps: Deps) -> Definition {
    let Deps { cluster, gitlab, rollout, elastic, overlay } = deps;
    let at = || cluster.clone();
    let steps: Vec<Arc<dyn Step>> = vec![
        Arc::new(starting::Starting { cluster: at(), gitlab: gitlab.clone(), elastic, overlay }),
        Arc::new(namespace_created::NamespaceCreated { cluster: at(), gone_within: rollout.namespace_grace }),
        Arc::new(gitlab_pulled::GitlabPulled { gitlab }),
        Arc::new(k8s_applied::K8sApplied { cluster: at() }),
        Arc::new(resources_configured::ResourcesConfigured { cluster: at() }),
        Arc::new(disk_configured::DiskConfigured { cluster: at() }),
        Arc::new(gpu_configured::GpuConfigured { cluster: at() }),
        Arc::new(rollout_completed::RolloutCompleted { cluster: at(), rules: rollout }),
        Arc::new(tenant_synced::TenantSynced),
        Arc::new(completed::Completed { cluster: at() }),
    ];
    Definition::new(NAME, VERSION, Effect::Create, steps, Arc::new(Left { cluster }))
}

/// What a rollback left behind: everything in the cluster that bears the workflow's mark.
struct Left {
    cluster: Cluster,
}

#[async_trait]
impl Residue for Left {
    async fn look(&self, cx: &StepContext) -> Result<Vec<String>, StepError> {
        let input: Input = cx.input()?;
        let mark = input.origin.as_ref().map_or_else(|| cx.workflow().to_string(), |origin| origin.mark.clone());
        // What was there before is not what this creation has left.
        let kept = input.origin.map(|origin| origin.made).unwrap_or_default();
        self.cluster.left(input.request.namespace.as_str(), &mark, &kept).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
