//! What is derived from the journal, held against a second reckoning: quota usage and the records of services.

use std::collections::BTreeMap;

use cairn_engine::{Amounts, Effect, Fact, Outcome, Service, Tenant, WorkflowId, store::ServiceStatus};

use super::{Evidence, Findings, History};

/// I22: at every commit what a tenant is charged is the sum of what lives, and within the limit.
pub(super) fn quota(evidence: &Evidence, found: &mut Findings) {
    let mut live: BTreeMap<(Tenant, Service), Amounts> = BTreeMap::new();
    let mut charges: BTreeMap<WorkflowId, (Effect, Tenant, Service, Amounts)> = BTreeMap::new();
    for commit in &evidence.commits {
        for entry in &commit.entries {
            match &entry.fact {
                Fact::Submitted(submitted) => {
                    let place = (submitted.tenant.clone(), submitted.service.clone());
                    if submitted.effect == Effect::Create {
                        live.insert(place.clone(), submitted.holds.clone());
                    }
                    charges.insert(entry.workflow, (submitted.effect, place.0, place.1, submitted.holds.clone()));
                }
                Fact::Finished { outcome, residue } => {
                    let Some((effect, tenant, service, _)) = charges.get(&entry.workflow) else { continue };
                    let gone = match effect {
                        Effect::Create => *outcome != Outcome::Succeeded && residue.is_empty(),
                        Effect::Delete => *outcome == Outcome::Succeeded,
                        Effect::Update => false,
                    };
                    if gone {
                        live.remove(&(tenant.clone(), service.clone()));
                    }
                }
                _ => {}
            }
        }
        for (tenant, used) in sums(&live, found) {
            for (resource, limit) in &evidence.quota {
                let used = used.get(resource).copied().unwrap_or(0);
                if used > *limit {
                    found.add("I22", format!("commit {}: {tenant} holds {used} of {limit} {resource}", commit.number));
                }
            }
        }
    }
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
            _ => None,
        };
        let is = (record.status, record.live);
        if record.busy || expected.is_some_and(|expected| expected != is) {
            found.add("I29", format!("{tenant}/{service} ended {outcome:?}, and its record says {is:?}"));
        }
    }
}
