//! Reading the log in place: no lock, no change, also beside a running engine; and an export that verifies alone.

use std::fs;

use crate::{
    entry::{Commit, Entry},
    fact::Effect,
    ids::{CommitNumber, Json},
    journal::chain::BadPlace,
    store::{
        DurableStore, LogReader, MemoryStore, Store, Verifier,
        log::frames_of,
        tests::samples::{failure, run, small, submitted, success},
        verify,
    },
};

fn some_commits() -> Vec<Commit> {
    let store = MemoryStore::new();
    let mut submitted = submitted(Effect::Create, "acme", "search");
    // What a parsed value would not give back.
    submitted.input = Json::parse(br#"{"z": 1.50, "a": 12345678901234567890123, "e": 1e2}"#).expect("it is JSON");
    run(&store, 1, submitted.clone(), failure());
    let store = store.reopen();
    submitted.service = "other".into();
    run(&store, 2, submitted, success());
    store.commits(CommitNumber(0), usize::MAX).expect("it reads")
}

fn checked(commits: &[Commit]) -> Result<(), BadPlace> {
    verify(commits.iter().cloned().map(Ok)).map(drop)
}

#[test]
fn an_export_of_a_commit_a_line_verifies_alone() {
    let commits = some_commits();
    let lines: Vec<String> = commits.iter().map(|commit| serde_json::to_string(commit).expect("it is JSON")).collect();
    assert!(lines.iter().all(|line| !line.contains('\n')));
    let read: Vec<Commit> = lines.iter().map(|line| serde_json::from_str(line).expect("it is a commit")).collect();
    assert_eq!(read, commits);
    checked(&read).expect("it is a good journal");
}

#[test]
fn whatever_is_changed_in_an_export_the_first_bad_place_is_named() {
    let good = some_commits();
    let with = |change: &dyn Fn(&mut Vec<Commit>)| {
        let mut commits = good.clone();
        change(&mut commits);
        checked(&commits).expect_err("it was changed").to_string()
    };
    let entry = |at: usize| format!("commit 3, entry {} of workflow {}", at + 2, good[2].entries[at].workflow);
    assert!(with(&|it| drop(it.remove(2))).starts_with("commit 4: it follows commit 2: what was between is missing"));
    assert!(with(&|it| it.insert(2, it[1].clone())).starts_with("commit 2: it follows commit 2: it is repeated"));
    assert!(with(&|it| it.swap(1, 2)).starts_with("commit 3: it follows commit 1"));
    assert!(with(&|it| drop(it.remove(0))).starts_with("commit 2: it follows commit 0"));
    assert!(with(&|it| drop(it[2].entries.remove(1))).starts_with(&entry(2)));
    assert!(with(&|it| drop(it[2].entries.pop())).starts_with("commit 3: its hash"));
    assert!(with(&|it| it[2].entries.swap(1, 2)).starts_with(&entry(2)));
    assert!(with(&|it| it[2].entries[1].fact = it[2].entries[0].fact.clone()).starts_with(&entry(1)));
    assert!(
        with(&|it| it[2].entries[1].time = it[2].entries[1].time.after(std::time::Duration::from_micros(1)))
            .starts_with(&entry(1))
    );
    assert!(with(&|it| it[2].entries[1].hash.0[0] ^= 1).starts_with(&entry(1)));
    assert!(with(&|it| it[2].entries[1].previous.0[0] ^= 1).starts_with(&entry(1)));
    assert!(with(&|it| it[2].hash.0[0] ^= 1).starts_with("commit 3: its hash"));
    assert!(with(&|it| it[3].token = it[2].token).starts_with("commit 4: its hash"));
    assert!(with(&|it| it[4].token.0 -= 1).starts_with("commit 5: its fencing token is 1, after 2"));
    assert!(with(&|it| it[3].token.0 += 1).starts_with("commit 4: its fencing token is 3, after 1"));
}

/// What is said of an entry that somebody has forged, given it and the one before; its hash is right, as a bug or a forger
/// would write it.
fn said_of_forged(forge: impl FnOnce(&mut Entry, &Entry)) -> (Entry, BadPlace) {
    let good = some_commits();
    let mut verifier = Verifier::default();
    for commit in &good[..2] {
        verifier.check(commit).expect("it is good");
    }
    let mut commit = good[2].clone();
    commit.entries.truncate(2);
    let before = commit.entries[0].clone();
    let entry = &mut commit.entries[1];
    forge(entry, &before);
    let bytes = crate::journal::codec::encode_fact(&entry.fact).expect("it fits");
    let Entry { workflow, sequence, token, time, previous, .. } = *entry;
    entry.hash = crate::journal::chain::entry_hash(workflow, sequence, token, time, previous, 1, &bytes);
    let forged = entry.clone();
    (forged, verifier.check(&commit).expect_err("it may not follow"))
}

#[test]
fn a_good_chain_of_facts_that_may_not_follow_is_named() {
    let (forged, bad) = said_of_forged(|entry, before| entry.fact = before.fact.clone());
    assert_eq!(bad.entry, Some((forged.workflow, forged.sequence)));
    assert!(bad.detail.starts_with("attempt_started may not follow here"), "{bad}");
}

/// I27: who forges an entry can make its hash right, and that of its commit; not that of what stood before it.
#[test]
fn an_entry_that_does_not_follow_the_one_before_is_named_although_its_hash_is_right() {
    let (_, bad) = said_of_forged(|entry, _| entry.previous.0[0] ^= 1);
    assert!(bad.to_string().contains("the previous hash is another"), "{bad}");
}

#[test]
fn a_log_is_read_while_it_grows_over_segments() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
    let mut reader = LogReader::open(dir.path()).expect("it reads");
    let writer = std::thread::spawn(move || {
        for number in 1..=40 {
            run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
        }
        store.commits(CommitNumber(0), usize::MAX).expect("it reads")
    });
    let mut read = Vec::new();
    // One opening, and two commits a workflow.
    while read.len() < 81 {
        match reader.next() {
            Some(commit) => read.push(commit.expect("the log is good")),
            None => std::thread::yield_now(),
        }
    }
    assert_eq!(read, writer.join().expect("it does not panic"));
    assert!(reader.next().is_none() && !reader.ends_torn());
    assert_ne!(reader.place().0, "log/000001.log");
}

