//! Step 6, `deleted`: looks once more for everything that bears the mark. With this step's success the quota and the name are
//! free; with `keep_data`, all but the disks.
//!
//! What is kept is journaled as it is, and not as a request had it: a later creation goes by that.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::Removal;
use crate::cluster::gone::Marked;
use crate::cluster::{Cluster, Made};
use crate::input::KEPT;
use crate::kept::Kept;
use crate::names;
use crate::render::Kind;

/// The step's name, and the status of its report.
pub(crate) const NAME: &str = "deleted";

pub(super) struct Deleted {
    pub(super) cluster: Cluster,
}

/// What is left on purpose.
#[derive(Serialize)]
struct Whole {
    status: &'static str,
    kept: Vec<String>,
    /// The same with their UIDs, which are not always those that were made: what a later creation finds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    made: Vec<Made>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Kept>,
}

#[async_trait]
impl Step for Deleted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        let there = self.cluster.marked(&removal.namespace, &removal.mark).await?;
        refuse_lost_data(&removal, &there)?;
        let (kept, left): (Vec<Marked>, Vec<Marked>) = there.into_iter().partition(|one| is_kept(&removal, one));
        refuse_rest(&left)?;
        let data = Kept::of(&kept);
        let message = match (&data, kept.len()) {
            (_, 0) => "nothing is left".to_owned(),
            (None, kept) => format!("kept {kept} objects; nothing else is left"),
            (Some(Kept { claims, disk_size, .. }), kept) => {
                let claims = claims.len();
                format!("kept {kept} objects, of which {claims} claims of up to {disk_size}; nothing else is left")
            }
        };
        let name = |one: &Marked| format!("{}/{}", one.made.kind, one.made.name);
        let whole = Whole {
            status: "deleted",
            kept: kept.iter().map(name).collect(),
            made: kept.into_iter().map(|one| one.made).collect(),
            data,
        };
        Ok(Output::new(message, &whole)?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was deleted".to_owned())
    }
}

/// Whether this stays on purpose. A copy of a claim that was made meanwhile does not: no node would ever use it.
fn is_kept(removal: &Removal, one: &Marked) -> bool {
    let is_nobodys_disk =
        || one.made.kind() == Some(Kind::PersistentVolumeClaim) && names::claim_ordinal(&one.made.name).is_none();
    removal.keep_data && one.made.kind().is_some_and(|kind| KEPT.contains(&kind)) && !is_nobodys_disk()
}

/// Every object that was to be kept has to be there, and to stay: its loss is said now, and not by the creation that needs it.
fn refuse_lost_data(removal: &Removal, there: &[Marked]) -> Result<(), StepError> {
    let stays = |made: &Made| there.iter().any(|one| one.made == *made && !one.leaves);
    let lost: Vec<String> = removal
        .kept()
        .filter(|made| !stays(made))
        .map(|made| {
            let same_name = there.iter().find(|one| (&one.made.kind, &one.made.name) == (&made.kind, &made.name));
            let why = match same_name {
                None => "is gone",
                Some(one) if one.leaves => "is being deleted",
                Some(_) => "is another one by now",
            };
            format!("{}/{} {why}", made.kind, made.name)
        })
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(StepError::permanent(format!(
        "what was to be kept in namespace {} was deleted by somebody else: {}; end this deletion by force, then DELETE again: \
         with keep_data to keep what is there, without it to delete that too",
        removal.namespace,
        lost.join(", ")
    )))
}

fn refuse_rest(left: &[Marked]) -> Result<(), StepError> {
    if left.is_empty() {
        return Ok(());
    }
    let texts: Vec<&str> = left.iter().map(|one| one.text.as_str()).collect();
    let message = format!("still there: {}", texts.join(", "));
    if left.iter().all(|one| one.leaves) {
        return Err(StepError::transient(message));
    }
    // Made after the list was: nobody but a person knows whether it is to go as well.
    Err(StepError::permanent(format!("{message}; delete it, then retry")))
}
