//! The engine as its users hold it: open, submit, control, watch, shut down.
//!
//! - [`Engine::open`] returns when recovery is done; what was interrupted is then being driven already.
//! - Whatever returns here is durable. A future that is dropped takes nothing back.
//! - Reads go to the store: they see what is on the disk, never what is about to be.

mod submit;
mod watchers;

use std::{
    io,
    sync::{
        Arc, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    chance::Chance,
    clock::{Clock, SteadyClock},
    definition::Registry,
    entry::Entry,
    executor::{self, Answer, Event, Gauges, Limits, Wish},
    fact::Fact,
    ids::{CommitNumber, Sequence, StepName, Timestamp, Who, WorkflowId},
    journal::writer::Writer,
    projector::{self, Gauge, Projection, ViewHealth},
    recovery,
    state::{IllegalFact, WorkflowState, fold},
    store::{Store, StoreError},
    threads::{self, JoinHandle, Mutex, PoisonError},
};

use self::watchers::Watched;
pub(crate) use self::watchers::Watchers;
pub use self::{
    submit::{NewSubmission, SubmitError},
    watchers::{Following, Settled},
};

/// What an engine works with.
pub struct EngineOptions {
    /// Where entries are kept.
    pub store: Arc<dyn Store>,
    /// The definitions that this build knows.
    pub definitions: Registry,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What is drawn at random.
    pub chance: Arc<dyn Chance>,
    /// How much may be under way at once.
    pub limits: Limits,
}

/// Why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal cannot be written.
    #[error("the journal cannot be written: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
}

/// Why a workflow was not told what it should have been told.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such workflow.
    #[error("there is no workflow {workflow}")]
    NotFound {
        /// Which.
        workflow: WorkflowId,
    },
    /// It is not where this could be asked of it.
    #[error("workflow {workflow}: {illegal}")]
    NotNow {
        /// Which.
        workflow: WorkflowId,
        /// Why not.
        #[source]
        illegal: IllegalFact,
    },
    /// It has begun a step that cannot be taken back, so it is not cancelled: let it go on, or end it by force.
    #[error(
        "workflow {workflow} has begun {step}, which cannot be taken back: let it end, or retry it if it is parked; ended by \
         force, it stays where it is"
    )]
    Irreversible {
        /// Which.
        workflow: WorkflowId,
        /// The first such step that it has begun.
        step: StepName,
    },
    /// It was to be ended where it is parked, and is not parked any more.
    #[error(
        "workflow {workflow} is not parked any more, somebody let it go on: look at it again, and wait for its end"
    )]
    NotParked {
        /// Which.
        workflow: WorkflowId,
    },
    /// The engine shuts down.
    #[error("the engine is shutting down: ask again once it is back")]
    ShuttingDown,
    /// The journal has stopped: whether this was recorded only the next start can tell.
    #[error("the journal has stopped ({why}): whether this was recorded is unknown")]
    Stopped {
        /// Why.
        why: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How the engine is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Why the journal has stopped, if it has.
    pub stopped: Option<String>,
    /// Nothing new is accepted any more.
    pub shutting_down: bool,
    /// Workflows that this engine leaves alone, and why: their journals cannot be replayed, or another has them.
    pub unrecoverable: Vec<(WorkflowId, String)>,
    /// Workflows that are not finished.
    pub active: usize,
    /// Attempts in flight.
    pub in_flight: usize,
    /// How far each view is behind the journal.
    pub views: Vec<ViewHealth>,
}

/// An open engine. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    definitions: Registry,
    clock: Arc<SteadyClock>,
    chance: Arc<dyn Chance>,
    writer: Mutex<Option<Writer>>,
    head: watch::Receiver<CommitNumber>,
    stopped: watch::Receiver<Option<Arc<str>>>,
    events: mpsc::UnboundedSender<Event>,
    watchers: Arc<Watchers>,
    gauges: Arc<Gauges>,
    active_max: usize,
    shutting_down: AtomicBool,
    closed: watch::Sender<bool>,
    /// Executor and writer: they end first.
    core: Mutex<Vec<JoinHandle<()>>>,
    projectors: Mutex<Vec<JoinHandle<()>>>,
    views: RwLock<Vec<Arc<Gauge>>>,
}

