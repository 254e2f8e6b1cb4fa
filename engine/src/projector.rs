//! Keeps views in step with the journal: each from its own durable cursor, in journal order.
//!
//! - A view's cursor moves after its writes are durable, never before: a crash repeats writes, and every write is idempotent.
//! - What is taken in is shown at once, and made durable seldom, much at a time: the journal has it, so a crash costs some
//!   repetition, and nothing else.
//! - A view that cannot be written stops nobody: it is tried again, and catches up.
//! - Views lag behind the journal, never lead it. By how much is told: see [`ViewHealth`].
//! - Views give way to what they are views of: their threads have less of a claim on the processor than all others.
//! - One that was made of another journal, or of this one before an older backup was put back, is made anew: its cursor keeps
//!   a hash to know that.

mod lag;
mod thread;

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

pub(crate) use self::lag::Gauge;
pub use self::lag::ViewHealth;
use self::thread::Thread;
use crate::{
    entry::{Commit, Entry},
    ids::{CommitNumber, Hash, WorkflowId},
    state::{Phase, WorkflowState, fold},
    store::Store,
    threads::{self, JoinHandle},
};

/// About how many entries are taken in at once, and the most commits that they may be in.
const BATCH_ENTRIES: usize = 4_096;
const BATCH_COMMITS: usize = 256;
/// After so many entries a view is made durable, whatever follows: after a crash no more are taken in again.
const COMMIT_ENTRIES: usize = 200_000;
/// A view is made durable so long after it has changed.
const COMMIT_AFTER: Duration = Duration::from_secs(5);
/// Or after so long in which nothing follows.
const IDLE_AFTER: Duration = Duration::from_millis(200);
/// So long is waited for more before it is taken in: a commit at a time would cost many times as much.
const GATHER: Duration = Duration::from_millis(5);
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

    /// Everything up to and with the commit of this number and hash was taken in: whoever reads the view is to see it from
    /// here on. What is costly may wait: this is called again after the time that is returned, though nothing may have come.
    ///
    /// # Errors
    /// If the view cannot be written: it is begun again from its cursor.
    fn show(&mut self, last: (CommitNumber, Hash), store: &dyn Store) -> io::Result<Option<Duration>>;

    /// Makes durable what was shown, then moves the cursor, which keeps the hash. What can be made again without the cursor
    /// may still wait, if this is not the last time.
    ///
    /// # Errors
    /// If the view cannot be written: it is begun again from its cursor.
    fn commit(&mut self, store: &dyn Store, is_last: bool) -> io::Result<()>;
}

/// Brings `projection` up to the journal's last commit and returns its number. For views that are rebuilt while no
/// engine runs.
///
/// # Errors
/// If the view cannot be written, or the journal not be read.
pub fn catch_up(store: &dyn Store, projection: &mut dyn Projection) -> io::Result<CommitNumber> {
    let mut states = States::default();
    let at = advance(store, projection, &mut states, CommitNumber(u64::MAX), |_| {})?;
    states.commit(store, projection, true)?;
    Ok(at)
}

