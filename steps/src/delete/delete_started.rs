//! Step 1, `delete_started`: lists what is to go, with its UIDs, and looks whether anything stands in the way.
//!
//! Reads only. What others have put into the namespace is said here, before anything is deleted.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::{List, Listed, Removal};
use crate::cluster::{Cluster, Found};
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
        let input: Input = cx.input()?;
        let overlaid = input.origin.as_ref().is_some_and(|origin| origin.overlay.is_some());
        let known = input.origin.map(|origin| origin.made).unwrap_or_default();
        let knows_namespace = known.iter().any(|made| made.kind() == Some(Kind::Namespace));
        let mut notes = Vec::new();
        let mut listed = Vec::new();
        let mut copies = Vec::new();
        for marked in self.cluster.marked(&removal.namespace, &removal.mark).await? {
            let kind = marked.made.kind();
            // Everything in it goes with a namespace: so for that one the mark is no proof where the journal knows another.
            if kind == Some(Kind::Namespace) && knows_namespace && !known.contains(&marked.made) {
                notes.push(format!("namespace {} was made anew by somebody else, and stays", removal.namespace));
                continue;
            }
            // A copy of an object of ours bears its mark. Under a name that we give it is ours without a journaled UID too: a
            // crash takes UIDs.
            if !known.contains(&marked.made) && !kind.is_some_and(|kind| is_given(kind, &marked.made.name, overlaid)) {
                copies.push(format!("{}/{}", marked.made.kind, marked.made.name));
                continue;
            }
            let replicas = match kind {
                Some(Kind::StatefulSet | Kind::Deployment) => marked.object.data["spec"]["replicas"].as_u64(),
                _ => None,
            };
            let replicas = replicas.map(|replicas| u32::try_from(replicas).unwrap_or(u32::MAX));
            listed.push(Listed { made: marked.made, replicas });
        }
        if !copies.is_empty() {
            return Err(StepError::permanent(format!(
                "{} in namespace {} bear this cluster's annotation {} and were not made here: take it off them, and move \
                 them away if the namespace is to go, then retry",
                copies.join(", "),
                removal.namespace,
                names::WORKFLOW_ANNOTATION
            )));
        }
        let namespace = listed.iter().find(|one| one.made.kind() == Some(Kind::Namespace));
        match namespace {
            Some(namespace) if !removal.keep_data => {
                let unseen = self.cluster.refuse_strangers(&namespace.made, &removal.mark).await?;
                if !unseen.is_empty() {
                    notes.push(format!("whether others have {} there may not be seen", unseen.join(", ")));
                }
            }
            Some(_) => {}
            None => {
                let found = self.cluster.find(Kind::Namespace, None, &removal.namespace, &removal.mark).await?;
                if let Found::Foreign(whose) = found {
                    notes.push(format!("namespace {} {whose}, and stays", removal.namespace));
                }
            }
        }
        let is_kept = |one: &&Listed| removal.keep_data && one.made.kind().is_some_and(|kind| KEPT.contains(&kind));
        let name = |one: &Listed| format!("{}/{}", one.made.kind, one.made.name);
        let keeps: Vec<String> = listed.iter().filter(is_kept).map(name).collect();
        let goes: Vec<String> = listed.iter().filter(|one| !is_kept(one)).map(name).collect();
        let mut message = match (goes.len(), keeps.len()) {
            (0, 0) => "nothing of it is there any more".to_owned(),
            (goes, 0) => format!("{goes} objects are to go"),
            (goes, keeps) => format!("{goes} objects are to go, {keeps} are kept"),
        };
        for note in notes {
            message.push_str("; ");
            message.push_str(&note);
        }
        let (namespace, keep_data) = (removal.namespace, removal.keep_data);
        Ok(Output::new(message, &Started { namespace, keep_data, goes, keeps, list: List { listed } })?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was deleted".to_owned())
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
        Kind::PersistentVolumeClaim => {
            let ordinal = name.rsplit('-').next().and_then(|ordinal| ordinal.parse().ok());
            ordinal.is_some_and(|ordinal| names::claim(ordinal) == name)
        }
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
}
