//! Whether a submission may become a workflow: the rule that the journal admits by, and that whoever wants to know beforehand
//! asks of what is known now.
//!
//! - Pure: all that is known comes in as arguments. So a rehearsal and the submission after it get the same answer, unless
//!   something has changed in between.
//! - A quota refuses growth, and only that: a limit that was lowered since takes nothing away, and stands in the way of nothing
//!   that makes a service smaller.

use crate::{
    fact::{Amounts, Effect, Submitted},
    ids::ResourceName,
    store::{Refusal, ServiceRecord, Submission},
};

/// A tenant's quota, as one submission meets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// What the tenant's services hold together.
    pub used: Amounts,
    /// What of that the service holds for which something is submitted: nothing, if it is new.
    pub held: Amounts,
    /// What that service is to hold instead.
    pub wanted: Amounts,
    /// The most that the tenant may hold. What is not named is not limited.
    pub limits: Amounts,
}

/// Growth of one resource beyond what the tenant may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Of what.
    pub resource: ResourceName,
    /// What the tenant's services hold together.
    pub used: u64,
    /// How much more was asked for.
    pub asked: u64,
    /// The most that the tenant may hold.
    pub limit: u64,
}

impl Quota {
    /// The first resource of which there would be more than there may be, and more than there is.
    #[must_use]
    pub fn exceeded(&self) -> Option<Excess> {
        self.wanted.iter().find_map(|(resource, wanted)| {
            let of = |amounts: &Amounts| amounts.get(resource).copied();
            let asked = wanted.saturating_sub(of(&self.held).unwrap_or(0));
            let used = of(&self.used).unwrap_or(0);
            let limit = of(&self.limits).unwrap_or(u64::MAX);
            let too_much = asked > 0 && used.checked_add(asked).is_none_or(|sum| sum > limit);
            too_much.then(|| Excess { resource: resource.clone(), used, asked, limit })
        })
    }

    /// What the tenant's services hold together once the service holds what is wanted, and nothing more.
    #[must_use]
    pub fn after(&self) -> Amounts {
        let mut after = self.used.clone();
        for (resource, held) in &self.held {
            let left = after.entry(resource.clone()).or_insert(0);
            *left = left.saturating_sub(*held);
        }
        for (resource, wanted) in &self.wanted {
            let sum = after.entry(resource.clone()).or_insert(0);
            *sum = sum.saturating_add(*wanted);
        }
        after
    }
}

/// What is known where a submission comes in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ground {
    /// What was submitted under its key before.
    pub(crate) earlier: Option<Submission>,
    /// What is known of its service.
    pub(crate) record: Option<ServiceRecord>,
    /// What its tenant's services hold together.
    pub(crate) used: Amounts,
}

/// The quota as this submission meets it, if it may become a workflow.
///
/// # Errors
/// [`Refusal`]: `KeyUsed`, `ServiceTaken`, `NoSuchService` or `Quota`, whichever comes first.
pub(crate) fn admit(ground: Ground, submitted: &Submitted, limits: &Amounts) -> Result<Quota, Refusal> {
    let Submitted { tenant, service, .. } = submitted;
    if let Some(earlier) = ground.earlier {
        let same_body = earlier.body_hash == submitted.body_hash;
        return Err(Refusal::KeyUsed { workflow: earlier.workflow, same_body });
    }
    let held = match (submitted.effect, ground.record) {
        (_, Some(record)) if record.busy => return Err(taken(&record)),
        (Effect::Create, Some(record)) if record.live => return Err(taken(&record)),
        // A deletion may have left something that is held on: a new creation takes it over.
        (Effect::Create, record) => record.map(|record| record.holds).unwrap_or_default(),
        (Effect::Update, Some(record)) if record.live => record.holds,
        (Effect::Delete, Some(record)) if record.live || !record.holds.is_empty() => record.holds,
        (Effect::Update | Effect::Delete, _) => {
            return Err(Refusal::NoSuchService { tenant: tenant.clone(), service: service.clone() });
        }
    };
    let quota = Quota { used: ground.used, held, wanted: submitted.holds.clone(), limits: limits.clone() };
    match quota.exceeded() {
        // A deletion leaves behind at most what there is.
        Some(Excess { resource, used, asked, limit }) if submitted.effect != Effect::Delete => {
            Err(Refusal::Quota { tenant: tenant.clone(), resource, used, asked, limit })
        }
        _ => Ok(quota),
    }
}

