//! Step 8, `rollout_completed`: scales both workloads up and waits until they are rolled out.
//!
//! Once they are, the nodes have formed a cluster (their readiness port opens only then), and the bootstrap list is taken out
//! of the configuration: a node that comes back to an empty disk must join, and not found a second cluster (C10).

use std::time::Duration;

use async_trait::async_trait;
use cairn_engine::{ErrorClass, Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::{Objects, Plan, Seen, made_anew, made_by_all};
use crate::cluster::health::Health;
use crate::cluster::rollout::{RolledOut, RolloutRules};
use crate::cluster::{Cluster, Made};
use crate::names;
use crate::render::{Kind, Object, Through};

/// The step's name, and the status of its report.
pub(crate) const NAME: &str = "rollout_completed";

/// How long the compensation waits for the pods to stop: less than its attempt may take, and longer than most of them need.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct RolloutCompleted {
    pub(super) cluster: Cluster,
    pub(super) rules: RolloutRules,
}

/// The ready status (S33).
#[derive(Serialize)]
struct Ready {
    ready: bool,
    workloads: Vec<RolledOut>,
    /// What Elasticsearch itself says, or why it could not be asked.
    health: Health,
    #[serde(flatten)]
    made: Objects,
}

#[async_trait]
impl Step for RolloutCompleted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        self.rules.policy()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        let workloads = workloads(&plan, Through::RolloutCompleted);
        let (workloads, mut applied) = plan.roll_out(cx, &self.cluster, &workloads, &self.rules).await?;
        for one in plan.apply(cx, &self.cluster, &formed(&plan)).await?.made {
            applied.push(one);
        }
        // "Ready" is not "formed": once, and whatever it says, for the pods are as they should be.
        let health = cx.wait(self.cluster.health(plan.namespace())).await?;
        output(workloads, health, applied)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let plan = Plan::of(cx)?;
        let mut objects = workloads(&plan, Through::RolloutCompleted);
        objects.extend(formed(&plan));
        let there = match plan.look(&self.cluster, &objects).await? {
            Seen::All(there) => there,
            Seen::Some(there) => return made_anew(cx, there),
            Seen::None => return Ok(Probe::NotApplied),
            Seen::Foreign(detail) => return Ok(Probe::Foreign { detail }),
        };
        let is_workload = |made: &&Made| made.kind() != Some(Kind::ConfigMap);
        let workloads: Vec<Made> = there.made.iter().filter(is_workload).cloned().collect();
        match self.cluster.is_rolled_out(plan.namespace(), &workloads).await? {
            Some(workloads) => {
                let health = self.cluster.health(plan.namespace()).await;
                Ok(Probe::Applied { output: output(workloads, health, there)? })
            }
            None => made_anew(cx, there),
        }
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let plan = Plan::of(cx)?;
        let ours_to_delete = plan.owns_namespace(cx, &self.cluster).await?;
        let (mut scaled, mut refused) = (Vec::new(), Vec::new());
        for one in workloads_made(cx) {
            match self.cluster.scale_to_none(&one, &plan.workflow).await {
                Ok(true) => scaled.push(format!("{}/{}", one.kind, one.name)),
                Ok(false) => {}
                // It goes all the same, with the namespace or with what k8s_applied made: a refusal here must not keep the
                // rollback from getting there.
                Err(error) if ours_to_delete || error.failure.class == ErrorClass::Permanent => {
                    refused.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        // A namespace's controller that has found pods may look again only after half of their grace (C15), which is 180 s: let
        // them stop first. It goes on without them: they go with what made them.
        let stopped = match scaled.is_empty() {
            true => true,
            false => cx.wait(self.cluster.wait_no_pods(plan.namespace(), STOPPED_WITHIN)).await?.is_ok(),
        };
        let mut message = match scaled.is_empty() {
            true if refused.is_empty() => "nothing was running".to_owned(),
            true => "scaled nothing to 0".to_owned(),
            false => format!("scaled {} to 0", scaled.join(" and ")),
        };
        if !stopped {
            message.push_str("; pods are still stopping");
        }
        if !refused.is_empty() {
            let deleted_with = if ours_to_delete { "the namespace" } else { "what k8s_applied made" };
            message.push_str(&format!("; goes with {deleted_with}: {}", refused.join("; ")));
        }
        Ok(message)
    }
}

fn workloads(plan: &Plan, through: Through) -> Vec<Object> {
    plan.objects(through, &[Kind::StatefulSet, Kind::Deployment])
}

fn formed(plan: &Plan) -> Vec<Object> {
    plan.objects(Through::Formed, &[Kind::ConfigMap])
}

/// The workloads that this workflow is on record as having made: each once.
fn workloads_made(cx: &StepContext) -> Vec<Made> {
    let mut workloads = made_by_all(cx);
    workloads.retain(|made| matches!(made.kind(), Some(Kind::StatefulSet | Kind::Deployment)));
    workloads
}

fn output(workloads: Vec<RolledOut>, health: Health, made: Objects) -> Result<Output, StepError> {
    let ready = |name: &str| {
        workloads.iter().find(|one| one.workload.ends_with(name)).map_or((0, 0), |one| (one.ready, one.replicas))
    };
    let (nodes, kibana) = (ready(names::STATEFUL_SET), ready(names::KIBANA));
    let said = health.in_report();
    let message = format!("ready: elasticsearch {}/{}, kibana {}/{}{said}", nodes.0, nodes.1, kibana.0, kibana.1);
    Ok(Output::new(message, &Ready { ready: true, workloads, health, made })?)
}
