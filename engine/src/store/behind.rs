//! The index, fed from behind: what was committed waits in memory until a thread of its own has given it to sled.
//!
//! - Nobody waits for sled: an append is answered once the log is synced and its changes are here, where every read sees
//!   them. Sled itself is as far behind as it was before, since it flushes when it likes.
//! - What waits is given as one atomic batch of whole commits, in order; a key that changed twice is written once.
//! - What waits is bounded: a commit that finds too much waiting waits itself.
//! - After a failed batch nothing more is given, and the store stops.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    journal::keys::{Changes, Each, Key, Order, Range, Read},
    store::{StoreError, sled::Indexed},
};

/// How long changes gather before they are given: what changes again meanwhile is written once.
const GATHER: Duration = Duration::from_millis(500);
/// So much is given at once, without gathering any longer.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// The most that may wait.
const WAITING_BYTES_MAX: usize = 48 * 1024 * 1024;

/// The index with what still waits to be given to it.
#[derive(Debug)]
pub(super) struct Behind {
    index: Arc<Indexed>,
    shared: Arc<Shared>,
    giver: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to give, or enough of it, or it is to be closed.
    arrived: Condvar,
    /// There is room, all is given, or it has failed.
    given: Condvar,
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Committed since the last batch was taken.
    fresh: Changes,
    fresh_bytes: usize,
    /// Being given to sled just now.
    giving: Arc<Changes>,
    closing: bool,
    failure: Option<String>,
}

impl Behind {
    /// Starts to feed `index`.
    ///
    /// # Errors
    /// [`StoreError`] if there is no thread to be had.
    pub(super) fn start(index: Indexed) -> Result<Self, StoreError> {
        let index = Arc::new(index);
        let shared = Arc::new(Shared::default());
        let giving = (Arc::clone(&index), Arc::clone(&shared));
        let giver = std::thread::Builder::new()
            .name("cairn-index".to_owned())
            .spawn(move || give(&giving.0, &giving.1))
            .map_err(|error| StoreError::Index(error.to_string()))?;
        Ok(Self { index, shared, giver: Some(giver) })
    }

