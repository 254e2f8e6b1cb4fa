//! Steps that do nothing: what a workflow of them takes is the engine's.
//!
//! What they say of it is about as long as what a real step says, so that the journal has as much to do.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cairn_engine::{Definition, Effect, Output, Probe, Residue, RetryPolicy, Step, StepContext, StepError, StepName};

/// Does nothing, and says so in about 300 bytes.
struct NoOp {
    name: StepName,
    waits: bool,
}

#[async_trait]
impl Step for NoOp {
    fn name(&self) -> StepName {
        self.name.clone()
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { total_max: Duration::from_secs(1_000_000), ..RetryPolicy::default() }
    }

    async fn run(&self, _: &StepContext) -> Result<Output, StepError> {
        if self.waits {
            return Err(StepError::transient("not yet").with_retry_after(Duration::from_secs(100_000)));
        }
        Ok(Output::new("nothing to do", &made())?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing to take back".to_owned())
    }
}

/// What a step that applies objects tells of them, in about 300 bytes: half of it words that repeat, half of it numbers
/// that nobody can guess.
#[must_use]
pub fn made() -> impl serde::Serialize {
    ["Service", "ConfigMap", "StatefulSet", "Deployment"].map(|kind| {
        let drawn: u128 = rand::random();
        Made { kind, uid: format!("{drawn:032x}"), version: drawn as u16 }
    })
}

#[derive(serde::Serialize)]
struct Made {
    kind: &'static str,
    uid: String,
    version: u16,
}

struct Nothing;

#[async_trait]
impl Residue for Nothing {
    async fn look(&self, _: &StepContext) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

/// As many as a creation has.
pub const STEPS: usize = 10;
/// The name of [`definition`].
pub const NAME: &str = "no-op";

/// Ten of them; or ten of which the first waits for its retry time, and so do all others.
#[must_use]
pub fn definition(waits: bool) -> Definition {
    let step = |n| Arc::new(NoOp { name: StepName::new(&format!("step_{n}")), waits }) as Arc<dyn Step>;
    Definition::new(NAME, 1, Effect::Create, (0..STEPS).map(step).collect(), Arc::new(Nothing))
}

/// One in the place of `step`, under its name.
#[must_use]
pub fn instead_of(step: &Arc<dyn Step>) -> Arc<dyn Step> {
    Arc::new(NoOp { name: step.name(), waits: false })
}
