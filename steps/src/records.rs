//! Records: what a user sees of a service and of a workflow, projected from what the engine keeps.
//!
//! Pure: no clock is read, and nothing is remembered. [`TenantContainer`] and [`DeploymentStatus`] are the two
//! records that existing scripts read; [`Status`] is the one word for where a workflow is.

use std::collections::BTreeMap;

use cairn_engine::{
    Effect, Outcome, Phase, Stage, Timestamp, WorkflowId, WorkflowState,
    store::{ServiceRecord, ServiceStatus},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::{Details, Heading};

/// A cluster that exists, wholly or partly, and what it was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantContainer {
    /// The tenant.
    pub user: String,
    /// The service.
    pub service_name: String,
    /// Where the cluster is.
    pub namespace: String,
    /// What it is.
    pub status: ServiceStatus,
    /// The nine fields of the request, as they are in force.
    pub details: Details,
    /// The workflow that last worked on it.
    pub workflow_id: WorkflowId,
    /// When its creation was submitted.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
    /// What its steps have recorded of it: endpoints, versions.
    #[serde(flatten)]
    pub recorded: BTreeMap<String, Value>,
}

impl TenantContainer {
    /// The names that [`TenantContainer::recorded`] cannot have: a step does not overwrite what the engine knows.
    const OWN: [&str; 8] =
        ["user", "service_name", "namespace", "status", "details", "workflow_id", "created_at", "updated_at"];

    /// The record of this service; `None` once it is rolled back or deleted, or if its request is none of a cluster.
    #[must_use]
    pub fn of(record: &ServiceRecord) -> Option<Self> {
        if !record.live {
            return None;
        }
        let Heading { namespace, details } = heading(record)?;
        let mut recorded: BTreeMap<String, Value> = match record.record.as_ref().map(cairn_engine::Json::value) {
            Some(Value::Object(fields)) => fields.into_iter().collect(),
            Some(_) | None => BTreeMap::new(),
        };
        for name in Self::OWN {
            recorded.remove(name);
        }
        Some(Self {
            user: record.tenant.to_string(),
            service_name: record.service.to_string(),
            namespace,
            status: record.status,
            details,
            workflow_id: record.workflow,
            created_at: record.created,
            updated_at: record.updated,
            recorded,
        })
    }
}

/// How the last deployment of a service went. It stays when the cluster is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// The tenant.
    pub user: String,
    /// The service.
    pub service_name: String,
    /// Where the cluster is, or was.
    pub namespace: String,
    /// What it is.
    pub status: ServiceStatus,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The workflow that last worked on it.
    pub workflow_id: WorkflowId,
    /// When its creation was submitted.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
}

impl DeploymentStatus {
    /// The record of this service.
    #[must_use]
    pub fn of(record: &ServiceRecord) -> Self {
        Self {
            user: record.tenant.to_string(),
            service_name: record.service.to_string(),
            namespace: heading(record).map(|heading| heading.namespace).unwrap_or_default(),
            status: record.status,
            error: record.error.clone(),
            workflow_id: record.workflow,
            created_at: record.created,
            updated_at: record.updated,
        }
    }
}

/// Where a workflow is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// No step has been started yet.
    Pending,
    /// Steps are being run.
    Running,
    /// For a retry time.
    Waiting,
    /// Until a person resumes it.
    Paused,
    /// What was made is being taken back.
    Compensating,
    /// It cannot go on without a person.
    Parked,
    /// Every step succeeded.
    Succeeded,
    /// A step failed, and everything was taken back.
    Failed,
    /// A person ended it, and everything was taken back.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::Compensating,
        Self::Parked,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The status of this workflow at the time `now`.
    #[must_use]
    pub fn of(state: &WorkflowState, now: Timestamp) -> Self {
        let begun = state.progress().iter().any(|progress| progress.attempt.0 > 0);
        match state.phase() {
            Phase::Ready { .. } | Phase::Unsure { .. } if state.is_paused() => Self::Paused,
            Phase::Ready { not_before: Some(at), .. } | Phase::Unsure { not_before: Some(at), .. } if *at > now => {
                Self::Waiting
            }
            Phase::Ready { .. } if !begun => Self::Pending,
            Phase::Ready { .. } | Phase::Running { .. } | Phase::Unsure { .. } | Phase::Complete => Self::Running,
            Phase::Compensating { .. } | Phase::CheckingResidue { .. } | Phase::Forced => Self::Compensating,
            Phase::Parking { .. } | Phase::Parked { .. } => Self::Parked,
            Phase::Finished { outcome, .. } => Self::ended(*outcome),
        }
    }

    /// The status of a workflow that ended so.
    #[must_use]
    pub const fn ended(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
        }
    }

    /// Its name, as JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Compensating => "compensating",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a workflow does to its service, in one word.
#[must_use]
pub const fn kind(effect: Effect) -> &'static str {
    match effect {
        Effect::Create => "create",
        Effect::Update => "update",
        Effect::Delete => "delete",
    }
}

