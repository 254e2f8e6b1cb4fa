//! Who waits for which workflow. As large as its use: a workflow that nobody watches has no place here.
//!
//! - Whoever waits for an end is woken at the end, and not at each entry before it.
//! - Who follows a workflow from its submission on gets its entries as they become durable: at its end nothing is read.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{oneshot, watch};

use crate::{
    entry::Entry,
    ids::{Sequence, WorkflowId},
    state::WorkflowState,
    threads::{Mutex, MutexGuard, PoisonError},
};

/// Who waits for which workflow.
#[derive(Default)]
pub(crate) struct Watchers {
    places: Mutex<Places>,
    unrecoverable: Mutex<Vec<(WorkflowId, String)>>,
}

#[derive(Default)]
struct Places {
    watched: HashMap<WorkflowId, Place>,
    /// No workflow grows any more.
    ended: bool,
}

/// Those who watch one workflow.
#[derive(Default)]
struct Place {
    /// Its last entry.
    growth: Option<watch::Sender<Sequence>>,
    /// Its state when it was last finished or parked.
    ends: Option<watch::Sender<Ended>>,
    follower: Option<Follower>,
}

type Ended = Option<Arc<WorkflowState>>;

/// One who follows a workflow from its submission on.
struct Follower {
    entries: Vec<Entry>,
    tell: oneshot::Sender<Settled>,
}

/// A workflow that is finished or parked: how it is, and how it came there.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Its state.
    pub state: Arc<WorkflowState>,
    /// All its entries, in order.
    pub entries: Vec<Entry>,
}

/// A workflow that is followed from its submission on, until it is finished or parked.
pub struct Following {
    workflow: WorkflowId,
    told: oneshot::Receiver<Settled>,
    watchers: Arc<Watchers>,
}

impl Following {
    /// Returns once the workflow is finished or parked; `None` if the engine ends before that.
    ///
    /// # Cancel safety
    /// It may be polled again, and loses nothing.
    pub async fn settled(&mut self) -> Option<Settled> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.watchers.leave(self.workflow, |place| place.follower = None);
    }
}

/// One who watches a workflow.
pub(super) struct Watched<T: Default> {
    workflow: WorkflowId,
    last: watch::Receiver<T>,
    watchers: Arc<Watchers>,
}

impl<T: Clone + Default> Watched<T> {
    /// Returns once what is watched is as wanted.
    pub(super) async fn until(&mut self, wanted: impl FnMut(&T) -> bool) {
        // An error would mean that the sender is gone: it goes with its last receiver, and this is one.
        let _ = self.last.wait_for(wanted).await;
    }

    /// What was told last.
    pub(super) fn last(&self) -> T {
        self.last.borrow().clone()
    }
}

impl<T: Default> Drop for Watched<T> {
    fn drop(&mut self) {
        // A channel of its own, which nobody watches: the one that was watched has one receiver less.
        self.last = watch::channel(T::default()).1;
        self.watchers.leave(self.workflow, |_| {});
    }
}

impl Place {
    fn is_empty(&self) -> bool {
        fn is_watched<T>(sender: &Option<watch::Sender<T>>) -> bool {
            sender.as_ref().is_some_and(|sender| !sender.is_closed())
        }
        self.follower.is_none() && !is_watched(&self.growth) && !is_watched(&self.ends)
    }
}

impl Watchers {
    /// Watches the workflow grow, entry by entry.
    pub(super) fn growth(self: &Arc<Self>, workflow: WorkflowId) -> Watched<Sequence> {
        self.watch(workflow, |place| &mut place.growth)
    }

    /// Watches where the workflow is finished or parked.
    pub(super) fn ends(self: &Arc<Self>, workflow: WorkflowId) -> Watched<Ended> {
        self.watch(workflow, |place| &mut place.ends)
    }

    fn watch<T: Default>(
        self: &Arc<Self>,
        workflow: WorkflowId,
        which: impl FnOnce(&mut Place) -> &mut Option<watch::Sender<T>>,
    ) -> Watched<T> {
        let mut places = self.lock();
        let sender = which(places.watched.entry(workflow).or_default());
        let last = sender.get_or_insert_with(|| watch::channel(T::default()).0).subscribe();
        Watched { workflow, last, watchers: Arc::clone(self) }
    }

    /// Follows a workflow that is about to be submitted. There is one who does, or none.
    pub(super) fn follow(self: &Arc<Self>, workflow: WorkflowId) -> Following {
        let (tell, told) = oneshot::channel();
        let mut places = self.lock();
        if !places.ended {
            places.watched.entry(workflow).or_default().follower = Some(Follower { entries: Vec::new(), tell });
        }
        Following { workflow, told, watchers: Arc::clone(self) }
    }

    /// The first entries of the workflow have become durable.
    pub(super) fn begun(&self, workflow: WorkflowId, entries: Vec<Entry>) {
        if let Some(Place { follower: Some(follower), .. }) = self.lock().watched.get_mut(&workflow) {
            follower.entries = entries;
        }
    }

    /// These entries of the workflow have become durable; `state` is the one after them.
    pub(crate) fn grown(&self, state: &Arc<WorkflowState>, entries: Vec<Entry>) {
        let mut places = self.lock();
        let Some(place) = places.watched.get_mut(&state.id()) else { return };
        if let Some(growth) = &place.growth {
            growth.send_replace(state.sequence());
        }
        if let Some(follower) = &mut place.follower {
            follower.entries.extend(entries);
        }
        if state.is_settled() {
            if let Some(ends) = &place.ends {
                ends.send_replace(Some(Arc::clone(state)));
            }
            if let Some(Follower { entries, tell }) = place.follower.take() {
                // Who followed it may have gone.
                let _ = tell.send(Settled { state: Arc::clone(state), entries });
            }
        }
    }

    /// Nobody hears of a workflow any more.
    pub(super) fn end(&self) {
        let mut places = self.lock();
        places.ended = true;
        for place in places.watched.values_mut() {
            place.follower = None;
        }
    }

    /// Changes the place of the workflow, and removes it once nobody needs it.
    fn leave(&self, workflow: WorkflowId, change: impl FnOnce(&mut Place)) {
        let mut places = self.lock();
        if let Some(place) = places.watched.get_mut(&workflow) {
            change(place);
            if place.is_empty() {
                places.watched.remove(&workflow);
            }
        }
    }

    pub(crate) fn unrecoverable(&self, workflow: WorkflowId, why: String) {
        self.unrecoverable.lock().unwrap_or_else(PoisonError::into_inner).push((workflow, why));
    }

    pub(super) fn all_unrecoverable(&self) -> Vec<(WorkflowId, String)> {
        self.unrecoverable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing that holds the lock can panic half-way through a change.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