/// Starts the task that keeps `projection` in step until `closed`, and then once more up to the end.
///
/// # Errors
/// If there is no thread to be had.
pub(crate) fn start(
    store: Arc<dyn Store>,
    mut head: watch::Receiver<CommitNumber>,
    mut closed: watch::Receiver<bool>,
    projection: Box<dyn Projection>,
    gauge: Arc<Gauge>,
) -> io::Result<JoinHandle<()>> {
    let name = projection.name();
    let thread = Thread::start(name)?;
    let mut taken = Some((projection, States::default()));
    let mut delay = Duration::from_millis(100);
    Ok(threads::spawn(async move {
        loop {
            let closing = *closed.borrow();
            // In this order: what is the last commit then was there at that time.
            let time = gauge.time();
            let seen = *head.borrow_and_update();
            let (Some((mut view, mut states)), store) = (taken.take(), Arc::clone(&store)) else { return };
            let shown = Arc::clone(&gauge);
            let done = thread.run(move || {
                let result = advance(store.as_ref(), view.as_mut(), &mut states, seen, |last| shown.shown(last));
                let result = result.and_then(|_| {
                    shown.caught_up(time);
                    states.on_time(store.as_ref(), view.as_mut(), closing)
                });
                (result, view, states)
            });
            let Some((result, view, states)) = done.await else {
                tracing::error!(view = name, "the view has panicked; it is behind until the next start");
                return gauge.failed("it has met a fault in cairn, and goes on at the next start".to_owned());
            };
            let failed = result.is_err();
            if let Err(error) = result {
                tracing::warn!(view = name, %error, "the view cannot be written; it is tried again");
                gauge.failed(error.to_string());
            }
            if closing {
                return;
            }
            let due = if failed { Some(Instant::now() + delay) } else { states.due() };
            // After a fault it begins again from its cursor, with states of its own.
            taken = Some((view, if failed { States::default() } else { states }));
            let more = async {
                // After a fault only the time lets it go on.
                if failed {
                    std::future::pending::<()>().await;
                }
                let rests = !head.has_changed().unwrap_or(false);
                if head.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if rests {
                    gauge.rested();
                }
                threads::sleep(GATHER).await;
            };
            let due = async {
                match due {
                    Some(due) => threads::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = more => {}
                () = due => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
            delay = if failed { (delay * 2).min(RETRY_MAX) } else { Duration::from_millis(100) };
        }
    }))
}

/// Takes in what follows, up to `until` at least or the journal's end; returns how far the view is then.
fn advance(
    store: &dyn Store,
    view: &mut dyn Projection,
    states: &mut States,
    until: CommitNumber,
    shown: impl Fn(&Commit),
) -> io::Result<CommitNumber> {
    let mut at = match states.at {
        Some(at) => at,
        None => view.cursor(store)?,
    };
    while at < until {
        let commits = store.commits(at, states.batch.clamp(1, BATCH_COMMITS)).map_err(io::Error::other)?;
        let Some(last) = commits.last() else { break };
        at = last.number;
        states.take_in(&commits, store, view)?;
        states.show((last.number, last.hash), store, view)?;
        states.at = Some(at);
        shown(last);
        if states.uncommitted >= COMMIT_ENTRIES {
            states.commit(store, view, false)?;
        }
    }
    states.at = Some(at);
    Ok(at)
}

/// The states of the workflows that are not finished, as of the entries taken in.
#[derive(Default)]
struct States {
    at: Option<CommitNumber>,
    live: HashMap<WorkflowId, WorkflowState>,
    /// How many commits are taken in next.
    batch: usize,
    /// Entries taken in since the view was made durable.
    uncommitted: usize,
    /// When it is to be made durable, if it has changed: at the latest, and if nothing follows.
    commit_at: Option<Instant>,
    idle_at: Option<Instant>,
    /// What was shown last, and when it is to be shown again.
    shown: (CommitNumber, Hash),
    show_at: Option<Instant>,
}

impl States {
    fn take_in(&mut self, commits: &[Commit], store: &dyn Store, view: &mut dyn Projection) -> io::Result<()> {
        let mut count = 0;
        for entry in commits.iter().flat_map(|commit| &commit.entries) {
            let state = self.after(entry, store)?;
            view.project(entry, state)?;
            if matches!(state.phase(), Phase::Finished { .. }) {
                self.live.remove(&entry.workflow);
            }
            count += 1;
        }
        // As many as have about so many entries, if those that follow are like these.
        self.batch = commits.len() * BATCH_ENTRIES / count.max(1);
        self.uncommitted += count;
        let now = Instant::now();
        self.commit_at.get_or_insert(now + COMMIT_AFTER);
        self.idle_at = Some(now + IDLE_AFTER);
        Ok(())
    }

    fn show(&mut self, last: (CommitNumber, Hash), store: &dyn Store, view: &mut dyn Projection) -> io::Result<()> {
        let again = view.show(last, store)?;
        (self.shown, self.show_at) = (last, again.map(|delay| Instant::now() + delay));
        Ok(())
    }

    /// Makes the view durable, and its cursor after it.
    fn commit(&mut self, store: &dyn Store, view: &mut dyn Projection, is_last: bool) -> io::Result<()> {
        view.commit(store, is_last)?;
        (self.uncommitted, self.commit_at, self.idle_at) = (0, None, None);
        Ok(())
    }

    /// Does what it is time for.
    fn on_time(&mut self, store: &dyn Store, view: &mut dyn Projection, closing: bool) -> io::Result<()> {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.show_at) {
            self.show(self.shown, store, view)?;
        }
        if closing || is_due(self.commit_at) || is_due(self.idle()) {
            self.commit(store, view, closing)?;
        }
        Ok(())
    }

    /// When it is time for something, if nothing follows.
    fn due(&self) -> Option<Instant> {
        [self.commit_at, self.idle(), self.show_at].into_iter().flatten().min()
    }

    /// When it is made durable if nothing follows: not before all of it is shown.
    fn idle(&self) -> Option<Instant> {
        self.idle_at.filter(|_| self.show_at.is_none())
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
        shown: CommitNumber,
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

        fn show(&mut self, last: (CommitNumber, Hash), _: &dyn Store) -> io::Result<Option<Duration>> {
            self.shown = last.0;
            Ok(None)
        }

        fn commit(&mut self, store: &dyn Store, _: bool) -> io::Result<()> {
            for commit in store.commits(self.cursor, usize::MAX).map_err(io::Error::other)? {
                let is_taken = |entry: &Entry| self.taken.contains(&(entry.workflow, entry.sequence));
                assert!(commit.number > self.shown || commit.entries.iter().all(is_taken), "the cursor goes first");
            }
            self.cursor = self.shown;
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
            advance(&store, &mut view, &mut states, CommitNumber(until), |_| {}).expect("it can be written");
            states.commit(&store, &mut view, false).expect("it can be written");
        }
        assert_eq!((view.taken, view.cursor), (all(&store), store.head().0));
    }
}
