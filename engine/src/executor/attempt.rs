//! One attempt: a step's effect, probe or compensation, with its timeout and its fence; and what it means as facts.
//!
//! - A late attempt is dropped where it stands before anything else begins: what it would have returned is lost, and
//!   its outcome counts as unknown.
//! - A panic is an unknown outcome as well.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;

use crate::{
    definition::Definition,
    fact::{ErrorClass, Fact, Failure, Outcome, Output, ParkReason, Probe},
    ids::{Attempt, StepName, Timestamp},
    panics,
    retry::RetryPolicy,
    state::{Phase, Stage, WorkflowState},
    step::{StepContext, StepError},
    threads,
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
            Ended::Run { step, attempt, result: guarded(limit, async { it.run(&cx).await }).await }
        }
        Work::Probe { step, attempt } => {
            let it = Arc::clone(&definition.steps()[step]);
            Ended::Probe {
                step,
                attempt,
                result: guarded(patient().attempt_timeout, async { it.probe(&cx).await }).await,
            }
        }
        Work::Compensate { step, attempt } => {
            let it = Arc::clone(&definition.steps()[step]);
            let limit = it.policy().attempt_timeout.max(patient().attempt_timeout);
            Ended::Compensate { step, attempt, result: guarded(limit, async { it.compensate(&cx).await }).await }
        }
        Work::CheckResidue { attempt } => {
            let look = async { definition.residue().look(&cx).await };
            Ended::CheckResidue { attempt, result: guarded(patient().attempt_timeout, look).await }
        }
        Work::LastLook => {
            let look = async { definition.residue().look(&cx).await };
            Ended::LastLook { result: guarded(Duration::from_secs(10), look).await }
        }
    }
}

/// The workflow was cancelled while the attempt still waited for its turn: nothing was done.
pub(crate) fn overtaken(work: Work) -> Ended {
    let error = || StepError::transient("cancelled before the attempt began");
    match work {
        Work::Run { step, attempt } => Ended::Run { step, attempt, result: Err(error()) },
        Work::Probe { step, attempt } => Ended::Probe { step, attempt, result: Err(error()) },
        Work::Compensate { step, attempt } => Ended::Compensate { step, attempt, result: Err(error()) },
        Work::CheckResidue { attempt } => Ended::CheckResidue { attempt, result: Err(error()) },
        Work::LastLook => Ended::LastLook { result: Err(error()) },
    }
}

async fn guarded<T>(limit: Duration, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
    match threads::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let said = panics::words(&*panic);
            Err(StepError::unknown(format!("the step has panicked ({said}): this is a bug of cairn's")))
        }
        Err(_) => Err(StepError::unknown(format!("no answer within {} s", limit.as_secs_f64()))),
    }
}

/// What the time of the next attempt is reckoned from.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    /// When this engine opened: time in which none ran does not count against a policy.
    pub(crate) opened: Timestamp,
    /// A number in `[0, 1)`.
    pub(crate) draw: f64,
}

impl Moment {
    fn next(
        self,
        policy: &RetryPolicy,
        attempt: Attempt,
        failing_since: Option<Timestamp>,
        asked: Option<Duration>,
    ) -> Option<Timestamp> {
        policy.next(attempt, failing_since.unwrap_or(self.now).max(self.opened), self.now, self.draw, asked)
    }
}

