//! The simulated disk: what was committed is kept, what was not is gone; and what it says about who has what in hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_engine::{
    Attempt, Entry, ErrorClass, Fact, FencingToken, Probe, StepName, Timestamp, WorkflowId,
    store::{Append, Around, MemoryStore, Refusal, Store, StoreError},
};

use crate::{
    life::{Life, Write},
    notes::Notes,
};

/// The disk as one life of an engine sees it.
pub(crate) struct Disk {
    pub(crate) kept: MemoryStore,
    pub(crate) hands: Arc<Hands>,
    pub(crate) life: Arc<Life>,
    pub(crate) notes: Arc<Notes>,
}

impl Around for Disk {
    fn within(&self) -> &dyn Store {
        &self.kept
    }

    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        let write = self.life.next_commit();
        match write {
            Write::Over => return Err(StoreError::Stopped),
            Write::AfterFailure => {
                self.notes.broken("I5: something is written after a write has failed".to_owned());
                return Err(StoreError::Stopped);
            }
            Write::Lost => {
                self.notes.count("commits lost");
                return Err(failed());
            }
            Write::Done | Write::Kept => {}
        }
        let answers = self.kept.commit(appends, now)?;
        self.hands.take_in(answers.iter().flatten().flatten());
        if write == Write::Kept {
            self.notes.count("commits kept that nobody learned of");
            return Err(failed());
        }
        Ok(answers)
    }

    fn readable(&self) -> Result<(), StoreError> {
        if self.life.is_over() { Err(StoreError::Stopped) } else { Ok(()) }
    }
}

fn failed() -> StoreError {
    StoreError::Io { action: "sync", path: "the simulated log".into(), source: std::io::Error::other("a fault") }
}

/// What may be done to the cluster for each workflow, as the disk has it.
#[derive(Default)]
pub(crate) struct Hands(Mutex<BTreeMap<WorkflowId, Hand>>);

/// What a workflow has in hand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hand {
    pub(crate) holds: Holds,
    /// A step has ended for good with something made, and is tried again all the same, as a person wants it.
    pub(crate) tried_again: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Holds {
    #[default]
    Nothing,
    Attempt(StepName, Attempt, FencingToken),
    Compensation(StepName, Attempt, FencingToken),
    Finished,
}

impl Hands {
    pub(crate) fn of(&self, workflow: WorkflowId) -> Hand {
        self.all().get(&workflow).cloned().unwrap_or_default()
    }

    fn take_in<'a>(&self, entries: impl Iterator<Item = &'a Entry>) {
        let mut all = self.all();
        for Entry { workflow, token, fact, .. } in entries {
            let hand = all.entry(*workflow).or_default();
            hand.holds = match fact {
                Fact::AttemptStarted { step, attempt } => Holds::Attempt(step.clone(), *attempt, *token),
                Fact::CompensationStarted { step, attempt } => Holds::Compensation(step.clone(), *attempt, *token),
                Fact::Finished { .. } => Holds::Finished,
                // These may be asked for while something is in hand, which goes on.
                Fact::CancelRequested { force: false, .. }
                | Fact::Paused { .. }
                | Fact::Resumed { .. }
                | Fact::RetryRequested { .. } => continue,
                _ => Holds::Nothing,
            };
            hand.tried_again |= match fact {
                Fact::AttemptFailed { error, .. } => error.class == ErrorClass::Permanent,
                Fact::Probed { answer, .. } => matches!(answer, Probe::Foreign { .. }),
                _ => false,
            };
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<WorkflowId, Hand>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
