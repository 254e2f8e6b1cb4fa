//! What the durable store does at its edges: locks, formats, full disks, faults, large values, sizes.

use std::{fs, path::Path};

use crate::{
    fact::{Effect, Fact, Outcome, Output, Submitted},
    ids::{Attempt, CommitNumber, Json, StepName},
    journal::keys::Changes,
    store::{
        Append, DurableOptions, DurableStore, Refusal, Store, StoreError, check_index,
        durable::index_dir,
        sled::Indexed,
        tests::samples::{NOW, append, commit_one, finished, id, run, small, started, submit, submitted, success},
    },
};

fn open(dir: &Path) -> DurableStore {
    DurableStore::open(&small(dir)).expect("it opens").0
}

#[test]
fn a_journal_that_is_open_is_not_opened_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    let again = DurableStore::open(&small(dir.path())).expect_err("it is open");
    assert!(again.to_string().contains(&format!("(pid {})", std::process::id())), "{again}");
    assert!(matches!(check_index(dir.path()), Err(StoreError::Locked { .. })));
    drop(store);
    open(dir.path());
}

#[test]
fn a_journal_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(open(dir.path()));
    let path = dir.path().join("log/000001.log");
    let mut bytes = fs::read(&path).expect("it reads");
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..68]).to_le_bytes();
    bytes[68..72].copy_from_slice(&sum);
    // Also where it has another layout, and its sum elsewhere.
    let mut other_layout = bytes.clone();
    other_layout[10..200].fill(0x5a);
    for bytes in [bytes, other_layout] {
        fs::write(&path, &bytes).expect("it takes a write");
        let refused = DurableStore::open(&small(dir.path()));
        assert!(matches!(refused, Err(StoreError::NewerFormat { found: 2, known: 1, .. })));
        assert_eq!(fs::read(&path).expect("it reads"), bytes);
    }
}

#[test]
fn a_directory_that_cannot_be_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("it takes a write");
    let refused = DurableStore::open(&small(&file)).expect_err("it is a file");
    assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");
}

#[test]
fn on_a_full_disk_nothing_new_begins_and_what_runs_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    submit(&store, 1, submitted(Effect::Create, "acme", "search")).expect("there is room");
    drop(store);
    let full = DurableOptions { disk_floor_bytes: u64::MAX, ..small(dir.path()) };
    let (store, _) = DurableStore::open(&full).expect("it opens");
    let batch = vec![
        append(&store, id(2), 0, vec![Fact::Submitted(submitted(Effect::Create, "acme", "other"))]),
        append(&store, id(1), 1, success()),
    ];
    let answers = store.commit(batch, NOW).expect("the store works");
    assert!(matches!(answers[0], Err(Refusal::DiskFull { floor_bytes: u64::MAX, .. })));
    assert_eq!(answers[1].as_ref().map(Vec::len), Ok(5));
    drop(store);
    submit(&open(dir.path()), 2, submitted(Effect::Create, "acme", "other")).expect("there is room again");
}

#[test]
fn on_a_full_disk_a_repeated_submission_is_answered_with_its_workflow() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keyed = |key: &str| Submitted { key: Some(key.into()), ..submitted(Effect::Create, "acme", "search") };
    let store = open(dir.path());
    submit(&store, 1, keyed("used")).expect("there is room");
    drop(store);
    let full = DurableOptions { disk_floor_bytes: u64::MAX, ..small(dir.path()) };
    let (store, _) = DurableStore::open(&full).expect("it opens");
    let head = store.head();
    let other_body = Submitted { body_hash: crate::ids::Hash([9; 32]), ..keyed("used") };
    let batch = [keyed("new"), keyed("used"), other_body, Submitted { tenant: "other".into(), ..keyed("used") }];
    let batch = (2..).zip(batch).map(|(number, it)| append(&store, id(number), 0, vec![Fact::Submitted(it)]));
    let answers = store.commit(batch.collect(), NOW).expect("the store works");
    assert!(matches!(answers[0], Err(Refusal::DiskFull { .. })));
    assert_eq!(answers[1], Err(Refusal::KeyUsed { workflow: id(1), same_body: true }));
    assert_eq!(answers[2], Err(Refusal::KeyUsed { workflow: id(1), same_body: false }));
    assert!(matches!(answers[3], Err(Refusal::DiskFull { .. })), "a key is its tenant's own");
    assert_eq!(store.head(), head, "nothing was recorded");
}

