//! Step 4, `claims_deleted`: the claims, and with them the data, unless it is to be kept.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};

use super::{Removal, patient};
use crate::cluster::{Cluster, Made};
use crate::render::Kind;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "claims_deleted";

const KINDS: [Kind; 1] = [Kind::PersistentVolumeClaim];

pub(super) struct ClaimsDeleted {
    pub(super) cluster: Cluster,
}

#[async_trait]
impl Step for ClaimsDeleted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        patient()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        if removal.keep_data {
            return Ok(skipped());
        }
        removal.delete(cx, &self.cluster, &objects(&removal)).await?.output()
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let removal = Removal::of(cx)?;
        if removal.keep_data {
            return Ok(Probe::Applied { output: skipped() });
        }
        removal.probe_gone(&self.cluster, &objects(&removal)).await
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let removal = Removal::of(cx)?;
        removal.refuse_taking_back(&self.cluster, &objects(&removal)).await
    }
}

fn objects(removal: &Removal) -> Vec<Made> {
    removal.of_kinds(&KINDS)
}

fn skipped() -> Output {
    Output::skipped("keep_data was asked for")
}
