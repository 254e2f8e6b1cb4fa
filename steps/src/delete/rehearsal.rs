//! What a deletion would do, for whoever wants to know beforehand. Looks as its first step looks, and changes nothing.

use cairn_engine::{ErrorClass, StepError};

use super::Removal;
use super::delete_started::{Census, Known, unseen_note};
use crate::cluster::rehearse::{Rehearsed, Word};
use crate::cluster::{Cluster, Made};
use crate::input::{Input, KEPT};
use crate::render::Kind;

/// What a deletion would do.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// What would become of each object, in the order of the deletion; then what would stay.
    pub verdicts: Vec<Rehearsed>,
    /// What its first step would stop at, with the way out.
    pub refusals: Vec<String>,
    /// What else there is to say.
    pub warnings: Vec<String>,
}

/// Looks what this deletion would find.
///
/// # Errors
/// [`StepError`] if the input does not say what it deletes.
pub async fn rehearse(cluster: &Cluster, input: &Input) -> Result<Rehearsal, StepError> {
    let removal = Removal::in_input(input)?;
    let (namespace, keep_data) = (removal.namespace.as_str(), removal.keep_data);
    let known = Known::in_input(input);
    let mut rehearsal = Rehearsal::default();
    let mut all = known.made.clone();
    // If it cannot be listed, each object says so for itself.
    if let Ok(marked) = cluster.marked(namespace, &removal.mark).await {
        let census = Census::of(marked, &removal, &known);
        let refused = census.refusals(&removal).filter_map(Result::err);
        rehearsal.refusals.extend(refused.map(|error| error.failure.message));
        rehearsal.warnings.extend(census.notes);
        // A crash takes UIDs: what stands there under our mark and names goes, whether the journal has it or not.
        all.extend(census.listed.into_iter().map(|one| one.made).filter(|made| !known.made.contains(made)));
    }
    all.reverse();
    all.sort_by_key(rank);
    let (gone, kept): (Vec<Made>, Vec<Made>) =
        all.into_iter().partition(|made| !(keep_data && made.kind().is_some_and(|kind| KEPT.contains(&kind))));
    let mut verdicts = cluster.rehearse_deletion(&gone, &removal.mark).await;
    let namespace = gone.iter().position(|made| made.kind() == Some(Kind::Namespace));
    if let Some(place) = namespace {
        match cluster.refuse_strangers(&gone[place], &removal.mark).await {
            Ok(unseen) => rehearsal.warnings.extend(unseen_note(&unseen)),
            Err(error) => {
                let word = if is_final(&error) { Word::Refused } else { Word::Unchecked };
                verdicts[place].say(word, error.failure.message);
            }
        }
    }
    verdicts.extend(kept.iter().map(Rehearsed::kept));
    Ok(Rehearsal { verdicts, ..rehearsal })
}

fn is_final(error: &StepError) -> bool {
    error.failure.class == ErrorClass::Permanent
}

/// What holds others goes after them: the disks after what uses them, the namespace last.
fn rank(made: &Made) -> u8 {
    match made.kind() {
        Some(Kind::Namespace) => 2,
        Some(Kind::PersistentVolumeClaim) => 1,
        _ => 0,
    }
}
