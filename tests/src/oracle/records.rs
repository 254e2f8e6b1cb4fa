//! What is derived from the journal, held against a second reckoning: quota usage and the records of services.

use std::collections::BTreeMap;

use cairn_engine::{Amounts, Effect, Fact, Outcome, Service, Submitted, Tenant, WorkflowId, store::ServiceStatus};

use super::{Evidence, Findings, History};

/// What one service holds, and what it goes back to if the workflow in hand fails.
#[derive(Clone, Default)]
struct Held {
    now: Amounts,
    before: Amounts,
}

/// I22: at every commit what a tenant is charged is the sum of what lives, and within the limit.
pub(super) fn quota(evidence: &Evidence, found: &mut Findings) {
    let mut held: BTreeMap<(Tenant, Service), Held> = BTreeMap::new();
    let mut charges: BTreeMap<WorkflowId, &Submitted> = BTreeMap::new();
    for commit in &evidence.commits {
        let mut is_moved = false;
        for entry in &commit.entries {
            is_moved |= matches!(entry.fact, Fact::Submitted(_) | Fact::Finished { .. });
            match &entry.fact {
                Fact::Submitted(submitted) => {
                    let held = held.entry((submitted.tenant.clone(), submitted.service.clone())).or_default();
                    held.before = held.now.clone();
                    // A deletion takes nothing away before its end.
                    if submitted.effect != Effect::Delete {
                        held.now = larger(&held.before, &submitted.holds);
                    }
                    charges.insert(entry.workflow, submitted);
                }
                Fact::Finished { outcome, residue } => {
                    let Some(submitted) = charges.get(&entry.workflow) else { continue };
                    let held = held.entry((submitted.tenant.clone(), submitted.service.clone())).or_default();
                    if *outcome == Outcome::Succeeded {
                        held.now = submitted.holds.clone();
                    } else if residue.is_empty() {
                        held.now = held.before.clone();
                    }
                }
                _ => {}
            }
        }
        if !is_moved {
            continue;
        }
        let live = held.iter().map(|(service, held)| (service.clone(), held.now.clone())).collect();
        for (tenant, used) in sums(&live, found) {
            for (resource, limit) in &evidence.quota {
                let used = used.get(resource).copied().unwrap_or(0);
                if used > *limit {
                    found.add("I22", format!("commit {}: {tenant} holds {used} of {limit} {resource}", commit.number));
                }
            }
        }
    }
    let live = held.into_iter().map(|(service, held)| (service, held.now)).collect();
    let sums = sums(&live, found);
    for (tenant, told) in &evidence.usage {
        let nothing = Amounts::new();
        let reckoned = sums.get(tenant).unwrap_or(&nothing);
        let all = reckoned.keys().chain(told.keys());
        for resource in all.collect::<std::collections::BTreeSet<_>>() {
            let (have, should) = (told.get(resource).unwrap_or(&0), reckoned.get(resource).unwrap_or(&0));
            if have != should {
                found.add("I22", format!("{tenant} is charged {have} {resource}, and holds {should}"));
            }
        }
    }
}

fn larger(one: &Amounts, other: &Amounts) -> Amounts {
    let mut both = one.clone();
    for (resource, amount) in other {
        let most = both.entry(resource.clone()).or_default();
        *most = (*most).max(*amount);
    }
    both
}

fn sums(live: &BTreeMap<(Tenant, Service), Amounts>, found: &mut Findings) -> BTreeMap<Tenant, Amounts> {
    let mut sums: BTreeMap<Tenant, Amounts> = BTreeMap::new();
    for ((tenant, _), holds) in live {
        for (resource, amount) in holds {
            let sum = sums.entry(tenant.clone()).or_default().entry(resource.clone()).or_default();
            match sum.checked_add(*amount) {
                Some(more) => *sum = more,
                None => found.add("I22", format!("the {resource} of {tenant} cannot be counted")),
            }
        }
    }
    sums
}

/// I29 for records: a service is what its last workflow has made of it.
pub(super) fn records(histories: &[History<'_>], evidence: &Evidence, found: &mut Findings) {
    let Some(records) = &evidence.records else { return };
    let mut last: BTreeMap<(&Tenant, &Service), &History<'_>> = BTreeMap::new();
    for history in histories {
        last.insert((&history.submitted.tenant, &history.submitted.service), history);
    }
    for ((tenant, service), history) in last {
        let Some(record) = records.iter().find(|record| record.tenant == *tenant && record.service == *service) else {
            found.add("I29", format!("{tenant}/{service} has no record"));
            continue;
        };
        let Some((outcome, residue)) = history.outcome() else {
            if !record.busy || record.workflow != history.id {
                found.add("I29", format!("{tenant}/{service}: {} is not finished, and not in its record", history.id));
            }
            continue;
        };
        let expected = match (history.submitted.effect, outcome) {
            (Effect::Create, Outcome::Succeeded) => Some((ServiceStatus::Created, true)),
            (Effect::Create, _) if residue.is_empty() => Some((ServiceStatus::Failed, false)),
            (Effect::Delete, Outcome::Succeeded) => Some((ServiceStatus::Deleted, false)),
            (Effect::Update, Outcome::Succeeded) => Some((ServiceStatus::Created, true)),
            // Of a change or deletion that was taken back nothing is to be seen but its error.
            (Effect::Update, _) if residue.is_empty() => Some((ServiceStatus::Created, true)),
            _ => None,
        };
        let is = (record.status, record.live);
        if record.busy || expected.is_some_and(|expected| expected != is) {
            found.add("I29", format!("{tenant}/{service} ended {outcome:?}, and its record says {is:?}"));
        }
        // The request in force: what a change asked for once it has succeeded, what was there before once it has failed.
        let input = history.submitted.input.value();
        let in_force = match (history.submitted.effect, outcome) {
            (Effect::Update, Outcome::Succeeded) => Some(&input["request"]),
            (Effect::Update, _) => Some(&input["before"]),
            _ => None,
        };
        let request = record.input.value();
        let request = request.get("request").unwrap_or(&request);
        if in_force.is_some_and(|in_force| in_force != request) {
            found.add("I29", format!("{tenant}/{service} ended {outcome:?}, and its record has the request {request}"));
        }
    }
}
