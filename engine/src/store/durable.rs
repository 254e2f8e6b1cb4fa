//! The store that keeps two copies: the commit log and sled, each healed from the other when it opens.
//!
//! - A commit is admitted, written to the log, synced, handed to the index, and then answered.
//! - Reads see the index with what still waits to be given to it, and never what is not durable.
//! - A failed write or sync stops the store for good: what is on disk then, only the next open tells.
//! - At open, the copy that lacks something gets it from the other. What both lack is named, and nothing starts on it. What
//!   lies far back in a long log is read beside, once it is open.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock::{Clock, SystemClock},
    entry::{Commit, Entry},
    fact::{Amounts, Fact},
    ids::{CommitNumber, FencingToken, Hash, IdempotencyKey, Service, Tenant, Timestamp, WorkflowId},
    journal::{
        chain::BadPlace,
        codec::Header,
        index,
        keys::{self, Overlay},
        ledger::{self, Ledger},
    },
    store::{
        Append, ListQuery, Listed, Refusal, ServiceRecord, Store, StoreError, Submission,
        behind::Behind,
        log::{self, CommitLog, Cut, Extent, Logged, OtherCopy, ReadAhead, Recovered, Wanted},
        reading,
        rereading::{Passed, Rereading, Suspect},
        sled::Indexed,
        space::Space,
    },
};

/// How long the process that had it open before may take to let go, and how often that is looked at.
const LOCKED_FOR_AT_MOST: Duration = Duration::from_secs(1);
const LOCK_TRIED_EVERY: Duration = Duration::from_millis(20);

/// With less room than for so many segments the ballast is given up: the log needs the next one, and the index as much.
const ROOM_SEGMENTS: u64 = 2;

/// Where and how a journal is kept.
#[derive(Clone, Debug)]
pub struct DurableOptions {
    /// The data directory. It is made if it is not there.
    pub dir: PathBuf,
    /// How long a segment of the log is.
    pub segment_bytes: u64,
    /// With less free space than that, no new workflow begins.
    pub disk_floor_bytes: u64,
    /// How much room is kept for those that run; 0 for none.
    pub ballast_bytes: u64,
    /// So much of the log's end is read before the journal is open; what lies before is read once it is.
    pub read_at_open_bytes: u64,
    /// The time of this opening.
    pub now: Timestamp,
}

impl DurableOptions {
    /// A journal in `dir`, with segments of 16 MiB, a floor of 256 MiB and a ballast of 64 MiB; 16 MiB are read at open.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 16 << 20,
            disk_floor_bytes: 256 << 20,
            ballast_bytes: 64 << 20,
            read_at_open_bytes: 16 << 20,
            now: SystemClock.now(),
        }
    }
}

/// What opening a journal came to. Nothing else tells: whoever opens it says so to people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// How many commits the index lacked and got from the log.
    pub caught_up: u64,
    /// Why the index was made again from the log, if it was.
    pub rebuilt: Option<String>,
    /// Where the old index lies, if it was moved out of the way.
    pub set_aside: Option<PathBuf>,
    /// Which places of the log were put back from the index.
    pub healed: Vec<String>,
    /// What was cut from the end of the log: a write that was never finished, and so never acknowledged.
    pub cut: Option<Cut>,
}

/// The commit log and sled.
#[derive(Debug)]
pub struct DurableStore {
    index: Behind,
    token: FencingToken,
    head: Mutex<(CommitNumber, Hash)>,
    rereading: Rereading,
    writer: Mutex<Writer>,
}

/// What only one may use at a time.
#[derive(Debug)]
struct Writer {
    ledger: Ledger,
    log: CommitLog,
    space: Space,
    segment_bytes: u64,
    stopped: bool,
    /// Held as long as the store is open.
    _lock: File,
}

