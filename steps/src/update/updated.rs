//! Step 6, `updated`: reads back what was changed and compares it with what was asked for.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::Change;
use crate::cluster::claims::wish;
use crate::cluster::{Cluster, Found, compare};
use crate::render::Kind;
use crate::request::Request;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "updated";

pub(super) struct Updated {
    pub(super) cluster: Cluster,
}

/// The final status and the complete configuration.
#[derive(Serialize)]
struct Whole {
    status: &'static str,
    request: Request,
    objects: Vec<String>,
}

#[async_trait]
impl Step for Updated {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let mut objects = Vec::new();
        let mut wrong = Vec::new();
        let (mut all, _) = change.changed();
        all.extend(change.new_claims());
        if change.grows_disks() {
            all.extend(change.old_claims());
        }
        for object in all {
            let found =
                self.cluster.find(object.kind, object.namespace.as_deref(), &object.name, change.mark()).await?;
            match found {
                Found::Nothing => wrong.push(format!("{object} is gone")),
                Found::Foreign(whose) => wrong.push(format!("{object} {whose}")),
                // A disk may be larger than is asked for: an earlier change was ended by force, or somebody has made it so.
                Found::Ours(found) if object.kind == Kind::PersistentVolumeClaim => {
                    let wanted = &change.after.request.disk_size;
                    if wish(&found).is_none_or(|size| size < *wanted) {
                        wrong.push(format!("{object} has less than {wanted}"));
                    }
                }
                Found::Ours(found) => {
                    let live = serde_json::to_value(&found).unwrap_or_default();
                    let differences = compare::differences(&object.body, &live);
                    wrong.extend(differences.into_iter().map(|difference| format!("{object}: {difference}")));
                }
            }
            objects.push(object.to_string());
        }
        if !wrong.is_empty() {
            let message =
                format!("what is in the cluster is not what was asked for: {} things are different", wrong.len());
            return Err(StepError::permanent(message).with_evidence(wrong));
        }
        let request = change.after.request;
        let message = format!("{}/{} is as asked for", request.user, request.service_name);
        Ok(Output::new(message, &Whole { status: "created", request, objects })?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was changed".to_owned())
    }
}
