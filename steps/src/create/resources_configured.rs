//! Step 5, `resources_configured`: CPU and memory, the heap, and what the cluster is meant for.
//!
//! Both workloads are still at 0 replicas, so this restarts nobody. Taken back with step 4.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::{Objects, Plan};
use crate::cluster::Cluster;
use crate::quantity::Quantity;
use crate::render::{Kind, Object, Through};
use crate::vectors::{VectorSizing, heap_bytes};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "resources_configured";

pub(super) struct ResourcesConfigured {
    pub(super) cluster: Cluster,
}

/// The values as they are in force (S25).
#[derive(Serialize)]
struct Configured {
    replicas: u32,
    cpu_request: Quantity,
    cpu_limit: Quantity,
    mem_request: Quantity,
    mem_limit: Quantity,
    heap_bytes: u64,
    dimension: u32,
    vector_count: u64,
    vectors: VectorSizing,
    #[serde(flatten)]
    made: Objects,
}

#[async_trait]
impl Step for ResourcesConfigured {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        let applied = plan.apply(cx, &self.cluster, &objects(&plan)).await?;
        output(&plan, applied)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let plan = Plan::of(cx)?;
        plan.probe_changed(cx, &self.cluster, &objects(&plan), |there| output(&plan, there)).await
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("goes with what k8s_applied made".to_owned())
    }
}

fn objects(plan: &Plan) -> Vec<Object> {
    plan.objects(Through::ResourcesConfigured, &[Kind::StatefulSet, Kind::Deployment])
}

fn output(plan: &Plan, applied: Objects) -> Result<Output, StepError> {
    let request = &plan.request;
    let message = format!(
        "{} x cpu {} to {}, memory {} to {}",
        request.replicas, request.cpu_request, request.cpu_limit, request.mem_request, request.mem_limit
    );
    let configured = Configured {
        replicas: request.replicas,
        cpu_request: request.cpu_request.clone(),
        cpu_limit: request.cpu_limit.clone(),
        mem_request: request.mem_request.clone(),
        mem_limit: request.mem_limit.clone(),
        heap_bytes: heap_bytes(request.mem_limit.as_bytes()),
        dimension: request.dimension,
        vector_count: request.vector_count,
        vectors: VectorSizing::of(request),
        made: applied,
    };
    Ok(Output::new(message, &configured)?)
}
