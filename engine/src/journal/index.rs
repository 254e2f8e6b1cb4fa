//! What is derived from the entries: the active set, lists, idempotency keys, quota usage, service records.
//!
//! - One function, [`derive`], makes every derived key, while appending, catching up and rebuilding alike.
//! - It changes with the same atomic batch as the entries that it follows from.
//! - `used` of a tenant is at any time the sum of what its services hold; every sum is checked.

use serde::{Deserialize, Serialize};

use crate::{
    admission::{self, Ground, Quota},
    fact::{Amounts, Effect, Fact, Outcome, ParkReason, Submitted},
    ids::{Json, Service, Tenant, Timestamp},
    journal::{
        codec::{self, CodecError},
        keys::{self, Overlay, Read},
    },
    state::WorkflowState,
    store::{Listed, Refusal, ServiceRecord, ServiceStatus, StoreError, Submission},
};

/// The layout of the derived values. Another one is made again from the entries.
pub(crate) const VERSION: u8 = 2;

/// A service's record, and what it goes back to when the change or deletion in hand fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    record: ServiceRecord,
    before: Option<Before>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    status: ServiceStatus,
    live: bool,
    holds: Amounts,
    record: Option<Json>,
}

impl Before {
    fn of(record: &ServiceRecord) -> Self {
        Self { status: record.status, live: record.live, holds: record.holds.clone(), record: record.record.clone() }
    }
}

/// Whether a submission may become a workflow.
pub(crate) fn admit(
    read: &dyn Read,
    submitted: &Submitted,
    limits: &Amounts,
) -> Result<Result<Quota, Refusal>, StoreError> {
    let Submitted { tenant, service, key, .. } = submitted;
    let ground = Ground {
        earlier: key.as_ref().map(|key| get(read, &keys::submission(tenant, key))).transpose()?.flatten(),
        record: service_record(read, tenant, service)?,
        used: usage(read, tenant)?,
    };
    Ok(admission::admit(ground, submitted, limits))
}

/// Brings the derived keys to where they are after `fact`; `state` is the workflow's after it.
pub(crate) fn derive(
    space: &mut Overlay<'_>,
    state: &WorkflowState,
    fact: &Fact,
    time: Timestamp,
) -> Result<(), StoreError> {
    match fact {
        Fact::Submitted(submitted) => {
            list(space, state, submitted);
            submit(space, state, submitted, time)
        }
        Fact::AttemptSucceeded { output, .. } => match &output.record {
            Some(record) => change(space, state, |stored| stored.record.record = Some(record.clone())),
            None => Ok(()),
        },
        Fact::Parked { reason: ParkReason::Kept } => change(space, state, |stored| {
            // What is being changed or deleted is still that; only a creation has failed when it stops half-way.
            if state.submitted().effect == Effect::Create {
                stored.record.status = ServiceStatus::Failed;
            }
            stored.record.error = failure(state);
            stored.record.updated = time;
        }),
        Fact::RetryRequested { .. } => change(space, state, |stored| {
            if stored.record.error.take().is_some() {
                stored.record.updated = time;
            }
            if stored.record.status == ServiceStatus::Failed {
                stored.record.status = ServiceStatus::Creating;
            }
        }),
        Fact::Finished { outcome, residue } => {
            space.remove(keys::active(state.id()));
            put(space, keys::listed(state.id()), &listed(state, state.submitted(), Some(*outcome)));
            change(space, state, |stored| finish(stored, state, *outcome, residue.is_empty(), time))
        }
        Fact::AttemptStarted { .. }
        | Fact::AttemptFailed { .. }
        | Fact::Probed { .. }
        | Fact::ProbeFailed { .. }
        | Fact::CompensationStarted { .. }
        | Fact::CompensationSucceeded { .. }
        | Fact::CompensationFailed { .. }
        | Fact::ResidueCheckFailed { .. }
        | Fact::CancelRequested { .. }
        | Fact::Paused { .. }
        | Fact::Resumed { .. }
        | Fact::Parked { .. } => Ok(()),
    }
}