fn taken(record: &ServiceRecord) -> Refusal {
    let ServiceRecord { tenant, service, workflow, .. } = record;
    Refusal::ServiceTaken { tenant: tenant.clone(), service: service.clone(), workflow: *workflow }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        fact::{Fact, Outcome},
        store::{
            Append, MemoryStore, Store,
            tests::samples::{NOW, amounts, append, commit_one, finished, id, started, submitted, succeeded},
        },
    };

    const RESOURCES: [&str; 3] = ["clusters", "gpus", "memory_bytes"];

    /// Mostly small, so that sums meet their limits; now and then as large as can be, so that they overflow.
    fn some() -> impl Strategy<Value = Amounts> {
        let amount = prop_oneof![9 => 0..12_u64, 1 => Just(u64::MAX)];
        proptest::collection::btree_map(proptest::sample::select(RESOURCES.to_vec()), amount, 0..=3)
            .prop_map(|map| map.into_iter().map(|(name, amount)| (name.into(), amount)).collect())
    }

    fn of(amounts: &Amounts, resource: &str) -> Option<u128> {
        amounts.get(&resource.into()).copied().map(u128::from)
    }

    proptest! {
        #[test]
        fn a_quota_refuses_growth_beyond_its_limit_and_nothing_else(
            others in some(), held in some(), wanted in some(), limits in some(),
        ) {
            let mut used = others.clone();
            for (resource, amount) in &held {
                let sum = used.entry(resource.clone()).or_insert(0);
                *sum = sum.saturating_add(*amount);
            }
            let quota = Quota { used: used.clone(), held: held.clone(), wanted: wanted.clone(), limits: limits.clone() };
            let exceeded = RESOURCES.into_iter().any(|resource| {
                let grown = of(&wanted, resource).unwrap_or(0).saturating_sub(of(&held, resource).unwrap_or(0));
                let limit = of(&limits, resource).unwrap_or(u128::from(u64::MAX));
                grown > 0 && of(&used, resource).unwrap_or(0) + grown > limit
            });
            prop_assert_eq!(quota.exceeded().is_some(), exceeded, "{:?}", quota);
        }

        #[test]
        fn what_only_shrinks_is_never_refused_however_low_the_limit_was_set(
            held in some(), part in 0..=4_u64, limits in some(),
        ) {
            let wanted = held.iter().map(|(resource, amount)| (resource.clone(), amount / 4 * part)).collect();
            let quota = Quota { used: held.clone(), held, wanted, limits };
            prop_assert_eq!(quota.exceeded(), None);
        }

        /// A plan is made from what [`Store`] tells, a submission is admitted within the batch that it is in: they agree,
        /// also under limits that were lowered below what is in use.
        #[test]
        fn a_store_refuses_exactly_what_was_foretold(
            submissions in proptest::collection::vec(
                (0..4_u8, proptest::sample::select(vec![Effect::Create, Effect::Update, Effect::Delete]), some(), some(), 0..3_u8),
                1..40,
            ),
        ) {
            let store = MemoryStore::opened_at(NOW);
            for (number, (service, effect, holds, limits, key)) in (0..).zip(submissions) {
                // A deletion names what it leaves: here, nothing.
                let holds = if effect == Effect::Delete { Amounts::new() } else { holds };
                let key = (key == 0).then(|| format!("k{service}").as_str().into());
                let submitted = Submitted { holds, key, ..submitted(effect, "acme", &format!("s{service}")) };
                let ground = Ground {
                    earlier: submitted.key.as_ref().and_then(|key| store.submission(&submitted.tenant, key).expect("it reads")),
                    record: store.service(&submitted.tenant, &submitted.service).expect("it reads"),
                    used: store.usage(&submitted.tenant).expect("it reads"),
                };
                let foretold = admit(ground, &submitted, &limits);
                let facts = vec![Fact::Submitted(submitted.clone())];
                let answer = commit_one(&store, Append { quota: limits, ..append(&store, id(number), 0, facts) });
                prop_assert_eq!(answer.as_ref().err(), foretold.as_ref().err());
                if let Ok(quota) = foretold {
                    let done = ["one", "two"].into_iter().flat_map(|step| [started(step), succeeded(step)]);
                    let facts = done.chain([finished(Outcome::Succeeded)]).collect();
                    commit_one(&store, append(&store, id(number), 1, facts)).expect("it is admitted");
                    let mut after = quota.after();
                    after.retain(|_, amount| *amount > 0);
                    prop_assert_eq!(store.usage(&submitted.tenant).expect("it reads"), after);
                }
            }
        }
    }

    #[test]
    fn over_a_lowered_limit_one_resource_may_shrink_and_none_may_grow() {
        let held = amounts(&[("gpus", 4), ("memory_bytes", 40)]);
        let quota = |wanted: &[(&str, u64)]| Quota {
            used: held.clone(),
            held: held.clone(),
            wanted: amounts(wanted),
            limits: amounts(&[("gpus", 1), ("memory_bytes", 50)]),
        };
        assert_eq!(quota(&[("gpus", 2), ("memory_bytes", 50)]).exceeded(), None);
        let excess = Excess { resource: "gpus".into(), used: 4, asked: 1, limit: 1 };
        assert_eq!(quota(&[("gpus", 5), ("memory_bytes", 10)]).exceeded(), Some(excess));
    }
}
