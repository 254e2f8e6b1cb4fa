//! Step 2, `scaled_down`: scales both workloads to 0 and waits until their pods have ended, so that every node closes its data
//! in order. The only step of a deletion that can be taken back.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::{GONE_WITHIN, Removal, patient};
use crate::cluster::{Cluster, Found};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "scaled_down";

pub(super) struct ScaledDown {
    pub(super) cluster: Cluster,
}

/// What runs no more.
#[derive(Serialize)]
struct Down {
    workloads: Vec<String>,
}

#[async_trait]
impl Step for ScaledDown {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        patient()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        if removal.workloads().next().is_none() {
            return Ok(Output::skipped("nothing of it runs"));
        }
        for one in removal.workloads() {
            self.cluster.scale_to_none(&one.made, &removal.mark).await?;
        }
        cx.wait(self.cluster.wait_no_pods(&removal.namespace, GONE_WITHIN)).await??;
        output(&removal)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let removal = Removal::of(cx)?;
        if removal.workloads().next().is_none() {
            return Ok(Probe::Applied { output: Output::skipped("nothing of it runs") });
        }
        for one in removal.workloads() {
            let Some(kind) = one.made.kind() else { continue };
            let (namespace, name) = (one.made.namespace.as_deref(), &one.made.name);
            let found = self.cluster.find(kind, namespace, name, &removal.mark).await?;
            if let Found::Ours(found) = found
                && found.metadata.uid.as_deref() == Some(&one.made.uid)
                && found.data["spec"]["replicas"] != 0
            {
                return Ok(Probe::NotApplied);
            }
        }
        if self.cluster.has_pods(&removal.namespace).await? {
            return Ok(Probe::NotApplied);
        }
        Ok(Probe::Applied { output: output(&removal)? })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let removal = Removal::of(cx)?;
        let mut scaled = Vec::new();
        for one in removal.workloads() {
            let replicas = one.replicas.unwrap_or_default();
            if self.cluster.scale(&one.made, &removal.mark, replicas).await? {
                scaled.push(format!("{}/{} to {replicas}", one.made.kind, one.made.name));
            }
        }
        if scaled.is_empty() {
            return Ok("nothing was scaled down".to_owned());
        }
        Ok(format!("scaled {}", scaled.join(" and ")))
    }
}

fn output(removal: &Removal) -> Result<Output, StepError> {
    let workloads: Vec<String> =
        removal.workloads().map(|one| format!("{}/{}", one.made.kind, one.made.name)).collect();
    Ok(Output::new(format!("scaled {} to 0, and no pod is left", workloads.join(" and ")), &Down { workloads })?)
}
