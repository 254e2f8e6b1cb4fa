//! A store that keeps one copy, in memory: for tests, and as the reference that the other store must agree with.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    entry::{Commit, Entry},
    fact::Amounts,
    ids::{CommitNumber, FencingToken, Hash, IdempotencyKey, Service, Tenant, Timestamp, WorkflowId},
    journal::{
        index, keys,
        ledger::{self, Ledger},
    },
    store::{Append, ListQuery, Listed, Refusal, ServiceRecord, Store, StoreError, Submission, reading},
};

/// One copy, in memory. [`MemoryStore::reopen`] opens the same data again, as a restart would.
#[derive(Debug)]
pub struct MemoryStore {
    token: FencingToken,
    data: Arc<Mutex<Data>>,
}

#[derive(Debug, Default)]
struct Data {
    map: keys::Map,
    ledger: Ledger,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::opened_at(Timestamp::default())
    }

    /// An empty store whose opening bears this time.
    #[must_use]
    pub fn opened_at(now: Timestamp) -> Self {
        Self::open(Arc::default(), now)
    }

    /// The same data, opened once more: it has the next fencing token, and this store's appends are refused from now on.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.reopen_at(Timestamp::default())
    }

    /// The same, at this time.
    #[must_use]
    pub fn reopen_at(&self, now: Timestamp) -> Self {
        Self::open(Arc::clone(&self.data), now)
    }

    fn open(data: Arc<Mutex<Data>>, now: Timestamp) -> Self {
        let mut held = data.lock().unwrap_or_else(PoisonError::into_inner);
        // What the ledger remembers of a workflow is folded again, as after a restart.
        held.ledger = Ledger::at(held.ledger.token, held.ledger.head, held.ledger.time);
        let opening = held.ledger.open(now);
        held.map.apply(opening.changes);
        let token = held.ledger.token;
        drop(held);
        Self { token, data }
    }

    /// Nothing that holds it leaves it half changed: a batch is applied in one go, after all that can fail.
    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        let mut data = self.data();
        let Data { map, ledger } = &mut *data;
        let plan = ledger.plan(map, appends, now)?;
        if let Some(commit) = plan.commit {
            map.apply(commit.changes);
        }
        Ok(plan.answers)
    }

    fn token(&self) -> FencingToken {
        self.token
    }

    fn head(&self) -> (CommitNumber, Hash) {
        self.data().ledger.head
    }

    fn workflow(&self, id: WorkflowId) -> Result<Vec<Entry>, StoreError> {
        ledger::read_workflow(&self.data().map, id)
    }

    fn active(&self) -> Result<Vec<WorkflowId>, StoreError> {
        reading::active(&self.data().map)
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Listed>, StoreError> {
        reading::list(&self.data().map, query)
    }

    fn service(&self, tenant: &Tenant, service: &Service) -> Result<Option<ServiceRecord>, StoreError> {
        index::service_record(&self.data().map, tenant, service)
    }

    fn each_service(
        &self,
        tenant: Option<&Tenant>,
        each: &mut dyn FnMut(ServiceRecord) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        reading::each_service(&self.data().map, tenant, each)
    }

    fn usage(&self, tenant: &Tenant) -> Result<Amounts, StoreError> {
        index::usage(&self.data().map, tenant)
    }

    fn submission(&self, tenant: &Tenant, key: &IdempotencyKey) -> Result<Option<Submission>, StoreError> {
        index::get(&self.data().map, &keys::submission(tenant, key))
    }

    fn commits(&self, after: CommitNumber, max: usize) -> Result<Vec<Commit>, StoreError> {
        reading::commits(&self.data().map, after, max)
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
