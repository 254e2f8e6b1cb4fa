//! Group commit: one writer takes all appends that wait, makes them durable with one sync, answers all.
//!
//! - The writer is whoever holds the right to commit: a thread of its own, or who brings an append that is alone.
//! - An append is answered after the sync that covers it, never before.
//! - A failed write or sync is never tried again: the writer stops, and every waiter gets an error that means
//!   *unknown*, not *no*.
//! - The queue is bounded: who finds it full is told so at once.

#[cfg(all(test, feature = "model"))]
pub(crate) mod model;
#[cfg(all(test, not(feature = "model")))]
mod tests;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{oneshot, watch},
};

use crate::{
    clock::SteadyClock,
    entry::Entry,
    fact::{Fact, ParkReason, Probe},
    ids::CommitNumber,
    panics,
    store::{Append, Refusal, Store, StoreError},
    threads::{self, Condvar, JoinHandle, Mutex, MutexGuard, PoisonError, thread},
};

/// The most appends in one commit.
const GROUP_APPENDS_MAX: usize = 1_024;
/// The most bytes of inputs and outputs in one commit, but for a single append that is larger: well below a segment.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A commit in place that took longer has kept a thread of the runtime from other work: the next so many are not.
const SLOW: Duration = Duration::from_millis(5);
const WARY_FOR: u32 = 256;

/// Why an append was not made durable, or not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The store said no: nothing of it was recorded.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The writer has stopped: whether it was recorded only the next start can tell.
    #[error("the journal has stopped: {0}")]
    Stopped(Arc<str>),
    /// Too many appends wait already: nothing of it was recorded.
    #[error("too many appends wait for the journal")]
    Overloaded,
}

pub(crate) type Answer = Result<Vec<Entry>, AppendError>;

/// Called once, with the answer, before anybody else can see it.
pub(crate) type Reply = Box<dyn FnOnce(Answer) + Send>;

/// An append, and who wants to know what comes of it.
pub(crate) struct Request {
    pub(crate) append: Append,
    pub(crate) reply: Reply,
}

/// The way to the writer. It ends when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// How many requests of clients may wait.
    queue: usize,
    here: Here,
    _open: Arc<Open>,
}

/// What is committed by who brings it, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    /// Everything: the runtime has one thread, and on a clock that a test holds still nothing else may wait for a thread.
    Everything,
    /// What is alone, while nobody else writes: what it would wait for is the disk either way.
    WhatIsAlone,
}

struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<SteadyClock>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Held by who commits.
    committing: Mutex<Pace>,
    head: watch::Sender<CommitNumber>,
    stopped: watch::Sender<Option<Arc<str>>>,
}

#[derive(Default)]
struct Waiting {
    /// Of clients: their number is bounded.
    clients: VecDeque<Request>,
    /// Of the executor, which must not be refused: their number is bounded by that of the active workflows.
    urgent: VecDeque<Request>,
    closed: bool,
}

/// How the disk has behaved.
#[derive(Default)]
struct Pace {
    /// So many commits more are left to the writer's own thread.
    wary: u32,
}

