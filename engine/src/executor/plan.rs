//! What one turn of a workflow comes to: facts to append, then something to do or a time to wait for.

use super::attempt::{self, Work};
use crate::{
    decide::{Command, decide},
    definition::Definition,
    fact::{Fact, Outcome, ParkReason},
    ids::Timestamp,
    state::{IllegalFact, WorkflowState},
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

    fn own(&mut self, fact: Fact) {
        self.push(fact).expect("what `decide` says may follow");
    }

    /// Follows `decide` until something has to be waited for.
    pub(super) fn proceed(&mut self, definition: Option<&Definition>) {
        loop {
            let command = decide(&self.state, self.now);
            if definition.is_none() && !matches!(command, Command::Nothing | Command::Finish { .. }) {
                self.own(Fact::Parked { reason: attempt::unknown_definition(&self.state) });
                return;
            }
            match command {
                Command::RunStep { step, attempt } => {
                    self.own(Fact::AttemptStarted { step: self.state.steps()[step].clone(), attempt });
                    return self.next = Some(Work::Run { step, attempt });
                }
                Command::Probe { step, attempt } => return self.next = Some(Work::Probe { step, attempt }),
                Command::Compensate { step, attempt } => {
                    if attempt::compensation_is_exhausted(&self.state, step, attempt) {
                        self.own(Fact::Parked { reason: ParkReason::CompensationFailing });
                        return;
                    }
                    self.own(Fact::CompensationStarted { step: self.state.steps()[step].clone(), attempt });
                    return self.next = Some(Work::Compensate { step, attempt });
                }
                Command::CheckResidue { attempt } => return self.next = Some(Work::CheckResidue { attempt }),
                // A forced end says what it leaves behind, as far as that can be seen.
                Command::Finish { outcome: Outcome::Cancelled } if definition.is_some() => {
                    return self.next = Some(Work::LastLook);
                }
                Command::Finish { outcome } => {
                    let residue = match outcome {
                        Outcome::Cancelled => vec!["unknown, this build has no definition to look with".to_owned()],
                        Outcome::Succeeded | Outcome::Failed => Vec::new(),
                    };
                    self.own(Fact::Finished { outcome, residue });
                }
                Command::Park { reason } => self.own(Fact::Parked { reason }),
                Command::WaitUntil(at) => return self.wait = Some(at),
                Command::Nothing => return,
            }
        }
    }
}
