//! Group commit: one writer takes all appends that wait, makes them durable with one sync, answers all.
//!
//! - An append is answered after the sync that covers it, never before.
//! - A failed write or sync is never tried again: the writer stops, and every waiter gets an error that means
//!   *unknown*, not *no*.
//! - The queue is bounded: who finds it full is told so at once.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{
    clock::SteadyClock,
    entry::Entry,
    fact::{Fact, ParkReason, Probe},
    ids::CommitNumber,
    store::{Append, Refusal, Store, StoreError},
};

/// The most appends in one commit.
const GROUP_APPENDS_MAX: usize = 1_024;
/// The most bytes of inputs and outputs in one commit, but for a single append that is larger: well below a segment.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

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

type Answer = Result<Vec<Entry>, AppendError>;

/// Called once, with the answer, before anybody else can see it.
pub(crate) type Reply = Box<dyn FnOnce(Answer) + Send>;

struct Request {
    append: Append,
    reply: Reply,
}

/// The way to the writer. It ends when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Request>,
    /// Who must not be refused (the executor) waits here; their number is bounded by that of the active workflows.
    urgent: mpsc::UnboundedSender<Request>,
    head: watch::Receiver<CommitNumber>,
    stopped: Arc<watch::Sender<Option<Arc<str>>>>,
}

impl Writer {
    /// Starts the writer of `store`. `queue` is how many submissions may wait.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        clock: Arc<SteadyClock>,
        queue: usize,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(queue);
        let (urgent, urgent_waiting) = mpsc::unbounded_channel();
        let (head_to, head) = watch::channel(store.head().0);
        let stopped = Arc::new(watch::channel(None).0);
        let task = tokio::spawn(write(store, clock, waiting, urgent_waiting, head_to, Arc::clone(&stopped)));
        (Self { queue, urgent, head, stopped }, task)
    }

    /// Appends on behalf of a client: refused when too many wait.
    pub(crate) fn submit(&self, append: Append, reply: Reply) {
        match self.queue.try_send(Request { append, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => (request.reply)(Err(AppendError::Overloaded)),
            Err(mpsc::error::TrySendError::Closed(request)) => (request.reply)(Err(self.stopped_error())),
        }
    }

    /// Appends on behalf of a workflow that runs.
    pub(crate) fn append(&self, append: Append, reply: Reply) {
        if let Err(mpsc::error::SendError(request)) = self.urgent.send(Request { append, reply }) {
            (request.reply)(Err(self.stopped_error()));
        }
    }

    /// The last durable commit.
    pub(crate) fn head(&self) -> watch::Receiver<CommitNumber> {
        self.head.clone()
    }

    /// Why the writer has stopped, once it has.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.stopped.subscribe()
    }

    /// Stops everything, as a failed sync does: this engine can not be relied on any more.
    pub(crate) fn fault(&self, why: &str) {
        fault(&self.stopped, why.into());
    }

    fn stopped_error(&self) -> AppendError {
        AppendError::Stopped(self.stopped.borrow().clone().unwrap_or_else(|| "the engine has shut down".into()))
    }
}

async fn write(
    store: Arc<dyn Store>,
    clock: Arc<SteadyClock>,
    mut queue: mpsc::Receiver<Request>,
    mut urgent: mpsc::UnboundedReceiver<Request>,
    head: watch::Sender<CommitNumber>,
    stopped: Arc<watch::Sender<Option<Arc<str>>>>,
) {
    let mut carried = None;
    while let Some(group) = next_group(&mut queue, &mut urgent, &mut carried).await {
        let (appends, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|request| (request.append, request.reply)).unzip();
        let (writing, now) = (Arc::clone(&store), clock.tick());
        // Not borrowed any more when it is stopped.
        let why = stopped.borrow().clone();
        if let Some(why) = why {
            return stop(why, replies, queue, urgent, &stopped);
        }
        // A thread of its own: a sync blocks. A panic in a store is a fault like any other.
        let answers = match tokio::task::spawn_blocking(move || writing.commit(appends, now)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return stop(error_text(&error).into(), replies, queue, urgent, &stopped),
            Err(panic) => {
                return stop(format!("the store has panicked: {panic}").into(), replies, queue, urgent, &stopped);
            }
        };
        head.send_replace(store.head().0);
        for (reply, answer) in replies.into_iter().zip(answers) {
            reply(answer.map_err(AppendError::Refused));
        }
    }
}

/// All that waits, within the bounds of a group; `None` once nobody can append any more.
async fn next_group(
    queue: &mut mpsc::Receiver<Request>,
    urgent: &mut mpsc::UnboundedReceiver<Request>,
    carried: &mut Option<Request>,
) -> Option<Vec<Request>> {
    let first = match carried.take() {
        Some(request) => request,
        None => tokio::select! {
            biased;
            Some(request) = urgent.recv() => request,
            Some(request) = queue.recv() => request,
            else => return None,
        },
    };
    let mut bytes = size(&first.append);
    let mut group = vec![first];
    while group.len() < GROUP_APPENDS_MAX {
        let Ok(request) = urgent.try_recv().or_else(|_| queue.try_recv()) else { break };
        bytes += size(&request.append);
        if bytes > GROUP_BYTES_MAX {
            *carried = Some(request);
            break;
        }
        group.push(request);
    }
    Some(group)
}

/// Answers everybody who waits, and lets nobody wait any more.
fn stop(
    why: Arc<str>,
    replies: Vec<Reply>,
    mut queue: mpsc::Receiver<Request>,
    mut urgent: mpsc::UnboundedReceiver<Request>,
    stopped: &watch::Sender<Option<Arc<str>>>,
) {
    fault(stopped, Arc::clone(&why));
    queue.close();
    urgent.close();
    let waiting = std::iter::from_fn(|| urgent.try_recv().or_else(|_| queue.try_recv()).ok());
    for reply in replies.into_iter().chain(waiting.map(|request| request.reply)) {
        reply(Err(AppendError::Stopped(Arc::clone(&why))));
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
