//! What the tests of the stores append.

use std::collections::BTreeMap;

use crate::{
    entry::Entry,
    fact::{Amounts, Effect, ErrorClass, Fact, Failure, OnFailure, Outcome, Output, Probe, Submitted},
    ids::{Attempt, Hash, Json, Sequence, Tenant, Timestamp, WorkflowId},
    store::{Append, DurableOptions, Refusal, Store},
};

pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// The id of the workflow that was submitted as number `number`: later ones sort later.
pub(crate) fn id(number: u64) -> WorkflowId {
    let mut bytes = [0x70; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    WorkflowId::from_bytes(bytes)
}

pub(crate) fn amounts(amounts: &[(&str, u64)]) -> Amounts {
    amounts.iter().map(|(resource, amount)| ((*resource).into(), *amount)).collect()
}

pub(crate) fn submitted(effect: Effect, tenant: &str, service: &str) -> Submitted {
    Submitted {
        definition: "create".into(),
        version: 1,
        fingerprint: Hash([7; 32]),
        steps: vec!["one".into(), "two".into()],
        effect,
        tenant: tenant.into(),
        service: service.into(),
        input: Json::of(&BTreeMap::from([("replicas", 1)])).expect("it is JSON"),
        key: None,
        body_hash: Hash([8; 32]),
        who: "alice".into(),
        // A deletion names what it leaves.
        holds: if effect == Effect::Delete {
            Amounts::new()
        } else {
            amounts(&[("clusters", 1), ("memory_bytes", 100)])
        },
        on_failure: OnFailure::Rollback,
    }
}

pub(crate) fn started(step: &str) -> Fact {
    Fact::AttemptStarted { step: step.into(), attempt: Attempt(1) }
}

pub(crate) fn succeeded(step: &str) -> Fact {
    let output = Output::new(format!("{step} is done"), &BTreeMap::from([("uid", "u-1")])).expect("it is JSON");
    Fact::AttemptSucceeded { step: step.into(), attempt: Attempt(1), output }
}

pub(crate) fn failed(step: &str) -> Fact {
    let error = Failure {
        class: ErrorClass::Permanent,
        message: format!("no {step} today"),
        evidence: vec!["event".to_owned()],
    };
    Fact::AttemptFailed { step: step.into(), attempt: Attempt(1), error, retry_at: None }
}

pub(crate) fn compensated(step: &str) -> [Fact; 2] {
    let (step, attempt) = (step.into(), Attempt(1));
    [
        Fact::CompensationStarted { step: crate::ids::StepName::clone(&step), attempt },
        Fact::CompensationSucceeded { step, attempt, message: "gone".to_owned() },
    ]
}

pub(crate) fn finished(outcome: Outcome) -> Fact {
    Fact::Finished { outcome, residue: Vec::new() }
}

/// All facts of a workflow of these steps that succeeds, after `Submitted`.
pub(crate) fn success() -> Vec<Fact> {
    vec![started("one"), succeeded("one"), started("two"), succeeded("two"), finished(Outcome::Succeeded)]
}

/// All facts of a workflow of these steps that fails in its first, after `Submitted`.
pub(crate) fn failure() -> Vec<Fact> {
    let probed = Fact::Probed { step: "one".into(), attempt: Attempt(1), answer: Probe::NotApplied, retry_at: None };
    let mut facts = vec![started("one"), failed("one"), probed];
    facts.extend(compensated("one"));
    facts.push(finished(Outcome::Failed));
    facts
}

pub(crate) fn append(store: &dyn Store, workflow: WorkflowId, expected: u64, facts: Vec<Fact>) -> Append {
    Append { workflow, expected: Sequence(expected), token: store.token(), facts, quota: Amounts::new() }
}

/// Appends alone, and expects it to be admitted or refused, not stopped.
pub(crate) fn commit_one(store: &dyn Store, append: Append) -> Result<Vec<Entry>, Refusal> {
    store.commit(vec![append], NOW).expect("the store works").remove(0)
}

pub(crate) fn submit(store: &dyn Store, number: u64, submitted: Submitted) -> Result<Vec<Entry>, Refusal> {
    commit_one(store, append(store, id(number), 0, vec![Fact::Submitted(submitted)]))
}

/// Submits number `number` and appends `facts` to it, all of which must be admitted.
pub(crate) fn run(store: &dyn Store, number: u64, submitted: Submitted, facts: Vec<Fact>) {
    submit(store, number, submitted).expect("it is admitted");
    commit_one(store, append(store, id(number), 1, facts)).expect("it is admitted");
}

pub(crate) fn used(store: &dyn Store, tenant: &str) -> Vec<(String, u64)> {
    let usage = store.usage(&Tenant::new(tenant)).expect("it reads");
    usage.into_iter().map(|(resource, amount)| (resource.to_string(), amount)).collect()
}

/// A journal that is quick to make, and fills more than one segment soon.
pub(crate) fn small(dir: &std::path::Path) -> DurableOptions {
    let (segment_bytes, disk_floor_bytes, ballast_bytes) = (4 * 1024, 0, 0);
    DurableOptions { segment_bytes, disk_floor_bytes, ballast_bytes, now: NOW, ..DurableOptions::new(dir) }
}