fn list(space: &mut Overlay<'_>, state: &WorkflowState, submitted: &Submitted) {
    let Submitted { tenant, service, .. } = submitted;
    let workflow = state.id();
    space.put(keys::active(workflow), Vec::new());
    put(space, keys::listed(workflow), &listed(state, submitted, None));
    for (tenant, service) in [(Some(tenant), None), (Some(tenant), Some(service)), (None, Some(service))] {
        let mut key = keys::listing(tenant, service);
        key.extend_from_slice(workflow.as_bytes());
        space.put(key, Vec::new());
    }
    if let Some(key) = &submitted.key {
        let submission = Submission { workflow, body_hash: submitted.body_hash };
        put(space, keys::submission(tenant, key), &submission);
    }
}

fn listed(state: &WorkflowState, submitted: &Submitted, outcome: Option<Outcome>) -> Listed {
    Listed {
        workflow: state.id(),
        tenant: submitted.tenant.clone(),
        service: submitted.service.clone(),
        effect: submitted.effect,
        outcome,
    }
}

fn submit(
    space: &mut Overlay<'_>,
    state: &WorkflowState,
    submitted: &Submitted,
    time: Timestamp,
) -> Result<(), StoreError> {
    let Submitted { tenant, service, .. } = submitted;
    let found = get::<Stored>(space, &keys::service(tenant, service))?;
    let old = found.as_ref().map(|stored| stored.record.holds.clone()).unwrap_or_default();
    let stored = match (submitted.effect, found) {
        (Effect::Create, found) => Stored {
            record: ServiceRecord {
                tenant: tenant.clone(),
                service: service.clone(),
                status: ServiceStatus::Creating,
                live: true,
                workflow: state.id(),
                busy: true,
                created: time,
                updated: time,
                input: submitted.input.clone(),
                holds: larger(&old, &submitted.holds),
                record: None,
                error: None,
            },
            before: found.map(|stored| Before::of(&stored.record)),
        },
        (Effect::Update | Effect::Delete, Some(mut stored)) => {
            let record = &mut stored.record;
            stored.before = Some(Before::of(record));
            record.status =
                if submitted.effect == Effect::Update { ServiceStatus::Updating } else { ServiceStatus::Deleting };
            record.workflow = state.id();
            record.busy = true;
            record.updated = time;
            record.error = None;
            if submitted.effect == Effect::Update {
                record.holds = larger(&old, &submitted.holds);
            }
            stored
        }
        (Effect::Update | Effect::Delete, None) => {
            let service = format!("{tenant}/{service}");
            return Err(StoreError::Index(format!("workflow {} changes {service}, which never was", state.id())));
        }
    };
    save(space, &old, &stored)
}

fn finish(stored: &mut Stored, state: &WorkflowState, outcome: Outcome, nothing_left: bool, time: Timestamp) {
    let submitted = state.submitted();
    let record = &mut stored.record;
    record.busy = false;
    record.updated = time;
    let before = stored.before.take();
    match (submitted.effect, outcome) {
        (Effect::Create | Effect::Update, Outcome::Succeeded) => {
            record.status = ServiceStatus::Created;
            record.input = submitted.input.clone();
            record.holds = submitted.holds.clone();
            record.error = None;
        }
        (Effect::Delete, Outcome::Succeeded) => {
            record.status = ServiceStatus::Deleted;
            record.error = None;
            // What a deletion is to keep, it holds on.
            gone(record, submitted.holds.clone());
        }
        (Effect::Create, Outcome::Failed | Outcome::Cancelled) => {
            record.status = ServiceStatus::Failed;
            record.error = failure(state);
            // A forced end may leave things behind: they hold their quota until a deletion has taken them away.
            if nothing_left {
                gone(record, before.map(|before| before.holds).unwrap_or_default());
            }
        }
        (Effect::Update | Effect::Delete, Outcome::Failed | Outcome::Cancelled) => {
            record.error = failure(state);
            match before {
                Some(before) if nothing_left => {
                    record.status = before.status;
                    record.live = before.live;
                    record.holds = before.holds;
                    record.record = before.record;
                }
                // Ended by force, half-way: whatever is there goes on to hold what it may take.
                Some(before) if submitted.effect == Effect::Update => {
                    record.status = before.status;
                    record.record = before.record;
                }
                Some(_) | None => record.status = ServiceStatus::Failed,
            }
        }
    }
}

