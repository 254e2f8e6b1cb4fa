//! One attempt: a step's effect, probe or compensation, with its timeout and its fence; and what it means as facts.
//!
//! - A late attempt is dropped where it stands before anything else begins: what it would have returned is lost, and
//!   its outcome counts as unknown.
//! - A panic is an unknown outcome as well.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;

use crate::{
    definition::Definition,
    fact::{ErrorClass, Fact, Outcome, Output, ParkReason, Probe},
    ids::{Attempt, StepName, Timestamp},
    retry::RetryPolicy,
    state::{Phase, Stage, WorkflowState},
    step::{StepContext, StepError},
};

/// What is to be done. Steps are given by their place in the definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Run {
        step: usize,
        attempt: Attempt,
    },
    Probe {
        step: usize,
        attempt: Attempt,
    },
    Compensate {
        step: usize,
        attempt: Attempt,
    },
    CheckResidue {
        attempt: Attempt,
    },
    /// What a forced end leaves behind: looked at once, whatever comes of it.
    LastLook,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Run { step: usize, attempt: Attempt, result: Result<Output, StepError> },
    Probe { step: usize, attempt: Attempt, result: Result<Probe, StepError> },
    Compensate { step: usize, attempt: Attempt, result: Result<String, StepError> },
    CheckResidue { attempt: Attempt, result: Result<Vec<String>, StepError> },
    LastLook { result: Result<Vec<String>, StepError> },
}

impl Ended {
    /// It brought no answer.
    pub(crate) fn is_error(&self) -> bool {
        match self {
            Self::Run { result, .. } => result.is_err(),
            Self::Probe { result, .. } => result.is_err(),
            Self::Compensate { result, .. } => result.is_err(),
            Self::CheckResidue { result, .. } | Self::LastLook { result } => result.is_err(),
        }
    }
}

/// How patiently probes, compensations and residue checks of a step are attempted.
fn patient() -> RetryPolicy {
    RetryPolicy::patient()
}

/// Does `work`. Never panics, never takes longer than its timeout.
pub(crate) async fn perform(work: Work, definition: Definition, cx: StepContext) -> Ended {
    match work {
        Work::Run { step, attempt } => {
            let it = Arc::clone(&definition.steps()[step]);
            let limit = it.policy().attempt_timeout;
            Ended::Run { step, attempt, result: guarded(limit, it.run(&cx)).await }
        }
        Work::Probe { step, attempt } => {
            let it = Arc::clone(&definition.steps()[step]);
            Ended::Probe { step, attempt, result: guarded(patient().attempt_timeout, it.probe(&cx)).await }
        }
        Work::Compensate { step, attempt } => {
            let it = Arc::clone(&definition.steps()[step]);
            let limit = it.policy().attempt_timeout.max(patient().attempt_timeout);
            Ended::Compensate { step, attempt, result: guarded(limit, it.compensate(&cx)).await }
        }
        Work::CheckResidue { attempt } => {
            let look = definition.residue().look(&cx);
            Ended::CheckResidue { attempt, result: guarded(patient().attempt_timeout, look).await }
        }
        Work::LastLook => {
            let look = definition.residue().look(&cx);
            Ended::LastLook { result: guarded(Duration::from_secs(10), look).await }
        }
    }
}

async fn guarded<T>(limit: Duration, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "without a word".to_owned());
            Err(StepError::unknown(format!("the step has panicked ({said}): this is a bug of cairn's")))
        }
        Err(_) => Err(StepError::unknown(format!("no answer within {} s", limit.as_secs_f64()))),
    }
}

