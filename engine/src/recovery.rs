//! Before anything is accepted: replay what is active, park what cannot go on.
//!
//! - It reads active workflows only.
//! - One that cannot be recovered stops nobody else: it is parked with the reason, or, where not even that can be
//!   journaled, left alone and named in the engine's health.
//! - Each is claimed by its expected sequence, with the first thing that this engine appends to it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    clock::Clock,
    definition::Registry,
    fact::{Amounts, Fact, ParkReason},
    handle::{OpenError, Watchers},
    ids::WorkflowId,
    journal::writer::{AppendError, Writer},
    state::{Phase, WorkflowState, fold},
    store::{Append, Store, StoreError},
};

/// The workflows to drive, oldest first.
pub(crate) async fn recover(
    store: &Arc<dyn Store>,
    definitions: &Registry,
    writer: &Writer,
    watchers: &Watchers,
    clock: &dyn Clock,
) -> Result<Vec<WorkflowState>, OpenError> {
    let reading = Arc::clone(store);
    let replayed = tokio::task::spawn_blocking(move || replay_active(reading.as_ref()))
        .await
        .unwrap_or(Err(StoreError::Stopped))?;
    let mut recovered = Vec::with_capacity(replayed.len());
    for (workflow, replayed) in replayed {
        let mut state = match replayed {
            Ok(state) => state,
            Err(why) => {
                tracing::error!(%workflow, why, "a workflow cannot be replayed; it is left alone");
                watchers.unrecoverable(workflow, why);
                continue;
            }
        };
        if definitions.get(&state.submitted().fingerprint).is_none() && !is_parked(&state) {
            park(&mut state, store, writer, clock).await?;
        }
        recovered.push(state);
    }
    Ok(recovered)
}

type Replayed = (WorkflowId, Result<WorkflowState, String>);

fn replay_active(store: &dyn Store) -> Result<Vec<Replayed>, StoreError> {
    let replay = |workflow| match store.workflow(workflow).map(|entries| fold(&entries)) {
        Ok(Ok(Some(state))) => Ok(state),
        Ok(Ok(None)) => Err("it has no entries".to_owned()),
        Ok(Err(illegal)) => Err(illegal.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Ok(store.active()?.into_iter().map(|workflow| (workflow, replay(workflow))).collect())
}

fn is_parked(state: &WorkflowState) -> bool {
    matches!(state.phase(), Phase::Parked { .. })
}

async fn park(
    state: &mut WorkflowState,
    store: &Arc<dyn Store>,
    writer: &Writer,
    clock: &dyn Clock,
) -> Result<(), OpenError> {
    let submitted = state.submitted();
    let reason = ParkReason::UnknownDefinition {
        detail: format!(
            "this build has no definition {} version {} with fingerprint {}: run it with the cairn that began it",
            submitted.definition, submitted.version, submitted.fingerprint
        ),
    };
    let fact = Fact::Parked { reason };
    if let Err(illegal) = state.clone().fold_fact(&fact, clock.now()) {
        tracing::error!(workflow = %state.id(), %illegal, "a workflow of an unknown definition cannot be parked");
        return Ok(());
    }
    let append = Append {
        workflow: state.id(),
        expected: state.sequence(),
        token: store.token(),
        facts: vec![fact],
        quota: Amounts::new(),
    };
    let (reply, answer) = oneshot::channel();
    writer.append(append, Box::new(move |answer| drop(reply.send(answer))));
    match answer.await {
        Ok(Ok(entries)) => {
            for entry in &entries {
                state.fold(entry).expect("it was folded before it was appended");
            }
            tracing::warn!(workflow = %state.id(), "parked: this build does not know its definition");
            Ok(())
        }
        Ok(Err(AppendError::Refused(refusal))) => {
            tracing::error!(workflow = %state.id(), %refusal, "another engine has this workflow; it is left alone");
            Ok(())
        }
        Ok(Err(error)) => Err(OpenError::Stopped { why: error.to_string() }),
        Err(_) => Err(OpenError::Stopped { why: "the writer has ended".to_owned() }),
    }
}
