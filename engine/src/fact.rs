//! What can happen to a workflow: the journal's frozen vocabulary.
//!
//! Only ever added to. A new meaning is a new variant; a new layout is a new format version in `journal/codec.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{
    Attempt, DefinitionName, Hash, IdempotencyKey, Json, ResourceName, Service, StepName, Tenant, Timestamp, Who,
};

/// Amounts of what a quota counts.
pub type Amounts = BTreeMap<ResourceName, u64>;

/// What happened to a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The request is accepted: with it, in one batch, go the quota's reservation and the records.
    Submitted(Submitted),
    /// From here on the step's effect may exist: only a probe can tell.
    AttemptStarted {
        /// Which step.
        step: StepName,
        /// Which execution of it.
        attempt: Attempt,
    },
    /// The effect exists; `output` is all that later steps, the report and the compensation need to know of it.
    AttemptSucceeded {
        /// Which step.
        step: StepName,
        /// Which execution of it.
        attempt: Attempt,
        /// What it made.
        output: Output,
    },
    /// No attempt starts before `retry_at`; without one the workflow rolls back.
    AttemptFailed {
        /// Which step.
        step: StepName,
        /// Which execution of it.
        attempt: Attempt,
        /// Why.
        error: Failure,
        /// When the next attempt (or, for an unknown outcome, the probe) may start.
        retry_at: Option<Timestamp>,
    },
    /// What the world showed of an attempt whose outcome nobody knew.
    Probed {
        /// Which step.
        step: StepName,
        /// The last attempt that was started.
        attempt: Attempt,
        /// What was seen.
        answer: Probe,
        /// When the step runs again, if it has to; without it such a workflow rolls back.
        retry_at: Option<Timestamp>,
    },
    /// The world could not be read; it is asked again at `retry_at`, without one the workflow is parked.
    ProbeFailed {
        /// Which step.
        step: StepName,
        /// The last attempt that was started.
        attempt: Attempt,
        /// Why.
        error: Failure,
        /// When it is asked again.
        retry_at: Option<Timestamp>,
    },
    /// From here on the step's effect may be gone.
    CompensationStarted {
        /// Which step.
        step: StepName,
        /// Which execution of the compensation.
        attempt: Attempt,
    },
    /// The step's effect is gone.
    CompensationSucceeded {
        /// Which step.
        step: StepName,
        /// Which execution of the compensation.
        attempt: Attempt,
        /// What was taken back, for people.
        message: String,
    },
    /// The compensation goes on at `retry_at`; without one the workflow is parked.
    CompensationFailed {
        /// Which step.
        step: StepName,
        /// Which execution of the compensation.
        attempt: Attempt,
        /// Why.
        error: Failure,
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// Residue could not be looked for; it is looked for again at `retry_at`, without one the workflow is parked.
    ResidueCheckFailed {
        /// Which execution of the check.
        attempt: Attempt,
        /// Why.
        error: Failure,
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// Stop after the attempt in hand, then roll back.
    CancelRequested {
        /// By whom.
        who: Who,
        /// End at once, whatever is left behind: the last way out.
        force: bool,
    },
    /// No step starts until `Resumed`.
    Paused {
        /// By whom.
        who: Who,
    },
    /// Steps start again.
    Resumed {
        /// By whom.
        who: Who,
    },
    /// A parked workflow goes on from the step that failed; a waiting one does not wait.
    RetryRequested {
        /// By whom.
        who: Who,
    },
    /// It cannot go on without a person.
    Parked {
        /// Why, and what is left to do.
        reason: ParkReason,
    },
    /// It is over: nothing follows.
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// What was left behind. Empty unless a person forced the end.
        residue: Vec<String>,
    },
}

/// A request, accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Submitted {
    /// Which list of steps.
    pub definition: DefinitionName,
    /// Which version of it.
    pub version: u32,
    /// Its fingerprint: a build with another one does not run it.
    pub fingerprint: Hash,
    /// Its steps, in order: so that a replay needs nothing but the journal.
    pub steps: Vec<StepName>,
    /// What its end means for the service.
    pub effect: Effect,
    /// Who asked.
    pub tenant: Tenant,
    /// For what.
    pub service: Service,
    /// The request itself.
    pub input: Json,
    /// The client's name for this submission.
    pub key: Option<IdempotencyKey>,
    /// The hash of the request's body as the client sent it: the same key with another body is refused.
    pub body_hash: Hash,
    /// By whom, as authenticated.
    pub who: Who,
    /// What the tenant's quota is charged once it has succeeded: while the service lives, or for what a deletion keeps.
    pub holds: Amounts,
    /// What a failure does.
    pub on_failure: OnFailure,
}

