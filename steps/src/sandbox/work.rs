//! What the controllers still have to look at: objects that changed, and objects whose time has come.
//!
//! Nothing here polls: with nothing changed and nothing due there is nothing to wake for, so a paused clock
//! stands still.

use super::store::Key;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Work {
    queue: VecDeque<Key>,
    queued: HashSet<Key>,
    timers: BTreeMap<(Instant, u64), Key>,
    timer_count: u64,
    /// By UID and purpose: when the delay that was asked for ends.
    delays: HashMap<String, HashMap<&'static str, Instant>>,
}

/// What there is to do.
pub(super) enum Next {
    Reconcile(Key),
    WaitUntil(Instant),
    Nothing,
}

impl Work {
    pub(super) fn push(&mut self, key: Key) {
        if self.queued.insert(key.clone()) {
            self.queue.push_back(key);
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.push(key);
        }
        if let Some(key) = self.queue.pop_front() {
            self.queued.remove(&key);
            return Next::Reconcile(key);
        }
        match self.timers.first_key_value() {
            Some(((due, _), _)) => Next::WaitUntil(*due),
            None => Next::Nothing,
        }
    }

    /// Whether `delay` has passed since this was first asked for this object and purpose. Until then the object
    /// is looked at again when it has; once it has, the next question starts the delay anew.
    pub(super) fn passed(&mut self, key: &Key, uid: &str, purpose: &'static str, delay: Duration) -> bool {
        let now = Instant::now();
        let delays = self.delays.entry(uid.to_owned()).or_default();
        match delays.get(purpose) {
            Some(due) if *due <= now => {
                delays.remove(purpose);
                true
            }
            Some(_) => false,
            None if delay.is_zero() => true,
            None => {
                let due = now + delay;
                delays.insert(purpose, due);
                self.timer_count += 1;
                self.timers.insert((due, self.timer_count), key.clone());
                false
            }
        }
    }

    /// Ends a delay that no longer means anything.
    pub(super) fn forget(&mut self, uid: &str, purpose: &'static str) {
        if let Some(delays) = self.delays.get_mut(uid) {
            delays.remove(purpose);
        }
    }

    pub(super) fn forget_object(&mut self, uid: &str) {
        self.delays.remove(uid);
    }
}
