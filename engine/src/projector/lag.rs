//! How far a view is behind the journal.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    clock::SteadyClock,
    entry::Commit,
    ids::{CommitNumber, Timestamp},
};

/// How a view is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewHealth {
    /// What it is called.
    pub name: &'static str,
    /// How many commits it has not taken in yet.
    pub commits_behind: u64,
    /// It shows all that was durable so long ago, if not more.
    pub behind: Duration,
    /// Why it cannot be written, if it cannot.
    pub failing: Option<String>,
}

/// Tells how far a view is.
pub(crate) struct Gauge {
    name: &'static str,
    clock: Arc<SteadyClock>,
    head: watch::Receiver<CommitNumber>,
    /// The last commit when the engine opened: what is before it was left by another process.
    from: CommitNumber,
    shown: AtomicU64,
    /// All that was durable then is shown, in microseconds.
    as_of: AtomicI64,
    failing: Mutex<Option<String>>,
    moved: watch::Sender<Timestamp>,
}

/// So often those who wait for a view are told that it has got further.
const TELL: Duration = Duration::from_millis(100);

impl Gauge {
    pub(crate) fn new(name: &'static str, clock: Arc<SteadyClock>, head: watch::Receiver<CommitNumber>) -> Self {
        let (now, from) = (clock.now(), *head.borrow());
        Self {
            name,
            clock,
            head,
            from,
            shown: AtomicU64::new(0),
            as_of: AtomicI64::new(now.as_micros()),
            failing: Mutex::default(),
            moved: watch::channel(now).0,
        }
    }

    /// The time now.
    pub(super) fn time(&self) -> Timestamp {
        self.clock.now()
    }

    /// Everything up to and with this commit is shown.
    pub(super) fn shown(&self, last: &Commit) {
        self.shown.store(last.number.0, Ordering::Relaxed);
        self.right_as_of(last.time);
    }

    /// Everything that was durable at this time is shown.
    pub(super) fn caught_up(&self, time: Timestamp) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.right_as_of(time);
    }

    /// There was nothing to show until now.
    pub(super) fn rested(&self) {
        self.as_of.store(self.clock.now().as_micros(), Ordering::Relaxed);
    }

    /// It cannot be written.
    pub(super) fn failed(&self, why: String) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        // Nobody waits for what may take long.
        self.moved.send_replace(self.clock.now());
    }

    fn right_as_of(&self, time: Timestamp) {
        self.as_of.store(time.as_micros(), Ordering::Relaxed);
        self.moved.send_if_modified(|told| {
            let tells = time.since(*told) >= TELL;
            if tells {
                *told = time;
            }
            tells
        });
    }

    pub(crate) fn health(&self) -> ViewHealth {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ViewHealth { name: self.name, commits_behind: self.commits_behind(), behind: self.behind(), failing }
    }

    fn commits_behind(&self) -> u64 {
        // Read first: the journal is never behind its views.
        let shown = self.shown.load(Ordering::Relaxed);
        self.head.borrow().0.saturating_sub(shown)
    }

    fn behind(&self) -> Duration {
        let as_of = Timestamp::from_micros(self.as_of.load(Ordering::Relaxed));
        if self.commits_behind() == 0 { Duration::ZERO } else { self.clock.now().since(as_of) }
    }

    /// Whether it is further behind than that, though it can be written, with what this engine has appended. What an
    /// earlier one has left, and what cannot be written, holds nobody up.
    pub(crate) fn is_late(&self, behind: Duration) -> bool {
        self.behind() > behind
            && self.shown.load(Ordering::Relaxed) >= self.from.0
            && self.failing.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Returns once it is not further behind than that.
    pub(crate) async fn in_time(&self, behind: Duration) {
        let mut moved = self.moved.subscribe();
        // An error would mean that the sender is gone, and it is here.
        let _ = moved.wait_for(|_| !self.is_late(behind)).await;
    }
}
