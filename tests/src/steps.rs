//! Steps that go wrong on purpose.

use std::sync::Arc;

use async_trait::async_trait;
use cairn_engine::{Definition, Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};

/// Does all its work, and then fails for good: so that there is something to take back.
struct Failing(Arc<dyn Step>);

#[async_trait]
impl Step for Failing {
    fn name(&self) -> StepName {
        self.0.name()
    }

    fn policy(&self) -> RetryPolicy {
        self.0.policy()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let output = self.0.run(cx).await?;
        Err(StepError::permanent(format!("failed on purpose, after its work was done: {}", output.message)))
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        // What was done is there, yet the step is not to succeed: it runs again, and fails again.
        Ok(match self.0.probe(cx).await? {
            Probe::Applied { output } => Probe::Partly { made: output.result },
            other => other,
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        self.0.compensate(cx).await
    }
}

/// `definition` with this step failing. It is the same definition to the journal: its fingerprint is that of the names.
///
/// # Panics
/// If there is no such step.
#[must_use]
pub fn failing_at(definition: &Definition, step: &str) -> Definition {
    assert!(definition.step_names().iter().any(|name| name.as_str() == step), "there is no step {step}");
    definition.wrapped(|inner| {
        if inner.name().as_str() == step { Arc::new(Failing(Arc::clone(inner))) } else { Arc::clone(inner) }
    })
}