impl DurableStore {
    /// Opens the journal, or makes one, with the next fencing token.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::NewerFormat`] if a newer cairn wrote it,
    /// [`StoreError::Damaged`] if both copies lack the same, [`StoreError::Io`] if the disk does not do what it should.
    pub fn open(options: &DurableOptions) -> Result<(Self, OpenReport), StoreError> {
        let DurableOptions { dir, segment_bytes, .. } = options;
        let (lock, log_dir) = prepare(dir)?;
        let mut space = Space::new(dir.clone(), options.disk_floor_bytes, options.ballast_bytes);
        // Opening may need room too: for a healed segment, or to catch up.
        space.look(segment_bytes.saturating_mul(ROOM_SEGMENTS));
        let mut report = OpenReport::default();
        let index_dir = index_dir(dir);
        let opened = match Indexed::open(&index_dir) {
            Ok(index) => Some(index),
            Err(unusable) => {
                report.rebuilt = Some(unusable.why);
                None
            }
        };
        let known = opened.as_ref().map(|index| reading::head(index)).transpose();
        let known = match known {
            Ok(known) => known.flatten(),
            Err(error) => {
                report.rebuilt = Some(error.to_string());
                None
            }
        };
        let lender = opened.as_ref().filter(|_| report.rebuilt.is_none()).map(Indexed::lender);
        let other = lender.as_ref().map(|lender| lender as &dyn OtherCopy);
        let last = known.map(|header| header.number).unwrap_or_default();
        let suspect = Suspect::of(dir);
        let read_bytes = if suspect.is_there() { u64::MAX } else { options.read_at_open_bytes };
        let extent = Extent { segment_bytes: *segment_bytes, read_bytes };
        let mut recovered = log::recover(&log_dir, extent, other, last)?;
        let is_doubtful = recovered.contradicted.is_some() || known.map(|known| known.hash) != recovered.known;
        if is_doubtful && !recovered.passed.is_empty() {
            // The index is made again, which reads everything: first what that can still lend is put back.
            let (mut healed, cut) = (recovered.healed, recovered.cut);
            recovered = log::recover(&log_dir, Extent { read_bytes: u64::MAX, ..extent }, other, last)?;
            healed.append(&mut recovered.healed);
            recovered.healed = healed;
            recovered.cut = recovered.cut.or(cut);
        }
        let reached = recovered.head.map(|header| header.number).unwrap_or_default();
        if let Some(known) = known
            && recovered.known != Some(known.hash)
        {
            if known.number > reached {
                let place = format!("commit {}, log", reached.next());
                let detail =
                    format!("the index knows commits up to {}, but they do not follow the log's", known.number);
                return Err(StoreError::Damaged { place, detail });
            }
            report.rebuilt = Some(format!("commit {} is another than in the log", known.number));
        }
        if let Some(number) = recovered.contradicted {
            report.rebuilt.get_or_insert(format!("commit {number} is another than in the log"));
        }
        drop(lender);
        let index = match opened {
            Some(index) if report.rebuilt.is_none() => index,
            opened => {
                drop(opened);
                report.set_aside = Indexed::set_aside(&index_dir)?;
                Indexed::open(&index_dir).map_err(|unusable| StoreError::Index(unusable.why))?
            }
        };
        suspect.remove()?;
        let Recovered { mut log, segments, healed, cut, passed, .. } = recovered;
        (report.healed, report.cut) = (healed, cut);
        // As it is now: it may have been made again.
        let known = reading::head(&index)?;
        index.begin()?;
        let index = Behind::start(index)?;
        let mut ledger;
        (ledger, report.caught_up) = catch_up(&index, known, &log_dir, &segments)?;
        let previous = ledger.head.1;
        let opening = ledger.open(options.now);
        log.append(opening.header.number, previous, &opening.payload)?;
        index.apply(opening.changes)?;
        let rereading =
            Rereading::start(Passed { log_dir, segments: passed, extent, known: last }, index.given(), suspect)?;
        let (token, head) = (ledger.token, Mutex::new(ledger.head));
        let writer = Writer { ledger, log, space, segment_bytes: *segment_bytes, stopped: false, _lock: lock };
        Ok((Self { index, token, head, rereading, writer: Mutex::new(writer) }, report))
    }

