//! What every store must do, run on each.

use crate::{
    fact::{Amounts, Effect, Fact, OnFailure, Outcome, ParkReason, Submitted},
    ids::{Attempt, CommitNumber, FencingToken, Json, Sequence},
    store::{
        Append, DurableStore, ListQuery, MemoryStore, Refusal, ServiceRecord, ServiceStatus, Store,
        tests::samples::{
            NOW, amounts, append, commit_one, failed, failure, finished, id, run, small, started, submit, submitted,
            succeeded, success, used,
        },
        verify,
    },
};

/// Opens stores of one kind.
trait Bench {
    type Opened: Store;
    fn open(&self) -> Self::Opened;
    /// The same data, after a restart.
    fn reopen(&self, store: Self::Opened) -> Self::Opened;
}

struct InMemory;

impl Bench for InMemory {
    type Opened = MemoryStore;

    fn open(&self) -> MemoryStore {
        MemoryStore::new()
    }

    fn reopen(&self, store: MemoryStore) -> MemoryStore {
        store.reopen()
    }
}

struct OnDisk(tempfile::TempDir);

impl OnDisk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }
}

impl Bench for OnDisk {
    type Opened = DurableStore;

    fn open(&self) -> DurableStore {
        DurableStore::open(&small(self.0.path())).expect("it opens").0
    }

    fn reopen(&self, store: DurableStore) -> DurableStore {
        drop(store);
        self.open()
    }
}

macro_rules! on_every_store {
    ($($test:ident)*) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&super::InMemory); })*
        }
        mod durable {
            $(#[test] fn $test() { super::$test(&super::OnDisk::new()); })*
        }
    };
}

on_every_store! {
    an_opening_is_an_empty_commit_with_the_next_token
    what_was_appended_is_read_back_and_verifies
    an_append_after_another_sequence_is_refused_with_the_actual_one
    an_append_of_an_older_opening_is_refused
    an_illegal_fact_leaves_nothing_of_its_append
    later_appends_of_a_batch_see_the_earlier_ones
    a_creation_that_succeeds_is_created_and_holds_its_quota
    a_creation_that_fails_is_gone_and_its_record_says_why
    a_creation_that_is_kept_holds_its_quota_and_can_be_retried
    a_forced_end_that_leaves_something_behind_holds_its_quota_until_a_deletion
    an_update_reserves_the_larger_amounts_and_goes_back_when_it_fails
    a_deletion_frees_the_quota_and_a_failed_one_changes_nothing
    what_a_deletion_keeps_is_held_until_it_is_deleted_or_a_creation_has_taken_it_over
    a_deletion_that_stops_half_way_says_why_and_goes_on_when_it_is_retried
    a_change_that_is_ended_by_force_holds_the_larger_amounts
    a_service_is_taken_while_it_lives_or_a_workflow_works_on_it
    of_twenty_submissions_at_once_for_one_service_one_wins
    of_twenty_submissions_at_once_with_one_key_one_wins
    concurrent_submissions_never_exceed_the_quota
    a_sum_that_cannot_be_counted_is_refused
    a_record_of_null_is_no_record
    lists_come_newest_first_in_pages
    a_restart_keeps_everything
    commits_come_in_pages
    a_clock_that_goes_back_leaves_the_times_in_order
}

fn create(tenant: &str, service: &str) -> Submitted {
    submitted(Effect::Create, tenant, service)
}

fn record(store: &dyn Store, tenant: &str, service: &str) -> ServiceRecord {
    store.service(&tenant.into(), &service.into()).expect("it reads").expect("it has a record")
}

const HELD: [(&str, u64); 2] = [("clusters", 1), ("memory_bytes", 100)];

fn held() -> Vec<(String, u64)> {
    HELD.iter().map(|(resource, amount)| ((*resource).to_owned(), *amount)).collect()
}

fn an_opening_is_an_empty_commit_with_the_next_token(bench: &impl Bench) {
    let store = bench.open();
    assert_eq!((store.token(), store.head().0), (FencingToken(1), CommitNumber(1)));
    let store = bench.reopen(store);
    assert_eq!((store.token(), store.head().0), (FencingToken(2), CommitNumber(2)));
    assert!(store.commits(CommitNumber(0), 9).expect("it reads").iter().all(|commit| commit.entries.is_empty()));
}

