//! Two stores, the same random appends: they answer alike, keep the same, and their records add up.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{
    fact::{Amounts, Effect, Fact, OnFailure, Outcome, ParkReason, Submitted},
    ids::{Attempt, CommitNumber, Sequence},
    store::{
        Append, DurableStore, ListQuery, MemoryStore, Store,
        tests::samples::{NOW, amounts, compensated, failed, finished, id, small, started, submitted, succeeded},
        verify,
    },
};

/// An append, before it is known where its workflow is.
#[derive(Clone, Debug)]
struct Wish {
    number: u64,
    /// Off the sequence that the workflow is at.
    off: i64,
    facts: Vec<Fact>,
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let cancel = |force| Fact::CancelRequested { who: "alice".into(), force };
    let probed = |step: &str| Fact::Probed {
        step: step.into(),
        attempt: Attempt(1),
        answer: crate::fact::Probe::NotApplied,
        retry_at: None,
    };
    let mut one = vec![
        vec![started("one")],
        vec![succeeded("one")],
        vec![succeeded("one"), started("two")],
        vec![succeeded("two"), finished(Outcome::Succeeded)],
        vec![failed("one")],
        vec![failed("two"), probed("two")],
        vec![probed("one")],
        compensated("two").to_vec(),
        compensated("one").to_vec(),
        vec![finished(Outcome::Failed)],
        vec![finished(Outcome::Cancelled)],
        vec![Fact::Parked { reason: ParkReason::Kept }],
        vec![Fact::RetryRequested { who: "alice".into() }],
        vec![cancel(false)],
        vec![cancel(true), finished(Outcome::Cancelled)],
    ];
    // More often than not a workflow should get on.
    one.push(vec![started("one"), succeeded("one"), started("two")]);
    proptest::sample::select(one)
}

fn submission() -> impl Strategy<Value = Vec<Fact>> {
    let effects = proptest::sample::select(vec![Effect::Create, Effect::Create, Effect::Update, Effect::Delete]);
    (effects, 0..2u8, 0..3u8, proptest::option::of(0..4u8), 0..60u64, any::<bool>()).prop_map(
        |(effect, tenant, service, key, memory, keep)| {
            vec![Fact::Submitted(Submitted {
                key: key.map(|key| format!("k{key}").as_str().into()),
                holds: amounts(&[("clusters", 1), ("memory_bytes", memory)]),
                on_failure: if keep { OnFailure::Keep } else { OnFailure::Rollback },
                ..submitted(effect, &format!("t{tenant}"), &format!("s{service}"))
            })]
        },
    )
}

fn wishes() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    let off = proptest::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 1, -1]);
    let wish = (0..10u64, off, prop_oneof![1 => submission(), 3 => facts()]).prop_map(|(number, off, facts)| Wish {
        number,
        off,
        facts,
    });
    proptest::collection::vec(proptest::collection::vec(wish, 1..5), 1..40)
}

fn agree(one: &dyn Store, other: &dyn Store) {
    assert_eq!(one.head(), other.head());
    let all = |store: &dyn Store| {
        let query = ListQuery { limit: 100, ..ListQuery::default() };
        let usage: Vec<Amounts> = ["t0", "t1"].map(|tenant| store.usage(&tenant.into()).expect("it reads")).to_vec();
        (
            store.commits(CommitNumber(0), usize::MAX).expect("it reads"),
            store.active().expect("it reads"),
            store.list(&query).expect("it reads"),
            store.services(None).expect("it reads"),
            usage,
        )
    };
    assert_eq!(all(one), all(other));
    let (commits, active, listed, services, usage) = all(one);
    let verified = verify(commits.into_iter().map(Ok)).expect("it is a good journal");
    assert_eq!((verified.active, verified.workflows), (active.len() as u64, listed.len() as u64));
    // I22: used is the sum of what lives.
    let mut sums: BTreeMap<crate::ids::Tenant, Amounts> =
        [("t0".into(), Amounts::new()), ("t1".into(), Amounts::new())].into();
    for record in &services {
        assert_eq!(record.live, !record.holds.is_empty(), "{record:?}");
        assert_eq!(record.busy, active.contains(&record.workflow), "{record:?}");
        let sum: &mut Amounts = sums.get_mut(&record.tenant).expect("there are two");
        for (resource, amount) in &record.holds {
            *sum.entry(resource.clone()).or_default() += amount;
        }
    }
    sums.values_mut().for_each(|sum| sum.retain(|_, amount| *amount > 0));
    assert_eq!(usage, sums.into_values().collect::<Vec<_>>());
    assert!(usage.iter().all(|used| used.get(&"memory_bytes".into()).is_none_or(|used| *used <= 100)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn two_stores_agree_on_random_appends_also_across_restarts(batches in wishes(), reopened_after in 0..40usize) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut disk = DurableStore::open(&small(dir.path())).expect("it opens").0;
        let mut memory = MemoryStore::opened_at(NOW);
        for (nth, batch) in batches.into_iter().enumerate() {
            let appends: Vec<Append> = batch
                .into_iter()
                .map(|Wish { number, off, facts }| {
                    let workflow = id(number);
                    let at = memory.workflow(workflow).expect("it reads").len() as u64;
                    let expected = Sequence(at.saturating_add_signed(off));
                    let quota = amounts(&[("memory_bytes", 100)]);
                    Append { workflow, expected, token: memory.token(), facts, quota }
                })
                .collect();
            let answers = disk.commit(appends.clone(), NOW).expect("the store works");
            assert_eq!(answers, memory.commit(appends, NOW).expect("the store works"));
            if nth == reopened_after {
                drop(disk);
                disk = DurableStore::open(&small(dir.path())).expect("it opens").0;
                memory = memory.reopen_at(NOW);
            }
        }
        agree(&disk, &memory);
    }
}
