//! Step 6, `disk_configured`: makes the claims for the nodes' disks, every ordinal of them (S27).
//!
//! A claim of ours that is there already is grown, if it is smaller and its class allows it; it is never made smaller (C5).

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::{Objects, Plan, made_by_this_step};
use crate::cluster::{Cluster, Found};
use crate::quantity::Quantity;
use crate::render::{Kind, Object, Through};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "disk_configured";

/// What the report calls them.
const CLAIMS: &str = "claims";

pub(super) struct DiskConfigured {
    pub(super) cluster: Cluster,
}

/// The size, and the claims that have it (S28).
#[derive(Serialize)]
struct Configured {
    disk_size: Quantity,
    claims: Vec<String>,
    #[serde(flatten)]
    made: Objects,
}

#[async_trait]
impl Step for DiskConfigured {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        let claims = objects(&plan);
        for claim in &claims {
            self.refuse_shrinking(&plan, claim).await?;
        }
        output(&plan, plan.apply(cx, &self.cluster, &claims).await?, CLAIMS)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let plan = Plan::of(cx)?;
        plan.probe_made(&self.cluster, &objects(&plan), |there| output(&plan, there, CLAIMS)).await
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        Plan::of(cx)?.take_back(cx, &self.cluster, &made_by_this_step(cx)).await
    }
}

impl DiskConfigured {
    async fn refuse_shrinking(&self, plan: &Plan, claim: &Object) -> Result<(), StepError> {
        let found = self.cluster.find(claim.kind, claim.namespace.as_deref(), &claim.name, &plan.workflow).await?;
        let Found::Ours(found) = found else { return Ok(()) };
        let size = found.data["spec"]["resources"]["requests"]["storage"]
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok());
        match size {
            Some(size) if size > plan.request.disk_size => Err(StepError::permanent(format!(
                "{claim} has {size}, and a disk cannot be made smaller: ask for at least that as disk_size"
            ))),
            _ => Ok(()),
        }
    }
}

fn objects(plan: &Plan) -> Vec<Object> {
    plan.objects(Through::DiskConfigured, &[Kind::PersistentVolumeClaim])
}

/// The output of a step that has made these claims.
pub(crate) fn output(plan: &Plan, made: Objects, called: &str) -> Result<Output, StepError> {
    let disk_size = plan.request.disk_size.clone();
    let claims: Vec<String> = made.made.iter().map(|claim| claim.name.clone()).collect();
    let message = format!("{} {called} of {disk_size}", claims.len());
    Ok(Output::new(message, &Configured { disk_size, claims, made })?)
}