fn what_was_appended_is_read_back_and_verifies(bench: &impl Bench) {
    let store = bench.open();
    let mut entries = submit(&store, 1, create("acme", "search")).expect("it is admitted");
    for fact in success() {
        let expected = entries.len() as u64;
        let gained = commit_one(&store, append(&store, id(1), expected, vec![fact])).expect("it is admitted");
        entries.extend(gained);
    }
    assert_eq!(store.workflow(id(1)).expect("it reads"), entries);
    assert_eq!(entries.iter().map(|entry| entry.sequence.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    let verified = verify(commits.iter().cloned().map(Ok)).expect("it is a good journal");
    assert_eq!((verified.entries, verified.workflows, verified.active), (6, 1, 0));
    assert_eq!(verified.head, store.head());
    assert!(store.workflow(id(2)).expect("it reads").is_empty());
}

fn an_append_after_another_sequence_is_refused_with_the_actual_one(bench: &impl Bench) {
    let store = bench.open();
    submit(&store, 1, create("acme", "search")).expect("it is admitted");
    for expected in [0, 2] {
        let refused = commit_one(&store, append(&store, id(1), expected, vec![started("one")]));
        let (workflow, actual) = (id(1), Sequence(1));
        assert_eq!(refused, Err(Refusal::Sequence { workflow, expected: Sequence(expected), actual }));
    }
    let refused = commit_one(&store, append(&store, id(2), 1, vec![started("one")]));
    assert!(matches!(refused, Err(Refusal::Sequence { actual: Sequence(0), .. })));
    assert_eq!(store.head().0, CommitNumber(2), "what is refused makes no commit");
}

fn an_append_of_an_older_opening_is_refused(bench: &impl Bench) {
    let store = bench.open();
    let old = append(&store, id(1), 0, vec![Fact::Submitted(create("acme", "search"))]);
    let store = bench.reopen(store);
    let refused = commit_one(&store, old);
    assert_eq!(refused, Err(Refusal::Fenced { token: FencingToken(1), current: FencingToken(2) }));
}

fn an_illegal_fact_leaves_nothing_of_its_append(bench: &impl Bench) {
    let store = bench.open();
    let facts = vec![Fact::Submitted(create("acme", "search")), succeeded("one")];
    assert!(matches!(commit_one(&store, append(&store, id(1), 0, facts)), Err(Refusal::Illegal { .. })));
    assert_eq!(store.service(&"acme".into(), &"search".into()).expect("it reads"), None);
    assert!(store.active().expect("it reads").is_empty() && used(&store, "acme").is_empty());

    submit(&store, 1, create("acme", "search")).expect("it is admitted");
    for facts in [vec![], vec![started("one"), started("one")], vec![succeeded("one")]] {
        assert!(matches!(commit_one(&store, append(&store, id(1), 1, facts)), Err(Refusal::Illegal { .. })));
    }
    assert_eq!(store.workflow(id(1)).expect("it reads").len(), 1);
    commit_one(&store, append(&store, id(1), 1, success())).expect("it is admitted");
    let after_the_end = commit_one(&store, append(&store, id(1), 6, vec![started("one")]));
    assert!(matches!(after_the_end, Err(Refusal::Illegal { .. })));
    let without_submitted = commit_one(&store, append(&store, id(2), 0, vec![started("one")]));
    assert!(matches!(without_submitted, Err(Refusal::Illegal { .. })));
}

fn later_appends_of_a_batch_see_the_earlier_ones(bench: &impl Bench) {
    let store = bench.open();
    let batch = vec![
        append(&store, id(1), 0, vec![Fact::Submitted(create("acme", "search"))]),
        append(&store, id(1), 1, vec![started("one"), started("two")]),
        append(&store, id(1), 1, vec![started("one")]),
        append(&store, id(2), 0, vec![Fact::Submitted(create("acme", "search"))]),
        append(&store, id(1), 2, vec![succeeded("one")]),
    ];
    let answers = store.commit(batch, NOW).expect("the store works");
    assert!(answers[0].is_ok() && answers[2].is_ok() && answers[4].is_ok());
    assert!(matches!(answers[1], Err(Refusal::Illegal { .. })));
    assert!(matches!(answers[3], Err(Refusal::ServiceTaken { .. })));
    assert_eq!(store.workflow(id(1)).expect("it reads").len(), 3);
    assert_eq!(store.head().0, CommitNumber(2));
}

fn a_creation_that_succeeds_is_created_and_holds_its_quota(bench: &impl Bench) {
    let store = bench.open();
    submit(&store, 1, create("acme", "search")).expect("it is admitted");
    let creating = record(&store, "acme", "search");
    assert_eq!((creating.status, creating.live, creating.busy), (ServiceStatus::Creating, true, true));
    assert_eq!((store.active().expect("it reads"), used(&store, "acme")), (vec![id(1)], held()));

    let mut facts = success();
    if let Fact::AttemptSucceeded { output, .. } = &mut facts[3] {
        output.record = Some(Json::of("endpoint").expect("it is JSON"));
    }
    let later = NOW.after(std::time::Duration::from_micros(9));
    store.commit(vec![append(&store, id(1), 1, facts)], later).expect("the store works");
    let created = record(&store, "acme", "search");
    assert_eq!((created.status, created.live, created.busy), (ServiceStatus::Created, true, false));
    assert_eq!((created.created, created.updated), (NOW, later));
    assert_eq!(created.record, Some(Json::of("endpoint").expect("it is JSON")));
    assert_eq!((store.active().expect("it reads"), used(&store, "acme")), (vec![], held()));
    let listed = store.list(&ListQuery { limit: 9, ..ListQuery::default() }).expect("it reads");
    assert_eq!(listed[0].outcome, Some(Outcome::Succeeded));
}

fn a_creation_that_fails_is_gone_and_its_record_says_why(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, create("acme", "search"), failure());
    let gone = record(&store, "acme", "search");
    assert_eq!((gone.status, gone.live, gone.busy), (ServiceStatus::Failed, false, false));
    assert_eq!((gone.error.as_deref(), gone.record), (Some("one: no one today"), None));
    assert!(used(&store, "acme").is_empty());
    submit(&store, 2, create("acme", "search")).expect("it may be made again");
}

fn a_creation_that_is_kept_holds_its_quota_and_can_be_retried(bench: &impl Bench) {
    let store = bench.open();
    let keep = Submitted { on_failure: OnFailure::Keep, ..create("acme", "search") };
    let facts = vec![started("one"), failed("one"), Fact::Parked { reason: ParkReason::Kept }];
    run(&store, 1, keep, facts);
    let kept = record(&store, "acme", "search");
    assert_eq!((kept.status, kept.live, kept.busy), (ServiceStatus::Failed, true, true));
    assert_eq!((kept.error.as_deref(), used(&store, "acme")), (Some("one: no one today"), held()));

    let retry = Fact::RetryRequested { who: "alice".into() };
    commit_one(&store, append(&store, id(1), 4, vec![retry])).expect("it is admitted");
    let again = record(&store, "acme", "search");
    assert_eq!((again.status, again.error), (ServiceStatus::Creating, None));
    assert_eq!(used(&store, "acme"), held());
}

fn a_forced_end_that_leaves_something_behind_holds_its_quota_until_a_deletion(bench: &impl Bench) {
    let store = bench.open();
    let force = Fact::CancelRequested { who: "alice".into(), force: true };
    let end = Fact::Finished { outcome: Outcome::Cancelled, residue: vec!["Namespace/acme--search".to_owned()] };
    run(&store, 1, create("acme", "search"), vec![started("one"), force, end]);
    let left = record(&store, "acme", "search");
    assert_eq!((left.status, left.live, left.busy), (ServiceStatus::Failed, true, false));
    assert_eq!(used(&store, "acme"), held());
    run(&store, 2, submitted(Effect::Delete, "acme", "search"), success());
    assert_eq!(record(&store, "acme", "search").status, ServiceStatus::Deleted);
    assert!(used(&store, "acme").is_empty());
}

fn an_update_reserves_the_larger_amounts_and_goes_back_when_it_fails(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, create("acme", "search"), success());
    let before = record(&store, "acme", "search");
    let change = Submitted {
        holds: amounts(&[("clusters", 1), ("memory_bytes", 40), ("gpus", 2)]),
        input: Json::of("changed").expect("it is JSON"),
        ..submitted(Effect::Update, "acme", "search")
    };
    let both = amounts(&[("clusters", 1), ("memory_bytes", 100), ("gpus", 2)]);

    submit(&store, 2, change.clone()).expect("it is admitted");
    let updating = record(&store, "acme", "search");
    assert_eq!(
        (updating.status, updating.holds, &updating.input),
        (ServiceStatus::Updating, both.clone(), &before.input)
    );
    assert_eq!(store.usage(&"acme".into()).expect("it reads"), both);
    commit_one(&store, append(&store, id(2), 1, failure())).expect("it is admitted");
    let back = record(&store, "acme", "search");
    assert_eq!((back.status, back.holds, back.input), (ServiceStatus::Created, before.holds, before.input));
    assert_eq!(back.error.as_deref(), Some("one: no one today"));
    assert_eq!(used(&store, "acme"), held());

    run(&store, 3, change.clone(), success());
    let changed = record(&store, "acme", "search");
    assert_eq!((changed.status, changed.busy, changed.error), (ServiceStatus::Created, false, None));
    assert_eq!((changed.holds, changed.input), (change.holds.clone(), change.input));
    assert_eq!(store.usage(&"acme".into()).expect("it reads"), change.holds);
}

