//! Step 1, `update_started`: holds the change against the live cluster before anything is changed.
//!
//! Reads only. What cannot work out is said here: a disk whose class does not let it grow, a node that somebody has added.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;
use serde_json::Value;

use super::{Beginning, Change, Disk, replicas_of};
use crate::cluster::claims::wish;
use crate::cluster::{Cluster, Found, Made, made};
use crate::create::gpus;
use crate::names;
use crate::render::Kind;
use crate::request::Request;
use crate::vectors::VectorSizing;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "update_started";

pub(super) struct UpdateStarted {
    pub(super) cluster: Cluster,
}

/// What is to change, and what was found out.
#[derive(Serialize)]
struct Started {
    request: Request,
    changes: Vec<FieldChange>,
    warnings: Vec<String>,
    #[serde(flatten)]
    beginning: Beginning,
}

#[derive(Serialize)]
struct FieldChange {
    field: &'static str,
    from: Value,
    to: Value,
}

#[async_trait]
impl Step for UpdateStarted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let (mut beginning, warnings) = look(&self.cluster, &change).await?;
        beginning.was_ready = was_ready(&self.cluster, &change).await?;
        let request = change.after.request.clone();
        let changes: Vec<FieldChange> = change
            .before
            .request
            .changes(&request)
            .into_iter()
            .map(|(field, from, to)| FieldChange { field, from, to })
            .collect();
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let named: Vec<String> = changes
            .iter()
            .map(|change| format!("{} from {} to {}", change.field, plain(&change.from), plain(&change.to)))
            .collect();
        let mut message =
            if named.is_empty() { "everything as it was, applied again".to_owned() } else { named.join(", ") };
        for warning in &warnings {
            message.push_str("; warning: ");
            message.push_str(warning);
        }
        Ok(Output::new(message, &Started { request, changes, warnings, beginning })?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was changed".to_owned())
    }
}

/// Holds the change against the live cluster: what is there, save whether it is ready, and what there is to warn of.
///
/// # Errors
/// [`StepError`]: permanent if it cannot work out, with the way out; else by the table of [`crate::cluster::errors`].
pub(super) async fn look(cluster: &Cluster, change: &Change) -> Result<(Beginning, Vec<String>), StepError> {
    let replicas = set_is_ours(cluster, change).await?;
    let (disks, later_claims) = disks(cluster, change).await?;
    let request = &change.after.request;
    let mut warnings = VectorSizing::of(request).warnings(request);
    if request.gpu_count > change.before.request.gpu_count {
        warnings.extend(gpus(cluster, request).await?);
    }
    Ok((Beginning { disks, later_claims: Some(later_claims), replicas, was_ready: false }, warnings))
}

/// The nodes that the set is to have, which is ours, and which the change takes none from.
async fn set_is_ours(cluster: &Cluster, change: &Change) -> Result<u32, StepError> {
    let set = format!("StatefulSet/{}", names::STATEFUL_SET);
    let refused = |why: String| Err(StepError::permanent(format!("{set} {why}")));
    let namespace = Some(change.namespace());
    match cluster.find(Kind::StatefulSet, namespace, names::STATEFUL_SET, change.mark()).await? {
        Found::Nothing => {
            refused("is gone: somebody deleted it; delete the cluster, with keep_data if its disks are there, and create it anew".to_owned())
        }
        Found::Foreign(whose) => refused(format!("{whose}, and is not changed")),
        Found::Ours(found) if found.metadata.deletion_timestamp.is_some() => {
            refused("is being deleted by somebody".to_owned())
        }
        Found::Ours(found) => {
            let live = replicas_of(&found);
            change.refuse_fewer_than(live)?;
            Ok(live)
        }
    }
}

/// Whether the workloads that change are ready before anything does.
async fn was_ready(cluster: &Cluster, change: &Change) -> Result<bool, StepError> {
    let (_, before) = change.workloads();
    let mut there = Vec::new();
    for object in &before {
        match cluster.find(object.kind, object.namespace.as_deref(), &object.name, change.mark()).await? {
            Found::Ours(found) => there.push(made(object, &found)?),
            Found::Nothing | Found::Foreign(_) => return Ok(false),
        }
    }
    Ok(cluster.is_rolled_out(change.namespace(), &there).await?.is_some())
}

/// The claims that are there, each of which may become as large as is wanted; and which of them are of nodes that are only now
/// asked for.
async fn disks(cluster: &Cluster, change: &Change) -> Result<(Vec<Disk>, Vec<Made>), StepError> {
    let wanted = &change.after.request.disk_size;
    let old: Vec<String> = change.old_claims().into_iter().map(|claim| claim.name).collect();
    let (mut disks, mut later) = (Vec::new(), Vec::new());
    for claim in change.claims(|_| true) {
        let found = cluster.find(claim.kind, claim.namespace.as_deref(), &claim.name, change.mark()).await?;
        let is_old = old.contains(&claim.name);
        let must_be_there = is_old && change.grows_disks();
        let found = match found {
            Found::Ours(found) => found,
            Found::Nothing if must_be_there => {
                return Err(StepError::permanent(format!(
                    "{claim} is gone: it comes back with its node; change it then"
                )));
            }
            Found::Foreign(whose) if must_be_there => {
                return Err(StepError::permanent(format!("{claim} {whose}, and is not changed")));
            }
            Found::Nothing | Found::Foreign(_) => continue,
        };
        if !is_old {
            later.push(made(&claim, &found)?);
        }
        let Some(size) = wish(&found) else { continue };
        if size > *wanted && change.grows_disks() {
            return Err(StepError::permanent(format!(
                "{claim} has {size}, and a disk cannot be made smaller: ask for at least that as disk_size"
            )));
        }
        // One that waits for its first node is bound by the time that it has to grow.
        let grows_now = if is_old { change.grows_disks() } else { found.data["status"]["phase"] == "Bound" };
        if size < *wanted && grows_now {
            cluster.may_grow(&found).await?;
        }
        disks.push(Disk { claim: claim.name, size });
    }
    Ok((disks, later))
}
