//! Step 1, `delete_started`: lists what is to go, with its UIDs, and looks whether anything stands in the way.
//!
//! Reads only. What others have put into the namespace is said here, before anything is deleted.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use kube::api::DynamicObject;
use serde::Serialize;

use super::{List, Listed, Removal};
use crate::cluster::gone::Marked;
use crate::cluster::{Cluster, Found, Made};
use crate::input::{Input, KEPT};
use crate::names;
use crate::render::Kind;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "delete_started";

pub(super) struct DeleteStarted {
    pub(super) cluster: Cluster,
}

/// What is to go, and what stays.
#[derive(Serialize)]
struct Started {
    namespace: String,
    keep_data: bool,
    goes: Vec<String>,
    keeps: Vec<String>,
    #[serde(flatten)]
    list: List,
}

#[async_trait]
impl Step for DeleteStarted {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let removal = Removal::of(cx)?;
        let marked = self.cluster.marked(&removal.namespace, &removal.mark).await?;
        let mut census = Census::of(marked, &removal, &Known::of(cx)?);
        for refused in census.refusals(&removal) {
            refused?;
        }
        self.look_around(&removal, &mut census).await?;
        Started::new(removal, census.listed).output(&census.notes)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was deleted".to_owned())
    }
}

impl DeleteStarted {
    /// What others have in the namespace, if it is to go; or that it stays, if it is theirs.
    async fn look_around(&self, removal: &Removal, census: &mut Census) -> Result<(), StepError> {
        let namespace = census.listed.iter().find(|one| one.made.kind() == Some(Kind::Namespace));
        match namespace {
            Some(_) if removal.keep_data => {}
            Some(namespace) => {
                let unseen = self.cluster.refuse_strangers(&namespace.made, &removal.mark).await?;
                census.notes.extend(unseen_note(&unseen));
            }
            None => {
                let found = self.cluster.find(Kind::Namespace, None, &removal.namespace, &removal.mark).await?;
                if let Found::Foreign(whose) = found {
                    census.notes.push(format!("namespace {} {whose}, and stays", removal.namespace));
                }
            }
        }
        Ok(())
    }
}

/// What the journal knows of the cluster.
pub(super) struct Known {
    pub(super) made: Vec<Made>,
    overlaid: bool,
}

impl Known {
    fn of(cx: &StepContext) -> Result<Self, StepError> {
        Ok(Self::in_input(&cx.input()?))
    }

    pub(super) fn in_input(input: &Input) -> Self {
        let overlaid = input.origin.as_ref().is_some_and(|origin| origin.overlay.is_some());
        Self { made: input.origin.as_ref().map(|origin| origin.made.clone()).unwrap_or_default(), overlaid }
    }

    /// A copy of an object of ours bears its mark. Under a name that we give it is ours without a journaled UID too: a crash
    /// takes UIDs.
    fn is_ours(&self, made: &Made) -> bool {
        self.made.contains(made) || made.kind().is_some_and(|kind| is_given(kind, &made.name, self.overlaid))
    }

    /// Everything in it goes with a namespace: so for that one the mark is no proof where the journal knows another.
    fn is_another_namespace(&self, made: &Made) -> bool {
        let is_namespace = |made: &Made| made.kind() == Some(Kind::Namespace);
        is_namespace(made) && self.made.iter().any(is_namespace) && !self.made.contains(made)
    }
}

/// All that bears the mark, by what is to become of it.
#[derive(Default)]
pub(super) struct Census {
    pub(super) listed: Vec<Listed>,
    /// What somebody has copied from us.
    copies: Vec<String>,
    /// What would take claims with it that are to be kept.
    takers: Vec<String>,
    /// What else there is to say.
    pub(super) notes: Vec<String>,
}

impl Census {
    pub(super) fn of(marked: Vec<Marked>, removal: &Removal, known: &Known) -> Self {
        let mut census = Self::default();
        for Marked { made, object, .. } in marked {
            if known.is_another_namespace(&made) {
                let note = format!("namespace {} was made anew by somebody else, and stays", removal.namespace);
                census.notes.push(note);
            } else if !known.is_ours(&made) {
                census.copies.push(format!("{}/{}", made.kind, made.name));
            } else {
                census.takers.extend(takers(&made, &object));
                census.listed.push(Listed { replicas: replicas(&made, &object), made });
            }
        }
        census
    }

    /// Each reason not to begin, one after the other.
    pub(super) fn refusals(&self, removal: &Removal) -> impl Iterator<Item = Result<(), StepError>> + use<> {
        let losing = removal.keep_data.then(|| self.refuse_losing_data(removal));
        [Some(self.refuse_copies(removal)), losing].into_iter().flatten()
    }

