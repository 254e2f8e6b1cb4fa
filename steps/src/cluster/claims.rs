//! Claims that grow: what may, what does, and what never will (C5).

use std::time::Duration;

use cairn_engine::StepError;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use tokio::time::Instant;

use super::errors::{Asked, step_error};
use super::{Cluster, Made};
use crate::quantity::Quantity;
use crate::render::Kind;

/// How often a claim that grows is looked at. There is no watch for claims: growing takes a minute, and happens once in a while.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The size that is asked for.
#[must_use]
pub fn wish(claim: &DynamicObject) -> Option<Quantity> {
    claim.data["spec"]["resources"]["requests"]["storage"].as_str()?.parse().ok()
}

/// The size that is there.
#[must_use]
pub fn capacity(claim: &DynamicObject) -> Option<Quantity> {
    claim.data["status"]["capacity"]["storage"].as_str()?.parse().ok()
}

/// How far the growth of one claim is.
#[derive(Debug, PartialEq, Eq)]
enum Growth {
    Done,
    Waiting(String),
    Never(String),
}

impl Cluster {
    /// Whether this claim may be made larger.
    ///
    /// # Errors
    /// [`StepError`]: permanent if it may not, with the reason; else by the table of [`super::errors`].
    pub async fn may_grow(&self, claim: &DynamicObject) -> Result<(), StepError> {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let refused = |why: String| Err(StepError::permanent(format!("claim {name} cannot grow: {why}")));
        if claim.data["status"]["phase"] != "Bound" {
            return refused("it is not bound to a volume yet; wait until its node has started".to_owned());
        }
        let Some(class) = claim.data["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty()) else {
            return refused("it has no StorageClass, so nobody could make its volume larger".to_owned());
        };
        // Listed, as the first step of a creation lists them: it takes no further right.
        let api: Api<StorageClass> = Api::all(self.client.clone());
        let classes = api.list(&ListParams::default()).await;
        let classes = classes.map_err(|error| step_error(Asked::Read, "list the storage classes", &error))?;
        let found = classes.items.into_iter().find(|found| found.metadata.name.as_deref() == Some(class));
        match found {
            Some(found) if found.allow_volume_expansion == Some(true) => Ok(()),
            Some(found) => {
                let allows =
                    found.allow_volume_expansion.map_or_else(|| "unset".to_owned(), |allows| allows.to_string());
                let class_is = format!("StorageClass/{class} has allowVolumeExpansion {allows}");
                let claim_has = wish(claim).map(|size| format!("claim {name} has {size}"));
                let why = format!(
                    "its StorageClass {class} does not allow it: the operator sets allowVolumeExpansion, if its provisioner can \
                     do it"
                );
                refused(why).map_err(|error| error.with_evidence([Some(class_is), claim_has].into_iter().flatten()))
            }
            None => refused(format!("its StorageClass {class} is gone")),
        }
    }

    /// Waits until each of these claims has at least this size, for at most `limit`.
    ///
    /// # Errors
    /// [`StepError`]: permanent if one of them never will, or is gone; transient, with what is waited for, at the end.
    pub async fn wait_grown(&self, claims: &[Made], size: &Quantity, limit: Duration) -> Result<(), StepError> {
        let until = Instant::now() + limit;
        loop {
            let mut waits = Vec::new();
            for made in claims {
                let claim = self.read(Kind::PersistentVolumeClaim, made.namespace.as_deref(), &made.name).await?;
                let claim = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(&made.uid));
                match claim.as_ref().map(|claim| growth(claim, size)) {
                    Some(Growth::Done) => {}
                    Some(Growth::Waiting(what)) => waits.push(what),
                    Some(Growth::Never(why)) => return Err(StepError::permanent(why)),
                    None => {
                        return Err(StepError::permanent(format!("claim {} was deleted by somebody else", made.name)));
                    }
                }
            }
            if waits.is_empty() {
                return Ok(());
            }
            if Instant::now() + LOOK_EVERY > until {
                return Err(StepError::transient(format!("the disks still grow: {}", waits.join("; "))));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn growth(claim: &DynamicObject, size: &Quantity) -> Growth {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let status = &claim.data["status"];
    let resize = status["allocatedResourceStatuses"]["storage"].as_str().unwrap_or_default();
    if matches!(resize, "ControllerResizeInfeasible" | "NodeResizeInfeasible") {
        return Growth::Never(format!("claim {name} cannot grow to {size}: {resize}; ask the operator of the storage"));
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let pending: Vec<String> = conditions
        .filter(|condition| condition["status"] == "True")
        .map(|condition| {
            let kind = condition["type"].as_str().unwrap_or_default();
            let said = condition["message"].as_str().unwrap_or_default();
            if said.is_empty() { kind.to_owned() } else { format!("{kind}: {said}") }
        })
        .collect();
    let there = capacity(claim);
    if there.as_ref().is_some_and(|there| there >= size) && pending.is_empty() {
        return Growth::Done;
    }
    let there = there.map_or_else(|| "nothing".to_owned(), |there| there.to_string());
    let why = if pending.is_empty() { String::new() } else { format!(" ({})", pending.join("; ")) };
    Growth::Waiting(format!("claim {name} has {there} of {size}{why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: Value) -> Growth {
        let claim = json!({"metadata": {"name": "a"}, "spec": {}, "status": status});
        growth(&serde_json::from_value(claim).expect("a claim"), &"20Gi".parse().expect("a size"))
    }

    #[test]
    fn a_claim_has_grown_once_its_capacity_is_there_and_nothing_is_pending() {
        assert_eq!(judged(json!({"capacity": {"storage": "20480Mi"}})), Growth::Done);
        assert_eq!(judged(json!({"capacity": {"storage": "21Gi"}})), Growth::Done);
        let pending = json!([{"type": "FileSystemResizePending", "status": "True", "message": "a pod"}]);
        assert_eq!(
            judged(json!({"capacity": {"storage": "20Gi"}, "conditions": pending})),
            Growth::Waiting("claim a has 20Gi of 20Gi (FileSystemResizePending: a pod)".to_owned())
        );
        assert_eq!(
            judged(json!({"capacity": {"storage": "10Gi"}})),
            Growth::Waiting("claim a has 10Gi of 20Gi".to_owned())
        );
    }

    #[test]
    fn a_claim_that_will_never_grow_is_not_waited_for() {
        for state in ["ControllerResizeInfeasible", "NodeResizeInfeasible"] {
            let status = json!({"capacity": {"storage": "10Gi"}, "allocatedResourceStatuses": {"storage": state}});
            assert!(matches!(judged(status), Growth::Never(why) if why.contains(state)), "{state}");
        }
    }
}