#[test]
fn a_byte_changed_anywhere_in_what_the_log_holds_is_named_and_nothing_is_changed_by_reading() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
    for number in 1..=4 {
        run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
    }
    drop(store);
    let path = dir.path().join("log/000001.log");
    let whole = fs::read(&path).expect("it reads");
    let end = frames_of(&whole).last().expect("it has frames").1.end;
    for at in (0..end).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&path, &bytes).expect("it takes a write");
        let mut reader = LogReader::open(dir.path()).expect("it reads");
        let bad = reader.find_map(Result::err);
        assert!(bad.is_some(), "byte {at}");
        assert!(reader.next().is_none());
        assert_eq!(fs::read(&path).expect("it reads"), bytes);
    }
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
    for number in 1..=40 {
        run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
    }
    drop(store);
    assert!(dir.path().join("log/000003.log").exists());
    fs::remove_file(dir.path().join("log/000002.log")).expect("it is there");
    let bad = LogReader::open(dir.path()).expect("it reads").find_map(Result::err).expect("it is missing");
    assert!(bad.to_string().contains("log/000002.log at byte 0: the segment is missing"), "{bad}");
}

/// It was named by file and byte only, and by an engine that starts on it not at all.
#[test]
fn a_frame_that_does_not_decode_is_named_by_its_commit_although_its_checksum_is_right() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
    run(&store, 1, submitted(Effect::Create, "acme", "search"), success());
    drop(store);
    let path = dir.path().join("log/000001.log");
    let mut bytes = fs::read(&path).expect("it reads");
    let (number, range) = frames_of(&bytes).pop().expect("it has frames");
    // The length of the commit's last append.
    bytes[range.clone()][55..range.len() - 1].fill(0xff);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[range.start..][..4]), &bytes[range.start + 8..range.end - 1]);
    bytes[range.start + 4..][..4].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &bytes).expect("it takes a write");
    let bad = LogReader::open(dir.path()).expect("it reads").find_map(Result::err).expect("it is damaged");
    assert_eq!(bad.commit, Some(number), "{bad}");
}