fn a_deletion_frees_the_quota_and_a_failed_one_changes_nothing(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, create("acme", "search"), success());
    submit(&store, 2, submitted(Effect::Delete, "acme", "search")).expect("it is admitted");
    assert_eq!(record(&store, "acme", "search").status, ServiceStatus::Deleting);
    commit_one(&store, append(&store, id(2), 1, failure())).expect("it is admitted");
    let back = record(&store, "acme", "search");
    assert_eq!((back.status, back.live, back.busy), (ServiceStatus::Created, true, false));
    assert_eq!(used(&store, "acme"), held());

    run(&store, 3, submitted(Effect::Delete, "acme", "search"), success());
    let gone = record(&store, "acme", "search");
    assert_eq!((gone.status, gone.live, gone.holds), (ServiceStatus::Deleted, false, Amounts::new()));
    assert!(used(&store, "acme").is_empty());
    let again = submit(&store, 4, submitted(Effect::Delete, "acme", "search"));
    assert!(matches!(again, Err(Refusal::NoSuchService { .. })));
}

fn what_a_deletion_keeps_is_held_until_it_is_deleted_or_a_creation_has_taken_it_over(bench: &impl Bench) {
    let store = bench.open();
    let kept = amounts(&[("disk_bytes", 50)]);
    let keeping = Submitted { holds: kept.clone(), ..submitted(Effect::Delete, "acme", "search") };
    run(&store, 1, create("acme", "search"), success());
    run(&store, 2, keeping, success());
    let deleted = record(&store, "acme", "search");
    assert_eq!((deleted.status, deleted.live, deleted.holds), (ServiceStatus::Deleted, false, kept.clone()));
    assert_eq!(store.usage(&"acme".into()).expect("it reads"), kept);
    let change = submit(&store, 3, submitted(Effect::Update, "acme", "search"));
    assert!(matches!(change, Err(Refusal::NoSuchService { .. })), "it does not live");

    // What is kept is not asked for once more, and a creation that fails leaves it as it was.
    let again = Submitted { holds: amounts(&[("clusters", 1), ("disk_bytes", 60)]), ..create("acme", "search") };
    let quota = amounts(&[("disk_bytes", 60)]);
    let facts = vec![Fact::Submitted(again.clone())];
    commit_one(&store, Append { quota, ..append(&store, id(3), 0, facts) }).expect("it is admitted");
    assert_eq!(store.usage(&"acme".into()).expect("it reads"), again.holds);
    commit_one(&store, append(&store, id(3), 1, failure())).expect("it is admitted");
    let failed = record(&store, "acme", "search");
    assert_eq!((failed.status, failed.live, failed.holds), (ServiceStatus::Failed, false, kept));

    run(&store, 4, again.clone(), success());
    assert_eq!(record(&store, "acme", "search").holds, again.holds);
    let keeping = Submitted { holds: amounts(&[("disk_bytes", 60)]), ..submitted(Effect::Delete, "acme", "search") };
    run(&store, 5, keeping, success());
    run(&store, 6, submitted(Effect::Delete, "acme", "search"), success());
    assert!(used(&store, "acme").is_empty());
    let again = submit(&store, 7, submitted(Effect::Delete, "acme", "search"));
    assert!(matches!(again, Err(Refusal::NoSuchService { .. })));
}