    /// Takes the changes of one commit. Every read that begins after this sees them.
    ///
    /// # Errors
    /// [`StoreError`] if an earlier batch failed.
    pub(super) fn apply(&self, changes: Changes) -> Result<(), StoreError> {
        let mut waiting = self.shared.lock();
        while waiting.fresh_bytes > WAITING_BYTES_MAX && waiting.failure.is_none() {
            waiting = self.shared.given.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = &waiting.failure {
            return Err(StoreError::Index(failure.clone()));
        }
        let is_first = waiting.fresh.is_empty();
        for (key, value) in changes {
            waiting.fresh_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            waiting.fresh.insert(key, value);
        }
        // Whom nothing is to be told sleeps on.
        if is_first || waiting.fresh_bytes >= BATCH_BYTES {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    /// What was given so far: for those who look for what is old.
    pub(super) fn given(&self) -> Arc<Indexed> {
        Arc::clone(&self.index)
    }

    /// Whether sled has failed: nothing may be decided by what it answers.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed) || self.index.has_failed()
    }

    /// Gives all that waits, and brings sled to rest.
    ///
    /// # Errors
    /// [`StoreError`] if sled did not take it: the log has it.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let mut waiting = self.shared.lock();
        waiting.closing = true;
        self.shared.arrived.notify_one();
        while !(waiting.fresh.is_empty() && waiting.giving.is_empty()) && waiting.failure.is_none() {
            waiting = self.shared.given.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = &waiting.failure {
            return Err(StoreError::Index(failure.clone()));
        }
        drop(waiting);
        self.index.close()
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.arrived.notify_one();
        if let Some(giver) = self.giver.take() {
            // A panic has been told of where it happened.
            let _ = giver.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can panic half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give(index: &Indexed, shared: &Shared) {
    loop {
        let mut waiting = shared.lock();
        while waiting.fresh.is_empty() {
            if waiting.closing {
                return;
            }
            waiting = shared.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let gathers = |waiting: &mut Waiting| waiting.fresh_bytes < BATCH_BYTES && !waiting.closing;
        let (mut waiting, _) =
            shared.arrived.wait_timeout_while(waiting, GATHER, gathers).unwrap_or_else(PoisonError::into_inner);
        let batch = Arc::new(std::mem::take(&mut waiting.fresh));
        waiting.fresh_bytes = 0;
        waiting.giving = Arc::clone(&batch);
        drop(waiting);
        shared.given.notify_all();
        let given = index.apply(&batch);
        let mut waiting = shared.lock();
        match given {
            Ok(()) => waiting.giving = Arc::default(),
            Err(error) => {
                // What waits stays where reads see it; nothing is given after what was not.
                shared.failed.store(true, Ordering::Relaxed);
                waiting.failure = Some(error.to_string());
                shared.given.notify_all();
                return;
            }
        }
        drop(waiting);
        shared.given.notify_all();
    }
}

impl Read for Behind {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let waiting = self.shared.lock();
        if let Some(value) = waiting.fresh.get(key).or_else(|| waiting.giving.get(key)) {
            return Ok(value.clone());
        }
        // What did not wait a moment ago is in sled, or nowhere.
        drop(waiting);
        self.index.get(key)
    }

    fn scan(&self, range: &Range, order: Order, each: &mut Each<'_>) -> Result<(), StoreError> {
        let (from, to) = range;
        if from >= to {
            return Ok(());
        }
        let mut waiting: BTreeMap<Key, Option<Vec<u8>>> = {
            let held = self.shared.lock();
            let within = |changes: &Changes| -> Changes {
                changes.range(from.clone()..to.clone()).map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            let mut waiting = within(&held.giving);
            waiting.extend(within(&held.fresh));
            waiting
        };
        if waiting.is_empty() {
            return self.index.scan(range, order, each);
        }
        let mut broken = false;
        self.index.scan(range, order, &mut |key, value| {
            // First what waits and comes before this key; what waits under this very key takes its place.
            while let Some((earlier, changed)) = next_up_to(&mut waiting, key, order) {
                let same = earlier == key;
                if let Some(changed) = changed
                    && each(&earlier, &changed).is_break()
                {
                    broken = true;
                    return ControlFlow::Break(());
                }
                if same {
                    return ControlFlow::Continue(());
                }
            }
            let flow = each(key, value);
            broken = flow.is_break();
            flow
        })?;
        while !broken && let Some((key, value)) = first(&mut waiting, order) {
            if let Some(value) = value {
                broken = each(&key, &value).is_break();
            }
        }
        Ok(())
    }
}

type Change = (Key, Option<Vec<u8>>);

/// Takes the first of `waiting`, in this order, if it does not come after `key`.
fn next_up_to(waiting: &mut Changes, key: &[u8], order: Order) -> Option<Change> {
    let entry = match order {
        Order::Ascending => waiting.first_entry()?,
        Order::Descending => waiting.last_entry()?,
    };
    let comes_after = match order {
        Order::Ascending => entry.key().as_slice() > key,
        Order::Descending => entry.key().as_slice() < key,
    };
    (!comes_after).then(|| entry.remove_entry())
}

fn first(waiting: &mut Changes, order: Order) -> Option<Change> {
    match order {
        Order::Ascending => waiting.pop_first(),
        Order::Descending => waiting.pop_last(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::keys::Map;

    fn open(dir: &tempfile::TempDir) -> Behind {
        Behind::start(Indexed::open(&dir.path().join("journal")).expect("a new one")).expect("a thread")
    }

    fn scanned(read: &dyn Read, range: &Range, order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let mut take = |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        read.scan(range, order, &mut take).expect("it reads");
        found
    }

    #[test]
    fn what_is_closed_has_all_that_was_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let behind = open(&dir);
        behind.apply(Changes::from([(b"ea".to_vec(), Some(b"1".to_vec()))])).expect("it takes it");
        behind.apply(Changes::from([(b"ea".to_vec(), Some(b"2".to_vec()))])).expect("it takes it");
        assert_eq!(behind.get(b"ea").expect("it reads"), Some(b"2".to_vec()));
        behind.close().expect("it closes");
        assert_eq!(behind.index.get(b"ea").expect("it reads"), Some(b"2".to_vec()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// I29: whatever waits, is being given or has been given, a read sees every commit before it, and no other.
        #[test]
        fn reads_see_what_was_taken_however_far_it_has_got(
            commits in prop::collection::vec(
                prop::collection::btree_map(0u8..40, prop::option::of(0u8..4), 1..12), 1..24),
            limit in 1usize..50,
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let (behind, mut model) = (open(&dir), Map::default());
            let range = (vec![b's', 3], vec![b's', 35]);
            for commit in commits {
                let changes: Changes = commit
                    .into_iter()
                    .map(|(key, value)| (vec![b's', key], value.map(|value| vec![value; 3])))
                    .collect();
                behind.apply(changes.clone()).expect("it takes it");
                model.apply(changes);
                for order in [Order::Ascending, Order::Descending] {
                    prop_assert_eq!(scanned(&behind, &range, order, limit), scanned(&model, &range, order, limit));
                }
                prop_assert_eq!(behind.get(&[b's', 7]).expect("it reads"), model.get(&[b's', 7]).expect("it reads"));
            }
            behind.close().expect("it closes");
            let order = Order::Ascending;
            prop_assert_eq!(scanned(&*behind.index, &range, order, 99), scanned(&model, &range, order, 99));
        }
    }
}