impl Engine {
    /// Opens an engine on `store`: replays what is active, parks what cannot go on, drives the rest.
    ///
    /// # Errors
    /// [`OpenError`] if the journal can be neither read nor written.
    pub async fn open(options: EngineOptions) -> Result<Self, OpenError> {
        let EngineOptions { store, definitions, clock, chance, limits } = options;
        let watchers = Arc::new(Watchers::default());
        let gauges = Arc::new(Gauges::default());
        let token = store.token();
        let reading = Arc::clone(&store);
        let last =
            threads::spawn_blocking(move || last_time(reading.as_ref())).await.unwrap_or(Err(StoreError::Stopped))?;
        let clock = Arc::new(SteadyClock::starting_at(clock.now().max(last)));
        let started = Writer::start(Arc::clone(&store), Arc::clone(&clock), limits.queue);
        let (writer, writing) = started.map_err(|error| OpenError::Stopped { why: format!("no thread: {error}") })?;
        let recovered = recovery::recover(&store, &definitions, &writer, &watchers, &clock).await?;
        let (events, waiting) = mpsc::unbounded_channel();
        let parts = executor::Parts {
            definitions: definitions.clone(),
            clock: Arc::clone(&clock),
            chance: Arc::clone(&chance),
            limits,
            writer: writer.clone(),
            watchers: Arc::clone(&watchers),
            gauges: Arc::clone(&gauges),
            token,
        };
        // Known from here on, before the executor has taken over the first of them.
        gauges.active.store(recovered.len(), Ordering::Relaxed);
        for state in recovered {
            // The receiver is at hand: this cannot fail.
            let _ = events.send(Event::Begin(Box::new(state)));
        }
        let executing = executor::start(parts, waiting, events.clone());
        threads::spawn(end_watches(writer.stopped(), Arc::clone(&watchers)));
        let inner = Inner {
            store,
            definitions,
            clock,
            chance,
            head: writer.head(),
            stopped: writer.stopped(),
            writer: Mutex::new(Some(writer)),
            events,
            watchers,
            gauges,
            active_max: limits.active,
            shutting_down: AtomicBool::new(false),
            closed: watch::channel(false).0,
            core: Mutex::new(vec![executing, writing]),
            projectors: Mutex::default(),
            views: RwLock::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Stops the workflow after the attempt in hand and rolls it back; with `force` ends it at once, whatever is
    /// left behind. Returns once that wish is durable.
    ///
    /// # Errors
    /// [`ControlError`]; `Irreversible` only without `force`.
    pub async fn cancel(&self, workflow: WorkflowId, who: Who, force: bool) -> Result<WorkflowState, ControlError> {
        self.ask(workflow, Fact::CancelRequested { who, force }).await
    }

    /// Ends a workflow that is parked, as it stands: what it has left stays there. One that somebody lets go on in the meantime is
    /// left to go on. Returns once that wish is durable.
    ///
    /// # Errors
    /// [`ControlError`]; `NotParked` unless it is parked at that very moment.
    pub async fn end_parked(&self, workflow: WorkflowId, who: Who) -> Result<WorkflowState, ControlError> {
        self.wish(workflow, Wish { fact: Fact::CancelRequested { who, force: true }, only_parked: true }).await
    }

    /// Lets no further step start.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn pause(&self, workflow: WorkflowId, who: Who) -> Result<WorkflowState, ControlError> {
        self.ask(workflow, Fact::Paused { who }).await
    }

    /// Lets steps start again.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn resume(&self, workflow: WorkflowId, who: Who) -> Result<WorkflowState, ControlError> {
        self.ask(workflow, Fact::Resumed { who }).await
    }

    /// Lets a parked workflow go on, and a waiting one not wait.
    ///
    /// # Errors
    /// [`ControlError`]
    pub async fn retry(&self, workflow: WorkflowId, who: Who) -> Result<WorkflowState, ControlError> {
        self.ask(workflow, Fact::RetryRequested { who }).await
    }

    async fn ask(&self, workflow: WorkflowId, fact: Fact) -> Result<WorkflowState, ControlError> {
        self.wish(workflow, Wish { fact, only_parked: false }).await
    }

    async fn wish(&self, workflow: WorkflowId, wish: Wish) -> Result<WorkflowState, ControlError> {
        if self.inner.shutting_down.load(Ordering::Relaxed) {
            return Err(ControlError::ShuttingDown);
        }
        let (reply, answer): (Answer, _) = oneshot::channel();
        let fact = wish.fact.clone();
        if self.inner.events.send(Event::Ask { workflow, wish, reply }).is_err() {
            return Err(ControlError::Stopped { why: self.why_stopped() });
        }
        match answer.await {
            // The executor knows active workflows only; a finished one has a better answer than "not found".
            Ok(Err(ControlError::NotFound { .. })) => Err(self.not_active(workflow, &fact).await?),
            Ok(answer) => answer,
            Err(_) if self.inner.shutting_down.load(Ordering::Relaxed) => Err(ControlError::ShuttingDown),
            Err(_) => Err(ControlError::Stopped { why: self.why_stopped() }),
        }
    }

