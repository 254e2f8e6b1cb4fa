//! A definition: a named, versioned list of steps; and the registry of those that this build knows.
//!
//! What a definition says beside its list (which steps are irreversible, their policies, what looks for residue) is the
//! build's and not the journal's: it counts from now on, and changes nothing about what was accepted before.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    fact::Effect,
    ids::{Attempt, DefinitionName, Hash, StepName},
    state::WorkflowState,
    step::{Residue, Step},
};

/// A named, versioned list of steps.
#[derive(Clone)]
pub struct Definition {
    name: DefinitionName,
    version: u32,
    effect: Effect,
    steps: Arc<[Arc<dyn Step>]>,
    names: Vec<StepName>,
    irreversible: Vec<StepName>,
    residue: Arc<dyn Residue>,
}

impl Definition {
    /// The definition with these steps, in this order.
    ///
    /// # Panics
    /// If there is no step, or two have the same name: a bug of whoever wrote it.
    #[must_use]
    pub fn new(name: &str, version: u32, effect: Effect, steps: Vec<Arc<dyn Step>>, residue: Arc<dyn Residue>) -> Self {
        let names: Vec<StepName> = steps.iter().map(|step| step.name()).collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert!(
            !names.is_empty() && unique.len() == names.len(),
            "a definition has steps, each with a name of its own"
        );
        Self { name: name.into(), version, effect, steps: steps.into(), names, irreversible: Vec::new(), residue }
    }

    /// The same, in which these steps cannot be taken back: from the start of the first of them on, a cancel is refused.
    ///
    /// # Panics
    /// If one of them is no step of it: a bug of whoever wrote it.
    #[must_use]
    pub fn irreversible(self, steps: &[&str]) -> Self {
        let irreversible: Vec<StepName> = steps.iter().map(|step| (*step).into()).collect();
        assert!(irreversible.iter().all(|step| self.names.contains(step)), "only a step can be irreversible");
        Self { irreversible, ..self }
    }

    /// The same, with each step wrapped into another that bears its name.
    ///
    /// # Panics
    /// If one has another name then.
    #[must_use]
    pub fn wrapped(&self, wrap: impl FnMut(&Arc<dyn Step>) -> Arc<dyn Step>) -> Self {
        let steps: Arc<[Arc<dyn Step>]> = self.steps.iter().map(wrap).collect();
        assert!(steps.iter().map(|step| step.name()).eq(self.names.iter().cloned()), "a wrapped step keeps its name");
        Self { steps, ..self.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &DefinitionName {
        &self.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What it does to its service.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Its steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[Arc<dyn Step>] {
        &self.steps
    }

    /// Their names, in the same order.
    #[must_use]
    pub fn step_names(&self) -> &[StepName] {
        &self.names
    }

    /// The first step that cannot be taken back of those that this workflow has begun: it can only go on.
    #[must_use]
    pub fn point_of_no_return(&self, state: &WorkflowState) -> Option<&StepName> {
        let begun = |step: &StepName| {
            state.place(step).and_then(|step| state.progress().get(step)).is_some_and(|step| step.attempt > Attempt(0))
        };
        self.names.iter().find(|step| self.irreversible.contains(step) && begun(step))
    }

    /// What looks for residue after a rollback.
    #[must_use]
    pub fn residue(&self) -> &Arc<dyn Residue> {
        &self.residue
    }

    /// BLAKE3 over name, version and the names of the steps: what a workflow was begun with, it ends with.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        // Length first, so that no two lists of names give the same bytes.
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.name.as_str().as_bytes());
        part(&self.version.to_be_bytes());
        for name in &self.names {
            part(name.as_str().as_bytes());
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

/// The definitions that this build knows.
#[derive(Clone, Default)]
pub struct Registry {
    by_fingerprint: BTreeMap<[u8; 32], Definition>,
}

impl Registry {
    /// The registry of these.
    #[must_use]
    pub fn new(definitions: impl IntoIterator<Item = Definition>) -> Self {
        let by_fingerprint =
            definitions.into_iter().map(|definition| (definition.fingerprint().0, definition)).collect();
        Self { by_fingerprint }
    }

    /// The definition that a workflow was begun with.
    #[must_use]
    pub fn get(&self, fingerprint: &Hash) -> Option<&Definition> {
        self.by_fingerprint.get(&fingerprint.0)
    }

    /// The newest version of the definition with this name.
    #[must_use]
    pub fn newest(&self, name: &DefinitionName) -> Option<&Definition> {
        self.by_fingerprint.values().filter(|known| known.name() == name).max_by_key(|known| known.version())
    }
}
