//! Step 1, `delete_started`: lists what is to go, with its UIDs, and looks whether anything stands in the way.
//!
//! Reads only. What others have put into the namespace is said here, before anything is deleted.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::{List, Listed, Removal};
use crate::cluster::{Cluster, Found};
use crate::input::{Input, KEPT};
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
        let known = input.origin.map(|origin| origin.made).unwrap_or_default();
        let knows_namespace = known.iter().any(|made| made.kind() == Some(Kind::Namespace));
        let mut notes = Vec::new();
        let mut listed = Vec::new();
        for marked in self.cluster.marked(&removal.namespace, &removal.mark).await? {
            let kind = marked.made.kind();
            // Everything in it goes with a namespace: so for that one the mark is no proof where the journal knows another.
            if kind == Some(Kind::Namespace) && knows_namespace && !known.contains(&marked.made) {
                notes.push(format!("namespace {} was made anew by somebody else, and stays", removal.namespace));
                continue;
            }
            let replicas = match kind {
                Some(Kind::StatefulSet | Kind::Deployment) => marked.object.data["spec"]["replicas"].as_u64(),
                _ => None,
            };
            let replicas = replicas.map(|replicas| u32::try_from(replicas).unwrap_or(u32::MAX));
            listed.push(Listed { made: marked.made, replicas });
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