    async fn not_active(&self, workflow: WorkflowId, fact: &Fact) -> Result<ControlError, StoreError> {
        Ok(match self.state(workflow).await? {
            None => ControlError::NotFound { workflow },
            Some(mut state) => match state.fold_fact(fact, self.inner.clock.now()) {
                Err(illegal) => ControlError::NotNow { workflow, illegal },
                Ok(()) => ControlError::NotNow {
                    workflow,
                    illegal: IllegalFact {
                        fact: fact.name(),
                        why: "this engine leaves the workflow alone: see its log, and start it again".to_owned(),
                    },
                },
            },
        })
    }

    /// The workflow as it is on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub async fn state(&self, workflow: WorkflowId) -> Result<Option<WorkflowState>, StoreError> {
        let entries = self.entries(workflow).await?;
        fold(&entries).map_err(|illegal| StoreError::Damaged {
            place: format!("workflow {workflow}"),
            detail: illegal.to_string(),
        })
    }

    /// All entries of the workflow, in order; none if there is no such workflow.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub async fn entries(&self, workflow: WorkflowId) -> Result<Vec<Entry>, StoreError> {
        self.read(move |store| store.workflow(workflow)).await
    }

    /// Reads a key or two of the store here and now: that takes microseconds, and less than to wake a thread that may block.
    /// What is long (a scan, a workflow's history) is for [`Engine::read`].
    ///
    /// # Errors
    /// Whatever `look` returns.
    pub fn look<T>(&self, look: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        look(self.inner.store.as_ref())
    }

    /// Reads the store where blocking is allowed.
    ///
    /// # Errors
    /// Whatever `read` returns; [`StoreError::Stopped`] if it panicked.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.inner.store);
        threads::spawn_blocking(move || read(store.as_ref())).await.unwrap_or(Err(StoreError::Stopped))
    }

    /// The store, for reading. Its methods may block.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Returns once the workflow has entries after `seen`, or the engine has stopped.
    pub async fn grown(&self, workflow: WorkflowId, seen: Sequence) {
        // Registered before it is looked: nothing is missed in between.
        let mut watched = self.inner.watchers.growth(workflow);
        let known = match self.live(workflow).await {
            Some(live) => Some(live.sequence()),
            None => self.state(workflow).await.ok().flatten().map(|state| state.sequence()),
        };
        if known.is_none_or(|known| known <= seen) {
            self.until(&mut watched, |sequence| *sequence > seen).await;
        }
    }

    /// Returns once the workflow is finished or parked; with its state then.
    ///
    /// # Errors
    /// [`ControlError`] if there is no such workflow, or the engine has stopped.
    pub async fn settled(&self, workflow: WorkflowId) -> Result<WorkflowState, ControlError> {
        let mut watched = self.inner.watchers.ends(workflow);
        let mut known = self.live(workflow).await;
        loop {
            let state = match known.take() {
                Some(state) => state,
                None => Arc::new(self.state(workflow).await?.ok_or(ControlError::NotFound { workflow })?),
            };
            if state.is_settled() {
                return Ok(Arc::unwrap_or_clone(state));
            }
            if *self.inner.closed.borrow() {
                return Err(ControlError::ShuttingDown);
            }
            if self.inner.stopped.borrow().is_some() {
                return Err(ControlError::Stopped { why: self.why_stopped() });
            }
            let later = |settled: &Option<Arc<WorkflowState>>| {
                settled.as_ref().is_some_and(|settled| settled.sequence() > state.sequence())
            };
            self.until(&mut watched, later).await;
            known = watched.last().filter(|settled| settled.sequence() > state.sequence());
        }
    }

    /// The workflow as the executor drives it: what is durable, or was a moment ago. None if it drives no such workflow.
    async fn live(&self, workflow: WorkflowId) -> Option<Arc<WorkflowState>> {
        let (reply, answer) = oneshot::channel();
        self.inner.events.send(Event::Look { workflow, reply }).ok()?;
        answer.await.ok().flatten()
    }

    /// Returns once what is watched is as wanted, or the engine has stopped.
    async fn until<T: Clone + Default>(&self, watched: &mut Watched<T>, wanted: impl FnMut(&T) -> bool) {
        let (mut stopped, mut closed) = (self.inner.stopped.clone(), self.inner.closed.subscribe());
        tokio::select! {
            () = watched.until(wanted) => {}
            _ = stopped.wait_for(Option::is_some) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// The last durable commit.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<CommitNumber> {
        self.inner.head.clone()
    }

    /// How the engine is.
    #[must_use]
    pub fn health(&self) -> Health {
        Health {
            stopped: self.inner.stopped.borrow().as_ref().map(ToString::to_string),
            shutting_down: self.inner.shutting_down.load(Ordering::Relaxed),
            unrecoverable: self.inner.watchers.all_unrecoverable(),
            active: self.inner.gauges.active.load(Ordering::Relaxed),
            in_flight: self.inner.gauges.in_flight.load(Ordering::Relaxed),
            views: self.views().iter().map(|view| view.health()).collect(),
        }
    }

    /// Returns, with the reason, once the journal has stopped after a failed write or sync: the process has to exit,
    /// non-zero. Never returns as long as it has not.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.inner.stopped.clone();
        if stopped.wait_for(Option::is_some).await.is_err() && stopped.borrow().is_none() {
            // The writer has ended without a fault: a shutdown.
            std::future::pending::<()>().await;
        }
        self.why_stopped()
    }

    /// Keeps `projection` in step with the journal from here on.
    ///
    /// # Errors
    /// If there is no thread to be had for it.
    pub fn project(&self, projection: Box<dyn Projection>) -> io::Result<()> {
        let Inner { store, clock, head, closed, views, projectors, .. } = &*self.inner;
        let gauge = Arc::new(Gauge::new(projection.name(), Arc::clone(clock), head.clone()));
        let closed = closed.subscribe();
        let task = projector::start(Arc::clone(store), head.clone(), closed, projection, Arc::clone(&gauge))?;
        projectors.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        views.write().unwrap_or_else(PoisonError::into_inner).push(gauge);
        Ok(())
    }

    /// Returns once no view is further behind the journal than that, of those that can be written and have taken in what an
    /// earlier engine left: at once, as long as they keep up.
    pub async fn views_in_time(&self, behind: Duration) {
        loop {
            let late = self.views().iter().find(|view| view.is_late(behind)).cloned();
            let Some(late) = late else { return };
            late.in_time(behind).await;
        }
    }

    fn views(&self) -> RwLockReadGuard<'_, Vec<Arc<Gauge>>> {
        self.inner.views.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts nothing more, starts nothing more, lets what is in hand finish within `grace`, brings the views up to
    /// date and closes the store. What did not finish is what a crash would have left.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be closed.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), StoreError> {
        self.inner.shutting_down.store(true, Ordering::Relaxed);
        let (reply, done) = oneshot::channel();
        if self.inner.events.send(Event::Shutdown { grace, reply }).is_ok() {
            // An error means that the executor has ended already.
            let _ = done.await;
        }
        // The writer ends when nobody can append any more.
        drop(self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        ended(&self.inner.core).await;
        self.inner.watchers.end();
        // What the writer wrote last is there for the views to take in.
        self.inner.closed.send_replace(true);
        ended(&self.inner.projectors).await;
        self.read(|store| store.close()).await
    }

    fn writer(&self) -> Option<Writer> {
        self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn why_stopped(&self) -> String {
        self.inner.stopped.borrow().as_ref().map_or_else(|| "the engine has shut down".to_owned(), ToString::to_string)
    }
}

/// When the last commit was made; the epoch if there is none.
fn last_time(store: &dyn Store) -> Result<Timestamp, StoreError> {
    let (head, _) = store.head();
    let before = CommitNumber(head.0.saturating_sub(1));
    Ok(store.commits(before, 1)?.last().map(|commit| commit.time).unwrap_or_default())
}

/// Once the writer has stopped, nobody waits for a workflow any more.
async fn end_watches(mut stopped: watch::Receiver<Option<Arc<str>>>, watchers: Arc<Watchers>) {
    // An error is the writer's end without a fault.
    let _ = stopped.wait_for(Option::is_some).await;
    watchers.end();
}

async fn ended(tasks: &Mutex<Vec<JoinHandle<()>>>) {
    let tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task of the engine's has panicked");
        }
    }
}
