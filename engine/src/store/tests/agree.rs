//! Two stores and a plain reference, the same random appends: they answer alike and keep the same.

use proptest::prelude::*;

use crate::{
    fact::{Effect, Fact, OnFailure, Outcome, ParkReason, Submitted},
    ids::{Attempt, CommitNumber, Hash, Sequence},
    store::{
        Append, DurableStore, ListQuery, MemoryStore, Store,
        tests::{
            reference::Reference,
            samples::{
                NOW, amounts, compensated, failed, failure, finished, id, small, started, submitted, succeeded, success,
            },
        },
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
        vec![cancel(true), Fact::Finished { outcome: Outcome::Cancelled, residue: vec!["a claim".to_owned()] }],
    ];
    // More often than not a workflow should get on, and end.
    one.push(vec![started("one"), succeeded("one"), started("two")]);
    one.extend(std::iter::repeat_n(success(), 8));
    one.extend(std::iter::repeat_n(failure(), 3));
    proptest::sample::select(one)
}

fn submission() -> impl Strategy<Value = Vec<Fact>> {
    let effects = proptest::sample::select(vec![Effect::Create, Effect::Create, Effect::Update, Effect::Delete]);
    (effects, 0..2u8, 0..2u8, proptest::option::of(0..4u8), 1..60u64, any::<bool>()).prop_map(
        |(effect, tenant, service, key, memory, keep)| {
            vec![Fact::Submitted(Submitted {
                key: key.map(|key| format!("k{key}").as_str().into()),
                // A deletion names what it leaves, and that is no more than there is.
                holds: match effect {
                    Effect::Delete => amounts(&[("memory_bytes", memory % 2)]),
                    _ => amounts(&[("clusters", 1), ("memory_bytes", memory)]),
                },
                body_hash: Hash([service; 32]),
                on_failure: if keep { OnFailure::Keep } else { OnFailure::Rollback },
                ..submitted(effect, &format!("t{tenant}"), &format!("s{service}"))
            })]
        },
    )
}

/// A workflow from its submission to its end, in one append.
fn life() -> impl Strategy<Value = Vec<Fact>> {
    let lives = proptest::sample::select(vec![success(), success(), failure()]);
    (submission(), lives).prop_map(|(submission, life)| [submission, life].concat())
}

fn wishes() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    let off = proptest::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 1, -1]);
    let facts = prop_oneof![2 => submission(), 3 => facts(), 3 => life()];
    let wish = (0..60u64, off, facts).prop_map(|(number, off, facts)| Wish { number, off, facts });
    proptest::collection::vec(proptest::collection::vec(wish, 1..5), 1..40)
}

/// The tenants, and the keys that they use.
const TENANTS: [&str; 2] = ["t0", "t1"];
const KEYS: [&str; 4] = ["k0", "k1", "k2", "k3"];

fn agree(one: &dyn Store, other: &dyn Store) {
    assert_eq!(one.head(), other.head());
    let all = |store: &dyn Store| {
        let query = ListQuery { limit: 100, ..ListQuery::default() };
        (
            store.commits(CommitNumber(0), usize::MAX).expect("it reads"),
            store.active().expect("it reads"),
            store.list(&query).expect("it reads"),
            store.services(None).expect("it reads"),
        )
    };
    assert_eq!(all(one), all(other));
    let (commits, active, listed, _) = all(one);
    let verified = verify(commits.into_iter().map(Ok)).expect("it is a good journal");
    assert_eq!((verified.active, verified.workflows), (active.len() as u64, listed.len() as u64));
}

/// I22, I24, I26: who is active, what each service holds and each tenant uses, and what each key was used for.
fn is_as_told(store: &dyn Store, reference: &Reference) {
    assert_eq!(store.active().expect("it reads"), reference.active());
    let records = store.services(None).expect("it reads").into_iter();
    let told = records.map(|record| ((record.tenant, record.service), (record.live, record.busy, record.holds)));
    assert_eq!(told.collect::<std::collections::BTreeMap<_, _>>(), reference.told());
    for tenant in TENANTS.map(crate::ids::Tenant::from) {
        let used = store.usage(&tenant).expect("it reads");
        assert_eq!(used, reference.used(&tenant));
        assert!(used.get(&"memory_bytes".into()).is_none_or(|used| *used <= 100), "{used:?}");
        for key in KEYS {
            let found = store.submission(&tenant, &key.into()).expect("it reads");
            let found = found.map(|submission| (submission.workflow, submission.body_hash));
            assert_eq!(found, reference.submission(&tenant, key), "{tenant} {key}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stores_answer_random_appends_alike_and_as_they_must_also_across_restarts(batches in wishes(), reopened_after in 0..40usize) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut disk = DurableStore::open(&small(dir.path())).expect("it opens").0;
        let mut memory = MemoryStore::opened_at(NOW);
        let mut reference = Reference::default();
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
            assert_eq!(answers, memory.commit(appends.clone(), NOW).expect("the store works"));
            appends.iter().zip(&answers).for_each(|(append, answer)| reference.hear(append, answer));
            is_as_told(&memory, &reference);
            if nth == reopened_after {
                drop(disk);
                disk = DurableStore::open(&small(dir.path())).expect("it opens").0;
                memory = memory.reopen_at(NOW);
            }
        }
        agree(&disk, &memory);
        is_as_told(&disk, &reference);
    }
}
