//! Step 7, `gpu_configured`: the GPUs, if any are asked for. Taken back with step 4.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::{Objects, Plan};
use crate::cluster::Cluster;
use crate::render::{Kind, Object, Through};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "gpu_configured";

pub(super) struct GpuConfigured {
    pub(super) cluster: Cluster,
}

/// The GPUs of each node (S30).
#[derive(Serialize)]
struct Configured {
    gpu_count: u32,
    #[serde(flatten)]
    made: Objects,
}

#[async_trait]
impl Step for GpuConfigured {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        if plan.request.gpu_count == 0 {
            return Ok(skipped());
        }
        output(&plan, plan.apply(cx, &self.cluster, &objects(&plan)).await?)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let plan = Plan::of(cx)?;
        if plan.request.gpu_count == 0 {
            return Ok(Probe::Applied { output: skipped() });
        }
        plan.probe_changed(cx, &self.cluster, &objects(&plan), |there| output(&plan, there)).await
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("goes with what k8s_applied made".to_owned())
    }
}

fn skipped() -> Output {
    Output::skipped("gpu_count is 0")
}

fn objects(plan: &Plan) -> Vec<Object> {
    plan.objects(Through::GpuConfigured, &[Kind::StatefulSet])
}

fn output(plan: &Plan, applied: Objects) -> Result<Output, StepError> {
    let gpu_count = plan.request.gpu_count;
    Ok(Output::new(format!("{gpu_count} GPUs for each node"), &Configured { gpu_count, made: applied })?)
}
