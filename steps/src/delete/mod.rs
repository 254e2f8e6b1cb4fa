//! The deletion of a cluster, or of what is left of one: six steps.
//!
//! - What is to go is listed with its UIDs, and journaled, before the first of it goes. Each deletion bears the UID; what is
//!   not on the list, or stands there under another UID, is left alone.
//! - Data goes last: up to `claims_deleted` nothing is lost that a creation could not make again.
//! - A step that fails for good stops the deletion where it is (`on_failure: keep`): what is deleted does not come back, so it
//!   can only be retried. The quota and the name are free once everything is gone, and not before.
//! - With `keep_data` the claims stay, and the namespace that they lie in.

mod delete_started;
mod deleted;
mod listed_deleted;
mod rehearsal;
mod scaled_down;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cairn_engine::{Definition, Effect, Output, Probe, Residue, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::{Deserialize, Serialize};

use self::listed_deleted::{CLAIMS, ListedDeleted, NAMESPACE, OBJECTS};
use crate::cluster::gone::Deletion;
use crate::cluster::{Cluster, Made};
use crate::input::{Input, KEPT};
use crate::render::Kind;

pub use self::rehearsal::{Rehearsal, rehearse};
pub(crate) use deleted::NAME as DELETED;

/// The name of the definition.
pub const NAME: &str = "delete";
/// Its version: another list of steps is another version.
pub const VERSION: u32 = 1;

/// The names of the six steps, in order: the statuses of their reports.
pub const STEPS: [&str; 6] =
    [delete_started::NAME, scaled_down::NAME, OBJECTS.name, CLAIMS.name, NAMESPACE.name, deleted::NAME];

/// Those whose effect cannot be taken back.
const IRREVERSIBLE: [&str; 3] = [OBJECTS.name, CLAIMS.name, NAMESPACE.name];

/// How long one attempt waits for something to be gone. Pods have three minutes to close; attempts that follow wait on.
const GONE_WITHIN: Duration = Duration::from_secs(4 * 60);
/// What an attempt may take beyond that, for its requests.
const BESIDES: Duration = Duration::from_secs(60);

/// The deletion of a cluster.
#[must_use]
pub fn delete_definition(cluster: Cluster) -> Definition {
    let at = || cluster.clone();
    let steps: Vec<Arc<dyn Step>> = vec![
        Arc::new(delete_started::DeleteStarted { cluster: at() }),
        Arc::new(scaled_down::ScaledDown { cluster: at() }),
        Arc::new(ListedDeleted { cluster: at(), part: OBJECTS }),
        Arc::new(ListedDeleted { cluster: at(), part: CLAIMS }),
        Arc::new(ListedDeleted { cluster: at(), part: NAMESPACE }),
        Arc::new(deleted::Deleted { cluster: at() }),
    ];
    Definition::new(NAME, VERSION, Effect::Delete, steps, Arc::new(HalfDeleted { cluster })).irreversible(&IRREVERSIBLE)
}

/// What a deletion works on.
struct Removal {
    namespace: String,
    mark: String,
    keep_data: bool,
    listed: Vec<Listed>,
}

/// An object that is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    #[serde(flatten)]
    made: Made,
    /// The replicas that a workload had: what a deletion that is cancelled in time goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
}

/// The result of the first step, beside what else it says.
#[derive(Default, Serialize, Deserialize)]
struct List {
    #[serde(default)]
    listed: Vec<Listed>,
}

impl Removal {
    /// Reads the input, and the list of the first step where there is one yet.
    fn of(cx: &StepContext) -> Result<Self, StepError> {
        let listed = cx.output(&StepName::from(delete_started::NAME));
        let listed = listed.and_then(|output| output.result.read::<List>().ok()).unwrap_or_default().listed;
        Ok(Self { listed, ..Self::in_input(&cx.input()?)? })
    }

    /// The same, before anything is listed.
    fn in_input(input: &Input) -> Result<Self, StepError> {
        let Some(origin) = &input.origin else {
            return Err(StepError::permanent("the journaled deletion does not say what it is to delete"));
        };
        let (namespace, mark) = (input.request.namespace.to_string(), origin.mark.clone());
        Ok(Self { namespace, mark, keep_data: input.keep_data, listed: Vec::new() })
    }

    /// What of the list is of one of these kinds, and not kept.
    fn of_kinds(&self, kinds: &[Kind]) -> Vec<Made> {
        let listed = || self.listed.iter().map(|listed| &listed.made);
        let goes = kinds.iter().copied().filter(|kind| !(self.keep_data && KEPT.contains(kind)));
        goes.flat_map(|kind| listed().filter(move |made| made.kind() == Some(kind))).cloned().collect()
    }

