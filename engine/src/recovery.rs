//! Before anything is accepted: replay what is active, park what cannot go on.
//!
//! - It reads active workflows only.
//! - One that cannot be recovered stops nobody else: it is parked with the reason, or, where not even that can be
//!   journaled, left alone and named in the engine's health.
//! - Each is claimed by its expected sequence, with the first thing that this engine appends to it.

use std::{num::NonZero, sync::Arc, thread};

use tokio::sync::oneshot;

use crate::{
    clock::SteadyClock,
    decide::decide,
    definition::Registry,
    executor::{needs_definition, unknown_definition},
    fact::{Amounts, Fact},
    handle::{OpenError, Watchers},
    ids::WorkflowId,
    journal::writer::{AppendError, Reply, Request, Writer},
    state::{WorkflowState, fold},
    store::{Append, Store, StoreError},
    threads,
};

/// Fewer than that are not worth a thread.
const SHARE_MIN: usize = 1_000;

/// The workflows to drive, oldest first.
pub(crate) async fn recover(
    store: &Arc<dyn Store>,
    definitions: &Registry,
    writer: &Writer,
    watchers: &Watchers,
    clock: &SteadyClock,
) -> Result<Vec<WorkflowState>, OpenError> {
    let reading = Arc::clone(store);
    let replayed =
        threads::spawn_blocking(move || replay_active(reading.as_ref())).await.unwrap_or(Err(StoreError::Stopped))?;
    let mut recovered = Vec::with_capacity(replayed.len());
    let mut parking = Vec::new();
    for (workflow, replayed) in replayed {
        match replayed {
            Ok(state) => {
                let known = definitions.get(&state.submitted().fingerprint).is_some();
                if !known && needs_definition(&decide(&state, clock.now())) {
                    parking.push(park(state, store, writer));
                } else {
                    recovered.push(state);
                }
            }
            Err(why) => {
                tracing::error!(%workflow, why, "a workflow cannot be replayed; it is left alone");
                watchers.unrecoverable(workflow, why);
            }
        }
    }
    // All of them share a few syncs: they were all handed to the writer before the first is waited for.
    for (mut state, answer) in parking {
        let workflow = state.id();
        match answer.await {
            Ok(Ok(entries)) => {
                let parked: Result<(), _> = entries.iter().try_for_each(|entry| state.fold(entry));
                match parked {
                    Ok(()) => {
                        tracing::warn!(%workflow, "parked: this build does not know its definition");
                        recovered.push(state);
                    }
                    Err(illegal) => watchers.unrecoverable(workflow, illegal.to_string()),
                }
            }
            Ok(Err(AppendError::Refused(refusal))) => {
                tracing::error!(%workflow, %refusal, "the workflow cannot be parked; it is left alone");
                watchers.unrecoverable(workflow, refusal.to_string());
            }
            Ok(Err(error)) => return Err(OpenError::Stopped { why: error.to_string() }),
            Err(_) => return Err(OpenError::Stopped { why: "the writer has ended".to_owned() }),
        }
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
    let replay_all = |share: &[WorkflowId]| -> Vec<Replayed> {
        share.iter().map(|workflow| (*workflow, replay(*workflow))).collect()
    };
    let active = store.active()?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if active.len() < cores * SHARE_MIN {
        return Ok(replay_all(&active));
    }
    thread::scope(|scope| {
        let shares: Vec<_> =
            active.chunks(active.len().div_ceil(cores)).map(|share| scope.spawn(move || replay_all(share))).collect();
        // In the order of the shares, and so oldest first.
        let replayed: Result<Vec<_>, _> = shares.into_iter().map(thread::ScopedJoinHandle::join).collect();
        replayed.map(|replayed| replayed.into_iter().flatten().collect()).map_err(|_| StoreError::Stopped)
    })
}

type Parking = (WorkflowState, oneshot::Receiver<Result<Vec<crate::entry::Entry>, AppendError>>);

fn park(state: WorkflowState, store: &Arc<dyn Store>, writer: &Writer) -> Parking {
    let append = Append {
        workflow: state.id(),
        expected: state.sequence(),
        token: store.token(),
        facts: vec![Fact::Parked { reason: unknown_definition(&state) }],
        quota: Amounts::new(),
    };
    let (reply, answer) = oneshot::channel();
    let reply: Reply = Box::new(move |answer| drop(reply.send(answer)));
    writer.append(vec![Request { append, reply }]);
    (state, answer)
}