    fn refuse_copies(&self, removal: &Removal) -> Result<(), StepError> {
        if self.copies.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "{} in namespace {} bear this cluster's annotation {} and were not made here: take it off them, and move \
             them away if the namespace is to go, then retry",
            self.copies.join(", "),
            removal.namespace,
            names::WORKFLOW_ANNOTATION
        )))
    }

    /// Said before the first pod is scaled away: that alone may take a claim with it.
    fn refuse_losing_data(&self, removal: &Removal) -> Result<(), StepError> {
        if !self.listed.iter().any(|one| one.made.kind() == Some(Kind::PersistentVolumeClaim)) {
            return Err(StepError::permanent(format!(
                "there is no data to keep: no claim of this cluster is in namespace {}; cancel this deletion, and DELETE without \
                 keep_data",
                removal.namespace
            )));
        }
        if self.takers.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "the data in namespace {} would not be kept: {}; set both fields of persistentVolumeClaimRetentionPolicy of \
             StatefulSet/{} to Retain, look that no claim has an owner any more, then retry",
            removal.namespace,
            self.takers.join("; "),
            names::STATEFUL_SET
        )))
    }
}

/// What there is to say of kinds that may not be seen.
pub(super) fn unseen_note(unseen: &[String]) -> Option<String> {
    (!unseen.is_empty()).then(|| format!("whether others have {} there may not be seen", unseen.join(", ")))
}

/// The replicas that a workload has.
fn replicas(made: &Made, object: &DynamicObject) -> Option<u32> {
    let Some(Kind::StatefulSet | Kind::Deployment) = made.kind() else { return None };
    let replicas = object.data["spec"]["replicas"].as_u64();
    replicas.map(|replicas| u32::try_from(replicas).unwrap_or(u32::MAX))
}

/// What of this object would take claims with it: a set that deletes its own, and the owner that a claim has got so.
fn takers(made: &Made, object: &DynamicObject) -> Vec<String> {
    let name = format!("{}/{}", made.kind, made.name);
    match made.kind() {
        Some(Kind::StatefulSet) => {
            let policy = &object.data["spec"]["persistentVolumeClaimRetentionPolicy"];
            let deletes = ["whenDeleted", "whenScaled"].into_iter().filter(|when| policy[when] == "Delete");
            deletes.map(|when| format!("{name} deletes its claims ({when}: Delete)")).collect()
        }
        Some(Kind::PersistentVolumeClaim) => {
            let owners = object.metadata.owner_references.iter().flatten();
            owners.map(|owner| format!("{name} goes with {}/{}", owner.kind, owner.name)).collect()
        }
        _ => Vec::new(),
    }
}

impl Started {
    fn new(removal: Removal, listed: Vec<Listed>) -> Self {
        let is_kept = |one: &&Listed| removal.keep_data && one.made.kind().is_some_and(|kind| KEPT.contains(&kind));
        let name = |one: &Listed| format!("{}/{}", one.made.kind, one.made.name);
        let keeps = listed.iter().filter(is_kept).map(name).collect();
        let goes = listed.iter().filter(|one| !is_kept(one)).map(name).collect();
        let Removal { namespace, keep_data, .. } = removal;
        Self { namespace, keep_data, goes, keeps, list: List { listed } }
    }

    fn output(&self, notes: &[String]) -> Result<Output, StepError> {
        let mut message = match (self.goes.len(), self.keeps.len()) {
            (0, 0) => "nothing of it is there any more".to_owned(),
            (goes, 0) => format!("{goes} objects are to go"),
            (goes, keeps) => format!("{goes} objects are to go, {keeps} are kept"),
        };
        for note in notes {
            message.push_str("; ");
            message.push_str(note);
        }
        Ok(Output::new(message, self)?)
    }
}

/// Whether a cluster's object of this kind may be called so; what an overlay adds may be called anything.
fn is_given(kind: Kind, name: &str, overlaid: bool) -> bool {
    match kind {
        Kind::Namespace => true,
        Kind::StatefulSet => name == names::STATEFUL_SET,
        Kind::Deployment => name == names::KIBANA,
        Kind::Service => overlaid || [names::CLIENT_SERVICE, names::HEADLESS_SERVICE, names::KIBANA].contains(&name),
        Kind::ConfigMap => overlaid || name == names::CONFIG_MAP,
        Kind::Secret => name == names::SECRET,
        Kind::PodDisruptionBudget => name == names::DISRUPTION_BUDGET,
        Kind::PersistentVolumeClaim => names::claim_ordinal(name).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I15: the mark alone is no proof.
    #[test]
    fn a_copy_of_a_claim_is_none_of_ours_whatever_it_bears() {
        assert!(is_given(Kind::PersistentVolumeClaim, "elasticsearch-data-elasticsearch-12", false));
        for name in
            ["my-backup", "elasticsearch-data-elasticsearch-0-copy", "elasticsearch-data-elasticsearch-012", "0"]
        {
            assert!(!is_given(Kind::PersistentVolumeClaim, name, true), "{name}");
        }
        assert!(is_given(Kind::ConfigMap, "extra", true) && !is_given(Kind::ConfigMap, "extra", false));
    }

    /// The list of what is to go is longer than what was submitted, and has to fit into the journal as well.
    #[test]
    fn the_list_of_the_largest_cluster_fits_into_the_journal() {
        for keep_data in [false, true] {
            let made = crate::input::tests::largest_origin().made;
            let listed = made.into_iter().map(|made| Listed { made, replicas: None }).collect();
            let removal = Removal { namespace: "n".repeat(63), mark: String::new(), keep_data, listed: Vec::new() };
            Started::new(removal, listed).output(&[]).expect("it fits");
        }
    }
}
