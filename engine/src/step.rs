//! A step: one unit of a definition, with its effect, its probe and its compensation.
//!
//! - `run` may be called more than once for one workflow: it is idempotent against the world.
//! - `probe` only reads.
//! - `compensate` takes back what this workflow made and nothing else; it may be called more than once, and for a
//!   step that never had an effect.
//! - A step has no clock, no retries and no journal of its own: the engine has.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    executor::Slot,
    fact::{ErrorClass, Failure, Output, Probe},
    ids::{Attempt, FencingToken, Json, JsonError, Service, StepName, Tenant, WorkflowId},
    retry::RetryPolicy,
    state::WorkflowState,
};

/// One unit of a definition.
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// Its name: unique within the definition, and what its report is called.
    fn name(&self) -> StepName;

    /// How often, how long and how patiently it is attempted.
    fn policy(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// Brings the effect about.
    async fn run(&self, cx: &StepContext) -> Result<Output, StepError>;

    /// Looks whether an attempt whose outcome nobody knows took effect.
    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError>;

    /// Takes the effect back and says in one line what was taken back.
    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError>;
}

/// Looks for what a rollback left behind.
#[async_trait]
pub trait Residue: Send + Sync + 'static {
    /// Everything in the world that carries the workflow's mark, one a line. Empty means "nothing left".
    async fn look(&self, cx: &StepContext) -> Result<Vec<String>, StepError>;
}

/// What a step may know: its workflow so far, and whether it should hurry.
pub struct StepContext {
    pub(crate) state: Arc<WorkflowState>,
    pub(crate) step: StepName,
    pub(crate) attempt: Attempt,
    pub(crate) token: FencingToken,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) slot: Slot,
}

impl StepContext {
    /// A context without an executor: for the tests of steps. Sending `true` is what a cancel does.
    #[must_use]
    pub fn detached(state: WorkflowState, step: StepName, attempt: Attempt) -> (Self, watch::Sender<bool>) {
        let (stopping, stop) = watch::channel(false);
        let slot = Slot::detached(state.id());
        (Self { state: Arc::new(state), step, attempt, token: FencingToken(1), stop, slot }, stopping)
    }

    /// The workflow's id: the mark of what it makes.
    #[must_use]
    pub fn workflow(&self) -> WorkflowId {
        self.state.id()
    }

    /// Who asked.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.state.submitted().tenant
    }

    /// For what.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.state.submitted().service
    }

    /// Which execution of the step (or of its compensation) this is.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The number of this opening of the store.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// The same in every attempt of this step of this workflow, and in no other: for servers that know such keys.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.workflow(), self.step)
    }

    /// The request.
    ///
    /// # Errors
    /// [`StepError`] (permanent) if the journaled input does not have the shape of a `T`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        self.state.submitted().input.read().map_err(|error| {
            StepError::permanent(format!("the journaled request cannot be read by this build: {error}"))
        })
    }

    /// What the step `name` returned, if it has succeeded.
    #[must_use]
    pub fn output(&self, name: &StepName) -> Option<&Output> {
        self.state.output(name)
    }

    /// Everything that this step is known to have made: its output, and what probes found, oldest first.
    #[must_use]
    pub fn made(&self) -> Vec<&Json> {
        self.state.made(&self.step)
    }

    /// Everything that any step is known to have made.
    #[must_use]
    pub fn made_by_all(&self) -> Vec<&Json> {
        self.state.steps().iter().flat_map(|step| self.state.made(step)).collect()
    }

    /// Waits for `future` without holding one of the engine's slots: for what takes long and costs nothing. Ends
    /// early, with a transient error, when the workflow is cancelled or the engine shuts down.
    ///
    /// # Errors
    /// [`StepError`] (transient) when it ended early.
    pub async fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, StepError> {
        self.slot.release();
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            // An error means that the executor is gone: that is a stop as well.
            _ = stop.wait_for(|stop| *stop) => Err(StepError::transient("interrupted: the workflow is cancelled or the engine shuts down")),
            value = future => Ok(value),
        }
    }
}

/// Why an attempt, a probe or a compensation failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", failure.message)]
pub struct StepError {
    /// What goes into the journal.
    pub failure: Failure,
    /// Not before this long from now, as the server asked.
    pub retry_after: Option<Duration>,
}

impl StepError {
    /// Not executed: try again.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// Can never succeed: fail now.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, message)
    }

    /// The write may have been applied: probe.
    #[must_use]
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Unknown, message)
    }

    /// An error of this class.
    #[must_use]
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { failure: Failure { class, message: message.into(), evidence: Vec::new() }, retry_after: None }
    }

    /// The same with what supports it.
    #[must_use]
    pub fn with_evidence(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.failure.evidence.extend(evidence);
        self
    }

    /// The same, not to be tried again before `delay` from now.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl From<JsonError> for StepError {
    fn from(error: JsonError) -> Self {
        Self::permanent(format!("the step's result cannot be journaled: {error}"))
    }
}
