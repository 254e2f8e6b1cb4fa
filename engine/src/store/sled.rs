//! The indexed copy: the key space in sled, for reading by key. The only file that knows sled.
//!
//! Measured on sled 0.34.7 (`invariants.md`): its flush is no fsync, a kill within its creation or recovery can lock a
//! directory for ever, one flipped bit makes it panic or drop what follows. So:
//!
//! - It is never the only copy of an acknowledged commit, and whatever it does, the log makes it again.
//! - Every call is made where a panic is caught; after one it is suspect, and the next open sets it aside.
//! - Values are cut into pieces of at most 16 KiB, so that none goes to `blobs/`, which is never synced.
//! - One tree: a batch is atomic within one tree only.

use std::{
    cell::RefCell,
    fs::{self, File},
    io,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use ::sled::{Batch, Db};

use crate::{
    ids::{CommitNumber, Hash},
    journal::{
        index, kept,
        keys::{self, Changes, Each, Order, Range, Read},
    },
    panics,
    store::{
        StoreError,
        log::OtherCopy,
        reading::{self, Payloads},
    },
};

/// Above that, memory grows with the journal (C14).
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
const FLUSH_EVERY_MS: u64 = 500;

/// Nodes over a quarter of a segment go to `blobs/`: one has seventeen pieces at most, so none does. What is allocated
/// and not used yet is counted in segments: the smaller, the better.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

const PIECE_BYTES: usize = 16 * 1024;

/// How long the process that had it open before may take to let go.
const LOCKED_FOR_AT_MOST: Duration = Duration::from_secs(1);

/// Recovery of 700 MB takes less than half a second (C14): what takes so long will never end.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

/// Up to so much is read at open, to see whether it can be: all that a small index has.
const READ_AT_OPEN_BYTES: usize = 8 << 20;

/// A value's first byte.
const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;

/// The first byte of a piece's key; the value's key and the piece's number follow.
const PIECE: u8 = b'x';
/// Keys about this copy itself.
const LAYOUT_KEY: &[u8] = b"m/layout";
const AT_REST_KEY: &[u8] = b"m/at-rest";
pub(super) const BOOT_KEY: &[u8] = b"m/boot";

/// The layout of keys and values in here. Another one is made again from the log.
const LAYOUT: u8 = 2;

#[derive(Debug)]
pub(super) struct Indexed {
    db: Db,
    path: PathBuf,
    suspect: PathBuf,
    /// It was brought to rest when it was last open.
    complete: bool,
    /// All since it was last whole was written since the system has started: a kill takes nothing of it.
    this_boot: bool,
    /// It panicked, or lost something: nothing vouches for what it answers.
    failed: AtomicBool,
}

/// Why an index cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) why: String,
    /// The system refused something: that says nothing of what is in the index.
    pub(super) refused: Option<io::Error>,
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self { why, refused: None }
    }
}

impl From<::sled::Error> for Unusable {
    fn from(error: ::sled::Error) -> Self {
        let why = error.to_string();
        match error {
            ::sled::Error::Io(source) if is_refusal(&source) => Self { why, refused: Some(source) },
            _ => why.into(),
        }
    }
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Self {
        let why = error.to_string();
        match error {
            StoreError::Io { source, .. } if is_refusal(&source) => Self { why, refused: Some(source) },
            _ => why.into(),
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied)
}

impl Indexed {
    /// Opens what is at `path`, or makes it.
    ///
    /// # Errors
    /// Why it cannot be used: it must be set aside and made again.
    pub(super) fn open(path: &Path) -> Result<Self, Unusable> {
        let suspect = path.with_extension("suspect");
        if suspect.exists() {
            return Err(fs::read_to_string(&suspect).unwrap_or_default().into());
        }
        let mut opened = Self {
            db: open_db(path)?,
            path: path.to_owned(),
            suspect,
            complete: false,
            this_boot: false,
            failed: AtomicBool::new(false),
        };
        opened.examine()?;
        // A start that fails leaves it as it was: what begins is told by [`Indexed::begin`].
        opened.complete = opened.guarded(|| opened.db.get(AT_REST_KEY))?.is_some();
        let written_in = opened.guarded(|| opened.db.get(BOOT_KEY))?;
        opened.this_boot = written_in.is_some_and(|written_in| boot().as_deref() == Some(&*written_in));
        Ok(opened)
    }

