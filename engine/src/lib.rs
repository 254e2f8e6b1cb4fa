//! The durable workflow engine: definitions, facts, fold, decide, journal, stores, executor, recovery, projections.
//!
//! ```text
//! entries ──fold──▶ WorkflowState ──decide(now)──▶ Command ──run──▶ fact ──append + sync──▶ entries
//! ```
//!
//! - The journal is the only truth: live state is the fold of what was appended, everything else is a view.
//! - An append has happened when its call returns: on the disk, in the commit log and in the index.
//! - An effect stands between two facts; one without its second fact is probed before anything else.
//! - The core (`state`, `decide`, `retry`) is pure: no clock, no I/O, no randomness.
//!
//! It knows nothing of Kubernetes, GitLab, HTTP or Elasticsearch.

mod ids;
mod fact;
mod entry;
mod state;
#[cfg(test)]
mod state_space;
mod decide;
mod definition;
mod step;
mod retry;
mod executor;
mod recovery;
mod projector;
mod handle;
mod clock;
mod chance;
mod panics;
mod threads;
mod journal;
mod admission;
pub mod store;

pub use admission::{Excess, Quota};
pub use chance::{Chance, SystemChance};
pub use clock::{Clock, PausedClock, SystemClock};
pub use decide::{Command, decide};
pub use definition::{Definition, Registry};
pub use entry::{Commit, Entry};
pub use executor::Limits;
pub use fact::{Amounts, Effect, ErrorClass, Fact, Failure, OnFailure, Outcome, Output, ParkReason, Probe, Submitted};
pub use handle::{
    ControlError, Engine, EngineOptions, Following, Health, NewSubmission, OpenError, Settled, SubmitError,
};
pub use ids::{
    Attempt, CommitNumber, DefinitionName, FencingToken, Hash, IdempotencyKey, Json, JsonError, ResourceName, Sequence,
    Service, StepName, Tenant, Timestamp, Who, WorkflowId,
};
pub use projector::{Projection, ViewHealth, catch_up};
pub use retry::RetryPolicy;
pub use state::{Compensation, IllegalFact, Phase, Progress, Stage, WorkflowState, fold};
pub use step::{Residue, Step, StepContext, StepError};