/// What a workflow does to its service, and so to its record and its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Makes it: there must be none.
    Create,
    /// Changes it: there must be one.
    Update,
    /// Takes it away: there must be one.
    Delete,
}

/// What follows when a step fails for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Everything is taken back.
    #[default]
    Rollback,
    /// What was made stays for a look; the workflow is parked.
    Keep,
}

/// What a step made, and what its report says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Output {
    /// One line for people.
    pub message: String,
    /// There was nothing to do.
    pub skipped: bool,
    /// What later steps, the report and the compensation need to know.
    pub result: Json,
    /// What the service's record shows from here on.
    pub record: Option<Json>,
}

impl Output {
    /// Something was done.
    ///
    /// # Errors
    /// [`crate::JsonError`] if `result` is too long, or cannot be serialized.
    pub fn new<T: Serialize + ?Sized>(message: impl Into<String>, result: &T) -> Result<Self, crate::JsonError> {
        Ok(Self { message: message.into(), skipped: false, result: Json::of(result)?, record: None })
    }

    /// There was nothing to do, because of `why`.
    #[must_use]
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { message: format!("skipped: {}", why.into()), skipped: true, result: Json::null(), record: None }
    }

    /// The same, and the service's record shows `record` from here on.
    ///
    /// # Errors
    /// [`crate::JsonError`] if `record` is too long, or cannot be serialized.
    pub fn with_record<T: Serialize + ?Sized>(mut self, record: &T) -> Result<Self, crate::JsonError> {
        self.record = Some(Json::of(record)?);
        Ok(self)
    }
}

/// What the world shows of an attempt whose outcome nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Probe {
    /// The whole effect is there: the step is done.
    Applied {
        /// As the attempt would have returned it.
        output: Output,
    },
    /// Nothing of it is there: the step runs again.
    NotApplied,
    /// Some of it is there: the step runs again, and the compensation knows what it may take back.
    Partly {
        /// What was found, in the shape of the step's result.
        made: Json,
    },
    /// What stands there is somebody else's: the step fails.
    Foreign {
        /// What, and whose.
        detail: String,
    },
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for the next attempt.
    pub class: ErrorClass,
    /// One sentence: what, which, and the way out.
    pub message: String,
    /// What supports it: events, a last termination, the scheduler's words.
    pub evidence: Vec<String>,
}

/// What an error means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Not executed: try again.
    Transient,
    /// Can never succeed: fail now.
    Permanent,
    /// The write may have been applied: probe.
    Unknown,
}

/// Why a workflow cannot go on without a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum ParkReason {
    /// A step failed and the request said `on_failure: keep`.
    Kept,
    /// A probe kept failing.
    ProbeFailing,
    /// A compensation kept failing.
    CompensationFailing,
    /// After every compensation something was still there, or it could not be seen whether.
    Residue {
        /// What, one a line; empty if it could not be seen.
        left: Vec<String>,
    },
    /// This build has no such definition, or another one under its name.
    UnknownDefinition {
        /// What is known here.
        detail: String,
    },
    /// The journal of this workflow cannot be replayed.
    Unrecoverable {
        /// Why.
        detail: String,
    },
}

/// How a workflow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step succeeded.
    Succeeded,
    /// A step failed, and everything was taken back.
    Failed,
    /// A person asked for it, and everything was taken back.
    Cancelled,
}

impl Fact {
    /// Its name, as JSON has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "submitted",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::AttemptSucceeded { .. } => "attempt_succeeded",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::Probed { .. } => "probed",
            Self::ProbeFailed { .. } => "probe_failed",
            Self::CompensationStarted { .. } => "compensation_started",
            Self::CompensationSucceeded { .. } => "compensation_succeeded",
            Self::CompensationFailed { .. } => "compensation_failed",
            Self::ResidueCheckFailed { .. } => "residue_check_failed",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::RetryRequested { .. } => "retry_requested",
            Self::Parked { .. } => "parked",
            Self::Finished { .. } => "finished",
        }
    }
}
