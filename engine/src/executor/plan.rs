//! What one turn of a workflow comes to: facts to append, then something to do or a time to wait for.

use super::{
    Wish,
    attempt::{self, Work},
};
use crate::{
    decide::{Command, decide},
    definition::Definition,
    fact::{Fact, Outcome, ParkReason},
    handle::ControlError,
    ids::Timestamp,
    state::{IllegalFact, Phase, WorkflowState},
};

/// What one turn of a workflow comes to.
pub(super) struct Plan {
    pub(super) state: WorkflowState,
    pub(super) facts: Vec<Fact>,
    pub(super) next: Option<Work>,
    pub(super) wait: Option<Timestamp>,
    pub(super) now: Timestamp,
}

impl Plan {
    pub(super) fn push(&mut self, fact: Fact) -> Result<(), IllegalFact> {
        self.state.fold_fact(&fact, self.now)?;
        self.facts.push(fact);
        Ok(())
    }

    /// What a person asks for. It is decided on the state that it is appended to, so nothing can begin in between.
    ///
    /// A build without the definition cannot tell what is irreversible: what a cancel leads to waits for one that can.
    ///
    /// # Errors
    /// [`ControlError`] if the workflow is not where this could be asked of it.
    pub(super) fn ask(&mut self, definition: Option<&Definition>, wish: Wish) -> Result<(), ControlError> {
        let workflow = self.state.id();
        let Wish { fact, only_parked } = wish;
        if only_parked && !matches!(self.state.phase(), Phase::Parked { .. }) {
            return Err(ControlError::NotParked { workflow });
        }
        if let Fact::CancelRequested { force: false, .. } = fact
            && !self.state.is_cancelled()
            && let Some(step) = definition.and_then(|definition| definition.point_of_no_return(&self.state))
        {
            return Err(ControlError::Irreversible { workflow, step: step.clone() });
        }
        self.push(fact).map_err(|illegal| ControlError::NotNow { workflow, illegal })
    }

    /// Follows `decide` until something has to be waited for.
    ///
    /// # Errors
    /// [`IllegalFact`] if `decide` and `fold` contradict each other: a bug, which stops this workflow and nobody else.
    pub(super) fn proceed(&mut self, definition: Option<&Definition>) -> Result<(), IllegalFact> {
        loop {
            let command = decide(&self.state, self.now);
            if definition.is_none() && needs_definition(&command) {
                return self.push(Fact::Parked { reason: attempt::unknown_definition(&self.state) });
            }
            match command {
                Command::RunStep { step, attempt } => {
                    self.next = Some(Work::Run { step, attempt });
                    return self.push(Fact::AttemptStarted { step: self.state.steps()[step].clone(), attempt });
                }
                Command::Probe { step, attempt } => {
                    self.next = Some(Work::Probe { step, attempt });
                    return Ok(());
                }
                Command::Compensate { step, attempt } => {
                    if attempt::compensation_is_exhausted(&self.state, step, attempt) {
                        return self.push(Fact::Parked { reason: ParkReason::CompensationFailing });
                    }
                    self.next = Some(Work::Compensate { step, attempt });
                    return self.push(Fact::CompensationStarted { step: self.state.steps()[step].clone(), attempt });
                }
                Command::CheckResidue { attempt } => {
                    self.next = Some(Work::CheckResidue { attempt });
                    return Ok(());
                }
                // A forced end says what it leaves behind, as far as that can be seen.
                Command::Finish { outcome: Outcome::Cancelled } if definition.is_some() => {
                    self.next = Some(Work::LastLook);
                    return Ok(());
                }
                Command::Finish { outcome } => {
                    let residue = match outcome {
                        Outcome::Cancelled => vec!["unknown, this build has no definition to look with".to_owned()],
                        Outcome::Succeeded | Outcome::Failed => Vec::new(),
                    };
                    self.push(Fact::Finished { outcome, residue })?;
                }
                Command::Park { reason } => self.push(Fact::Parked { reason })?,
                Command::WaitUntil(at) => {
                    self.wait = Some(at);
                    return Ok(());
                }
                Command::Nothing => return Ok(()),
            }
        }
    }
}

/// Whether a build that does not know the definition can not do this.
pub(crate) fn needs_definition(command: &Command) -> bool {
    match command {
        Command::RunStep { .. } | Command::Probe { .. } | Command::Compensate { .. } | Command::CheckResidue { .. } => {
            true
        }
        // A wait is for something that would need it.
        Command::WaitUntil(_) => true,
        Command::Finish { .. } | Command::Park { .. } | Command::Nothing => false,
    }
}