/// The facts that `ended` means for a workflow in `state`.
pub(crate) fn facts(ended: Ended, state: &WorkflowState, definition: &Definition, moment: Moment) -> Vec<Fact> {
    let name = |step: usize| state.steps()[step].clone();
    match ended {
        Ended::Run { step, attempt, result: Ok(output) } => {
            vec![Fact::AttemptSucceeded { step: name(step), attempt, output }]
        }
        Ended::Run { step, attempt, result: Err(error) } => {
            let retry_at = match error.failure.class {
                ErrorClass::Permanent => None,
                ErrorClass::Transient | ErrorClass::Unknown => {
                    next_run(state, definition, step, moment, error.retry_after)
                }
            };
            vec![Fact::AttemptFailed { step: name(step), attempt, error: clipped(error.failure), retry_at }]
        }
        Ended::Probe { step, attempt, result: Ok(answer) } => {
            probed(state, definition, name(step), step, attempt, answer, moment)
        }
        Ended::Probe { step, attempt, result: Err(error) } => {
            let probes = match state.phase() {
                Phase::Unsure { probes, .. } | Phase::Compensating { stage: Stage::Probing { probes, .. }, .. } => {
                    *probes
                }
                _ => 0,
            };
            let since = state.progress()[step].probes_failing_since;
            let retry_at = moment.next(&patient(), Attempt(probes + 1), since, error.retry_after);
            vec![Fact::ProbeFailed { step: name(step), attempt, error: clipped(error.failure), retry_at }]
        }
        Ended::Compensate { step, attempt, result: Ok(message) } => {
            vec![Fact::CompensationSucceeded { step: name(step), attempt, message: clip(message) }]
        }
        Ended::Compensate { step, attempt, result: Err(error) } => {
            let compensation = &state.progress()[step].compensation;
            let counted = Attempt(attempt.0 - compensation.forgiven.0);
            // What can never succeed does not get better by waiting: a person has to look.
            let retry_at = match error.failure.class {
                ErrorClass::Permanent => None,
                ErrorClass::Transient | ErrorClass::Unknown => {
                    moment.next(&patient(), counted, compensation.failing_since, error.retry_after)
                }
            };
            vec![Fact::CompensationFailed { step: name(step), attempt, error: clipped(error.failure), retry_at }]
        }
        Ended::CheckResidue { result: Ok(left), .. } if left.is_empty() => {
            vec![Fact::Finished { outcome: state.rolled_back_outcome(), residue: left }]
        }
        Ended::CheckResidue { result: Ok(left), .. } => {
            vec![Fact::Parked { reason: ParkReason::Residue { left: clipped_list(left) } }]
        }
        Ended::CheckResidue { attempt, result: Err(error) } => {
            // Bounded in number: each check waits longer than the one before.
            let retry_at = moment.next(&patient(), attempt, None, error.retry_after);
            vec![Fact::ResidueCheckFailed { attempt, error: clipped(error.failure), retry_at }]
        }
        Ended::LastLook { result } => {
            let residue = result.unwrap_or_else(|error| vec![format!("unknown, nobody could look: {error}")]);
            vec![Fact::Finished { outcome: Outcome::Cancelled, residue: clipped_list(residue) }]
        }
    }
}

/// The most bytes of one text that somebody else wrote: an error, a scheduler's words.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// The most lines of evidence.
const EVIDENCE_MAX: usize = 20;
/// The most lines of residue.
const RESIDUE_MAX: usize = 200;

fn clip(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

fn clipped(failure: Failure) -> Failure {
    Failure {
        class: failure.class,
        message: clip(failure.message),
        evidence: failure.evidence.into_iter().take(EVIDENCE_MAX).map(clip).collect(),
    }
}

fn clipped_list(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(RESIDUE_MAX);
    lines.truncate(RESIDUE_MAX);
    let mut lines: Vec<String> = lines.into_iter().map(clip).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
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
    moment: Moment,
) -> Vec<Fact> {
    let (answer, retry_at) = match answer {
        // What is there already need not wait before it is completed: the wait was before the probe.
        Probe::NotApplied | Probe::Partly { .. } => {
            let at_once = Moment { draw: 0.0, ..moment };
            (answer, next_run(state, definition, step, at_once, None))
        }
        Probe::Foreign { detail } => (Probe::Foreign { detail: clip(detail) }, None),
        Probe::Applied { .. } => (answer, None),
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
    moment: Moment,
    asked: Option<Duration>,
) -> Option<Timestamp> {
    if state.is_cancelled() {
        return None;
    }
    let progress = &state.progress()[step];
    let counted = Attempt(progress.attempt.0 - progress.forgiven.0);
    moment.next(&definition.steps()[step].policy(), counted, progress.failing_since, asked)
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