/// The facts that `ended` means for a workflow in `state`.
pub(crate) fn facts(
    ended: Ended,
    state: &WorkflowState,
    definition: &Definition,
    now: Timestamp,
    draw: f64,
) -> Vec<Fact> {
    let name = |step: usize| state.steps()[step].clone();
    match ended {
        Ended::Run { step, attempt, result: Ok(output) } => {
            vec![Fact::AttemptSucceeded { step: name(step), attempt, output }]
        }
        Ended::Run { step, attempt, result: Err(error) } => {
            let retry_at = match error.failure.class {
                ErrorClass::Permanent => None,
                ErrorClass::Transient | ErrorClass::Unknown => next_run(state, definition, step, now, draw, &error),
            };
            vec![Fact::AttemptFailed { step: name(step), attempt, error: error.failure, retry_at }]
        }
        Ended::Probe { step, attempt, result: Ok(answer) } => {
            probed(state, definition, name(step), step, attempt, answer, now)
        }
        Ended::Probe { step, attempt, result: Err(error) } => {
            let (probes, first) = match state.phase() {
                Phase::Unsure { probes, .. } | Phase::Compensating { stage: Stage::Probing { probes, .. }, .. } => {
                    (*probes, state.progress()[step].ended.unwrap_or(now))
                }
                _ => (0, now),
            };
            let retry_at = patient().next(Attempt(probes + 1), first, now, draw, error.retry_after);
            vec![Fact::ProbeFailed { step: name(step), attempt, error: error.failure, retry_at }]
        }
        Ended::Compensate { step, attempt, result: Ok(message) } => {
            vec![Fact::CompensationSucceeded { step: name(step), attempt, message }]
        }
        Ended::Compensate { step, attempt, result: Err(error) } => {
            let compensation = &state.progress()[step].compensation;
            let first = compensation.first_started.unwrap_or(now);
            let counted = Attempt(attempt.0 - compensation.forgiven.0);
            // What can never succeed does not get better by waiting: a person has to look.
            let retry_at = match error.failure.class {
                ErrorClass::Permanent => None,
                ErrorClass::Transient | ErrorClass::Unknown => {
                    patient().next(counted, first, now, draw, error.retry_after)
                }
            };
            vec![Fact::CompensationFailed { step: name(step), attempt, error: error.failure, retry_at }]
        }
        Ended::CheckResidue { result: Ok(left), .. } if left.is_empty() => {
            vec![Fact::Finished { outcome: state.rolled_back_outcome(), residue: left }]
        }
        Ended::CheckResidue { result: Ok(left), .. } => vec![Fact::Parked { reason: ParkReason::Residue { left } }],
        Ended::CheckResidue { attempt, result: Err(error) } => {
            let retry_at = patient().next(attempt, now, now, draw, error.retry_after);
            vec![Fact::ResidueCheckFailed { attempt, error: error.failure, retry_at }]
        }
        Ended::LastLook { result } => {
            let residue = result.unwrap_or_else(|error| vec![format!("unknown, nobody could look: {error}")]);
            vec![Fact::Finished { outcome: Outcome::Cancelled, residue }]
        }
    }
}

/// Crashes alone have used up the attempts that the compensation of `step` may have.
pub(crate) fn compensation_is_exhausted(state: &WorkflowState, step: usize, attempt: Attempt) -> bool {
    attempt.0 - state.progress()[step].compensation.forgiven.0 > patient().attempts_max
}

fn probed(
    state: &WorkflowState,
    definition: &Definition,
    name: StepName,
    step: usize,
    attempt: Attempt,
    answer: Probe,
    now: Timestamp,
) -> Vec<Fact> {
    let retry_at = match &answer {
        // What is there already need not wait before it is completed: the wait was before the probe.
        Probe::NotApplied | Probe::Partly { .. } => {
            let nothing_asked = StepError::transient("");
            next_run(state, definition, step, now, 0.0, &nothing_asked)
        }
        Probe::Applied { .. } | Probe::Foreign { .. } => None,
    };
    let adopted = match (&answer, state.phase()) {
        (Probe::Applied { output }, Phase::Running { .. } | Phase::Unsure { .. }) => {
            Some(Fact::AttemptSucceeded { step: name.clone(), attempt, output: output.clone() })
        }
        _ => None,
    };
    let seen = Fact::Probed { step: name, attempt, answer, retry_at };
    std::iter::once(seen).chain(adopted).collect()
}

/// When the step's next attempt may start.
fn next_run(
    state: &WorkflowState,
    definition: &Definition,
    step: usize,
    now: Timestamp,
    draw: f64,
    error: &StepError,
) -> Option<Timestamp> {
    if state.is_cancelled() {
        return None;
    }
    let progress = &state.progress()[step];
    let counted = Attempt(progress.attempt.0 - progress.forgiven.0);
    let first = progress.first_started.unwrap_or(now);
    definition.steps()[step].policy().next(counted, first, now, draw, error.retry_after)
}

/// What a build that does not know the definition says.
pub(crate) fn unknown_definition(state: &WorkflowState) -> ParkReason {
    let submitted = state.submitted();
    ParkReason::UnknownDefinition {
        detail: format!(
            "this build has no definition {} version {} with fingerprint {}: run it with the cairn that began it",
            submitted.definition, submitted.version, submitted.fingerprint
        ),
    }
}