/// The time that the workflow waits for, if it waits for one: of a retry, a probe, a compensation or a residue check.
#[must_use]
pub fn retry_at(state: &WorkflowState) -> Option<Timestamp> {
    match state.phase() {
        Phase::Ready { not_before, .. }
        | Phase::Unsure { not_before, .. }
        | Phase::CheckingResidue { not_before, .. }
        | Phase::Compensating { stage: Stage::Probing { not_before, .. } | Stage::Ready { not_before, .. }, .. } => {
            *not_before
        }
        Phase::Compensating { stage: Stage::Running { .. }, .. }
        | Phase::Running { .. }
        | Phase::Complete
        | Phase::Parking { .. }
        | Phase::Parked { .. }
        | Phase::Forced
        | Phase::Finished { .. } => None,
    }
}

fn heading(record: &ServiceRecord) -> Option<Heading> {
    Heading::journaled(record.input.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use cairn_engine::{Attempt, Entry, Fact, FencingToken, Hash, Json, OnFailure, Sequence, Submitted, fold};
    use serde_json::json;

    use super::*;
    use crate::{report::STATUSES, request::Request};

    /// The submission of a creation with the defaults.
    pub(crate) fn creation() -> Fact {
        let request = Request::parse(br#"{"user":"acme","service_name":"search"}"#).expect("the least there is");
        Fact::Submitted(Submitted {
            definition: "create".into(),
            version: 1,
            fingerprint: Hash::default(),
            steps: STATUSES.iter().map(|step| (*step).into()).collect(),
            effect: Effect::Create,
            tenant: "acme".into(),
            service: "search".into(),
            input: Json::parse(&request.to_json()).expect("small"),
            key: None,
            body_hash: Hash::default(),
            who: "local".into(),
            holds: BTreeMap::new(),
            on_failure: OnFailure::Rollback,
        })
    }

    /// These facts as one workflow's entries, a second apart.
    pub(crate) fn entries(facts: Vec<Fact>) -> Vec<Entry> {
        let id = WorkflowId::from_bytes([7; 16]);
        let entry = |(sequence, fact): (u64, Fact)| Entry {
            workflow: id,
            sequence: Sequence(sequence),
            token: FencingToken(1),
            time: Timestamp::from_micros(i64::try_from(sequence).expect("few") * 1_000_000),
            previous: Hash::default(),
            fact,
            hash: Hash::default(),
        };
        (1..).zip(facts).map(entry).collect()
    }

    fn status(facts: Vec<Fact>, now: i64) -> Status {
        let state = fold(&entries(facts)).expect("legal").expect("not empty");
        Status::of(&state, Timestamp::from_micros(now * 1_000_000))
    }

    #[test]
    fn the_status_follows_the_workflow() {
        let step = || "starting".into();
        let started = Fact::AttemptStarted { step: step(), attempt: Attempt(1) };
        let failed = Fact::AttemptFailed {
            step: step(),
            attempt: Attempt(1),
            error: cairn_engine::Failure {
                class: cairn_engine::ErrorClass::Transient,
                message: "later".to_owned(),
                evidence: Vec::new(),
            },
            retry_at: Some(Timestamp::from_micros(100_000_000)),
        };
        assert_eq!(status(vec![creation()], 1), Status::Pending);
        assert_eq!(status(vec![creation(), Fact::Paused { who: "local".into() }], 2), Status::Paused);
        assert_eq!(status(vec![creation(), started.clone()], 2), Status::Running);
        assert_eq!(status(vec![creation(), started.clone(), failed.clone()], 3), Status::Waiting);
        assert_eq!(status(vec![creation(), started, failed], 101), Status::Running);
        let cancelled = vec![creation(), Fact::CancelRequested { who: "local".into(), force: false }];
        assert_eq!(status(cancelled.clone(), 2), Status::Compensating);
        let ended = Fact::Finished { outcome: Outcome::Cancelled, residue: Vec::new() };
        assert_eq!(status([cancelled, vec![ended]].concat(), 3), Status::Cancelled);
    }

    #[test]
    fn a_service_that_is_gone_has_no_tenant_container_but_a_deployment_status() {
        let Fact::Submitted(submitted) = creation() else { unreachable!("a creation is submitted") };
        let mut record = ServiceRecord {
            tenant: submitted.tenant,
            service: submitted.service,
            status: ServiceStatus::Created,
            live: true,
            workflow: WorkflowId::from_bytes([7; 16]),
            busy: false,
            created: Timestamp::from_micros(1),
            updated: Timestamp::from_micros(2),
            input: submitted.input,
            holds: BTreeMap::new(),
            record: Some(Json::of(&json!({ "endpoints": { "http": "x" }, "status": "mine" })).expect("small")),
            error: None,
        };
        let container = serde_json::to_value(TenantContainer::of(&record)).expect("plain");
        assert_eq!(container["status"], "created");
        assert_eq!(container["endpoints"]["http"], "x");
        assert_eq!(container["namespace"], "acme--search");
        record.live = false;
        record.status = ServiceStatus::Failed;
        assert_eq!(TenantContainer::of(&record), None);
        assert_eq!(DeploymentStatus::of(&record).status, ServiceStatus::Failed);
    }
}
