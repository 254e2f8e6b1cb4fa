//! Keeps views in step with the journal: each from its own durable cursor, in journal order.
//!
//! - A view's cursor moves after its writes, never before: a crash repeats writes, and every write is idempotent.
//! - A view that cannot be written stops nobody: it is tried again, and catches up.
//! - Views lag behind the journal, never lead it. One that was made of another journal, or of this one before an older
//!   backup was put back, is made anew: its cursor keeps a hash to know that.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    entry::{Commit, Entry},
    ids::{CommitNumber, WorkflowId},
    state::{Phase, WorkflowState, fold},
    store::Store,
    threads::{self, JoinHandle},
};

/// Commits taken at once: the cursor moves after each batch.
const BATCH: usize = 256;
/// The longest wait before a view that could not be written is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A view made from entries. All methods may block; they are called where that is allowed.
pub trait Projection: Send + 'static {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// The last commit of `store` that it has taken in, durably; 0 if it has to begin anew. That is also the answer if
    /// `store` has no commit of that number and hash: what is in the view is then not what is in the journal.
    ///
    /// # Errors
    /// If that cannot be read.
    fn cursor(&mut self, store: &dyn Store) -> io::Result<CommitNumber>;

    /// Takes in one entry. `state` is the workflow's after it. May be called again for entries taken in before.
    ///
    /// # Errors
    /// If the view cannot be written: it is begun again from its cursor.
    fn project(&mut self, entry: &Entry, state: &WorkflowState) -> io::Result<()>;

    /// Everything up to and with `last` was taken in: makes that durable, then moves the cursor, which keeps the hash.
    ///
    /// # Errors
    /// If the view cannot be written: it is begun again from its cursor.
    fn commit(&mut self, last: &Commit, store: &dyn Store) -> io::Result<()>;
}

/// Brings `projection` up to the journal's last commit and returns its number. For views that are rebuilt while no
/// engine runs.
///
/// # Errors
/// If the view cannot be written, or the journal not be read.
pub fn catch_up(store: &dyn Store, projection: &mut dyn Projection) -> io::Result<CommitNumber> {
    advance(store, projection, &mut States::default(), CommitNumber(u64::MAX))
}

