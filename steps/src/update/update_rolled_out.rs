//! Step 4, `update_rolled_out`: waits until what was applied is rolled out (C1), with an eye on what cannot work out (C8).

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::Change;
use crate::cluster::Cluster;
use crate::cluster::health::Health;
use crate::cluster::rollout::{RolledOut, RolloutRules};
use crate::create::plan::Seen;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "update_rolled_out";

pub(super) struct UpdateRolledOut {
    pub(super) cluster: Cluster,
    pub(super) rules: RolloutRules,
}

/// The ready status.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    workloads: Vec<RolledOut>,
    /// What Elasticsearch itself says, or why it could not be asked.
    health: Health,
}

#[async_trait]
impl Step for UpdateRolledOut {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        self.rules.policy()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let (workloads, _) = change.workloads();
        if workloads.is_empty() {
            return Ok(skipped());
        }
        // This applies them again, and somebody may have added nodes since.
        change.refuse_fewer_than(change.live_replicas(&self.cluster).await?)?;
        let (workloads, _) = change.after.roll_out(cx, &self.cluster, &workloads, &self.rules).await?;
        // "Ready" is not "formed": once, and whatever it says, for the pods are as they should be.
        let health = cx.wait(self.cluster.health(change.namespace())).await?;
        output(workloads, health)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let change = Change::of(cx)?;
        let (workloads, _) = change.workloads();
        if workloads.is_empty() {
            return Ok(Probe::Applied { output: skipped() });
        }
        let there = match change.after.look(&self.cluster, &workloads).await? {
            Seen::All(there) => there,
            Seen::Some(_) | Seen::None => return Ok(Probe::NotApplied),
            Seen::Foreign(detail) => return Ok(Probe::Foreign { detail }),
        };
        Ok(match self.cluster.is_rolled_out(change.namespace(), &there.made).await? {
            Some(workloads) => {
                let health = self.cluster.health(change.namespace()).await;
                Probe::Applied { output: output(workloads, health)? }
            }
            None => Probe::NotApplied,
        })
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("goes back with what update_applied changed".to_owned())
    }
}

fn skipped() -> Output {
    Output::skipped("no pod changes")
}

fn output(workloads: Vec<RolledOut>, health: Health) -> Result<Output, StepError> {
    let ready: Vec<String> =
        workloads.iter().map(|one| format!("{} {}/{}", one.workload, one.ready, one.replicas)).collect();
    let message = format!("ready: {}{}", ready.join(", "), health.in_report());
    Ok(Output::new(message, &Ready { ready: true, workloads, health })?)
}
