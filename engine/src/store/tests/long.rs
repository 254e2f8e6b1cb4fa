//! Logs of which opening reads no more than the end: what it finds all the same, and what is found once it is open.

use std::fs;

use crate::{
    fact::{Effect, Fact},
    ids::{CommitNumber, Sequence, Timestamp},
    journal::keys::{self, Changes},
    store::{
        DurableOptions, DurableStore, LogReader, OpenReport, ReadAhead, Store, StoreError,
        durable::index_dir,
        log::frames_of,
        sled::{BOOT_KEY, Indexed},
        tests::{
            damage::{Journal, flip},
            samples::{self, NOW, id, run, small, submitted, success},
        },
    },
};

/// However short the log is: no more of it is read than has to be.
fn far(journal: &Journal) -> DurableOptions {
    DurableOptions { read_at_open_bytes: 0, ..small(journal.dir.path()) }
}

fn open(journal: &Journal) -> Result<(DurableStore, OpenReport), StoreError> {
    DurableStore::open(&far(journal))
}

/// A journal at rest that has something far back.
fn journal() -> Journal {
    let mut journal = Journal::new();
    let (store, _) = open(&journal).expect("it opens");
    for number in 21..=30 {
        run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
    }
    journal.commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    store.close().expect("it comes to rest");
    drop(store);
    assert!(journal.last_segment() > 2);
    journal
}

/// Flips a bit of the fifth frame of the first segment, and says which commit that is.
fn damage(journal: &Journal) -> CommitNumber {
    let path = journal.segment(1);
    let (number, range) = frames_of(&fs::read(&path).expect("it reads")).swap_remove(4);
    flip(&path, range.start as u64 + 20, 3);
    number
}

#[test]
fn damage_far_back_is_not_waited_for_and_healed_while_the_journal_is_appended_to() {
    for mut journal in [journal(), Journal::killed()] {
        let whole = fs::read(journal.segment(1)).expect("it reads");
        damage(&journal);
        let (store, report) = open(&journal).expect("it opens");
        assert!(report.healed.is_empty() && report.rebuilt.is_none(), "{report:?}");
        for number in 41..=44 {
            run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
        }
        store.reread();
        assert_eq!(fs::read(journal.segment(1)).expect("it reads"), whole);
        journal.commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
        store.close().expect("it comes to rest");
        drop(store);
        assert!(journal.opens_whole().healed.is_empty());
    }
}

/// I28: the place is known once it was read, and the next start is as strict as if it had read all.
#[test]
fn damage_far_back_in_both_copies_is_named_by_the_next_start_and_nothing_starts_on_it() {
    let journal = journal();
    let number = damage(&journal);
    let index = Indexed::open(&index_dir(journal.dir.path())).expect("it opens");
    let commit = journal.commits.iter().find(|commit| commit.number == number).expect("it is there");
    let entry = commit.entries.first().expect("it has entries");
    let lost = [1, 2, 4].map(|first| (keys::append(entry.workflow, Sequence(first)), None));
    index.apply(&Changes::from(lost)).expect("it works");
    index.close().expect("it comes to rest");
    drop(index);
    let (store, _) = open(&journal).expect("nobody has looked there yet");
    store.reread();
    store.close().expect("it comes to rest");
    drop(store);
    for _ in 0..2 {
        match open(&journal) {
            Err(StoreError::Damaged { place, .. }) => {
                assert!(place.starts_with(&format!("commit {number}, log/000001")))
            }
            other => panic!("{:?}", other.map(|(_, report)| report)),
        }
    }
}

/// The index is the only other copy: before it is made again, it lends what the log lacks, however far back that is.
#[test]
fn a_rebuild_heals_what_is_damaged_far_back_before_it_gives_the_index_up() {
    let mut journal = journal();
    damage(&journal);
    let (store, report) = DurableStore::rebuild(&far(&journal)).expect("it heals");
    assert_eq!(report.healed.len(), 1, "{report:?}");
    journal.commits = journal.reads_whole(&store);
}

/// A killed journal of which the index lacks the first workflow's first append; `after_power_failure` as the next start of
/// the system finds it.
fn lost(after_power_failure: bool) -> Journal {
    let journal = Journal::killed();
    let index = Indexed::open(&index_dir(journal.dir.path())).expect("it opens");
    let first = journal.commits.iter().find_map(|commit| commit.entries.first()).expect("it has entries");
    let key = keys::append(first.workflow, Sequence(1));
    index.apply(&Changes::from([(key, None)])).expect("it works");
    if after_power_failure {
        index.apply(&Changes::from([(BOOT_KEY.to_vec(), Some(b"another".to_vec()))])).expect("it works");
    }
    drop(index);
    journal
}

/// I7, I28: what a power failure has taken of the index is found before anything is decided by it, as far back as that may be.
#[test]
fn after_a_power_failure_an_index_that_has_lost_something_far_back_is_made_again_at_once() {
    let mut journal = lost(true);
    let (store, report) = open(&journal).expect("it opens");
    assert!(report.rebuilt.is_some_and(|why| why.contains("is another than in the log")));
    journal.commits = journal.reads_whole(&store);
}

