//! Step 6, `updated`: reads back what was changed and compares it with what was asked for.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use kube::api::DynamicObject;
use serde::Serialize;

use super::Change;
use crate::cluster::Cluster;
use crate::cluster::claims::wish;
use crate::create::plan::not_as_rendered;
use crate::render::{Kind, Object};
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
        let (mut objects, _) = change.changed();
        objects.extend(change.new_claims());
        if change.grows_disks() {
            objects.extend(change.old_claims());
        }
        let wanted = &change.after.request.disk_size;
        let differences = |object: &Object, found: &DynamicObject| match object.kind {
            // A disk may be larger than is asked for: an earlier change was ended by force, or somebody has made it so.
            Kind::PersistentVolumeClaim if wish(found).is_some_and(|size| size >= *wanted) => Vec::new(),
            Kind::PersistentVolumeClaim => vec![format!("{object} has less than {wanted}")],
            _ => not_as_rendered(object, found),
        };
        let (objects, wrong) = change.after.read_back(&self.cluster, &objects, differences).await?;
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
