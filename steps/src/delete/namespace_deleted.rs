//! Step 5, `namespace_deleted`: the namespace, if it is ours, and waits until it is gone.
//!
//! What others have put there keeps it: nothing of theirs goes with it (I15). Finalizers are named while it is waited for, and
//! never taken away (C7); after the deadline the deletion is parked, and goes on when it is retried.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};

use super::{Removal, patient};
use crate::cluster::{Cluster, Made};
use crate::render::Kind;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "namespace_deleted";

pub(super) struct NamespaceDeleted {
    pub(super) cluster: Cluster,
}

#[async_trait]
impl Step for NamespaceDeleted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        patient()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        if let Some(skipped) = skipped(&removal) {
            return Ok(skipped);
        }
        let namespaces = namespaces(&removal);
        for namespace in &namespaces {
            self.cluster.refuse_strangers(namespace, &removal.mark).await?;
        }
        removal.delete(cx, &self.cluster, &namespaces).await?.output()
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let removal = Removal::of(cx)?;
        match skipped(&removal) {
            Some(output) => Ok(Probe::Applied { output }),
            None => removal.probe_gone(&self.cluster, &namespaces(&removal)).await,
        }
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let removal = Removal::of(cx)?;
        removal.refuse_taking_back(&self.cluster, &namespaces(&removal)).await
    }
}

fn namespaces(removal: &Removal) -> Vec<Made> {
    removal.of_kinds(&[Kind::Namespace])
}

fn skipped(removal: &Removal) -> Option<Output> {
    if removal.keep_data {
        return Some(Output::skipped("keep_data was asked for, and the claims lie in it"));
    }
    namespaces(removal).is_empty().then(|| Output::skipped("it is not there, or not ours"))
}
