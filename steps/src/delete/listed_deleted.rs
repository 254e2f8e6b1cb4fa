//! Steps 3 to 5, `objects_deleted`, `claims_deleted`, `namespace_deleted`: delete what the first step has listed, and wait until it
//! is gone. One step three times over: they differ in the kinds that go, and in why there may be nothing to do.
//!
//! - The workloads go first, then what they stand on; with the claims goes the data, unless it is to be kept.
//! - The namespace goes last, if it is ours. What others have put there keeps it: nothing of theirs goes with it (I15). Finalizers
//!   are named while it is waited for, and never taken away (C7); after the deadline the deletion is parked, and goes on when it
//!   is retried.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};

use super::{Removal, patient};
use crate::cluster::{Cluster, Made};
use crate::render::Kind;

/// Everything but the data.
pub(super) const OBJECTS: Part = Part {
    name: "objects_deleted",
    // In the order in which they go: nothing loses what it stands on.
    kinds: &[
        Kind::Deployment,
        Kind::StatefulSet,
        Kind::PodDisruptionBudget,
        Kind::Service,
        Kind::ConfigMap,
        Kind::Secret,
    ],
    kept: None,
    absent: None,
};

/// The claims.
pub(super) const CLAIMS: Part = Part {
    name: "claims_deleted",
    kinds: &[Kind::PersistentVolumeClaim],
    kept: Some("keep_data was asked for"),
    absent: None,
};

/// The namespace.
pub(super) const NAMESPACE: Part = Part {
    name: "namespace_deleted",
    kinds: &[Kind::Namespace],
    kept: Some("keep_data was asked for, and the claims lie in it"),
    absent: Some("it is not there, or not ours"),
};

/// One of the three.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The step's name, and the status of its report.
    pub(super) name: &'static str,
    kinds: &'static [Kind],
    /// Why it is skipped where the data is kept; it is not, if nothing is said.
    kept: Option<&'static str>,
    /// Why it is skipped where nothing of it is listed.
    absent: Option<&'static str>,
}

pub(super) struct ListedDeleted {
    pub(super) cluster: Cluster,
    pub(super) part: Part,
}

#[async_trait]
impl Step for ListedDeleted {
    fn name(&self) -> StepName {
        self.part.name.into()
    }

    fn policy(&self) -> RetryPolicy {
        patient()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        if let Some(skipped) = self.skipped(&removal) {
            return Ok(skipped);
        }
        let all = self.listed(&removal);
        for namespace in all.iter().filter(|made| made.kind() == Some(Kind::Namespace)) {
            self.cluster.refuse_strangers(namespace, &removal.mark).await?;
        }
        removal.delete(cx, &self.cluster, &all).await?.output()
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let removal = Removal::of(cx)?;
        match self.skipped(&removal) {
            Some(output) => Ok(Probe::Applied { output }),
            None => removal.probe_gone(&self.cluster, &self.listed(&removal)).await,
        }
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let removal = Removal::of(cx)?;
        removal.refuse_taking_back(&self.cluster, &self.listed(&removal)).await
    }
}

impl ListedDeleted {
    fn listed(&self, removal: &Removal) -> Vec<Made> {
        removal.of_kinds(self.part.kinds)
    }

    fn skipped(&self, removal: &Removal) -> Option<Output> {
        let kept = self.part.kept.filter(|_| removal.keep_data);
        let absent = self.part.absent.filter(|_| self.listed(removal).is_empty());
        kept.or(absent).map(Output::skipped)
    }
}
