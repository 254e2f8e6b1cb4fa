//! The clients: they create, change and delete, cancel, pause and try again, repeat themselves, and ask until they know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_engine::{
    Amounts, Engine, Hash, IdempotencyKey, Json, NewSubmission, OnFailure, SubmitError, WorkflowId, WorkflowState,
    store::{MemoryStore, Refusal, ServiceRecord, ServiceStatus, Store as _},
};
use cairn_tests::{oracle::Told, site::Numbers};
use tokio::sync::mpsc;

use crate::{
    notes::Notes,
    steps::{CHANGE, CREATE, DELETE, Input, Wanted},
};

/// All tenants.
pub(crate) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// The services of each.
pub(crate) const SERVICES: [&str; 4] = ["logs", "search", "shop", "wiki"];

/// The most that a tenant may hold.
pub(crate) fn quota() -> Amounts {
    [("bytes".into(), 10), ("clusters".into(), 3)].into()
}

/// All clients of a world. They outlive engines.
pub(crate) struct Clients {
    notes: Arc<Notes>,
    state: Mutex<State>,
}

struct State {
    numbers: Numbers,
    /// How many different submissions there were.
    serial: u64,
    /// Sent, and nobody knows what became of them.
    open: BTreeMap<u64, NewSubmission>,
    accepted: BTreeMap<u64, (NewSubmission, WorkflowId)>,
    refused: Vec<IdempotencyKey>,
}

impl Clients {
    pub(crate) fn new(numbers: Numbers, notes: Arc<Notes>) -> Self {
        let (open, accepted, refused) = Default::default();
        Self { notes, state: Mutex::new(State { numbers, serial: 0, open, accepted, refused }) }
    }

