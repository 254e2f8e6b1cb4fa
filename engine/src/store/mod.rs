//! The seam behind which entries are kept: appended as batches with expectations, read back by key.
//!
//! - What [`Store::commit`] has returned is durable, in every copy that the store keeps.
//! - Everything derived (indexes, records, quota usage) changes in the same atomic batch as its entries.
//! - No method assumes that its process is the only one: appends carry the expected sequence and the fencing token.
//!
//! [`MemoryStore`] keeps one copy, in memory; [`DurableStore`] keeps two, the commit log and sled, that heal each other.

mod around;
mod behind;
mod check;
mod durable;
mod log;
mod memory;
mod reading;
mod rereading;
mod sled;
mod space;

#[cfg(test)]
pub(crate) mod tests;

pub use around::Around;
pub use check::{IndexCheck, check_index};
pub use durable::{DurableOptions, DurableStore, OpenReport};
pub use log::{Cut, LogReader, ReadAhead};
pub use memory::MemoryStore;

pub use crate::journal::chain::{BadPlace, Verified, Verifier, verify};

use std::{io, ops::ControlFlow, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    entry::{Commit, Entry},
    fact::{Amounts, Effect, Fact, Outcome},
    ids::{
        CommitNumber, FencingToken, Hash, IdempotencyKey, Json, ResourceName, Sequence, Service, Tenant, Timestamp,
        WorkflowId,
    },
};

/// Where entries are kept. All methods may block; call them where that is allowed.
pub trait Store: Send + Sync + 'static {
    /// Makes `appends` durable as one commit and answers each: its entries, or why it was refused. Refused appends
    /// leave nothing; if all are refused there is no commit. Later appends of a batch see the earlier ones.
    ///
    /// # Errors
    /// [`StoreError`]: what is on disk is unknown. Nothing may be appended any more; only a new open tells.
    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError>;

    /// The number of this opening.
    fn token(&self) -> FencingToken;

    /// The last commit: its number and hash.
    fn head(&self) -> (CommitNumber, Hash);

    /// All entries of a workflow, in order; none if there is no such workflow.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn workflow(&self, id: WorkflowId) -> Result<Vec<Entry>, StoreError>;

    /// The workflows that are not finished, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn active(&self) -> Result<Vec<WorkflowId>, StoreError>;

    /// Workflows, newest first: at most `limit`, only those older than `before`, only of this tenant and service
    /// where given. A bounded scan of an index, whatever the journal's length.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn list(&self, query: &ListQuery) -> Result<Vec<Listed>, StoreError>;

    /// The record of one service.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn service(&self, tenant: &Tenant, service: &Service) -> Result<Option<ServiceRecord>, StoreError>;

    /// The records of all services, or of one tenant's, sorted by tenant and service.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn services(&self, tenant: Option<&Tenant>) -> Result<Vec<ServiceRecord>, StoreError> {
        let mut all = Vec::new();
        self.each_service(tenant, &mut |record| {
            all.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Calls `each` with the same records, one after the other: for whom there are too many to have them all at once. What
    /// is committed meanwhile may be among them, or not. `each` may not ask this store for anything.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn each_service(
        &self,
        tenant: Option<&Tenant>,
        each: &mut dyn FnMut(ServiceRecord) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// What the tenant's live services hold together.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn usage(&self, tenant: &Tenant) -> Result<Amounts, StoreError>;

    /// The submission that this tenant made under this key.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn submission(&self, tenant: &Tenant, key: &IdempotencyKey) -> Result<Option<Submission>, StoreError>;

    /// At most `max` commits after number `after`, in order.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn commits(&self, after: CommitNumber, max: usize) -> Result<Vec<Commit>, StoreError>;

    /// Brings every copy to rest. Nothing may be appended afterwards.
    ///
    /// # Errors
    /// [`StoreError`] if a copy could not be brought to rest; what was committed is still in the other.
    fn close(&self) -> Result<(), StoreError>;
}

/// What one workflow is to gain.
#[derive(Clone, Debug)]
pub struct Append {
    /// Whose.
    pub workflow: WorkflowId,
    /// Its last entry, as the caller knows it; 0 for a new workflow.
    pub expected: Sequence,
    /// The caller's opening of the store.
    pub token: FencingToken,
    /// What happened, in order. Never empty. `Submitted` only as the first fact of a new workflow.
    pub facts: Vec<Fact>,
    /// For a submission: the most that the tenant may hold, its holds included. No entry means no limit.
    pub quota: Amounts,
}

/// Why an append was refused. Nothing of it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else appended to this workflow meanwhile: read it again.
    #[error("workflow {workflow} is at entry {actual}, not {expected}: read it again")]
    Sequence {
        /// Whose.
        workflow: WorkflowId,
        /// What the caller thought.
        expected: Sequence,
        /// What is true.
        actual: Sequence,
    },
    /// Another engine has opened the store since: stop.
    #[error("fencing token {token} is older than {current}: another engine has opened this journal since")]
    Fenced {
        /// The caller's.
        token: FencingToken,
        /// The store's.
        current: FencingToken,
    },
    /// The facts may not follow what is there: a bug of the caller's.
    #[error("the journal of workflow {workflow} does not allow this fact: {detail}")]
    Illegal {
        /// Whose.
        workflow: WorkflowId,
        /// What and why.
        detail: String,
    },
    /// A creation for a service that lives, or any submission while another workflow of that service is active.
    #[error("{tenant}/{service} exists or is being changed by workflow {workflow}")]
    ServiceTaken {
        /// Whose.
        tenant: Tenant,
        /// Which.
        service: Service,
        /// The workflow that made it or works on it.
        workflow: WorkflowId,
    },
    /// A change of a service that does not live, or a deletion of one of which nothing is left either.
    #[error("{tenant}/{service} does not exist")]
    NoSuchService {
        /// Whose.
        tenant: Tenant,
        /// Which.
        service: Service,
    },
    /// The idempotency key was used before; with the same body that is the answer, with another an error.
    #[error("the idempotency key was used for workflow {workflow} before")]
    KeyUsed {
        /// For which workflow.
        workflow: WorkflowId,
        /// With the same body.
        same_body: bool,
    },
    /// The tenant would hold more than it may.
    #[error("quota of {tenant}: {used} of {limit} {resource} are used, {asked} more were asked for")]
    Quota {
        /// Whose quota.
        tenant: Tenant,
        /// Of what.
        resource: ResourceName,
        /// What is held now.
        used: u64,
        /// What was asked for.
        asked: u64,
        /// What may be held.
        limit: u64,
    },
    /// Too little free space for a new workflow. Those that run go on.
    #[error("{free_bytes} bytes are free for the journal, new workflows need {floor_bytes}: make room")]
    DiskFull {
        /// What is free.
        free_bytes: u64,
        /// The least that a new workflow needs.
        floor_bytes: u64,
    },
}

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has this journal open.
    #[error("the journal {} is open in another process{}: stop that one first", path.display(), holder.as_ref().map(|holder| format!(" ({holder})")).unwrap_or_default())]
    Locked {
        /// Where.
        path: PathBuf,
        /// Who, as the lock file says.
        holder: Option<String>,
    },
    /// A file or directory does not do what is asked of it.
    #[error("cannot {action} {}: start cairn again once its disk does", path.display())]
    Io {
        /// What was tried, such as "sync".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A newer cairn wrote this.
    #[error("the journal {} has format {found}, this cairn knows up to {known}: use a newer cairn", path.display())]
    NewerFormat {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest known here.
        known: u16,
    },
    /// Both copies are damaged at the same place, or acknowledged commits are missing from both.
    #[error("the journal is damaged at {place}: {detail}; restore a backup, or keep this directory and ask for help")]
    Damaged {
        /// Which commit, entry, file and offset.
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// The indexed copy does not do what is asked of it.
    #[error("the journal's index: {0}")]
    Index(String),
    /// A write or sync failed before: what is on disk is unknown until the next start.
    #[error("the journal was stopped by an earlier fault: start cairn again")]
    Stopped,
}

/// Which workflows to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only this tenant's.
    pub tenant: Option<Tenant>,
    /// Only of this service.
    pub service: Option<Service>,
    /// Only those older than this one.
    pub before: Option<WorkflowId>,
    /// At most so many.
    pub limit: usize,
}