/// Starts the task that keeps `projection` in step until `closed`, and then once more up to the end.
pub(crate) fn start(
    store: Arc<dyn Store>,
    mut head: watch::Receiver<CommitNumber>,
    mut closed: watch::Receiver<bool>,
    projection: Box<dyn Projection>,
) -> JoinHandle<()> {
    threads::spawn(async move {
        let name = projection.name();
        let mut projection = Some((projection, States::default()));
        let mut delay = Duration::from_millis(100);
        loop {
            let closing = *closed.borrow();
            let seen = *head.borrow_and_update();
            let (Some((mut view, mut states)), store) = (projection.take(), Arc::clone(&store)) else { return };
            let done = threads::spawn_blocking(move || {
                let result = advance(store.as_ref(), view.as_mut(), &mut states, seen);
                (result, view, states)
            })
            .await;
            let Ok((result, view, states)) = done else {
                tracing::error!(view = name, "the view has panicked; it is behind until the next start");
                return;
            };
            let failed = result.is_err();
            if let Err(error) = result {
                tracing::warn!(view = name, %error, "the view cannot be written; it is tried again");
            }
            // After a fault it begins again from its cursor, with states of its own.
            projection = Some((view, if failed { States::default() } else { states }));
            if closing {
                return;
            }
            let more = async {
                if failed {
                    threads::sleep(delay).await;
                } else if head.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = more => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            delay = if failed { (delay * 2).min(RETRY_MAX) } else { Duration::from_millis(100) };
        }
    })
}

/// Takes in what follows, up to `until` at least or the journal's end; returns how far the view is then.
fn advance(
    store: &dyn Store,
    view: &mut dyn Projection,
    states: &mut States,
    until: CommitNumber,
) -> io::Result<CommitNumber> {
    let mut at = match states.at {
        Some(at) => at,
        None => view.cursor(store)?,
    };
    while at < until {
        let commits = store.commits(at, BATCH).map_err(io::Error::other)?;
        let Some(last) = commits.last() else { break };
        at = last.number;
        states.take_in(&commits, store, view)?;
        view.commit(last, store)?;
    }
    states.at = Some(at);
    Ok(at)
}

/// The states of the workflows that are not finished, as of the entries taken in.
#[derive(Default)]
struct States {
    at: Option<CommitNumber>,
    live: HashMap<WorkflowId, WorkflowState>,
}

impl States {
    fn take_in(&mut self, commits: &[Commit], store: &dyn Store, view: &mut dyn Projection) -> io::Result<()> {
        for entry in commits.iter().flat_map(|commit| &commit.entries) {
            let state = self.after(entry, store)?;
            view.project(entry, state)?;
            if matches!(state.phase(), Phase::Finished { .. }) {
                self.live.remove(&entry.workflow);
            }
        }
        Ok(())
    }

    /// The state of the entry's workflow after it.
    fn after(&mut self, entry: &Entry, store: &dyn Store) -> io::Result<&WorkflowState> {
        use std::collections::hash_map::Entry as Place;
        match self.live.entry(entry.workflow) {
            Place::Occupied(place) => {
                let state = place.into_mut();
                state.fold(entry).map_err(io::Error::other)?;
                Ok(state)
            }
            Place::Vacant(place) => {
                // Begun before the cursor: replayed up to here.
                let entries = store.workflow(entry.workflow).map_err(io::Error::other)?;
                let before = entries.iter().take_while(|earlier| earlier.sequence <= entry.sequence);
                let state = fold(before).map_err(io::Error::other)?;
                let state = state.ok_or_else(|| io::Error::other("an entry of a workflow that has none"))?;
                Ok(place.insert(state))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fact::Effect,
        ids::Sequence,
        store::{
            MemoryStore,
            tests::samples::{failure, run, submitted, success},
        },
    };

    /// A view in memory that cannot be written once, after so many entries.
    #[derive(Default)]
    struct View {
        cursor: CommitNumber,
        taken: Vec<(WorkflowId, Sequence)>,
        fails_after: Option<usize>,
    }

    impl Projection for View {
        fn name(&self) -> &'static str {
            "test"
        }

        fn cursor(&mut self, _: &dyn Store) -> io::Result<CommitNumber> {
            Ok(self.cursor)
        }

        fn project(&mut self, entry: &Entry, state: &WorkflowState) -> io::Result<()> {
            assert_eq!((entry.workflow, entry.sequence), (state.id(), state.sequence()));
            if self.fails_after == Some(self.taken.len()) {
                self.fails_after = None;
                return Err(io::Error::other("no room"));
            }
            self.taken.push((entry.workflow, entry.sequence));
            Ok(())
        }

        fn commit(&mut self, last: &Commit, store: &dyn Store) -> io::Result<()> {
            for commit in store.commits(self.cursor, usize::MAX).map_err(io::Error::other)? {
                let is_taken = |entry: &Entry| self.taken.contains(&(entry.workflow, entry.sequence));
                assert!(commit.number > last.number || commit.entries.iter().all(is_taken), "the cursor goes first");
            }
            self.cursor = last.number;
            Ok(())
        }
    }

    fn journal() -> MemoryStore {
        let store = MemoryStore::new();
        run(&store, 1, submitted(Effect::Create, "acme", "search"), failure());
        run(&store, 2, submitted(Effect::Create, "acme", "other"), success());
        store
    }

    fn all(store: &dyn Store) -> Vec<(WorkflowId, Sequence)> {
        let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
        commits.iter().flat_map(|commit| &commit.entries).map(|entry| (entry.workflow, entry.sequence)).collect()
    }

    /// I19: wherever a view cannot be written, it begins again from where its cursor was, and has everything in the end.
    #[test]
    fn wherever_a_view_cannot_be_written_it_begins_again_from_its_cursor() {
        let store = journal();
        let all = all(&store);
        for fails_after in 0..all.len() {
            let mut view = View { fails_after: Some(fails_after), ..View::default() };
            catch_up(&store, &mut view).expect_err("there is no room");
            assert_eq!(view.cursor, CommitNumber(0), "nothing of the batch is sure");
            assert_eq!(catch_up(&store, &mut view).expect("there is room again"), store.head().0);
            assert_eq!(view.taken[fails_after..], all);
        }
    }

    /// The same for the task that follows a running engine, whose states outlive a batch.
    #[test]
    fn a_view_that_follows_an_engine_takes_in_each_entry_once_and_moves_its_cursor_last() {
        let store = journal();
        let (mut view, mut states) = (View::default(), States::default());
        for until in 0..=store.head().0.0 {
            advance(&store, &mut view, &mut states, CommitNumber(until)).expect("it can be written");
        }
        assert_eq!((view.taken, view.cursor), (all(&store), store.head().0));
    }
}
