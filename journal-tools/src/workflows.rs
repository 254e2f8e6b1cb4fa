//! All workflows of a journal, folded as they are read: the whole state of those that are active, and of the
//! finished ones what a list shows.

use std::collections::BTreeMap;

use cairn_engine::{Commit, Entry, Fact, Timestamp, WorkflowId, WorkflowState};
use cairn_steps::records::{Status, kind};
use serde::Serialize;

use crate::error::ToolError;

/// A workflow, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// Its id.
    pub(crate) id: WorkflowId,
    /// What it does.
    pub(crate) kind: &'static str,
    /// Its tenant.
    pub(crate) user: String,
    /// Its service.
    pub(crate) service_name: String,
    /// Where it is, in one word.
    pub(crate) status: Status,
    /// The step in hand or next; of a failed one the step that failed.
    pub(crate) step: Option<String>,
    /// When it was submitted.
    pub(crate) submitted_at: Timestamp,
    /// When its last entry was appended.
    pub(crate) updated_at: Timestamp,
    /// How many entries it has.
    pub(crate) entries: u64,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

impl Row {
    /// The row of this state at the time `now`.
    pub(crate) fn of(state: &WorkflowState, now: Timestamp) -> Self {
        let submitted = state.submitted();
        let failure = state.failure();
        let current = state.current_step().and_then(|step| state.steps().get(step));
        Self {
            id: state.id(),
            kind: kind(submitted.effect),
            user: submitted.tenant.to_string(),
            service_name: submitted.service.to_string(),
            status: Status::of(state, now),
            step: current.or(failure.map(|(step, _)| step)).map(ToString::to_string),
            submitted_at: state.submitted_at(),
            updated_at: state.updated_at(),
            entries: state.sequence().0,
            error: failure.map(|(_, failure)| failure.message.clone()),
        }
    }
}

/// The workflows that were read so far.
#[derive(Default)]
pub(crate) struct Workflows {
    active: BTreeMap<WorkflowId, WorkflowState>,
    finished: BTreeMap<WorkflowId, Row>,
}

impl Workflows {
    /// Folds a whole journal; `seen` is shown each entry with the state after it.
    ///
    /// # Errors
    /// Whatever reading ended with; [`ToolError::Bad`] for an entry that may not stand where it stands.
    pub(crate) fn read(
        commits: impl Iterator<Item = Result<Commit, ToolError>>,
        mut seen: impl FnMut(&Entry, &WorkflowState),
    ) -> Result<Self, ToolError> {
        let mut workflows = Self::default();
        for commit in commits {
            for entry in &commit?.entries {
                workflows.fold(entry, &mut seen)?;
            }
        }
        Ok(workflows)
    }

    /// A row for each, newest first.
    pub(crate) fn rows(&self, now: Timestamp) -> Vec<Row> {
        let active = self.active.values().map(|state| Row::of(state, now));
        let mut rows: Vec<Row> = self.finished.values().cloned().chain(active).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows
    }

    fn fold(&mut self, entry: &Entry, seen: &mut impl FnMut(&Entry, &WorkflowState)) -> Result<(), ToolError> {
        let illegal = |detail: String| ToolError::Bad { place: place(entry), detail };
        if self.finished.contains_key(&entry.workflow) {
            return Err(illegal("the workflow is finished".to_owned()));
        }
        let state = match self.active.entry(entry.workflow) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(WorkflowState::begin(entry).map_err(|error| illegal(error.to_string()))?)
            }
            std::collections::btree_map::Entry::Occupied(occupied) => {
                let state = occupied.into_mut();
                state.fold(entry).map_err(|error| illegal(error.to_string()))?;
                state
            }
        };
        seen(entry, state);
        if matches!(entry.fact, Fact::Finished { .. }) {
            let row = Row::of(state, entry.time);
            self.active.remove(&entry.workflow);
            self.finished.insert(entry.workflow, row);
        }
        Ok(())
    }
}

/// Where an entry stands.
pub(crate) fn place(entry: &Entry) -> String {
    format!("entry {} of workflow {}", entry.sequence, entry.workflow)
}
