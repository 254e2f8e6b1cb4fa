//! A step that does all its work and then fails for good, for `cairn demo --fail-at`: so that there is something to
//! take back, and what takes it back is the step's own compensation.

use std::sync::Arc;

use async_trait::async_trait;
use cairn_engine::{Definition, Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};

struct FailingStep(Arc<dyn Step>);

#[async_trait]
impl Step for FailingStep {
    fn name(&self) -> StepName {
        self.0.name()
    }

    fn policy(&self) -> RetryPolicy {
        self.0.policy()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let output = self.0.run(cx).await?;
        Err(StepError::permanent(format!("failed on purpose (--fail-at), after its work was done: {}", output.message)))
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

/// `definition` with this step failing. Its fingerprint stays: another engine, without the fault, can go on with it.
pub(crate) fn failing_at(definition: &Definition, step: &str) -> Definition {
    definition.wrapped(|inner| {
        if inner.name().as_str() == step { Arc::new(FailingStep(Arc::clone(inner))) } else { Arc::clone(inner) }
    })
}
