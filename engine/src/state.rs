//! What a workflow is: the fold of its facts.
//!
//! - [`WorkflowState::fold`] is total: what may not follow is an [`IllegalFact`], and leaves the state as it was.
//! - It reads no clock and no randomness: replay and live state run the same code.
//! - Everything that `decide` needs is here, and nothing else is remembered between facts.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    fact::{Failure, Outcome, Output, ParkReason, Submitted},
    ids::{Attempt, Hash, Json, Sequence, StepName, Timestamp, WorkflowId},
};

mod fold;
pub use fold::fold;

/// A workflow, folded from its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowState {
    id: WorkflowId,
    sequence: Sequence,
    hash: Hash,
    submitted: Arc<Submitted>,
    submitted_at: Timestamp,
    updated_at: Timestamp,
    /// Shared with the states before, so that a copy costs little.
    progress: Vec<Arc<Progress>>,
    phase: Phase,
    paused: bool,
    cancelled: bool,
    /// The step that failed for good, and why: the cause of the rollback.
    failed: Option<(usize, Failure)>,
}

/// How far one step is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Progress {
    /// The last attempt that was started; 0 if none was.
    pub attempt: Attempt,
    /// Attempts before the last `RetryRequested`: they do not count against the policy.
    pub forgiven: Attempt,
    /// When the first attempt that counts failed: from here the policy's total time runs.
    pub failing_since: Option<Timestamp>,
    /// When the first probe that counts failed.
    pub probes_failing_since: Option<Timestamp>,
    /// When the last attempt was started.
    pub started: Option<Timestamp>,
    /// When the last attempt ended.
    pub ended: Option<Timestamp>,
    /// What the step made, once it has succeeded.
    pub output: Option<Output>,
    /// What probes found, oldest first.
    pub found: Vec<Json>,
    /// Nobody knows what the last attempt left in the world.
    pub uncertain: bool,
    /// Why the last attempt, probe or compensation failed.
    pub error: Option<Failure>,
    /// How far its compensation is.
    pub compensation: Compensation,
}

/// How far the compensation of one step is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Compensation {
    /// The last attempt that was started; 0 if none was.
    pub attempt: Attempt,
    /// Attempts before the last `RetryRequested`: they do not count against the policy.
    pub forgiven: Attempt,
    /// When the first attempt that counts failed.
    pub failing_since: Option<Timestamp>,
    /// What was taken back, once it has succeeded.
    pub done: Option<String>,
}

/// Where a workflow is. Steps are given by their place in the definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// This attempt may start, from `not_before` on.
    Ready {
        /// Which step.
        step: usize,
        /// Which attempt is next.
        attempt: Attempt,
        /// The retry time, if it waits for one.
        not_before: Option<Timestamp>,
    },
    /// This attempt was started; how it ended is not in the journal.
    Running {
        /// Which step.
        step: usize,
        /// Which attempt.
        attempt: Attempt,
    },
    /// The outcome of this attempt is unknown: the world is to be asked, from `not_before` on.
    Unsure {
        /// Which step.
        step: usize,
        /// Which attempt.
        attempt: Attempt,
        /// How often the world was asked in vain.
        probes: u32,
        /// When it is asked.
        not_before: Option<Timestamp>,
    },
    /// Every step has succeeded.
    Complete,
    /// Taking back. `step` and all started steps before it are still to be compensated.
    Compensating {
        /// Which step.
        step: usize,
        /// What is being done about it.
        stage: Stage,
    },
    /// Everything is taken back; is anything left?
    CheckingResidue {
        /// Which check is next.
        attempt: Attempt,
        /// When.
        not_before: Option<Timestamp>,
    },
    /// It cannot go on; the journal is still to say so.
    Parking {
        /// Why.
        reason: ParkReason,
        /// Where it goes on when a person asks for it.
        resume: Box<Phase>,
    },
    /// It cannot go on without a person.
    Parked {
        /// Why.
        reason: ParkReason,
        /// Where it goes on when a person asks for it.
        resume: Box<Phase>,
    },
    /// A person has asked for its end, whatever is left behind.
    Forced,
    /// It is over.
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// What was left behind.
        residue: Vec<String>,
    },
}

/// What is being done about one step of a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Nobody knows what it left: the world is to be asked first, so that the journal knows what may be deleted.
    Probing {
        /// How often it was asked in vain.
        probes: u32,
        /// When it is asked.
        not_before: Option<Timestamp>,
    },
    /// This attempt of its compensation may start.
    Ready {
        /// Which attempt is next.
        attempt: Attempt,
        /// The retry time, if it waits for one.
        not_before: Option<Timestamp>,
    },
    /// This attempt was started; how it ended is not in the journal.
    Running {
        /// Which attempt.
        attempt: Attempt,
    },
}

/// A fact that may not follow what is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fact} may not follow here: {why}")]
pub struct IllegalFact {
    /// Its name.
    pub fact: &'static str,
    /// What speaks against it.
    pub why: String,
}

/// What is known of a workflow.
impl WorkflowState {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> WorkflowId {
        self.id
    }

    /// Its last entry.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The hash of its last entry.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// What was submitted.
    #[must_use]
    pub fn submitted(&self) -> &Submitted {
        &self.submitted
    }

    /// When it was submitted.
    #[must_use]
    pub fn submitted_at(&self) -> Timestamp {
        self.submitted_at
    }

    /// When its last entry was appended.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Its steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[StepName] {
        &self.submitted.steps
    }

    /// How far each step is, in the same order.
    #[must_use]
    pub fn progress(&self) -> &[Arc<Progress>] {
        &self.progress
    }

    /// No step starts until it is resumed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Its end was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The step that failed for good, and why.
    #[must_use]
    pub fn failure(&self) -> Option<(&StepName, &Failure)> {
        self.failed.as_ref().map(|(step, failure)| (&self.submitted.steps[*step], failure))
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Finished { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// Whether it is finished, or waits for a person.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Finished { .. } | Phase::Parked { .. })
    }

    /// How it ends once everything is taken back.
    #[must_use]
    pub fn rolled_back_outcome(&self) -> Outcome {
        if self.cancelled { Outcome::Cancelled } else { Outcome::Failed }
    }

    /// The step in hand, or next: its place in the definition.
    #[must_use]
    pub fn current_step(&self) -> Option<usize> {
        match &self.phase {
            Phase::Ready { step, .. }
            | Phase::Running { step, .. }
            | Phase::Unsure { step, .. }
            | Phase::Compensating { step, .. } => Some(*step),
            Phase::Parking { resume, .. } | Phase::Parked { resume, .. } => match **resume {
                Phase::Ready { step, .. } | Phase::Unsure { step, .. } | Phase::Compensating { step, .. } => Some(step),
                _ => None,
            },
            Phase::Complete | Phase::CheckingResidue { .. } | Phase::Forced | Phase::Finished { .. } => None,
        }
    }

    /// What `step` returned, if it has succeeded.
    #[must_use]
    pub fn output(&self, step: &StepName) -> Option<&Output> {
        self.place(step).and_then(|step| self.progress[step].output.as_ref())
    }

    /// Everything that `step` is known to have made, oldest first: what probes found, and its output.
    #[must_use]
    pub fn made(&self, step: &StepName) -> Vec<&Json> {
        let Some(step) = self.place(step) else { return Vec::new() };
        let progress = &self.progress[step];
        progress.found.iter().chain(progress.output.iter().map(|output| &output.result)).collect()
    }

    /// The place of `step` in the definition.
    #[must_use]
    pub fn place(&self, step: &StepName) -> Option<usize> {
        self.submitted.steps.iter().position(|name| name == step)
    }
}