fn a_deletion_that_stops_half_way_says_why_and_goes_on_when_it_is_retried(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, create("acme", "search"), success());
    let deletion = Submitted { on_failure: OnFailure::Keep, ..submitted(Effect::Delete, "acme", "search") };
    run(&store, 2, deletion, vec![started("one"), failed("one"), Fact::Parked { reason: ParkReason::Kept }]);
    let parked = record(&store, "acme", "search");
    assert_eq!((parked.status, parked.live, parked.busy), (ServiceStatus::Deleting, true, true));
    assert_eq!((parked.error.as_deref(), used(&store, "acme")), (Some("one: no one today"), held()));
    let retry = Fact::RetryRequested { who: "alice".into() };
    commit_one(&store, append(&store, id(2), 4, vec![retry])).expect("it is admitted");
    let again = record(&store, "acme", "search");
    assert_eq!((again.status, again.error), (ServiceStatus::Deleting, None));
    let force = Fact::CancelRequested { who: "alice".into(), force: true };
    let end = Fact::Finished { outcome: Outcome::Cancelled, residue: vec!["Namespace/acme--search".to_owned()] };
    commit_one(&store, append(&store, id(2), 5, vec![force, end])).expect("it is admitted");
    let left = record(&store, "acme", "search");
    assert_eq!((left.status, left.live, left.busy), (ServiceStatus::Failed, true, false));
    assert_eq!(used(&store, "acme"), held());
}

