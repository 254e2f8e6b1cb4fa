//! Step 3, `objects_deleted`: everything but the data: the workloads first, then what they need.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};

use super::{Removal, patient};
use crate::cluster::{Cluster, Made};
use crate::render::Kind;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "objects_deleted";

/// In the order in which they go: nothing loses what it stands on.
const KINDS: [Kind; 6] =
    [Kind::Deployment, Kind::StatefulSet, Kind::PodDisruptionBudget, Kind::Service, Kind::ConfigMap, Kind::Secret];

pub(super) struct ObjectsDeleted {
    pub(super) cluster: Cluster,
}

#[async_trait]
impl Step for ObjectsDeleted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        patient()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        removal.delete(cx, &self.cluster, &objects(&removal)).await?.output()
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let removal = Removal::of(cx)?;
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