    /// Moves what is at `path` out of the way, and says where.
    pub(super) fn set_aside(path: &Path) -> Result<Option<PathBuf>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let aside = (1..)
            .map(|number| path.with_extension(format!("damaged-{number}")))
            .find(|aside| !aside.exists())
            .expect("numbers do not end");
        let moved = fs::rename(path, &aside).and_then(|()| match fs::remove_file(path.with_extension("suspect")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        moved.map_err(|source| StoreError::Io { action: "set aside", path: path.to_owned(), source })?;
        Ok(Some(aside))
    }

    /// Applies all changes, or none.
    pub(super) fn apply(&self, changes: &Changes) -> Result<(), StoreError> {
        self.guarded(|| {
            let mut batch = Batch::default();
            for (key, value) in kept::gathered(changes) {
                // What is put once is never in the way of itself.
                insert(&mut batch, &key, &value);
            }
            for (key, value) in changes {
                if keys::is_put_once(key) && value.is_some() {
                    continue;
                }
                // What is always short is never in pieces, before or now.
                let pieces_before = if keys::is_short(key) { 0 } else { pieces(self.db.get(key)?.as_deref()) };
                let pieces_now = match value {
                    Some(value) => insert(&mut batch, key, value),
                    None => {
                        batch.remove(key.as_slice());
                        0
                    }
                };
                for number in pieces_now..pieces_before {
                    batch.remove(piece_key(key, number));
                }
            }
            self.db.apply_batch(batch)
        })
    }

    /// From here on it may lack what was acknowledged, until it is closed. On disk before anything is acknowledged.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        if !self.complete && self.this_boot {
            return Ok(());
        }
        let boot = boot();
        self.guarded(|| {
            self.db.remove(AT_REST_KEY)?;
            match boot {
                Some(boot) => self.db.insert(BOOT_KEY, boot),
                None => self.db.remove(BOOT_KEY),
            }
        })?;
        self.sync()
    }

    /// Brings it to rest: from here on it is known to have everything.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        // First what it says it has, then that it has it.
        self.sync()?;
        self.guarded(|| self.db.insert(AT_REST_KEY, &[LAYOUT]))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.guarded(|| self.db.flush())?;
        // Its own flush calls no fsync.
        let synced = File::open(self.path.join("db")).and_then(|file| file.sync_all());
        synced.map_err(|source| StoreError::Io { action: "sync", path: self.path.clone(), source })
    }

    /// It is not what it should be: nothing more is decided by it, and the next open sets it aside.
    pub(super) fn distrust(&self, detail: &str) {
        self.failed.store(true, Ordering::Relaxed);
        tracing::error!(detail, "the journal's index failed: it will be set aside and made again at the next start");
        // Where even that cannot be written, the next open finds out for itself.
        let _ = fs::write(&self.suspect, detail);
    }

    /// Whether it failed since it was opened: nothing may be decided by what it answers.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Sees whether it can be read, and is of the layout that is known here.
    fn examine(&self) -> Result<(), StoreError> {
        let known = [LAYOUT, index::VERSION];
        match self.guarded(|| self.db.get(LAYOUT_KEY))? {
            Some(found) if *found == known => {}
            Some(found) => return Err(StoreError::Index(format!("it has layout {found:?}, {known:?} is known here"))),
            None if self.guarded(|| self.db.first())?.is_none() => {
                self.guarded(|| self.db.insert(LAYOUT_KEY, &known))?;
            }
            None => return Err(StoreError::Index("it does not say which layout it has".to_owned())),
        }
        self.guarded(|| {
            let mut read = 0;
            for pair in self.db.iter() {
                let (key, value) = pair?;
                // A key alone takes time, too.
                read += key.len() + value.len() + 64;
                if read > READ_AT_OPEN_BYTES {
                    break;
                }
            }
            Ok(())
        })?;
        // No commit is missing between the first and the last.
        let mut next = CommitNumber(1);
        let (mut read, mut bad) = (0, Ok(()));
        self.scan(&keys::all_commits(), Order::Ascending, &mut |key, value| {
            read += value.len();
            bad = follows(keys::commit_number(key), value, &mut next);
            if read > READ_AT_OPEN_BYTES / 8 || bad.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        bad
    }

    fn value(&self, key: &[u8], stored: &[u8]) -> ::sled::Result<Option<Vec<u8>>> {
        match stored.split_first() {
            Some((&WHOLE, value)) => Ok(Some(value.to_vec())),
            Some(_) => {
                let mut value = Vec::new();
                for number in 0..pieces(Some(stored)) {
                    match self.db.get(piece_key(key, number))? {
                        Some(piece) => value.extend_from_slice(&piece),
                        None => return Ok(None),
                    }
                }
                Ok(Some(value))
            }
            None => Ok(None),
        }
    }

    /// Runs `call`; a panic, or an error that is not the disk's, makes this copy suspect.
    fn guarded<T>(&self, call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StoreError> {
        let detail = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => return Ok(value),
            // A full disk has not room for another copy either.
            Ok(Err(::sled::Error::Io(source))) => {
                return Err(StoreError::Io { action: "keep the index in", path: self.path.clone(), source });
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panicked(&*panic),
        };
        self.distrust(&detail);
        Err(StoreError::Index(detail))
    }
}

impl Read for Indexed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(|| match self.db.get(key)? {
            Some(stored) => self.value(key, &stored),
            None => Ok(None),
        })
    }

    fn scan(&self, (from, to): &Range, order: Order, each: &mut Each<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        self.guarded(|| {
            let mut range = self.db.range(from.as_slice()..to.as_slice());
            while let Some(pair) = if order == Order::Ascending { range.next() } else { range.next_back() } {
                let (key, stored) = pair?;
                // A value that lost a piece shows as empty, and does not decode.
                let value = self.value(&key, &stored)?.unwrap_or_default();
                if each(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// What lends to the log: commits that follow each other are read together.
pub(super) struct Lender<'a> {
    index: &'a Indexed,
    payloads: RefCell<Payloads<'a>>,
}

impl Indexed {
    pub(super) fn lender(&self) -> Lender<'_> {
        Lender { index: self, payloads: RefCell::new(Payloads::of(self)) }
    }
}

impl OtherCopy for Lender<'_> {
    fn payload(&self, number: CommitNumber) -> Option<Vec<u8>> {
        self.payloads.borrow_mut().get(number).ok().flatten()
    }

    fn hash(&self, number: CommitNumber) -> Option<Hash> {
        reading::header(self.index, number).ok().flatten().map(|header| header.hash)
    }

    fn is_complete(&self) -> bool {
        self.index.complete
    }

    fn lost_nothing(&self) -> bool {
        self.index.complete || self.index.this_boot
    }
}

/// Opens sled where a panic is caught and an opening that never ends is not waited for.
fn open_db(path: &Path) -> Result<Db, Unusable> {
    let started = Instant::now();
    loop {
        let config = ::sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        remove_unfinished(path).map_err(|error| error.to_string())?;
        let (to, from) = mpsc::channel();
        let opening = std::thread::Builder::new().name("cairn-index-open".to_owned());
        let opening = opening.spawn(move || {
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
            // Who asked may have given up.
            let _ = to.send(opened.unwrap_or_else(|panic| Err(::sled::Error::ReportableBug(panicked(&*panic)))));
        });
        opening.map_err(|error| error.to_string())?;
        match from.recv_timeout(OPENS_WITHIN) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) if is_locked(&error) && started.elapsed() < LOCKED_FOR_AT_MOST => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(format!("it did not open within {} s", OPENS_WITHIN.as_secs()).into()),
        }
    }
}

/// The id of the system's present run, if it tells.
fn boot() -> Option<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id").ok()
}