#[test]
fn after_a_failed_write_nothing_more_is_acknowledged_and_a_restart_knows_what_was() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    let mut acknowledged = 0;
    // The next segment cannot be made.
    let log = dir.path().join("log");
    fs::rename(&log, dir.path().join("elsewhere")).expect("it is there");
    let failed = loop {
        let submitted = submitted(Effect::Create, "acme", &format!("s{acknowledged}"));
        let append = append(&store, id(acknowledged), 0, vec![Fact::Submitted(submitted)]);
        match store.commit(vec![append], NOW) {
            Ok(answers) => assert!(answers[0].is_ok()),
            Err(failed) => break failed,
        }
        acknowledged += 1;
    };
    assert!(matches!(failed, StoreError::Io { .. }), "{failed}");
    fs::rename(dir.path().join("elsewhere"), &log).expect("it is there");
    assert!(matches!(store.commit(Vec::new(), NOW), Err(StoreError::Stopped)));
    store.close().expect("there is nothing to lose");
    drop(store);
    assert_eq!(open(dir.path()).active().expect("it reads").len() as u64, acknowledged);
}

#[test]
fn values_at_their_limit_go_through_both_copies() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let large = || Json::of(&"x".repeat(Json::BYTES_MAX - 2)).expect("it fits");
    let store = open(dir.path());
    let input = Submitted { input: large(), ..submitted(Effect::Create, "acme", "search") };
    submit(&store, 1, input).expect("it is admitted");
    for (sequence, step) in [(1, "one"), (3, "two")] {
        let output = Output { message: "m".to_owned(), skipped: false, result: large(), record: Some(large()) };
        let done = Fact::AttemptSucceeded { step: step.into(), attempt: Attempt(1), output };
        commit_one(&store, append(&store, id(1), sequence, vec![started(step), done])).expect("it is admitted");
    }
    commit_one(&store, append(&store, id(1), 5, vec![finished(Outcome::Succeeded)])).expect("it is admitted");
    run(&store, 2, submitted(Effect::Delete, "acme", "search"), success());
    let entries = store.workflow(id(1)).expect("it reads");
    store.close().expect("it comes to rest");
    drop(store);
    assert_eq!(fs::read_dir(dir.path().join("journal/blobs")).expect("it is there").count(), 0);
    assert!(check_index(dir.path()).expect("it reads").differences.is_empty());
    let (store, _) = DurableStore::rebuild(&small(dir.path())).expect("it is made again");
    assert_eq!(store.workflow(id(1)).expect("it reads"), entries);
    assert_eq!(store.service(&"acme".into(), &"search".into()).expect("it reads").and_then(|found| found.record), None);
}

#[test]
fn an_entry_that_is_too_long_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    let long = Submitted { who: "x".repeat(2 << 20).as_str().into(), ..submitted(Effect::Create, "acme", "search") };
    assert!(matches!(submit(&store, 1, long), Err(Refusal::Illegal { .. })));
    submit(&store, 1, submitted(Effect::Create, "acme", "search")).expect("the store goes on");
}

#[test]
fn a_derived_key_that_differs_from_a_rebuild_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    run(&store, 1, submitted(Effect::Create, "acme", "search"), success());
    store.close().expect("it comes to rest");
    drop(store);
    let good = check_index(dir.path()).expect("it reads");
    assert_eq!((good.commits, good.behind, good.differences), (3, 0, vec![]));
    let index = Indexed::open(&index_dir(dir.path())).expect("it opens");
    let changes: [(&[u8], Option<&[u8]>); 3] =
        [(b"qacme\0\0", Some(b"\x01\x00")), (b"aextra", Some(b"")), (b"sacme\0\0search\0\0", None)];
    let changes: Changes = changes.into_iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
    index.apply(&changes).expect("it works");
    index.close().expect("it comes to rest");
    drop(index);
    let check = check_index(dir.path()).expect("it reads");
    let named = [
        "key qacme\\x00\\x00 has another value",
        "key sacme\\x00\\x00search\\x00\\x00 is missing",
        "key aextra should not be there",
    ];
    assert_eq!(check.differences, named);
    let (store, _) = DurableStore::rebuild(&small(dir.path())).expect("it is made again");
    store.close().expect("it comes to rest");
    drop(store);
    assert!(check_index(dir.path()).expect("it reads").differences.is_empty());
}