fn a_change_that_is_ended_by_force_holds_the_larger_amounts(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, create("acme", "search"), success());
    let before = record(&store, "acme", "search");
    let holds = amounts(&[("clusters", 1), ("memory_bytes", 300)]);
    let change = Submitted { holds: holds.clone(), ..submitted(Effect::Update, "acme", "search") };
    let force = Fact::CancelRequested { who: "alice".into(), force: true };
    let end = Fact::Finished { outcome: Outcome::Cancelled, residue: vec!["a claim".to_owned()] };
    run(&store, 2, change, vec![started("one"), force, end]);
    let after = record(&store, "acme", "search");
    assert_eq!((after.status, after.live, after.busy), (ServiceStatus::Created, true, false));
    assert_eq!((after.input, after.holds), (before.input, holds));
}

fn a_service_is_taken_while_it_lives_or_a_workflow_works_on_it(bench: &impl Bench) {
    let store = bench.open();
    let absent = submit(&store, 9, submitted(Effect::Update, "acme", "search"));
    assert_eq!(absent, Err(Refusal::NoSuchService { tenant: "acme".into(), service: "search".into() }));
    submit(&store, 1, create("acme", "search")).expect("it is admitted");
    let taken = Err(Refusal::ServiceTaken { tenant: "acme".into(), service: "search".into(), workflow: id(1) });
    for effect in [Effect::Create, Effect::Update, Effect::Delete] {
        assert_eq!(submit(&store, 9, submitted(effect, "acme", "search")), taken);
    }
    commit_one(&store, append(&store, id(1), 1, success())).expect("it is admitted");
    assert_eq!(submit(&store, 9, create("acme", "search")), taken);
    submit(&store, 2, create("acme", "other")).expect("another service is free");
    submit(&store, 3, create("other", "search")).expect("another tenant's is free");
    let services: Vec<_> = store.services(None).expect("it reads").into_iter().map(|record| record.workflow).collect();
    assert_eq!(services, [id(2), id(1), id(3)]);
    assert_eq!(store.services(Some(&"acme".into())).expect("it reads").len(), 2);
}