/// Removes snapshots that a kill has cut short: sled would take such a one for its newest, and not open.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    let Ok(db) = File::open(path.join("db")) else { return Ok(()) };
    // Held: the last opening has not let go yet, and may still be writing one.
    if db.try_lock().is_err() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `DATA/lock` keeps other processes out: it is this process's own last opening that has not let go yet.
fn is_locked(error: &::sled::Error) -> bool {
    matches!(error, ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    format!("it panicked: {}", panics::words(panic))
}

/// Whether the commits in `value` are the next ones.
fn follows(first: Option<CommitNumber>, value: &[u8], next: &mut CommitNumber) -> Result<(), StoreError> {
    let missing = |number: CommitNumber| StoreError::Index(format!("commit {number} is missing"));
    if first != Some(*next) {
        return Err(missing(*next));
    }
    for (header, _) in reading::commits_in(value)? {
        if header.number != *next {
            return Err(missing(*next));
        }
        *next = next.next();
    }
    Ok(())
}

/// Puts a value, in so many pieces.
fn insert(batch: &mut Batch, key: &[u8], value: &[u8]) -> u32 {
    if value.len() < PIECE_BYTES {
        let mut whole = Vec::with_capacity(value.len() + 1);
        whole.push(WHOLE);
        whole.extend_from_slice(value);
        batch.insert(key, whole);
        return 0;
    }
    for (number, piece) in (0u32..).zip(value.chunks(PIECE_BYTES)) {
        batch.insert(piece_key(key, number), piece);
    }
    let count = u32::try_from(value.len().div_ceil(PIECE_BYTES)).expect("values are bounded");
    let mut head = vec![IN_PIECES];
    head.extend(count.to_be_bytes());
    batch.insert(key, head);
    count
}

fn piece_key(key: &[u8], number: u32) -> Vec<u8> {
    let mut piece = Vec::with_capacity(key.len() + 5);
    piece.push(PIECE);
    piece.extend_from_slice(key);
    piece.extend(number.to_be_bytes());
    piece
}

fn pieces(stored: Option<&[u8]>) -> u32 {
    match stored.and_then(|stored| stored.split_first()) {
        Some((&IN_PIECES, count)) => count.first_chunk().map_or(0, |count| u32::from_be_bytes(*count)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_the_system_is_told_from_damage() {
        let unusable = |kind: io::ErrorKind| Unusable::from(::sled::Error::Io(kind.into())).refused.is_some();
        assert!(unusable(io::ErrorKind::StorageFull) && unusable(io::ErrorKind::PermissionDenied));
        assert!(!unusable(io::ErrorKind::UnexpectedEof));
    }
}