/// Sled syncs nothing by itself: a power cut may take any of what it wrote last.
#[test]
fn an_index_that_lost_some_of_what_it_wrote_is_made_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    run(&store, 1, submitted(Effect::Create, "acme", "search"), success());
    run(&store, 2, submitted(Effect::Create, "acme", "other"), success());
    drop(store);
    let index = Indexed::open(&index_dir(dir.path())).expect("it opens");
    let lost = Changes::from([(crate::journal::keys::append(id(1), crate::ids::Sequence(1)), None)]);
    index.apply(&lost).expect("it works");
    drop(index);
    let (store, report) = DurableStore::open(&small(dir.path())).expect("it opens");
    assert_eq!(report.rebuilt.as_deref(), Some("commit 2 is another than in the log"));
    assert_eq!(store.workflow(id(1)).expect("it reads").len(), 6);
}

/// Ten steps of nothing, 300 bytes of output each: 22 entries in 12 appends.
fn ten_steps(store: &DurableStore, numbers: std::ops::Range<u64>) {
    let names = [
        "starting",
        "namespace_created",
        "gitlab_pulled",
        "k8s_applied",
        "resources_configured",
        "disk_configured",
        "gpu_configured",
        "rollout_completed",
        "tenant_synced",
        "completed",
    ]
    .map(StepName::new);
    let first = |step: usize| Fact::AttemptStarted { step: names[step].clone(), attempt: Attempt(1) };
    let done = |step: usize| {
        let output = Output::new("applied 5 objects", &"x".repeat(280)).expect("it fits");
        Fact::AttemptSucceeded { step: names[step].clone(), attempt: Attempt(1), output }
    };
    let mut groups = vec![];
    for number in numbers.clone() {
        let submitted = submitted(Effect::Create, "acme", &format!("service-{number}"));
        groups.push((number, vec![vec![Fact::Submitted(Submitted { steps: names.to_vec(), ..submitted })]]));
        let gains = &mut groups.last_mut().expect("pushed just now").1;
        gains.push(vec![first(0)]);
        gains.extend((0..9).map(|step| vec![done(step), first(step + 1)]));
        gains.push(vec![done(9), finished(Outcome::Succeeded)]);
    }
    for nth in 0..12 {
        let sequence = [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20][nth];
        let appends: Vec<Append> =
            groups.iter().map(|(number, gains)| append(store, id(*number), sequence, gains[nth].clone())).collect();
        assert!(store.commit(appends, NOW).expect("the store works").iter().all(Result::is_ok));
    }
}

#[test]
fn a_workflow_of_ten_steps_takes_less_than_six_kibibytes_of_log_alone_and_five_in_company() {
    let logged = |dir: &Path| -> usize {
        let mut total = 0;
        for (_, path) in crate::store::log::segments_of(dir).expect("it reads") {
            total += crate::store::log::frames_of(&fs::read(path).expect("it reads"))
                .iter()
                .map(|(_, range)| range.len())
                .sum::<usize>();
        }
        total
    };
    for (at_once, bytes_max) in [(1, 6 * 1024), (64, 5 * 1024)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = open(dir.path());
        let before = logged(dir.path());
        ten_steps(&store, 0..at_once);
        let bytes = (logged(dir.path()) - before) / at_once as usize;
        println!("{at_once} at once: {bytes} bytes of log a workflow");
        assert!(bytes < bytes_max, "{bytes}");
        assert_eq!(store.head().0, CommitNumber(13));
        store.close().expect("it comes to rest");
    }
}

#[test]
fn room_can_be_had_before_a_journal_is_opened_and_one_that_is_open_is_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ballast = dir.path().join("ballast");
    // No disk is that large: it is short of room, whatever it has.
    let short = DurableOptions { segment_bytes: u64::MAX, disk_floor_bytes: u64::MAX, ..small(dir.path()) };
    fs::write(&ballast, "room").expect("written");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("opens");
    DurableStore::make_room(&short).expect("looks");
    assert!(ballast.exists());
    store.close().expect("closes");
    drop(store);
    DurableStore::make_room(&short).expect("looks");
    assert!(!ballast.exists());
    DurableStore::open(&small(dir.path())).expect("its lock is free again");
}
