//! Decide, act, append: the loop that every workflow is driven by.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::ids::WorkflowId;

/// The right of one attempt to be among those in flight.
pub(crate) struct Slot {
    pub(crate) workflow: WorkflowId,
    pub(crate) released: AtomicBool,
    pub(crate) to: mpsc::UnboundedSender<WorkflowId>,
}

impl Slot {
    /// Gives the slot back before the attempt ends. Once is enough, twice does no harm.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            // Nobody listens only when the engine is gone.
            let _ = self.to.send(self.workflow);
        }
    }
}