/// What the index knows of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which.
    pub workflow: WorkflowId,
    /// Whose.
    pub tenant: Tenant,
    /// For what.
    pub service: Service,
    /// What it does to the service.
    pub effect: Effect,
    /// How it ended; none while it is active.
    pub outcome: Option<Outcome>,
}

/// A submission found by its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The workflow that it became.
    pub workflow: WorkflowId,
    /// The hash of its body.
    pub body_hash: Hash,
}

/// What is known of a service: the source of its TenantContainer and its DeploymentStatus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub service: Service,
    /// What it is.
    pub status: ServiceStatus,
    /// It exists, wholly or partly: it holds its quota and has a TenantContainer.
    pub live: bool,
    /// The workflow that last worked on it.
    pub workflow: WorkflowId,
    /// That workflow is not finished.
    pub busy: bool,
    /// When its creation was submitted.
    pub created: Timestamp,
    /// When its status last changed.
    pub updated: Timestamp,
    /// The request in force.
    pub input: Json,
    /// What it holds of its tenant's quota.
    pub holds: Amounts,
    /// What its steps have recorded of it (endpoints, versions), once they have.
    pub record: Option<Json>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// Being made.
    Creating,
    /// There.
    Created,
    /// Its creation failed: rolled back, or kept for a look.
    Failed,
    /// Being changed.
    Updating,
    /// Being taken away.
    Deleting,
    /// Gone.
    Deleted,
}
