//! Step 4, `k8s_applied`: the Services, the configuration, the credentials, the disruption budget, the StatefulSet and the Deployment, both at
//! 0 replicas.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};

use super::plan::{Objects, Plan, made_by_all};
use crate::cluster::Cluster;
use crate::render::{Kind, Object, Through};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "k8s_applied";

/// In the order in which they are needed: the headless Service before the set that names it (C4).
const KINDS: [Kind; 6] =
    [Kind::Service, Kind::ConfigMap, Kind::Secret, Kind::PodDisruptionBudget, Kind::StatefulSet, Kind::Deployment];

pub(super) struct K8sApplied {
    pub(super) cluster: Cluster,
}

#[async_trait]
impl Step for K8sApplied {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        output(plan.apply(cx, &self.cluster, &objects(&plan)).await?)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let plan = Plan::of(cx)?;
        plan.probe_made(&self.cluster, &objects(&plan), output).await
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        // Also what steps 5, 7 and 8 made anew, where somebody had deleted it.
        let mut made = made_by_all(cx);
        made.retain(|one| one.kind().is_some_and(|kind| KINDS.contains(&kind)));
        Plan::of(cx)?.take_back(cx, &self.cluster, &made).await
    }
}

fn objects(plan: &Plan) -> Vec<Object> {
    plan.objects(Through::K8sApplied, &KINDS)
}

fn output(applied: Objects) -> Result<Output, StepError> {
    Ok(Output::new(format!("applied {} objects", applied.objects.len()), &applied)?)
}