    /// Looks at the disk as [`DurableStore::open`] does first of all: a ballast is given up where room is short. For those who
    /// need room in the same directory before the journal is opened. A journal that is open looks for itself.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory cannot be made or locked.
    pub fn make_room(options: &DurableOptions) -> Result<(), StoreError> {
        match prepare(&options.dir) {
            Ok(_lock) => {
                let mut space = Space::new(options.dir.clone(), options.disk_floor_bytes, options.ballast_bytes);
                space.look(options.segment_bytes.saturating_mul(ROOM_SEGMENTS));
                Ok(())
            }
            Err(StoreError::Locked { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the index again from the log, whatever it looks like, and opens the journal.
    ///
    /// # Errors
    /// As [`DurableStore::open`].
    pub fn rebuild(options: &DurableOptions) -> Result<(Self, OpenReport), StoreError> {
        // Open first, and read everything: what the log lacks it gets from the index as long as there is one.
        let (store, first) = Self::open(&DurableOptions { read_at_open_bytes: u64::MAX, ..options.clone() })?;
        store.close()?;
        let index_dir = index_dir(&options.dir);
        drop(store);
        let (lock, _) = prepare(&options.dir)?;
        let set_aside = Indexed::set_aside(&index_dir)?;
        drop(lock);
        let (store, mut report) = Self::open(options)?;
        report.set_aside = set_aside;
        report.rebuilt = Some("as asked for".to_owned());
        report.healed.splice(..0, first.healed);
        report.cut = report.cut.or(first.cut);
        Ok((store, report))
    }

    /// Waits until what opening passed over of the log has been read, and healed where that was needed.
    pub fn reread(&self) {
        self.rereading.wait();
    }

    /// Whoever panicked while holding it left it in a state that nothing vouches for.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        self.writer.lock().map_err(|_| StoreError::Stopped)
    }
}

impl Writer {
    fn commit(&mut self, index: &Behind, appends: Vec<Append>, now: Timestamp) -> Result<Answers, StoreError> {
        let low = self.space.look(self.segment_bytes.saturating_mul(ROOM_SEGMENTS));
        let Some(free_bytes) = low else { return self.make_durable(index, appends, now) };
        let floor_bytes = self.space.floor_bytes();
        let mut refused = Vec::with_capacity(appends.len());
        let mut rest = Vec::new();
        for append in appends {
            let is_refused = is_new(index, &append)?;
            refused.push(is_refused);
            if !is_refused {
                rest.push(append);
            }
        }
        let mut answers = self.make_durable(index, rest, now)?.into_iter();
        let refusal = || Err(Refusal::DiskFull { free_bytes, floor_bytes });
        let answer = |refused: bool| if refused { refusal() } else { answers.next().expect("one for each append") };
        Ok(refused.into_iter().map(answer).collect())
    }

    fn make_durable(&mut self, index: &Behind, appends: Vec<Append>, now: Timestamp) -> Result<Answers, StoreError> {
        let previous = self.ledger.head.1;
        let plan = self.ledger.plan(index, appends, now)?;
        if let Some(commit) = plan.commit {
            self.log.append(commit.header.number, previous, &commit.payload)?;
            index.apply(commit.changes)?;
        }
        Ok(plan.answers)
    }
}

/// Whether this would begin a workflow. What has a key that was used begins none: it is refused with that one's id.
fn is_new(index: &Behind, append: &Append) -> Result<bool, StoreError> {
    let Some(Fact::Submitted(submitted)) = append.facts.first() else { return Ok(false) };
    let Some(key) = &submitted.key else { return Ok(true) };
    let used: Option<Submission> = index::get(index, &keys::submission(&submitted.tenant, key))?;
    Ok(used.is_none())
}

type Answers = Vec<Result<Vec<Entry>, Refusal>>;

impl Store for DurableStore {
    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Answers, StoreError> {
        let mut writer = self.writer()?;
        if writer.stopped || self.index.has_failed() {
            return Err(StoreError::Stopped);
        }
        // Until all has gone well, nothing has: a panic on the way stops the store too.
        writer.stopped = true;
        let answers = writer.commit(&self.index, appends, now)?;
        writer.stopped = false;
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = writer.ledger.head;
        Ok(answers)
    }

    fn token(&self) -> FencingToken {
        self.token
    }

    fn head(&self) -> (CommitNumber, Hash) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workflow(&self, id: WorkflowId) -> Result<Vec<Entry>, StoreError> {
        ledger::read_workflow(&self.index, id)
    }

    fn active(&self) -> Result<Vec<WorkflowId>, StoreError> {
        reading::active(&self.index)
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Listed>, StoreError> {
        reading::list(&self.index, query)
    }

    fn service(&self, tenant: &Tenant, service: &Service) -> Result<Option<ServiceRecord>, StoreError> {
        index::service_record(&self.index, tenant, service)
    }

    fn each_service(
        &self,
        tenant: Option<&Tenant>,
        each: &mut dyn FnMut(ServiceRecord) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        reading::each_service(&self.index, tenant, each)
    }

    fn usage(&self, tenant: &Tenant) -> Result<Amounts, StoreError> {
        index::usage(&self.index, tenant)
    }

    fn submission(&self, tenant: &Tenant, key: &IdempotencyKey) -> Result<Option<Submission>, StoreError> {
        index::get(&self.index, &keys::submission(tenant, key))
    }

    fn commits(&self, after: CommitNumber, max: usize) -> Result<Vec<Commit>, StoreError> {
        reading::commits(&self.index, after, max)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.rereading.stop();
        let mut writer = self.writer()?;
        let was_stopped = std::mem::replace(&mut writer.stopped, true);
        writer.log.close()?;
        // After a fault nothing vouches for this copy having everything.
        if was_stopped { Ok(()) } else { self.index.close() }
    }
}

/// Makes the directories and takes the lock.
fn prepare(dir: &Path) -> Result<(File, PathBuf), StoreError> {
    let log_dir = dir.join("log");
    let failed = |action| move |source| StoreError::Io { action, path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed("make"))?;
    let lock = lock(dir)?;
    fs::create_dir_all(&log_dir).map_err(failed("make the log in"))?;
    log::sync_dir(dir).map_err(failed("sync"))?;
    Ok((lock, log_dir))
}

pub(super) fn index_dir(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// Keeps other processes out, and tells them who is in.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let failed = |action| {
        let path = path.clone();
        move |source| StoreError::Io { action, path, source }
    };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(failed("open"))?;
    // A killed process lets go a moment after it is gone from sight.
    let patience = Instant::now() + LOCKED_FOR_AT_MOST;
    let mut tried = file.try_lock();
    while matches!(tried, Err(TryLockError::WouldBlock)) && Instant::now() < patience {
        std::thread::sleep(LOCK_TRIED_EVERY);
        tried = file.try_lock();
    }
    match tried {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is helps, but is not needed to say no.
            let _ = file.read_to_string(&mut holder);
            let holder = Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty());
            return Err(StoreError::Locked { path: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
    }
    // The lock holds without it, and a full disk has no room for it until the ballast is given up.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "pid {}", std::process::id()));
    Ok(file)
}

/// Gives the index what the log has and it has not.
fn catch_up(
    index: &Behind,
    known: Option<Header>,
    log_dir: &Path,
    segments: &[(u64, CommitNumber, Hash)],
) -> Result<(Ledger, u64), StoreError> {
    let (reached, token) = known.map(|header| (header.number, header.token)).unwrap_or_default();
    let time = known.map(|header| header.time).unwrap_or_default();
    let mut ledger = Ledger::at(token, (reached, known.map(|header| header.hash).unwrap_or_default()), time);
    let from = segments.iter().rev().find(|(_, first, _)| *first <= reached.next());
    let from = from.expect("the first segment begins with commit 1");
    let mut log = ReadAhead::open_segment(log_dir, *from, Wanted { after: reached, payloads: true })?;
    let mut caught_up = 0;
    while let Some(logged) = log.logged() {
        let Logged { commit, payload, .. } = logged.map_err(damaged)?;
        let mut batch = Overlay::new(index);
        ledger.follow(&mut batch, &commit, &payload)?.map_err(|bad| damaged(bad.or_commit(commit.number)))?;
        index.apply(batch.into_changes())?;
        caught_up += 1;
    }
    Ok((ledger, caught_up))
}

pub(super) fn damaged(bad: BadPlace) -> StoreError {
    StoreError::Damaged { place: bad.place(), detail: bad.detail }
}