/// A kill takes nothing of the index. Where it lacks something all the same, that is found once the journal is open, and from
/// then on nothing is decided by it.
#[test]
fn an_index_found_to_be_wrong_beside_stops_the_store_and_the_next_start_makes_it_again() {
    let mut journal = lost(false);
    let (store, report) = open(&journal).expect("nobody has looked there yet");
    assert_eq!(report.rebuilt, None);
    store.reread();
    let append = samples::append(&store, id(77), 0, vec![Fact::Submitted(submitted(Effect::Create, "acme", "late"))]);
    assert!(matches!(store.commit(vec![append], NOW), Err(StoreError::Stopped)));
    drop(store);
    let (store, report) = open(&journal).expect("it opens");
    assert!(report.rebuilt.is_some_and(|why| why.contains("is another than in the log")));
    journal.commits = journal.reads_whole(&store);
}

/// I28: the chain of segments is looked at from its beginning, at every start.
#[test]
fn a_segment_far_back_that_is_missing_cut_short_swapped_or_foreign_is_healed_at_once() {
    let mut journal = journal();
    let whole = [1, 2].map(|segment| fs::read(journal.segment(segment)).expect("it reads"));
    let mut header = whole[0].clone();
    header[30] ^= 1;
    let short = whole[0][..whole[0].len() - 1].to_vec();
    for bad in [None, Some(Vec::new()), Some(short), Some(whole[1].clone()), Some(header)] {
        match &bad {
            None => fs::remove_file(journal.segment(1)).expect("it is there"),
            Some(bad) => fs::write(journal.segment(1), bad).expect("it takes a write"),
        }
        let (store, report) = open(&journal).expect("it heals");
        assert!(!report.healed.is_empty(), "{:?} bytes", bad.map(|bad| bad.len()));
        journal.commits = journal.reads_whole(&store);
        assert_eq!(fs::read(journal.segment(1)).expect("it reads"), whole[0]);
        store.close().expect("it comes to rest");
    }
}

/// Both copies must have the same commit at each border of a segment: where they do not, all is read before anything is decided.
#[test]
fn without_an_index_or_with_another_journals_the_whole_log_is_read() {
    for foreign in [false, true] {
        let journal = journal();
        let number = damage(&journal);
        fs::remove_dir_all(journal.index()).expect("it is there");
        if foreign {
            let other = tempfile::tempdir().expect("a temporary directory");
            let later = DurableOptions { now: Timestamp::from_micros(NOW.as_micros() + 1), ..small(other.path()) };
            let (store, _) = DurableStore::open(&later).expect("it opens");
            for number in 1..=24 {
                run(&store, number, submitted(Effect::Create, "other", &format!("s{number}")), success());
            }
            store.close().expect("it comes to rest");
            drop(store);
            fs::rename(other.path().join("journal"), journal.index()).expect("it moves");
        }
        match open(&journal) {
            Err(StoreError::Damaged { place, .. }) => {
                assert!(place.starts_with(&format!("commit {number}, log/000001")), "{place}");
            }
            other => panic!("{:?}", other.map(|(_, report)| report)),
        }
    }
}

/// I27: several threads decode, and one alone says what is wrong: it is the same in every case.
#[test]
fn several_threads_read_a_log_as_one_does_whatever_is_wrong_with_it() {
    let journal = journal();
    let both = |what: &str| {
        let alone: Vec<_> = LogReader::open(journal.dir.path()).expect("it reads").collect();
        let ahead: Vec<_> = ReadAhead::open(journal.dir.path()).expect("it reads").collect();
        assert!(ahead == alone, "{what}: {:?} and {:?}", ahead.last(), alone.last());
        alone.last().is_some_and(Result::is_err)
    };
    assert!(!both("good"));
    let mut bad = 0;
    for segment in 1..=journal.last_segment() {
        let path = journal.segment(segment);
        let whole = fs::read(&path).expect("it reads");
        let frames = frames_of(&whole);
        let middle = frames[frames.len() / 2].1.clone();
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            bytes
        };
        let other = fs::read(journal.segment(1 + segment % 2)).expect("it reads");
        let without = [&whole[..middle.start], &whole[middle.end..]].concat();
        let changes = [flipped(0), flipped(30), flipped(middle.start), flipped(middle.start + 20), other, without];
        for (nth, bytes) in changes.into_iter().chain([whole[..middle.start].to_vec(), Vec::new()]).enumerate() {
            fs::write(&path, bytes).expect("it takes a write");
            bad += usize::from(both(&format!("segment {segment}, change {nth}")));
        }
        if segment > 1 {
            fs::remove_file(&path).expect("it is there");
            bad += usize::from(both(&format!("without segment {segment}")));
        }
        fs::write(&path, &whole).expect("it takes a write");
    }
    assert!(bad > 20, "only {bad} were noticed");
}
