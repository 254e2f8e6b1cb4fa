//! Decide, act, append: the loop that every workflow is driven by.
//!
//! - One task owns all live workflows. Effects run in tasks of their own, which this one starts, awaits or aborts.
//! - Of one workflow one thing is in hand at a time: an append, or an attempt. What else is asked of it waits.
//! - An effect begins only after the fact that announces it is durable.
//! - A workflow that waits is a state in a map and, with a retry time, a place in a heap: no task, no slot.

mod attempt;
mod limits;
mod live;
#[cfg(all(test, feature = "model"))]
mod model;
mod plan;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    chance::{self, Chance},
    clock::SteadyClock,
    definition::Registry,
    entry::Entry,
    fact::Fact,
    handle::{ControlError, Watchers},
    ids::{FencingToken, StepName, Timestamp, WorkflowId},
    journal::writer::{AppendError, Request, Writer},
    state::{Phase, WorkflowState},
    step::StepContext,
    store::{Append, Refusal},
    threads::{self, JoinHandle},
};
pub(crate) use attempt::unknown_definition;
use attempt::{Ended, Moment, Work};
pub use limits::Limits;
use limits::Turns;
pub(crate) use live::Slot;
use live::{Attempting, Hand, Live};
use plan::Plan;
pub(crate) use plan::needs_definition;

/// The longest that the executor sleeps when nothing is due.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// So many events are taken at once; what they lead to is appended together.
const ROUND_EVENTS_MAX: usize = 256;

/// What the executor is told.
pub(crate) enum Event {
    /// This workflow is to be driven from here on: submitted just now, or recovered.
    Begin(Box<WorkflowState>),
    /// A client asks for this.
    Ask { workflow: WorkflowId, wish: Wish, reply: Answer },
    /// Somebody wants to know how far this workflow is, if it is driven.
    Look { workflow: WorkflowId, reply: oneshot::Sender<Option<Arc<WorkflowState>>> },
    /// What was in hand has ended.
    Ended { workflow: WorkflowId, turn: u64, ended: Box<Ended> },
    /// An append was answered.
    Appended { workflow: WorkflowId, answer: Result<Vec<Entry>, AppendError> },
    /// An attempt gives its slot back early.
    SlotFree { workflow: WorkflowId, turn: u64 },
    /// Start nothing more; answer once nothing is in hand, at the latest after `grace`.
    Shutdown { grace: Duration, reply: oneshot::Sender<()> },
}

/// What a client asks of a workflow.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) fact: Fact,
    /// Only if the workflow is parked when the fact is appended.
    pub(crate) only_parked: bool,
}

/// Where the answer to a client's request goes.
pub(crate) type Answer = oneshot::Sender<Result<WorkflowState, ControlError>>;

/// What the executor works with.
pub(crate) struct Parts {
    pub(crate) definitions: Registry,
    pub(crate) clock: Arc<SteadyClock>,
    pub(crate) chance: Arc<dyn Chance>,
    pub(crate) limits: Limits,
    pub(crate) writer: Writer,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) token: FencingToken,
}

/// How much is under way, for whoever looks from outside. A workflow is counted before the executor hears of it.
#[derive(Default)]
pub(crate) struct Gauges {
    pub(crate) active: std::sync::atomic::AtomicUsize,
    pub(crate) in_flight: std::sync::atomic::AtomicUsize,
}

/// Starts the executor. It ends after [`Event::Shutdown`], or when the writer stops.
pub(crate) fn start(
    parts: Parts,
    events: mpsc::UnboundedReceiver<Event>,
    events_to: mpsc::UnboundedSender<Event>,
) -> JoinHandle<()> {
    let turns = Turns::new(parts.limits);
    let executor = Executor {
        parts,
        events_to,
        live: HashMap::new(),
        turns,
        timers: BinaryHeap::new(),
        next_turn: 0,
        appends: Vec::new(),
        closing: None,
    };
    let writer = executor.parts.writer.clone();
    let running = threads::spawn(executor.run(events));
    // An engine that drives nothing must not go on accepting.
    threads::spawn(async move {
        if let Err(panic) = running.await {
            writer.fault(&format!("the executor has panicked: {panic}; this is a bug of cairn's"));
        }
    })
}

struct Executor {
    parts: Parts,
    events_to: mpsc::UnboundedSender<Event>,
    live: HashMap<WorkflowId, Live>,
    turns: Turns,
    timers: BinaryHeap<Reverse<(Timestamp, WorkflowId)>>,
    next_turn: u64,
    /// What this round has come to so far.
    appends: Vec<Request>,
    closing: Option<Closing>,
}

