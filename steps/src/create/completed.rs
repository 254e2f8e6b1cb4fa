//! Step 10, `completed`: reads everything back and compares it with the request.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::{Plan, endpoints, not_as_rendered};
use crate::cluster::Cluster;
use crate::render::{Kind, Through};
use crate::request::Request;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "completed";

pub(super) struct Completed {
    pub(super) cluster: Cluster,
}

/// The final status and the complete configuration (S36).
#[derive(Serialize)]
struct Whole {
    status: &'static str,
    request: Request,
    elasticsearch: String,
    kibana: String,
    objects: Vec<String>,
}

#[async_trait]
impl Step for Completed {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        let objects = plan.objects(Through::Formed, &Kind::ALL);
        let (objects, wrong) = plan.read_back(&self.cluster, &objects, not_as_rendered).await?;
        if !wrong.is_empty() {
            let message =
                format!("what is in the cluster is not what was asked for: somebody changed {} things", wrong.len());
            return Err(StepError::permanent(message).with_evidence(wrong));
        }
        let (elasticsearch, kibana) = endpoints(plan.namespace());
        let message = format!("{}/{} is there: {elasticsearch}", plan.request.user, plan.request.service_name);
        Ok(Output::new(message, &Whole { status: "created", request: plan.request, elasticsearch, kibana, objects })?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was made".to_owned())
    }
}
