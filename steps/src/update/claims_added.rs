//! Step 2, `claims_added`: the claims of the nodes that are to come, of the size that is asked for now: the claim template keeps
//! the size that it was made with (C4).

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};

use super::Change;
use crate::cluster::{Cluster, Found, made};
use crate::create::disk_configured;
use crate::create::plan::{Objects, made_by_this_step};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "claims_added";

pub(super) struct ClaimsAdded {
    pub(super) cluster: Cluster,
}

#[async_trait]
impl Step for ClaimsAdded {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let claims = change.new_claims();
        if claims.is_empty() {
            return Ok(skipped());
        }
        let mut all = Objects::default();
        for claim in &claims {
            // One that is there already is as it is; what it lacks in size it gets once its node has started.
            let found = self.cluster.find(claim.kind, claim.namespace.as_deref(), &claim.name, change.mark()).await?;
            match found {
                Found::Ours(found) if found.metadata.deletion_timestamp.is_none() => all.push(made(claim, &found)?),
                _ => {
                    let applied = change.after.apply(cx, &self.cluster, std::slice::from_ref(claim)).await?;
                    applied.made.into_iter().for_each(|one| all.push(one));
                }
            }
        }
        output(&change, all)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let change = Change::of(cx)?;
        let claims = change.new_claims();
        if claims.is_empty() {
            return Ok(Probe::Applied { output: skipped() });
        }
        change.after.probe_made(&self.cluster, &claims, |there| output(&change, there)).await
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        // Its nodes are gone by now, or have never started: else the compensation before this one would not have ended.
        Change::of(cx)?.after.take_back(cx, &self.cluster, &made_by_this_step(cx)).await
    }
}

fn skipped() -> Output {
    Output::skipped("no node is added")
}

fn output(change: &Change, made: Objects) -> Result<Output, StepError> {
    disk_configured::output(&change.after, made, "more claims")
}