struct Closing {
    deadline: tokio::time::Instant,
    reply: oneshot::Sender<()>,
}

impl Executor {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut stopped = self.parts.writer.stopped();
        let mut round = Vec::new();
        // One for all rounds: each new one would wake whoever waits for the first of all timers.
        let mut sleep = pin!(threads::sleep_until(self.wake()));
        'rounds: loop {
            tokio::select! {
                biased;
                // After a failed write or sync nothing more is done.
                _ = stopped.wait_for(Option::is_some) => break,
                received = events.recv_many(&mut round, ROUND_EVENTS_MAX) => if received == 0 { break },
                () = &mut sleep => {}
            }
            for event in round.drain(..) {
                if stopped.has_changed().unwrap_or(true) {
                    break 'rounds;
                }
                self.on(event);
            }
            // After each round, not only after a sleep: a steady stream of events must not keep anybody waiting.
            self.on_time();
            self.append_all();
            if self.is_closed() {
                break;
            }
            let wake = self.wake();
            // What it wakes for too early does no harm.
            if sleep.is_elapsed() || wake < sleep.deadline() {
                sleep.as_mut().reset(wake);
            }
        }
        self.drop_all().await;
        if let Some(closing) = self.closing.take() {
            // Who asked for the shutdown may have gone.
            let _ = closing.reply.send(());
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Begin(state) => self.begin(*state),
            Event::Ask { workflow, wish, reply } => self.ask(workflow, wish, reply),
            Event::Look { workflow, reply } => {
                // Who asked may have gone.
                let _ = reply.send(self.live.get(&workflow).map(|live| Arc::clone(&live.state)));
            }
            Event::Ended { workflow, turn, ended } => self.on_ended(workflow, turn, ended),
            Event::Appended { workflow, answer } => self.on_appended(workflow, answer),
            Event::SlotFree { workflow, turn } => self.on_slot_free(workflow, turn),
            Event::Shutdown { grace, reply } => self.close(grace, reply),
        }
    }

    fn begin(&mut self, state: WorkflowState) {
        let workflow = state.id();
        let live =
            Live { state: Arc::new(state), hand: Hand::Nothing, asked: VecDeque::new(), timer: None, dying: None };
        self.live.insert(workflow, live);
        self.drive(workflow);
    }

    fn ask(&mut self, workflow: WorkflowId, wish: Wish, reply: Answer) {
        let Some(live) = self.live.get_mut(&workflow) else {
            // It is finished, or was never there: the handle tells which.
            let _ = reply.send(Err(ControlError::NotFound { workflow }));
            return;
        };
        live.asked.push_back((wish, reply));
        self.drive(workflow);
    }

    fn on_ended(&mut self, workflow: WorkflowId, turn: u64, ended: Box<Ended>) {
        let Some(live) = self.live.get_mut(&workflow) else { return };
        match std::mem::replace(&mut live.hand, Hand::Nothing) {
            Hand::Attempting(attempting) if attempting.turn == turn => {
                live.hand = Hand::Ended(ended);
                self.give_back(workflow, &attempting);
                self.drive(workflow);
            }
            Hand::Appending { next, replies, kept: Some(mut attempting) } if attempting.turn == turn => {
                self.give_back(workflow, &attempting);
                attempting.has_slot = false;
                attempting.ended = Some(ended);
                self.hold(workflow, Hand::Appending { next, replies, kept: Some(attempting) });
            }
            // Fenced: something newer is in hand.
            other => live.hand = other,
        }
    }

    fn on_appended(&mut self, workflow: WorkflowId, answer: Result<Vec<Entry>, AppendError>) {
        let Some(live) = self.live.get_mut(&workflow) else { return };
        let Hand::Appending { next, replies, kept } = std::mem::replace(&mut live.hand, Hand::Nothing) else {
            return;
        };
        let entries = match answer {
            Ok(entries) => entries,
            Err(error) => return self.on_refused(workflow, kept, replies, &error),
        };
        let state = Arc::make_mut(&mut live.state);
        for entry in &entries {
            state.fold(entry).expect("it was folded before it was appended");
        }
        for reply in replies {
            // Who asked may have gone: what was asked for stands.
            let _ = reply.send(Ok(state.clone()));
        }
        let finished = state.outcome().is_some();
        self.parts.watchers.grown(&live.state, entries);
        match (kept, next) {
            (Some(attempting), _) => match attempting.ended {
                Some(ended) => live.hand = Hand::Ended(ended),
                None => live.hand = Hand::Attempting(attempting),
            },
            (None, Some(work)) => self.attempt(workflow, work),
            (None, None) => {}
        }
        if finished {
            self.forget(workflow);
        } else {
            self.drive(workflow);
        }
    }

    /// Somebody else has this workflow, or the store does not take what this engine thinks is right: hands off.
    fn on_refused(
        &mut self,
        workflow: WorkflowId,
        kept: Option<Attempting>,
        replies: Vec<Answer>,
        error: &AppendError,
    ) {
        if let Some(attempting) = kept {
            self.hold(workflow, Hand::Attempting(attempting));
        }
        if let AppendError::Refused(refusal) = error {
            tracing::error!(%workflow, %refusal, "an append was refused; this engine leaves the workflow alone");
        }
        for reply in replies {
            let _ = reply.send(Err(ControlError::Stopped { why: error.to_string() }));
        }
        match error {
            // Another engine has opened this journal: this one is over, with all that it has in hand.
            AppendError::Refused(Refusal::Fenced { .. }) => self.parts.writer.fault(&error.to_string()),
            AppendError::Stopped(_) => {}
            AppendError::Refused(_) | AppendError::Overloaded => {
                self.parts.watchers.unrecoverable(workflow, error.to_string());
            }
        }
        self.forget(workflow);
    }

    fn on_slot_free(&mut self, workflow: WorkflowId, turn: u64) {
        let Some(live) = self.live.get_mut(&workflow) else { return };
        let attempting = match &mut live.hand {
            Hand::Attempting(attempting) | Hand::Appending { kept: Some(attempting), .. } => attempting,
            _ => return,
        };
        if attempting.turn == turn && std::mem::take(&mut attempting.has_slot) {
            let tenant = live.state.submitted().tenant.clone();
            self.turns.free(&tenant);
            self.fill();
        }
    }

    fn on_time(&mut self) {
        let now = self.parts.clock.now();
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((at, workflow))) = self.timers.pop() else { break };
            if let Some(live) = self.live.get_mut(&workflow) {
                if live.timer == Some(at) {
                    live.timer = None;
                }
                self.drive(workflow);
            }
        }
    }

    /// Takes the workflow as far as it goes without waiting for anything.
    fn drive(&mut self, workflow: WorkflowId) {
        let now = self.parts.clock.now();
        let closing = self.closing.is_some();
        let Some(live) = self.live.get_mut(&workflow) else { return };
        let (ended, kept) = match std::mem::replace(&mut live.hand, Hand::Nothing) {
            appending @ Hand::Appending { .. } => {
                live.hand = appending;
                return;
            }
            Hand::Attempting(attempting) if live.asked.is_empty() => {
                live.hand = Hand::Attempting(attempting);
                return;
            }
            Hand::Attempting(attempting) => (None, Some(attempting)),
            // What a shutdown has cut is left as a crash would leave it: to the next start's probe.
            Hand::Ended(ended) if closing && ended.is_error() => return,
            Hand::Ended(ended) => (Some(ended), None),
            Hand::Nothing => (None, None),
        };
        let definition = self.parts.definitions.get(&live.state.submitted().fingerprint);
        let mut plan = Plan { state: (*live.state).clone(), facts: Vec::new(), next: None, wait: None, now };
        if let (Some(ended), Some(definition)) = (ended, definition) {
            let draw = chance::fraction(self.parts.chance.as_ref());
            let moment = Moment { now, opened: self.parts.clock.start(), draw };
            for fact in attempt::facts(*ended, &plan.state, definition, moment) {
                // A person's retry may have overtaken it: it is decided anew then.
                if let Err(illegal) = plan.push(fact) {
                    tracing::warn!(%workflow, %illegal, "what was in hand ended too late to count");
                    break;
                }
            }
        }
        let mut replies = Vec::new();
        for (wish, reply) in live.asked.drain(..) {
            match plan.ask(definition, wish) {
                Ok(()) => replies.push(reply),
                Err(refused) => drop(reply.send(Err(refused))),
            }
        }
        let (kept, dropped) = match kept {
            Some(attempting) if is_overruled(&attempting, &plan.state) => (None, Some(attempting)),
            other => (other, None),
        };
        if kept.is_none()
            && !closing
            && let Err(illegal) = plan.proceed(definition)
        {
            tracing::error!(%workflow, %illegal, "a workflow contradicts itself; this engine leaves it alone");
            self.parts.watchers.unrecoverable(workflow, illegal.to_string());
            return self.forget(workflow);
        }
        let Plan { facts, next, wait, .. } = plan;
        if let Some(attempting) = dropped {
            self.give_back(workflow, &attempting);
            self.dying(workflow, attempting);
        }
        if let Some(at) = wait {
            self.wait_until(workflow, at);
        }
        if facts.is_empty() {
            match (kept, next) {
                (Some(attempting), _) => self.hold(workflow, Hand::Attempting(attempting)),
                (None, Some(work)) => self.attempt(workflow, work),
                (None, None) => {}
            }
        } else {
            self.append(workflow, facts, Hand::Appending { next, replies, kept });
        }
    }

    fn append(&mut self, workflow: WorkflowId, facts: Vec<Fact>, hand: Hand) {
        let Some(live) = self.live.get_mut(&workflow) else { return };
        live.hand = hand;
        let append = Append {
            workflow,
            expected: live.state.sequence(),
            token: self.parts.token,
            facts,
            quota: crate::fact::Amounts::new(),
        };
        let events = self.events_to.clone();
        let reply = move |answer| drop(events.send(Event::Appended { workflow, answer }));
        self.appends.push(Request { append, reply: Box::new(reply) });
    }

    /// Hands over what this round has come to.
    fn append_all(&mut self) {
        while let Some(last) = self.appends.pop() {
            let workflow = last.append.workflow;
            let refused = if self.appends.is_empty() { self.parts.writer.append_alone(last) } else { Err(last) };
            match refused {
                // Nothing begins any more: not even what would get the place of this one.
                Ok(Err(AppendError::Stopped(_))) => return,
                Ok(answer) => self.on_appended(workflow, answer),
                Err(last) => {
                    self.appends.push(last);
                    return self.parts.writer.append(std::mem::take(&mut self.appends));
                }
            }
        }
    }

    /// `work` begins as soon as it is this workflow's turn.
    fn attempt(&mut self, workflow: WorkflowId, work: Work) {
        self.next_turn += 1;
        let (stop, _) = watch::channel(false);
        let attempting = Attempting { turn: self.next_turn, work, has_slot: false, stop, task: None, ended: None };
        let Some(live) = self.live.get_mut(&workflow) else { return };
        live.hand = Hand::Attempting(attempting);
        let tenant = live.state.submitted().tenant.clone();
        self.turns.wait(&tenant, workflow);
        self.fill();
    }

    /// Gives free slots to those whose turn it is.
    fn fill(&mut self) {
        while self.closing.is_none()
            && let Some(workflow) = self.turns.next()
        {
            if let Some(tenant) = self.spawn(workflow) {
                self.turns.free(&tenant);
            }
        }
        self.parts.gauges.in_flight.store(self.turns.in_flight(), Ordering::Relaxed);
    }

    /// Starts what `workflow` has waiting; the tenant whose slot is not needed, if nothing is.
    fn spawn(&mut self, workflow: WorkflowId) -> Option<crate::ids::Tenant> {
        let live = self.live.get_mut(&workflow)?;
        let tenant = live.state.submitted().tenant.clone();
        let (Hand::Attempting(attempting) | Hand::Appending { kept: Some(attempting), .. }) = &mut live.hand else {
            return Some(tenant);
        };
        let Some(definition) = self.parts.definitions.get(&live.state.submitted().fingerprint).cloned() else {
            return Some(tenant);
        };
        let (step, number) = match attempting.work {
            Work::Run { step, attempt } | Work::Probe { step, attempt } | Work::Compensate { step, attempt } => {
                (live.state.steps()[step].clone(), attempt)
            }
            Work::CheckResidue { attempt } => (StepName::new("residue"), attempt),
            Work::LastLook => (StepName::new("residue"), crate::ids::Attempt(1)),
        };
        let (work, turn, events) = (attempting.work, attempting.turn, self.events_to.clone());
        let cx = StepContext {
            state: Arc::clone(&live.state),
            step,
            attempt: number,
            token: self.parts.token,
            stop: attempting.stop.subscribe(),
            slot: Slot { workflow, turn, released: AtomicBool::new(false), to: events.clone() },
        };
        attempting.has_slot = true;
        let overtaken = live.state.is_cancelled() && matches!(work, Work::Run { .. });
        let dying = live.dying.take();
        attempting.task = Some(threads::spawn(async move {
            if let Some(dying) = dying {
                // It was aborted: the error says so.
                let _ = dying.await;
            }
            let ended = Box::new(if overtaken {
                attempt::overtaken(work)
            } else {
                attempt::perform(work, definition, cx).await
            });
            // Nobody listens only when the engine is gone.
            let _ = events.send(Event::Ended { workflow, turn, ended });
        }));
        None
    }

    fn hold(&mut self, workflow: WorkflowId, hand: Hand) {
        if let Some(live) = self.live.get_mut(&workflow) {
            live.hand = hand;
        }
    }

    /// What was in hand needs its slot, or its place among those who wait for one, no more.
    fn give_back(&mut self, workflow: WorkflowId, attempting: &Attempting) {
        let Some(live) = self.live.get(&workflow) else { return };
        let tenant = live.state.submitted().tenant.clone();
        if attempting.has_slot {
            self.turns.free(&tenant);
        } else if attempting.task.is_none() {
            self.turns.leave(&tenant, workflow);
        }
        self.fill();
    }

    fn wait_until(&mut self, workflow: WorkflowId, at: Timestamp) {
        let Some(live) = self.live.get_mut(&workflow) else { return };
        if live.timer.is_none_or(|timer| at < timer) {
            live.timer = Some(at);
            self.timers.push(Reverse((at, workflow)));
        }
    }

    fn forget(&mut self, workflow: WorkflowId) {
        if let Some(mut live) = self.live.remove(&workflow) {
            self.parts.gauges.active.fetch_sub(1, Ordering::Relaxed);
            if let Hand::Attempting(attempting) | Hand::Appending { kept: Some(attempting), .. } = live.hand {
                let tenant = live.state.submitted().tenant.clone();
                if let Some(task) = &attempting.task {
                    task.abort();
                }
                if attempting.has_slot {
                    self.turns.free(&tenant);
                } else if attempting.task.is_none() {
                    self.turns.leave(&tenant, workflow);
                }
            }
            for (_, reply) in live.asked.drain(..) {
                let _ = reply.send(Err(ControlError::NotFound { workflow }));
            }
        }
        self.fill();
    }

    fn wake(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let due = self.timers.peek().map(|Reverse((at, _))| now + at.since(self.parts.clock.now()).min(SLEEP_MAX));
        let deadline = self.closing.as_ref().map(|closing| closing.deadline);
        due.into_iter().chain(deadline).min().unwrap_or(now + SLEEP_MAX)
    }

    fn close(&mut self, grace: Duration, reply: oneshot::Sender<()>) {
        self.closing = Some(Closing { deadline: tokio::time::Instant::now() + grace, reply });
        for live in self.live.values() {
            if let Hand::Attempting(attempting) | Hand::Appending { kept: Some(attempting), .. } = &live.hand {
                // Only those that merely wait listen to this; the others use the grace.
                attempting.stop.send_replace(true);
            }
        }
    }

    /// Nothing is in hand any more, or there was enough time.
    fn is_closed(&self) -> bool {
        let Some(closing) = &self.closing else { return false };
        let busy = self.live.values().any(|live| match &live.hand {
            Hand::Appending { .. } => true,
            Hand::Attempting(attempting) => attempting.task.is_some(),
            Hand::Nothing | Hand::Ended(_) => false,
        });
        !busy || tokio::time::Instant::now() >= closing.deadline
    }

    /// Ends what is in hand, and returns once it has ended: no effect follows.
    async fn drop_all(&mut self) {
        let mut ending = Vec::new();
        for (_, live) in self.live.drain() {
            if let Hand::Attempting(attempting) | Hand::Appending { kept: Some(attempting), .. } = live.hand
                && let Some(task) = attempting.task
            {
                task.abort();
                ending.push(task);
            }
            ending.extend(live.dying);
        }
        for task in ending {
            // It was aborted: the error says so.
            let _ = task.await;
        }
    }

    fn dying(&mut self, workflow: WorkflowId, attempting: Attempting) {
        if let Some(live) = self.live.get_mut(&workflow) {
            live.dying = attempting.task;
        }
    }
}

/// The attempt in hand is to end at once: it is aborted. Any other is told to hurry if the workflow is cancelled.
fn is_overruled(attempting: &Attempting, state: &WorkflowState) -> bool {
    let overruled = matches!(state.phase(), Phase::Forced) && attempting.work != Work::LastLook;
    if overruled && let Some(task) = &attempting.task {
        task.abort();
    }
    // A compensation is not stopped by a cancel, nor is the probe that it needs.
    if state.is_cancelled() && matches!(attempting.work, Work::Run { .. }) {
        attempting.stop.send_replace(true);
    }
    overruled
}
