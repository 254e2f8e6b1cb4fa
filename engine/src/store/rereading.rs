//! Reading, beside the traffic, what opening has passed over of the log: a segment at a time, and a pause after each.
//!
//! - What is damaged is put back from the index, as opening would have done, and told in the engine's log.
//! - What neither copy has is told there too, and kept in mind on disk: the next open reads everything, and names the place.
//! - Where the index has something else, nothing more is decided by it: the store stops, and the next open makes it again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    ids::CommitNumber,
    store::{
        StoreError,
        log::{self, Extent, Sealed},
        sled::Indexed,
    },
};

/// At most so much is read a second: the disk has other work.
const BYTES_PER_SECOND: u64 = 64 << 20;

/// What is still to be read.
pub(super) struct Passed {
    pub(super) log_dir: PathBuf,
    pub(super) segments: Vec<Sealed>,
    pub(super) extent: Extent,
    /// The last commit that the index had when the journal was opened.
    pub(super) known: CommitNumber,
}

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Rereading {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    wish: Mutex<Wish>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    /// With pauses.
    #[default]
    Beside,
    /// Somebody waits for it.
    AtOnce,
    Stop,
}

impl Rereading {
    /// Starts to read, if there is something to be read.
    ///
    /// # Errors
    /// [`StoreError`] if there is no thread to be had.
    pub(super) fn start(passed: Passed, index: Arc<Indexed>, suspect: Suspect) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let mut thread = None;
        if !passed.segments.is_empty() {
            let (told, path) = (Arc::clone(&shared), passed.log_dir.clone());
            let started = std::thread::Builder::new()
                .name("cairn-log-read".to_owned())
                .spawn(move || read(&passed, &index, &suspect, &told));
            thread = Some(started.map_err(|source| StoreError::Io { action: "start a thread for", path, source })?);
        }
        Ok(Self { shared, thread: Mutex::new(thread) })
    }

    /// Waits until all is read.
    pub(super) fn wait(&self) {
        self.end(Wish::AtOnce);
    }

    /// Lets nothing more be read, and waits for what is in hand.
    pub(super) fn stop(&self) {
        self.end(Wish::Stop);
    }

    fn end(&self, wish: Wish) {
        *self.shared.lock() = wish;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic has been told of where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Rereading {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as nobody wishes otherwise, and says whether to go on.
    fn pause(&self, pause: Duration) -> bool {
        let beside = |wish: &mut Wish| *wish == Wish::Beside;
        let waited = self.changed.wait_timeout_while(self.lock(), pause, beside);
        let (wish, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *wish != Wish::Stop
    }
}

fn read(passed: &Passed, index: &Indexed, suspect: &Suspect, shared: &Shared) {
    let Passed { log_dir, segments, extent: Extent { segment_bytes, .. }, known } = passed;
    let pause = Duration::from_secs_f64(*segment_bytes as f64 / BYTES_PER_SECOND as f64);
    let mut contradicted = None;
    // The newest first: an index that has lost something has lost it there.
    for sealed in segments.iter().rev() {
        if !shared.pause(pause) {
            break;
        }
        match log::check(log_dir, *segment_bytes, &index.lender(), *known, sealed) {
            Ok(checked) => {
                for place in &checked.healed {
                    tracing::warn!(place, "a damaged place of the commit log was put back from the index");
                }
                contradicted = checked.contradicted.or(contradicted);
            }
            // That says nothing of the log.
            Err(error @ StoreError::Io { .. }) => tracing::warn!(%error, "a part of the commit log is not looked at"),
            Err(error) => {
                tracing::error!(%error, "the commit log is damaged: the next start reads all of it, and names what is lost");
                suspect.note(&error);
            }
        }
    }
    // Only now: until then it has lent what the log lacks.
    if let Some(number) = contradicted {
        index.distrust(&format!("commit {number} is another than in the log"));
    }
}

/// The file that lets the next open read the whole log.
pub(super) struct Suspect(PathBuf);

impl Suspect {
    pub(super) fn of(data: &Path) -> Self {
        Self(data.join("log.suspect"))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// The log was read, and is good.
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        if !self.is_there() {
            return Ok(());
        }
        let failed = |source| StoreError::Io { action: "remove", path: self.0.clone(), source };
        fs::remove_file(&self.0).map_err(failed)
    }

    fn note(&self, error: &StoreError) {
        // Where even that cannot be written, reading beside finds it again after the next start.
        let _ = fs::write(&self.0, error.to_string());
    }
}