/// Closes the queue when the last way to the writer is gone.
struct Open {
    shared: Arc<Shared>,
    /// Dropped with it, where there is no thread that says when it has ended.
    _ended: Option<oneshot::Sender<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Writer {
    /// Starts the writer of `store`. `queue` is how many submissions may wait. The task ends when the writer has.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        clock: Arc<SteadyClock>,
        queue: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let here = match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => Here::Everything,
            _ => Here::WhatIsAlone,
        };
        let head = watch::Sender::new(store.head().0);
        let shared = Arc::new(Shared {
            store,
            clock,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            committing: Mutex::default(),
            head,
            stopped: watch::Sender::new(None),
        });
        let (ended, end) = oneshot::channel();
        let mut ended = Some(ended);
        if here == Here::WhatIsAlone {
            let (shared, ended) = (Arc::clone(&shared), ended.take());
            thread::Builder::new().name("cairn-writer".to_owned()).spawn(move || {
                while let Some(group) = shared.next_group() {
                    shared.commit(&mut shared.committing(), group);
                }
                drop(ended);
            })?;
        }
        let open = Arc::new(Open { shared: Arc::clone(&shared), _ended: ended });
        // Nothing is ever sent: it is dropped.
        let writing = threads::spawn(async { drop(end.await) });
        Ok((Self { shared, queue, here, _open: open }, writing))
    }

    /// Appends on behalf of a client: refused when too many wait.
    pub(crate) fn submit(&self, append: Append, reply: Reply) {
        let mut waiting = self.shared.lock();
        let refusal = if waiting.closed {
            self.shared.stopped_error()
        } else if waiting.clients.len() >= self.queue {
            AppendError::Overloaded
        } else {
            waiting.clients.push_back(Request { append, reply });
            drop(waiting);
            return self.wake();
        };
        drop(waiting);
        reply(Err(refusal));
    }

    /// Commits what has nothing to share a commit with before this returns, and answers it by what it returns: to wake a
    /// thread for it, and to be woken, takes as long as the disk does.
    ///
    /// # Errors
    /// The request itself, where it is not alone, or the disk is slow: it is for [`Writer::append`].
    pub(crate) fn append_alone(&self, request: Request) -> Result<Answer, Request> {
        if self.here == Here::Everything {
            return Err(request);
        }
        let Ok(mut pace) = self.shared.committing.try_lock() else { return Err(request) };
        if pace.wary > 0 {
            pace.wary -= 1;
            return Err(request);
        }
        if !self.shared.lock().is_empty() {
            return Err(request);
        }
        let began = Instant::now();
        let answer = self.shared.make_durable(&mut pace, vec![request.append]);
        if began.elapsed() > SLOW {
            pace.wary = WARY_FOR;
        }
        Ok(match answer {
            Ok(mut answers) => answers.pop().expect("one for each append").map_err(AppendError::Refused),
            Err(why) => {
                self.shared.stop(Arc::clone(&why), Vec::new());
                Err(AppendError::Stopped(why))
            }
        })
    }

    /// Appends on behalf of workflows that run.
    pub(crate) fn append(&self, requests: Vec<Request>) {
        let mut waiting = self.shared.lock();
        if waiting.closed {
            drop(waiting);
            let refuse = |request: Request| (request.reply)(Err(self.shared.stopped_error()));
            return requests.into_iter().for_each(refuse);
        }
        waiting.urgent.extend(requests);
        drop(waiting);
        self.wake();
    }

    /// Lets what waits be committed: by the writer's thread, or here.
    fn wake(&self) {
        match self.here {
            Here::Everything => self.shared.commit_all(),
            Here::WhatIsAlone => self.shared.changed.notify_one(),
        }
    }

    /// The last durable commit.
    pub(crate) fn head(&self) -> watch::Receiver<CommitNumber> {
        self.shared.head.subscribe()
    }

    /// Why the writer has stopped, once it has.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.stopped.subscribe()
    }

    /// Stops everything, as a failed sync does: this engine can not be relied on any more.
    pub(crate) fn fault(&self, why: &str) {
        fault(&self.shared.stopped, why.into());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can panic half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committing(&self) -> MutexGuard<'_, Pace> {
        // A panic in the store is caught; a reply does not panic.
        self.committing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a group durable, and answers it. Who calls this holds the right to.
    fn commit(&self, pace: &mut Pace, group: Vec<Request>) {
        let (appends, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|request| (request.append, request.reply)).unzip();
        match self.make_durable(pace, appends) {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    reply(answer.map_err(AppendError::Refused));
                }
            }
            Err(why) => self.stop(why, replies),
        }
    }

    /// One commit; or why the writer has stopped, which it must then be told.
    fn make_durable(&self, _: &mut Pace, appends: Vec<Append>) -> Result<Vec<Result<Vec<Entry>, Refusal>>, Arc<str>> {
        // Not borrowed any more when it is stopped.
        let why = self.stopped.borrow().clone();
        if let Some(why) = why {
            return Err(why);
        }
        // A panic in a store is a fault like any other.
        let answers = match catch_unwind(AssertUnwindSafe(|| self.store.commit(appends, self.clock.tick()))) {
            Ok(committed) => committed.map_err(|error| error_text(&error))?,
            Err(panic) => return Err(format!("the store has panicked: {}", panics::words(&*panic)).into()),
        };
        self.head.send_replace(self.store.head().0);
        Ok(answers)
    }

    /// Commits whatever waits, group by group.
    fn commit_all(&self) {
        let mut pace = self.committing();
        loop {
            let group = self.lock().group();
            if group.is_empty() {
                return;
            }
            self.commit(&mut pace, group);
        }
    }

    /// Waits for a group; `None` once nobody can append any more.
    fn next_group(&self) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        while waiting.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        Some(waiting.group())
    }

    /// Answers everybody who waits, and lets nobody wait any more.
    fn stop(&self, why: Arc<str>, replies: Vec<Reply>) {
        fault(&self.stopped, Arc::clone(&why));
        let mut waiting = self.lock();
        waiting.closed = true;
        let rest: Vec<_> = std::iter::from_fn(|| waiting.pop()).collect();
        drop(waiting);
        self.changed.notify_all();
        for reply in replies.into_iter().chain(rest.into_iter().map(|request| request.reply)) {
            reply(Err(AppendError::Stopped(Arc::clone(&why))));
        }
    }

    fn stopped_error(&self) -> AppendError {
        AppendError::Stopped(self.stopped.borrow().clone().unwrap_or_else(|| "the engine has shut down".into()))
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.clients.is_empty()
    }

    /// All that waits, within the bounds of a group; nothing, if nothing does.
    fn group(&mut self) -> Vec<Request> {
        let (mut bytes, mut group) = (0, Vec::new());
        while group.len() < GROUP_APPENDS_MAX
            && let Some(next) = self.urgent.front().or(self.clients.front())
        {
            bytes += size(&next.append);
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(self.pop());
        }
        group
    }

    fn pop(&mut self) -> Option<Request> {
        self.urgent.pop_front().or_else(|| self.clients.pop_front())
    }
}

