//! Submitting a workflow, and asking beforehand whether it would be admitted.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::oneshot;

use super::{Engine, Following};
use crate::{
    admission::{self, Ground, Quota},
    entry::Entry,
    executor::Event,
    fact::{Amounts, Effect, Fact, OnFailure, Submitted},
    ids::{DefinitionName, Hash, IdempotencyKey, Json, Sequence, Service, Tenant, Who, WorkflowId},
    journal::writer::AppendError,
    state::WorkflowState,
    store::{Append, Refusal, StoreError},
};

/// A workflow to be.
#[derive(Clone, Debug)]
pub struct NewSubmission {
    /// Which definition; its newest version is taken.
    pub definition: DefinitionName,
    /// Who asks.
    pub tenant: Tenant,
    /// For what.
    pub service: Service,
    /// The request.
    pub input: Json,
    /// The client's name for this submission.
    pub key: Option<IdempotencyKey>,
    /// The hash of the body as the client sent it.
    pub body_hash: Hash,
    /// By whom, as authenticated.
    pub who: Who,
    /// What the tenant's quota is to be charged.
    pub holds: Amounts,
    /// The most that the tenant may hold, `holds` included. What is not named is not limited.
    pub quota: Amounts,
    /// What a failure does.
    pub on_failure: OnFailure,
}

/// Why a submission is not known to be accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// No: nothing was recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This build has no such definition.
    #[error("there is no definition {definition}")]
    UnknownDefinition {
        /// Which.
        definition: DefinitionName,
    },
    /// The engine shuts down: nothing was recorded.
    #[error("the engine is shutting down: submit again once it is back")]
    ShuttingDown,
    /// What is there cannot be read, and so nobody knows whether it would be refused. Only [`Engine::rehearse`] says so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many submissions wait for the journal, or too many workflows for their end: nothing was recorded.
    #[error("too many workflows are waiting already: submit again in a moment")]
    Overloaded,
    /// The journal has stopped: whether the submission was recorded only the next start can tell.
    #[error(
        "the journal has stopped ({why}): whether this was recorded is unknown; submit again with the same idempotency key"
    )]
    Stopped {
        /// Why.
        why: String,
    },
}

impl Engine {
    /// Submits a workflow; returns once the submission is durable.
    ///
    /// # Errors
    /// [`SubmitError`]. `Refused(KeyUsed { same_body: true, .. })` is the answer to a repetition: that workflow.
    ///
    /// # Cancel safety
    /// A dropped future takes nothing back: the submission may still become durable, and is driven then.
    pub async fn submit(&self, submission: NewSubmission) -> Result<WorkflowState, SubmitError> {
        let workflow = self.new_workflow();
        self.submit_as(workflow, submission).await
    }

    /// The same for who waits for the workflow's end, too: that costs no look at the journal.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    ///
    /// # Cancel safety
    /// As [`Engine::submit`].
    pub async fn submit_and_follow(
        &self,
        submission: NewSubmission,
    ) -> Result<(WorkflowState, Following), SubmitError> {
        let workflow = self.new_workflow();
        // Before it is submitted: nothing is missed.
        let following = self.inner.watchers.follow(workflow);
        let submitted = self.submit_as(workflow, submission).await?;
        Ok((submitted, following))
    }

    fn new_workflow(&self) -> WorkflowId {
        WorkflowId::drawn(self.inner.clock.now(), self.inner.chance.bits())
    }

    async fn submit_as(&self, workflow: WorkflowId, submission: NewSubmission) -> Result<WorkflowState, SubmitError> {
        if self.inner.shutting_down.load(Ordering::Relaxed) {
            return Err(SubmitError::ShuttingDown);
        }
        let quota = submission.quota.clone();
        let submitted = self.submitted(submission)?;
        // What there is may be changed and deleted: that makes room.
        let is_full = self.inner.gauges.active.load(Ordering::Relaxed) >= self.inner.active_max;
        if is_full && submitted.effect == Effect::Create {
            return Err(SubmitError::Overloaded);
        }
        let append = Append {
            workflow,
            expected: Sequence(0),
            token: self.inner.store.token(),
            facts: vec![Fact::Submitted(submitted)],
            quota,
        };
        let (reply, answer) = oneshot::channel();
        let (events, gauges) = (self.inner.events.clone(), Arc::clone(&self.inner.gauges));
        let watchers = Arc::clone(&self.inner.watchers);
        let writer = self.writer().ok_or(SubmitError::ShuttingDown)?;
        // Driving it does not depend on whether the client still waits.
        let began = move |answer: Result<Vec<Entry>, AppendError>| {
            let state = answer.map(|entries| {
                let state = WorkflowState::begin(&entries[0]).expect("the store has admitted it");
                gauges.active.fetch_add(1, Ordering::Relaxed);
                watchers.begun(workflow, entries);
                let _ = events.send(Event::Begin(Box::new(state.clone())));
                state
            });
            let _ = reply.send(state);
        };
        writer.submit(append, Box::new(began));
        // Who waits for the answer must not keep the writer from ending.
        drop(writer);
        match answer.await {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(AppendError::Refused(refusal))) => Err(refusal.into()),
            Ok(Err(AppendError::Overloaded)) => Err(SubmitError::Overloaded),
            Ok(Err(AppendError::Stopped(why))) => Err(SubmitError::Stopped { why: why.to_string() }),
            Err(_) => Err(SubmitError::Stopped { why: self.why_stopped() }),
        }
    }

    /// Whether this submission would be admitted now: refused as it would be, and nothing is recorded. Gives the quota as it
    /// would meet it.
    ///
    /// # Errors
    /// [`SubmitError`], as [`Engine::submit`], but for what only its journal could say.
    pub async fn rehearse(&self, submission: NewSubmission) -> Result<Quota, SubmitError> {
        let limits = submission.quota.clone();
        let submitted = self.submitted(submission)?;
        let admitted = self.read(move |store| {
            let Submitted { tenant, service, key, .. } = &submitted;
            let ground = Ground {
                earlier: key.as_ref().map(|key| store.submission(tenant, key)).transpose()?.flatten(),
                record: store.service(tenant, service)?,
                used: store.usage(tenant)?,
            };
            Ok(admission::admit(ground, &submitted, &limits))
        });
        Ok(admitted.await??)
    }

    /// The submission as it would be journaled.
    fn submitted(&self, submission: NewSubmission) -> Result<Submitted, SubmitError> {
        let definition = self
            .inner
            .definitions
            .newest(&submission.definition)
            .ok_or_else(|| SubmitError::UnknownDefinition { definition: submission.definition.clone() })?;
        Ok(Submitted {
            definition: definition.name().clone(),
            version: definition.version(),
            fingerprint: definition.fingerprint(),
            steps: definition.step_names().to_vec(),
            effect: definition.effect(),
            tenant: submission.tenant,
            service: submission.service,
            input: submission.input,
            key: submission.key,
            body_hash: submission.body_hash,
            who: submission.who,
            holds: submission.holds,
            on_failure: submission.on_failure,
        })
    }
}