fn gone(record: &mut ServiceRecord, holds: Amounts) {
    record.live = false;
    record.record = None;
    record.holds = holds;
}

fn failure(state: &WorkflowState) -> Option<String> {
    match state.failure() {
        Some((step, failure)) => Some(format!("{step}: {}", failure.message)),
        None if state.is_cancelled() => Some("cancelled".to_owned()),
        None => None,
    }
}

/// Changes the record of the service that `state` works on.
fn change(space: &mut Overlay<'_>, state: &WorkflowState, edit: impl FnOnce(&mut Stored)) -> Result<(), StoreError> {
    let Submitted { tenant, service, .. } = state.submitted();
    let Some(mut stored) = get::<Stored>(space, &keys::service(tenant, service))? else {
        return Err(StoreError::Index(format!("the record of {tenant}/{service} is missing")));
    };
    let old = stored.record.holds.clone();
    edit(&mut stored);
    save(space, &old, &stored)
}

/// Puts the record, and moves the tenant's usage from what the service held to what it holds.
fn save(space: &mut Overlay<'_>, old: &Amounts, stored: &Stored) -> Result<(), StoreError> {
    let ServiceRecord { tenant, service, holds, .. } = &stored.record;
    if old != holds {
        let moved = moved(&usage(space, tenant)?, old, holds)
            .ok_or_else(|| StoreError::Index(format!("the usage of {tenant} does not add up")))?;
        let key = keys::usage(tenant);
        if moved.is_empty() { space.remove(key) } else { put(space, key, &moved) }
    }
    put(space, keys::service(tenant, service), stored);
    Ok(())
}

/// `used` without `old`, with `new`; `None` if that is below zero or too much to count.
fn moved(used: &Amounts, old: &Amounts, new: &Amounts) -> Option<Amounts> {
    let mut used = used.clone();
    for (resource, amount) in old {
        let left = used.get(resource).copied().unwrap_or(0).checked_sub(*amount)?;
        used.insert(resource.clone(), left);
    }
    for (resource, amount) in new {
        let sum = used.get(resource).copied().unwrap_or(0).checked_add(*amount)?;
        used.insert(resource.clone(), sum);
    }
    used.retain(|_, amount| *amount > 0);
    Some(used)
}

fn larger(old: &Amounts, new: &Amounts) -> Amounts {
    let mut both = old.clone();
    for (resource, amount) in new {
        let held = both.entry(resource.clone()).or_default();
        *held = (*held).max(*amount);
    }
    both
}

/// The record of one service.
pub(crate) fn service_record(
    read: &dyn Read,
    tenant: &Tenant,
    service: &Service,
) -> Result<Option<ServiceRecord>, StoreError> {
    Ok(get::<Stored>(read, &keys::service(tenant, service))?.map(|stored| stored.record))
}

/// A record as a scan of [`keys::services`] shows it.
pub(crate) fn read_service(value: &[u8]) -> Result<ServiceRecord, StoreError> {
    decode::<Stored>(value).map(|stored| stored.record)
}

/// What the tenant's live services hold together.
pub(crate) fn usage(read: &dyn Read, tenant: &Tenant) -> Result<Amounts, StoreError> {
    Ok(get(read, &keys::usage(tenant))?.unwrap_or_default())
}

/// The derived value under `key`.
pub(crate) fn get<T: serde::de::DeserializeOwned>(read: &dyn Read, key: &[u8]) -> Result<Option<T>, StoreError> {
    read.get(key)?.map(|value| decode(&value)).transpose()
}

fn put(space: &mut Overlay<'_>, key: keys::Key, value: &impl Serialize) {
    space.put(key, codec::encode_record(VERSION, value));
}

fn decode<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    codec::decode_record(VERSION, value).map_err(|error: CodecError| StoreError::Index(error.to_string()))
}