fn fault(stopped: &watch::Sender<Option<Arc<str>>>, why: Arc<str>) {
    // The first fault is the cause; what follows from it is not news.
    stopped.send_if_modified(|stopped| {
        let first = stopped.is_none();
        if first {
            tracing::error!(
                %why,
                "the journal has stopped; what was being written may or may not be there after the next start"
            );
            *stopped = Some(why);
        }
        first
    });
}

fn error_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// About what the append weighs: what is not JSON is small.
fn size(append: &Append) -> usize {
    append
        .facts
        .iter()
        .map(|fact| match fact {
            Fact::Submitted(submitted) => submitted.input.as_bytes().len(),
            Fact::AttemptSucceeded { output, .. } | Fact::Probed { answer: Probe::Applied { output }, .. } => {
                output.message.len()
                    + output.result.as_bytes().len()
                    + output.record.as_ref().map_or(0, |record| record.as_bytes().len())
            }
            Fact::Probed { answer: Probe::Partly { made }, .. } => made.as_bytes().len(),
            Fact::AttemptFailed { error, .. }
            | Fact::ProbeFailed { error, .. }
            | Fact::CompensationFailed { error, .. }
            | Fact::ResidueCheckFailed { error, .. } => {
                error.message.len() + error.evidence.iter().map(String::len).sum::<usize>()
            }
            Fact::Parked { reason: ParkReason::Residue { left: residue } } | Fact::Finished { residue, .. } => {
                residue.iter().map(String::len).sum()
            }
            _ => 0,
        })
        .sum::<usize>()
        + 256
}
