//! What a world has seen: how often what happened, and which invariants were broken where it happened.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Notes that everything in a world writes into.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Written>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// How often what happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// What should never have happened.
    pub(crate) broken: Vec<String>,
}

impl Notes {
    /// This happened.
    pub(crate) fn count(&self, what: &'static str) {
        *self.written().counts.entry(what).or_default() += 1;
    }

    /// This should not have happened.
    pub(crate) fn broken(&self, what: String) {
        self.written().broken.push(what);
    }

    pub(crate) fn all(&self) -> Written {
        self.written().clone()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