/// What twenty threads are answered that submit at once.
fn twenty_at_once(store: &impl Store, submission: impl Fn(u64) -> Submitted + Sync, quota: &Amounts) -> Vec<Refusal> {
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=20)
            .map(|number| {
                let submission = &submission;
                scope.spawn(move || {
                    let facts = vec![Fact::Submitted(submission(number))];
                    commit_one(store, Append { quota: quota.clone(), ..append(store, id(number), 0, facts) })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    answers.into_iter().filter_map(Result::err).collect()
}

fn of_twenty_submissions_at_once_for_one_service_one_wins(bench: &impl Bench) {
    let store = bench.open();
    let refused = twenty_at_once(&store, |_| create("acme", "search"), &Amounts::new());
    let winner = record(&store, "acme", "search").workflow;
    assert_eq!(refused.len(), 19);
    assert!(
        refused.iter().all(|refusal| matches!(refusal, Refusal::ServiceTaken { workflow, .. } if *workflow == winner))
    );
    assert_eq!(used(&store, "acme"), held());
}

fn of_twenty_submissions_at_once_with_one_key_one_wins(bench: &impl Bench) {
    let store = bench.open();
    let keyed = |number: u64| Submitted { key: Some("k".into()), ..create("acme", &format!("s{number}")) };
    let refused = twenty_at_once(&store, keyed, &Amounts::new());
    let winner = store.submission(&"acme".into(), &"k".into()).expect("it reads").expect("one has won");
    let (workflow, same_body) = (winner.workflow, true);
    assert_eq!(refused, vec![Refusal::KeyUsed { workflow, same_body }; 19]);

    let other_body = Submitted { body_hash: Default::default(), ..keyed(30) };
    assert_eq!(submit(&store, 30, other_body), Err(Refusal::KeyUsed { workflow, same_body: false }));
    let other_tenant = Submitted { key: Some("k".into()), ..create("other", "s") };
    submit(&store, 31, other_tenant).expect("another tenant's key is another");
}

fn concurrent_submissions_never_exceed_the_quota(bench: &impl Bench) {
    let store = bench.open();
    let quota = amounts(&[("memory_bytes", 350)]);
    let refused = twenty_at_once(&store, |number| create("acme", &format!("s{number}")), &quota);
    assert_eq!(refused.len(), 17);
    let (tenant, resource) = ("acme".into(), "memory_bytes".into());
    assert_eq!(refused[0], Refusal::Quota { tenant, resource, used: 300, asked: 100, limit: 350 });
    assert_eq!(store.usage(&"acme".into()).expect("it reads"), amounts(&[("clusters", 3), ("memory_bytes", 300)]));
}

fn a_sum_that_cannot_be_counted_is_refused(bench: &impl Bench) {
    let store = bench.open();
    let huge = |service| Submitted { holds: amounts(&[("memory_bytes", u64::MAX)]), ..create("acme", service) };
    submit(&store, 1, huge("one")).expect("no limit is given");
    assert!(matches!(submit(&store, 2, huge("two")), Err(Refusal::Quota { used: u64::MAX, asked: u64::MAX, .. })));
}

fn a_record_of_null_is_no_record(bench: &impl Bench) {
    let store = bench.open();
    let mut facts = success();
    if let Fact::AttemptSucceeded { output, .. } = &mut facts[1] {
        output.record = Some(Json::null());
    }
    submit(&store, 1, create("acme", "search")).expect("it is admitted");
    let entries = commit_one(&store, append(&store, id(1), 1, facts)).expect("it is admitted");
    assert_eq!(store.workflow(id(1)).expect("it reads")[1..], entries);
    assert_eq!(record(&store, "acme", "search").record, None);
}

fn lists_come_newest_first_in_pages(bench: &impl Bench) {
    let store = bench.open();
    for number in 1..=9 {
        let (tenant, service) = (["a", "b", "c"][number as usize % 3], format!("s{}", number / 4));
        // One that failed leaves its service free.
        run(&store, number, create(tenant, &service), failure());
    }
    let page = |tenant: Option<&str>, service: Option<&str>, before: Option<u64>, limit| {
        let (tenant, service) = (tenant.map(Into::into), service.map(Into::into));
        let found = store.list(&ListQuery { tenant, service, before: before.map(id), limit }).expect("it reads");
        found
            .into_iter()
            .map(|listed| u64::from_be_bytes(listed.workflow.as_bytes()[8..].try_into().expect("eight")))
            .collect::<Vec<_>>()
    };
    assert_eq!(page(None, None, None, 4), [9, 8, 7, 6]);
    assert_eq!(page(None, None, Some(6), 99), [5, 4, 3, 2, 1]);
    assert_eq!(page(Some("b"), None, None, 2), [7, 4]);
    assert_eq!(page(Some("b"), None, Some(4), 2), [1]);
    assert_eq!(page(Some("b"), Some("s1"), None, 9), [7, 4]);
    assert_eq!(page(None, Some("s1"), Some(7), 2), [6, 5]);
    assert!(page(Some("d"), None, None, 9).is_empty() && page(None, None, None, 0).is_empty());
}

fn a_restart_keeps_everything(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, Submitted { key: Some("k".into()), ..create("acme", "search") }, success());
    submit(&store, 2, create("acme", "other")).expect("it is admitted");
    commit_one(&store, append(&store, id(2), 1, vec![started("one")])).expect("it is admitted");
    let all = |store: &dyn Store| {
        let query = ListQuery { limit: 9, ..ListQuery::default() };
        (
            store.workflow(id(1)).expect("it reads"),
            store.active().expect("it reads"),
            store.list(&query).expect("it reads"),
            store.services(None).expect("it reads"),
            store.usage(&"acme".into()).expect("it reads"),
            store.submission(&"acme".into(), &"k".into()).expect("it reads"),
        )
    };
    let before = all(&store);
    store.close().expect("it comes to rest");
    let store = bench.reopen(store);
    assert_eq!(all(&store), before);
    let failed =
        Fact::AttemptSucceeded { step: "one".into(), attempt: Attempt(2), output: crate::fact::Output::skipped("x") };
    assert!(matches!(commit_one(&store, append(&store, id(2), 2, vec![failed])), Err(Refusal::Illegal { .. })));
    let force = Fact::CancelRequested { who: "alice".into(), force: true };
    let end = vec![force, finished(Outcome::Cancelled)];
    commit_one(&store, append(&store, id(2), 2, end)).expect("it goes on");
    let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    assert_eq!(verify(commits.into_iter().map(Ok)).expect("it is a good journal").token, FencingToken(2));
}

fn commits_come_in_pages(bench: &impl Bench) {
    let store = bench.open();
    run(&store, 1, create("acme", "search"), success());
    let numbers = |after, max| {
        let commits = store.commits(CommitNumber(after), max).expect("it reads");
        commits.into_iter().map(|commit| commit.number.0).collect::<Vec<_>>()
    };
    assert_eq!((numbers(0, 2), numbers(2, 9), numbers(3, 9), numbers(9, 9)), (vec![1, 2], vec![3], vec![], vec![]));
}

fn a_clock_that_goes_back_leaves_the_times_in_order(bench: &impl Bench) {
    let store = bench.open();
    let later = NOW.after(std::time::Duration::from_secs(3600));
    let submission = append(&store, id(1), 0, vec![Fact::Submitted(create("acme", "search"))]);
    store.commit(vec![submission], later).expect("the store works");
    let store = bench.reopen(store);
    commit_one(&store, append(&store, id(1), 1, success())).expect("it is admitted");
    let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    assert!(commits.is_sorted_by_key(|commit| commit.time));
    assert_eq!(commits.last().map(|commit| commit.time), Some(later));
}
