//! What to do next: a pure function of the folded state and the time.
//!
//! It is asked when nothing of the workflow is in hand. An attempt that the journal shows as started is therefore one
//! that a crash or a timeout has cut, and the answer is to probe.

use crate::{
    fact::{Outcome, ParkReason},
    ids::{Attempt, Timestamp},
    state::{Phase, Stage, WorkflowState},
};

/// What to do next. Steps are given by their place in the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Append `AttemptStarted`, then run the step.
    RunStep {
        /// Which step.
        step: usize,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Ask the world what this attempt left, then append the answer.
    Probe {
        /// Which step.
        step: usize,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Append `CompensationStarted`, then compensate the step.
    Compensate {
        /// Which step.
        step: usize,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Look for residue, then append `Finished`, or `Parked` with the list.
    CheckResidue {
        /// Which check.
        attempt: Attempt,
    },
    /// Append `Finished`.
    Finish {
        /// How.
        outcome: Outcome,
    },
    /// Append `Parked`.
    Park {
        /// Why.
        reason: ParkReason,
    },
    /// Ask again at this time.
    WaitUntil(Timestamp),
    /// Somebody else's turn: a person's, or nobody's.
    Nothing,
}

/// What to do next about a workflow of which nothing is in hand.
#[must_use]
pub fn decide(state: &WorkflowState, now: Timestamp) -> Command {
    let due = |not_before: Option<Timestamp>, command: Command| match not_before {
        Some(at) if at > now => Command::WaitUntil(at),
        _ => command,
    };
    match state.phase() {
        Phase::Ready { .. } if state.is_paused() => Command::Nothing,
        Phase::Ready { step, attempt, not_before } => {
            due(*not_before, Command::RunStep { step: *step, attempt: *attempt })
        }
        Phase::Running { step, attempt } => Command::Probe { step: *step, attempt: *attempt },
        Phase::Unsure { step, attempt, not_before, .. } => {
            due(*not_before, Command::Probe { step: *step, attempt: *attempt })
        }
        Phase::Complete => Command::Finish { outcome: Outcome::Succeeded },
        Phase::Compensating { step, stage } => match stage {
            Stage::Probing { not_before, .. } => {
                due(*not_before, Command::Probe { step: *step, attempt: state.progress()[*step].attempt })
            }
            Stage::Ready { attempt, not_before } => {
                due(*not_before, Command::Compensate { step: *step, attempt: *attempt })
            }
            Stage::Running { attempt } => Command::Compensate { step: *step, attempt: attempt.next() },
        },
        Phase::CheckingResidue { attempt, not_before } => due(*not_before, Command::CheckResidue { attempt: *attempt }),
        Phase::Parking { reason, .. } => Command::Park { reason: reason.clone() },
        Phase::Parked { .. } | Phase::Finished { .. } => Command::Nothing,
        Phase::Forced => Command::Finish { outcome: Outcome::Cancelled },
    }
}
