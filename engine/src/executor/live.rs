//! A workflow that is not finished, as the executor holds it; and the right of an attempt to be in flight.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{mpsc, watch};

use super::{
    Answer, Event, Wish,
    attempt::{Ended, Work},
};
use crate::{
    ids::{Timestamp, WorkflowId},
    state::WorkflowState,
    threads::JoinHandle,
};

/// A workflow that is not finished.
pub(super) struct Live {
    /// As it is on the disk.
    pub(super) state: Arc<WorkflowState>,
    pub(super) hand: Hand,
    pub(super) asked: VecDeque<(Wish, Answer)>,
    /// The earliest place that it has in the heap of timers.
    pub(super) timer: Option<Timestamp>,
    /// An attempt that was aborted: what comes next waits until it has really ended.
    pub(super) dying: Option<JoinHandle<()>>,
}

/// What is in hand.
pub(super) enum Hand {
    Nothing,
    /// Facts are on their way to the disk; then `next` begins and `replies` are answered.
    Appending {
        next: Option<Work>,
        replies: Vec<Answer>,
        kept: Option<Attempting>,
    },
    Attempting(Attempting),
    /// It has ended; what it means is still to be appended.
    Ended(Box<Ended>),
}

pub(super) struct Attempting {
    pub(super) turn: u64,
    pub(super) work: Work,
    pub(super) has_slot: bool,
    pub(super) stop: watch::Sender<bool>,
    /// None while it waits for a slot.
    pub(super) task: Option<JoinHandle<()>>,
    /// It ended while facts were on their way to the disk.
    pub(super) ended: Option<Box<Ended>>,
}

/// The right of one attempt to be among those in flight.
pub(crate) struct Slot {
    pub(super) workflow: WorkflowId,
    pub(super) turn: u64,
    pub(super) released: AtomicBool,
    pub(super) to: mpsc::UnboundedSender<Event>,
}

impl Slot {
    /// One that nobody counts: for an attempt without an executor.
    pub(crate) fn detached(workflow: WorkflowId) -> Self {
        let (to, _) = mpsc::unbounded_channel();
        Self { workflow, turn: 0, released: AtomicBool::new(true), to }
    }

    /// Gives the slot back before the attempt ends. Once is enough, twice does no harm.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            // Nobody listens only when the engine is gone.
            let _ = self.to.send(Event::SlotFree { workflow: self.workflow, turn: self.turn });
        }
    }
}