    /// How many submissions were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.state().accepted.len()
    }

    /// Every client knows what became of what it has sent.
    pub(crate) fn know(&self) -> bool {
        self.state().open.is_empty()
    }

    /// What they were told.
    pub(crate) fn told(&self) -> Vec<Told> {
        let state = self.state();
        let told = state.accepted.values().map(|(submission, workflow)| Told::Accepted {
            workflow: *workflow,
            tenant: submission.tenant.to_string(),
            service: submission.service.to_string(),
            input: Some(submission.input.clone()),
        });
        told.collect()
    }

    /// The keys of what was refused for good.
    pub(crate) fn refused(&self) -> Vec<IdempotencyKey> {
        self.state().refused.clone()
    }

    /// How long it takes until one of them wants something.
    pub(crate) fn pause(&self) -> Duration {
        let mut state = self.state();
        let most = state.numbers.one_of(&[10, 1_000, 30_000, 120_000]);
        Duration::from_millis(1 + state.numbers.below(most))
    }

    /// One of them wants something.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(crate) fn act(self: &Arc<Self>, engine: &Engine, store: &MemoryStore) -> anyhow::Result<()> {
        let what = self.state().numbers.below(100);
        match what {
            0..=69 => self.want_something(engine, store)?,
            70..=74 => self.repeat(engine),
            75..=77 => self.say_something_else(engine),
            _ => self.control(engine, store)?,
        }
        Ok(())
    }

    /// Something new of a service that nobody waits for.
    fn want_something(self: &Arc<Self>, engine: &Engine, store: &MemoryStore) -> anyhow::Result<()> {
        let mut state = self.state();
        let (tenant, service) = (state.numbers.one_of(&TENANTS), state.numbers.one_of(&SERVICES));
        let is_open = |open: &NewSubmission| open.tenant.as_str() == tenant && open.service.as_str() == service;
        if state.open.values().any(is_open) {
            return Ok(());
        }
        let record = store.service(&tenant.into(), &service.into())?;
        let deletes = state.numbers.happens(40);
        let submission = match record {
            Some(record) if record.live && (deletes || record.status != ServiceStatus::Created) => {
                state.deletion(&record)?
            }
            Some(record) if record.live => state.change(&record)?,
            _ => state.creation(tenant, service)?,
        };
        let serial = state.serial;
        state.open.insert(serial, submission.clone());
        drop(state);
        self.send(engine, serial, submission);
        Ok(())
    }

    /// Sends again whatever nobody knows about.
    pub(crate) fn ask_again(self: &Arc<Self>, engine: &Engine) {
        let open = self.state().open.clone();
        for (serial, submission) in open {
            self.send(engine, serial, submission);
        }
    }

    /// Deletes whatever there is; returns whether there was anything.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(crate) fn delete_all(self: &Arc<Self>, engine: &Engine, store: &MemoryStore) -> anyhow::Result<bool> {
        let mut some = false;
        for record in store.services(None)?.iter().filter(|record| record.live || !record.holds.is_empty()) {
            let mut state = self.state();
            let submission = state.deletion(record)?;
            let serial = state.serial;
            state.open.insert(serial, submission.clone());
            drop(state);
            self.send(engine, serial, submission);
            some = true;
        }
        Ok(some)
    }

    fn send(self: &Arc<Self>, engine: &Engine, serial: u64, submission: NewSubmission) {
        let (clients, engine) = (Arc::clone(self), engine.clone());
        tokio::spawn(async move {
            let answer = engine.submit(submission.clone()).await;
            clients.answered(serial, submission, answer);
        });
    }

    fn answered(&self, serial: u64, submission: NewSubmission, answer: Result<WorkflowState, SubmitError>) {
        let mut state = self.state();
        let workflow = match answer {
            Ok(made) => made.id(),
            Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => {
                self.notes.count("submissions repeated");
                workflow
            }
            Err(SubmitError::Refused(refusal)) => {
                self.notes.count(match refusal {
                    Refusal::Quota { .. } => "submissions beyond the quota",
                    _ => "submissions refused",
                });
                if state.accepted.contains_key(&serial) {
                    self.notes.broken(format!("I26: {submission:?} was accepted, and is refused: {refusal}"));
                }
                state.open.remove(&serial);
                state.refused.extend(submission.key);
                return;
            }
            // Nobody knows: it is asked again.
            Err(SubmitError::Stopped { .. } | SubmitError::ShuttingDown | SubmitError::Overloaded) => {
                return self.notes.count("submissions of which nobody knew");
            }
            Err(error) => return self.notes.broken(format!("{submission:?} is answered with {error}")),
        };
        state.open.remove(&serial);
        let (_, known) = state.accepted.entry(serial).or_insert((submission, workflow));
        if *known != workflow {
            self.notes.broken(format!("I26: {known} and {workflow} were made of one submission"));
        }
    }

    /// The same submission once more: the same answer.
    fn repeat(self: &Arc<Self>, engine: &Engine) {
        if let Some((serial, submission)) = self.an_accepted_one() {
            self.send(engine, serial, submission);
        }
    }

    /// The same key with something else: refused.
    fn say_something_else(self: &Arc<Self>, engine: &Engine) {
        let Some((_, submission)) = self.an_accepted_one() else { return };
        let (clients, engine) = (Arc::clone(self), engine.clone());
        tokio::spawn(async move {
            let submission = NewSubmission { body_hash: Hash([0xff; 32]), ..submission };
            match engine.submit(submission.clone()).await {
                Err(SubmitError::Refused(Refusal::KeyUsed { same_body: false, .. })) => {
                    clients.notes.count("keys used for something else");
                }
                Err(SubmitError::Stopped { .. } | SubmitError::ShuttingDown | SubmitError::Overloaded) => {}
                other => clients.notes.broken(format!("I26: {submission:?}, with a key used before: {other:?}")),
            }
        });
    }

    fn an_accepted_one(&self) -> Option<(u64, NewSubmission)> {
        let mut state = self.state();
        let accepted: Vec<u64> = state.accepted.keys().copied().collect();
        let serial = if accepted.is_empty() { None } else { Some(state.numbers.one_of(&accepted)) }?;
        let (submission, _) = state.accepted.get(&serial)?;
        Some((serial, submission.clone()))
    }

    /// Somebody wants a workflow that runs to do something else.
    fn control(self: &Arc<Self>, engine: &Engine, store: &MemoryStore) -> anyhow::Result<()> {
        let active = store.active()?;
        if !active.is_empty() {
            let workflow = self.state().numbers.one_of(&active);
            tokio::spawn(Arc::clone(self).want_of(engine.clone(), workflow));
        }
        Ok(())
    }

    /// The same for whatever workflow comes along.
    pub(crate) async fn interfere(self: Arc<Self>, engine: Engine, mut with: mpsc::UnboundedReceiver<WorkflowId>) {
        while let Some(workflow) = with.recv().await {
            tokio::spawn(Arc::clone(&self).want_of(engine.clone(), workflow));
        }
    }

    async fn want_of(self: Arc<Self>, engine: Engine, workflow: WorkflowId) {
        let what = self.state().numbers.below(20);
        let deletes = self.deletes(workflow);
        let who = "somebody".into();
        let (did, answer) = match what {
            0..=5 => ("cancelled", engine.cancel(workflow, who, false).await),
            // Ended by force, a deletion would leave what nobody could say anything about.
            6..=7 if !deletes => ("cancelled by force", engine.cancel(workflow, who, true).await),
            8..=9 if !deletes => ("ended where it was parked", engine.end_parked(workflow, who).await),
            6..=11 => ("paused", engine.pause(workflow, who).await),
            12..=15 => ("resumed", engine.resume(workflow, who).await),
            _ => ("tried again", engine.retry(workflow, who).await),
        };
        if answer.is_ok() {
            self.notes.count(did);
        }
    }

    /// It is a deletion, or nobody knows what it is.
    fn deletes(&self, workflow: WorkflowId) -> bool {
        let state = self.state();
        let known = state.accepted.values().find(|(_, accepted)| *accepted == workflow);
        known.is_none_or(|(submission, _)| submission.definition.as_str() == DELETE)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn creation(&mut self, tenant: &str, service: &str) -> anyhow::Result<NewSubmission> {
        self.serial += 1;
        let request = Wanted { mark: format!("m{}", self.serial), version: self.serial };
        self.submission(CREATE, (tenant, service), Input { request, before: None })
    }

    fn change(&mut self, record: &ServiceRecord) -> anyhow::Result<NewSubmission> {
        self.serial += 1;
        let before: Input = record.input.read()?;
        let request = Wanted { mark: before.request.mark.clone(), version: self.serial };
        let place = (record.tenant.as_str(), record.service.as_str());
        self.submission(CHANGE, place, Input { request, before: Some(before.request) })
    }

    fn deletion(&mut self, record: &ServiceRecord) -> anyhow::Result<NewSubmission> {
        self.serial += 1;
        let Input { request, .. } = record.input.read()?;
        self.submission(DELETE, (record.tenant.as_str(), record.service.as_str()), Input { request, before: None })
    }

    fn submission(
        &mut self,
        definition: &str,
        (tenant, service): (&str, &str),
        input: Input,
    ) -> anyhow::Result<NewSubmission> {
        let mut body_hash = [0; 32];
        body_hash[..8].copy_from_slice(&self.serial.to_be_bytes());
        let holds = match definition {
            DELETE => Amounts::new(),
            _ => [("bytes".into(), 1 + self.numbers.below(6)), ("clusters".into(), 1)].into(),
        };
        let keeps = definition == DELETE || self.numbers.happens(10);
        Ok(NewSubmission {
            definition: definition.into(),
            tenant: tenant.into(),
            service: service.into(),
            input: Json::of(&input)?,
            key: Some(IdempotencyKey::new(&format!("key-{}", self.serial))),
            body_hash: Hash(body_hash),
            who: "somebody".into(),
            holds,
            quota: quota(),
            on_failure: if keeps { OnFailure::Keep } else { OnFailure::Rollback },
        })
    }
}
