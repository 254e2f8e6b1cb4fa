//! A store that stands around another one: it does something of its own at each commit, and is the other in all else.
//!
//! For tests that fail or kill at a chosen commit.

use std::ops::ControlFlow;

use crate::{
    entry::{Commit, Entry},
    fact::Amounts,
    ids::{CommitNumber, FencingToken, Hash, IdempotencyKey, Service, Tenant, Timestamp, WorkflowId},
    store::{Append, ListQuery, Listed, Refusal, ServiceRecord, Store, StoreError, Submission},
};

/// Stands around another store, and so is a [`Store`].
pub trait Around: Send + Sync + 'static {
    /// The store within.
    fn within(&self) -> &dyn Store;

    /// Stands in for [`Store::commit`].
    ///
    /// # Errors
    /// [`StoreError`]: what is on disk is unknown.
    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError>;

    /// Called before each read.
    ///
    /// # Errors
    /// [`StoreError`] if nothing may be read any more.
    fn readable(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl<T: Around> Store for T {
    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        Around::commit(self, appends, now)
    }

    fn token(&self) -> FencingToken {
        self.within().token()
    }

    fn head(&self) -> (CommitNumber, Hash) {
        self.within().head()
    }

    fn workflow(&self, id: WorkflowId) -> Result<Vec<Entry>, StoreError> {
        self.readable()?;
        self.within().workflow(id)
    }

    fn active(&self) -> Result<Vec<WorkflowId>, StoreError> {
        self.readable()?;
        self.within().active()
    }

    fn list(&self, query: &ListQuery) -> Result<Vec<Listed>, StoreError> {
        self.readable()?;
        self.within().list(query)
    }

    fn service(&self, tenant: &Tenant, service: &Service) -> Result<Option<ServiceRecord>, StoreError> {
        self.readable()?;
        self.within().service(tenant, service)
    }

    fn each_service(
        &self,
        tenant: Option<&Tenant>,
        each: &mut dyn FnMut(ServiceRecord) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.readable()?;
        self.within().each_service(tenant, each)
    }

    fn usage(&self, tenant: &Tenant) -> Result<Amounts, StoreError> {
        self.readable()?;
        self.within().usage(tenant)
    }

    fn submission(&self, tenant: &Tenant, key: &IdempotencyKey) -> Result<Option<Submission>, StoreError> {
        self.readable()?;
        self.within().submission(tenant, key)
    }

    fn commits(&self, after: CommitNumber, max: usize) -> Result<Vec<Commit>, StoreError> {
        self.readable()?;
        self.within().commits(after, max)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.readable()?;
        self.within().close()
    }
}
