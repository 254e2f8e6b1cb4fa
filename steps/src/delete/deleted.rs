//! Step 6, `deleted`: looks once more for everything that bears the mark. With this step's success the quota and the name are
//! free; with `keep_data`, all but the disks.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::Removal;
use crate::cluster::Cluster;
use crate::input::KEPT;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "deleted";

pub(super) struct Deleted {
    pub(super) cluster: Cluster,
}

/// What is left on purpose.
#[derive(Serialize)]
struct Whole {
    status: &'static str,
    kept: Vec<String>,
}

#[async_trait]
impl Step for Deleted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        let (mut kept, mut left) = (Vec::new(), Vec::new());
        let mut all_leave = true;
        for marked in self.cluster.marked(&removal.namespace, &removal.mark).await? {
            if removal.keep_data && marked.made.kind().is_some_and(|kind| KEPT.contains(&kind)) {
                kept.push(format!("{}/{}", marked.made.kind, marked.made.name));
            } else {
                all_leave &= marked.leaves;
                left.push(marked.text);
            }
        }
        if !left.is_empty() {
            let message = format!("still there: {}", left.join(", "));
            // Made after the list was: nobody but a person knows whether it is to go as well.
            let way_out = "; delete it, then retry";
            return Err(if all_leave {
                StepError::transient(message)
            } else {
                StepError::permanent(format!("{message}{way_out}"))
            });
        }
        let message = match kept.len() {
            0 => "nothing is left".to_owned(),
            kept => format!("kept {kept} objects; nothing else is left"),
        };
        Ok(Output::new(message, &Whole { status: "deleted", kept })?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was deleted".to_owned())
    }
}