    /// What of the list is kept.
    fn kept(&self) -> impl Iterator<Item = &Made> {
        let is_kept = |made: &&Made| self.keep_data && made.kind().is_some_and(|kind| KEPT.contains(&kind));
        self.listed.iter().map(|listed| &listed.made).filter(is_kept)
    }

    /// The workloads of the list, each with the replicas that it had.
    fn workloads(&self) -> impl Iterator<Item = &Listed> {
        self.listed.iter().filter(|listed| listed.replicas.is_some())
    }

    /// Deletes these in order, kind by kind, and waits until they are gone.
    async fn delete(&self, cx: &StepContext, cluster: &Cluster, all: &[Made]) -> Result<Gone, StepError> {
        let mut gone = Gone::default();
        for made in all {
            let name = format!("{}/{}", made.kind, made.name);
            match cluster.delete_ours(made, &self.mark).await? {
                Deletion::Begun => gone.deleted.push(name),
                Deletion::Absent => gone.absent.push(name),
                Deletion::NotOurs => gone.left_alone.push(name),
            }
        }
        cx.wait(cluster.wait_all_gone(all, GONE_WITHIN)).await??;
        Ok(gone)
    }

    /// Whether none of these is there any more.
    async fn probe_gone(&self, cluster: &Cluster, all: &[Made]) -> Result<Probe, StepError> {
        for made in all {
            let Some(kind) = made.kind() else { continue };
            let found = cluster.read(kind, made.namespace.as_deref(), &made.name).await?;
            if found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&made.uid)) {
                return Ok(Probe::NotApplied);
            }
        }
        let absent = all.iter().map(|made| format!("{}/{}", made.kind, made.name)).collect();
        Ok(Probe::Applied { output: Gone { absent, ..Gone::default() }.output()? })
    }

    /// What a compensation of a step that deletes can do: nothing, once the first of these has gone.
    async fn refuse_taking_back(&self, cluster: &Cluster, all: &[Made]) -> Result<String, StepError> {
        for made in all {
            let Some(kind) = made.kind() else { continue };
            let found = cluster.read(kind, made.namespace.as_deref(), &made.name).await?;
            let stays = found.is_some_and(|found| {
                found.metadata.uid.as_deref() == Some(&made.uid) && found.metadata.deletion_timestamp.is_none()
            });
            if !stays {
                return Err(StepError::permanent(format!(
                    "{}/{} is deleted, and does not come back: end this deletion by force, and submit another one",
                    made.kind, made.name
                )));
            }
        }
        Ok("nothing was deleted".to_owned())
    }
}

/// What became of what was to go.
#[derive(Default, Serialize)]
struct Gone {
    deleted: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_alone: Vec<String>,
}

impl Gone {
    fn output(self) -> Result<Output, StepError> {
        let mut message = match (self.deleted.len(), self.absent.len()) {
            (0, 0) => "nothing was there".to_owned(),
            (0, absent) => format!("{absent} objects are gone"),
            (deleted, 0) => format!("deleted {deleted} objects"),
            (deleted, absent) => format!("deleted {deleted} objects, {absent} were gone"),
        };
        if !self.left_alone.is_empty() {
            message.push_str(&format!("; left alone what somebody else has put there: {}", self.left_alone.join(", ")));
        }
        Ok(Output::new(message, &self)?)
    }
}

/// As patient as a deletion has to be: pods that close, finalizers that somebody works off.
fn patient() -> RetryPolicy {
    let attempt_timeout = GONE_WITHIN + BESIDES;
    RetryPolicy { attempt_timeout, total_max: Duration::from_secs(30 * 60), ..RetryPolicy::default() }
}

/// What a deletion that was ended before its end has left: nothing, if it has not begun to delete; else all that is still there.
struct HalfDeleted {
    cluster: Cluster,
}

#[async_trait]
impl Residue for HalfDeleted {
    async fn look(&self, cx: &StepContext) -> Result<Vec<String>, StepError> {
        let removal = Removal::of(cx)?;
        let there = self.cluster.marked(&removal.namespace, &removal.mark).await?;
        let stays = |one: &Listed| there.iter().any(|marked| marked.made == one.made && !marked.leaves);
        let all: Vec<Kind> = Kind::ALL.to_vec();
        let goes = removal.of_kinds(&all);
        let begun = removal.listed.iter().filter(|one| goes.contains(&one.made)).any(|one| !stays(one));
        if !begun {
            return Ok(Vec::new());
        }
        let mut left: Vec<String> = there.into_iter().map(|marked| marked.text).collect();
        if left.is_empty() {
            left.push(format!("the record of {}/{}", cx.tenant(), cx.service()));
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests;
