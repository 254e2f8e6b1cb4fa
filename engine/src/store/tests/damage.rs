//! What may happen to the files of a journal, one thing at a time: any one damaged copy is healed, and what both lack
//! is named.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    entry::Commit,
    fact::{Effect, Submitted},
    ids::{CommitNumber, Timestamp},
    store::{
        DurableOptions, DurableStore, LogReader, OpenReport, Store, StoreError, check_index,
        log::frames_of,
        tests::samples::{NOW, append, commit_one, failure, id, run, small, submitted, success},
        verify,
    },
};

/// A journal of a few segments, at rest.
pub(super) struct Journal {
    pub(super) dir: tempfile::TempDir,
    /// All that was acknowledged.
    pub(super) commits: Vec<Commit>,
}

impl Journal {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
        for number in 1..=12 {
            let facts = if number % 3 == 0 { failure() } else { success() };
            let key = Some(format!("key-{number}").as_str().into());
            let service = format!("s{number}");
            run(&store, number, Submitted { key, ..submitted(Effect::Create, "acme", &service) }, facts);
        }
        let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
        store.close().expect("it comes to rest");
        assert!(dir.path().join("log/000002.log").exists(), "the journal has more than one segment");
        Self { dir, commits }
    }

    /// The same, as a kill leaves it.
    pub(super) fn killed() -> Self {
        let journal = Self::new();
        let (store, _) = journal.open().expect("it opens");
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(journal.dir.path(), dir.path());
        let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
        Self { dir, commits }
    }

    pub(super) fn last_segment(&self) -> u64 {
        (1..).take_while(|number| self.segment(*number).exists()).last().expect("there is one")
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.dir.path().join(format!("log/{number:06}.log"))
    }

    pub(super) fn index(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn open(&self) -> Result<(DurableStore, OpenReport), StoreError> {
        DurableStore::open(&small(self.dir.path()))
    }

    /// Opens it, and sees that everything is there, in both copies.
    pub(super) fn opens_whole(&mut self) -> OpenReport {
        let (store, report) = self.open().expect("it heals");
        self.commits = self.reads_whole(&store);
        store.close().expect("it comes to rest");
        drop(store);
        let blobs = fs::read_dir(self.index().join("blobs")).expect("sled makes it");
        assert_eq!(blobs.count(), 0, "nothing is where sled never syncs");
        let check = check_index(self.dir.path()).expect("it reads");
        assert_eq!((check.differences, check.behind), (vec![], 0));
        let logged = LogReader::open(self.dir.path()).expect("it reads").collect::<Result<Vec<_>, _>>();
        assert_eq!(logged.expect("the log is good"), self.commits);
        report
    }

    /// What the store has: all that was acknowledged, and its openings since.
    pub(super) fn reads_whole(&self, store: &DurableStore) -> Vec<Commit> {
        let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
        assert_eq!(commits[..self.commits.len()], self.commits);
        assert!(commits[self.commits.len()..].iter().all(|commit| commit.entries.is_empty()));
        verify(commits.iter().cloned().map(Ok)).expect("it is a good journal");
        commits
    }

    fn is_named(&self, place: &str) {
        match self.open() {
            Err(StoreError::Damaged { place: named, .. }) => assert!(named.contains(place), "{named}, not {place}"),
            Err(other) => panic!("{other}"),
            Ok((_, report)) => panic!("it opened: {report:?}"),
        }
    }
}

pub(super) fn flip(file: &Path, at: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(file).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).expect("it takes a write");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it reads");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).expect("it copies");
        }
    }
}

#[test]
fn a_bit_flipped_in_any_frame_of_the_log_is_healed_from_the_index() {
    let mut journal = Journal::new();
    let segments: Vec<PathBuf> = [1, 2].map(|segment| journal.segment(segment)).into();
    let whole: Vec<Vec<u8>> = segments.iter().map(|path| fs::read(path).expect("it reads")).collect();
    let frames: Vec<_> =
        (0..2).flat_map(|at| frames_of(&whole[at]).into_iter().map(move |frame| (at, frame))).collect();
    let named = |at: usize, number: CommitNumber, start: usize| {
        format!("commit {number}, log/{:06}.log at byte {start}", at + 1)
    };
    let mut swept = 0;
    let mut heals = |flipped: &[(usize, (CommitNumber, std::ops::Range<usize>))],
                     place: &dyn Fn(&std::ops::Range<usize>) -> usize| {
        let mut expected = Vec::new();
        for (at, (number, range)) in flipped {
            flip(&segments[*at], place(range) as u64, (range.start % 8) as u8);
            expected.push(named(*at, *number, range.start));
        }
        let (store, report) = journal.open().expect("it heals");
        assert_eq!(report.healed, expected);
        journal.commits = journal.reads_whole(&store);
        store.close().expect("it comes to rest");
        for (at, (_, range)) in &frames {
            assert_eq!(fs::read(&segments[*at]).expect("it reads")[range.clone()], whole[*at][range.clone()]);
        }
        swept += flipped.len();
    };
    // Each alone in its length, which hides where the next one begins; then all at once everywhere else.
    frames.iter().for_each(|frame| heals(std::slice::from_ref(frame), &|range| range.start));
    heals(&frames, &|range| range.start + 5);
    heals(&frames, &|range| range.start + 20);
    heals(&frames, &|range| (range.start + range.end) / 2);
    heals(&frames, &|range| range.end - 1);
    println!("{swept} flipped bits healed");
    journal.opens_whole();
}

#[test]
fn a_bit_flipped_in_a_header_of_a_segment_is_healed() {
    let mut journal = Journal::new();
    for (segment, at) in [(1, 0), (2, 30), (2, 70)] {
        flip(&journal.segment(segment), at, 3);
        let report = journal.opens_whole();
        assert_eq!(report.healed, [format!("the header of log/{segment:06}.log at byte 0")]);
    }
}

/// I28: of a journal that was killed nobody knows whether the index has everything. The log has it, whatever its last header
/// says: behind its last frame there is room, and nothing in it.
#[test]
fn a_bit_flipped_in_the_last_header_of_a_killed_journal_is_healed() {
    for at in [0, 30, 70] {
        let mut journal = Journal::killed();
        let last = journal.last_segment();
        flip(&journal.segment(last), at, 3);
        let report = journal.opens_whole();
        assert_eq!(report.healed, [format!("the header of log/{last:06}.log at byte 0")]);
    }
}

/// A start that fails half-way leaves the index as complete as it was: the next one heals what this one could not.
#[test]
fn a_log_that_could_not_be_healed_at_one_start_is_healed_at_the_next() {
    let mut journal = Journal::new();
    let last = journal.last_segment();
    let file = OpenOptions::new().write(true).open(journal.segment(last)).expect("it is there");
    file.set_len(100).expect("it can be cut");
    let in_the_way = journal.dir.path().join("log/healed.tmp");
    fs::create_dir(&in_the_way).expect("it can be made");
    assert!(matches!(journal.open(), Err(StoreError::Io { .. })));
    fs::remove_dir(&in_the_way).expect("it is empty");
    assert!(!journal.opens_whole().healed.is_empty());
}

#[test]
fn a_missing_emptied_or_truncated_segment_is_healed_from_the_index() {
    let mut journal = Journal::new();
    let last = journal.last_segment();
    for segment in [1, 2, last] {
        fs::remove_file(journal.segment(segment)).expect("it is there");
        journal.opens_whole();
        let frames = frames_of(&fs::read(journal.segment(segment)).unwrap_or_default());
        let middle = frames.get(frames.len() / 2).map_or(100, |(_, range)| range.end);
        for length in [0, 10, 72, 80, middle - 3, middle, middle + 1, 4 * 1024 - 1] {
            let file = OpenOptions::new().write(true).open(journal.segment(segment)).expect("it is there");
            file.set_len(length as u64).expect("it can be cut");
            let report = journal.opens_whole();
            assert!(!report.healed.is_empty(), "segment {segment} cut to {length}");
        }
    }
    fs::remove_dir_all(journal.dir.path().join("log")).expect("it is there");
    journal.opens_whole();
}

#[test]
fn blocks_zeroed_swapped_or_taken_from_elsewhere_in_the_log_are_healed() {
    let mut journal = Journal::new();
    let one = fs::read(journal.segment(1)).expect("it reads");
    let two = fs::read(journal.segment(2)).expect("it reads");
    let mut zeroed = one.clone();
    zeroed[1024..2048].fill(0);
    let mut swapped = one.clone();
    let (left, right) = swapped.split_at_mut(2048);
    left[1024..1536].swap_with_slice(&mut right[..512]);
    let mut foreign = one.clone();
    foreign[1024..1536].copy_from_slice(&two[1024..1536]);
    for bad in [zeroed, swapped, foreign, two.clone()] {
        fs::write(journal.segment(1), &bad).expect("it takes a write");
        assert!(!journal.opens_whole().healed.is_empty());
    }
}

#[test]
fn a_copy_of_a_segment_behind_the_log_is_set_aside_and_never_takes_part() {
    let mut journal = Journal::new();
    let last = journal.last_segment();
    let whole: Vec<_> = (1..=last).map(|number| fs::read(journal.segment(number)).expect("it reads")).collect();
    for stray in [last + 1, last + 2, 20_261_123] {
        for content in [&whole[0], &whole[1], &b"no segment at all".repeat(99)] {
            if stray == last + 1 && *content == b"no segment at all".repeat(99) {
                // It may be what has become of the last segment: that is another test.
                continue;
            }
            fs::write(journal.segment(stray), content).expect("it takes a write");
            let report = journal.opens_whole();
            assert!(report.healed[0].starts_with(&format!("log/{stray:06}.log, it ")), "{report:?}");
            assert!(!journal.segment(stray).exists());
            assert_eq!(
                fs::read(journal.dir.path().join(format!("log/{stray:06}.stray-1"))).ok().as_ref(),
                Some(content)
            );
            fs::remove_file(journal.dir.path().join(format!("log/{stray:06}.stray-1"))).expect("it is there");
            assert!(journal.opens_whole().healed.is_empty());
        }
    }
    // Under a name that no segment has, it is nobody's.
    fs::write(journal.dir.path().join("log/0000002.log"), &whole[0]).expect("it takes a write");
    assert!(journal.opens_whole().healed.is_empty());
}

#[test]
fn a_copy_of_a_segment_that_may_stand_for_a_lost_one_is_named_and_nothing_is_changed() {
    for stray in [0, 1, 20_261_123] {
        let journal = Journal::new();
        let last = journal.last_segment();
        let stray = if stray < 2 { last + stray } else { stray };
        fs::copy(journal.segment(1), journal.segment(stray)).expect("it copies");
        fs::remove_dir_all(journal.index()).expect("it is there");
        let names = || {
            let files = fs::read_dir(journal.dir.path().join("log")).expect("it is there");
            files.map(|file| file.expect("it reads").file_name()).collect::<std::collections::BTreeSet<_>>()
        };
        let before = names();
        journal.is_named(&format!("log/{stray:06}.log"));
        assert_eq!(names(), before);
    }
}

#[test]
fn a_segment_overwritten_by_another_is_healed_from_the_index_wherever_it_stands() {
    let mut journal = Journal::new();
    let (store, _) = journal.open().expect("it opens");
    for number in 21..=30 {
        run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
    }
    journal.commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    store.close().expect("it comes to rest");
    drop(store);
    let last = journal.last_segment();
    assert!(last > 2, "the journal has a middle");
    for (from, to) in [(1, 2), (last, 2), (2, 1), (1, last), (last - 1, last)] {
        if journal.segment(to).exists() && journal.segment(from).exists() && from != to {
            fs::copy(journal.segment(from), journal.segment(to)).expect("it copies");
            assert!(!journal.opens_whole().healed.is_empty(), "{from} over {to}");
        }
    }
}

/// Somebody put a file of another journal's log in place of ours, or a frame of it: its checksums are right, its numbers
/// too, only the hashes tell. It was taken in, and the log left with a break that no start mended.
#[test]
fn a_segment_or_a_frame_of_another_journal_is_healed_from_the_index_and_named_without_one() {
    let mut journal = Journal::new();
    let other = tempfile::tempdir().expect("a temporary directory");
    let later = DurableOptions { now: Timestamp::from_micros(NOW.as_micros() + 1), ..small(other.path()) };
    let (store, _) = DurableStore::open(&later).expect("it opens");
    for number in 1..=12 {
        run(&store, number, submitted(Effect::Create, "other", &format!("s{number}")), failure());
    }
    drop(store);
    let read = |segment: &Path| fs::read(segment).expect("it reads");
    let theirs = [1, 2].map(|segment| read(&other.path().join(format!("log/{segment:06}.log"))));
    let mut mixed = read(&journal.segment(1));
    let (number, range) = frames_of(&theirs[0]).remove(0);
    assert_eq!((number, range.clone()), frames_of(&mixed)[0]);
    mixed[range.clone()].copy_from_slice(&theirs[0][range]);
    for (segment, bad) in [(2, &theirs[1]), (1, &mixed)] {
        fs::write(journal.segment(segment), bad).expect("it takes a write");
        assert!(!journal.opens_whole().healed.is_empty());
    }
    fs::write(journal.segment(1), mixed).expect("it takes a write");
    fs::remove_dir_all(journal.index()).expect("it is there");
    journal.is_named("commit 2");
}

/// Behind it everything stands a frame further back. What was left at the end was called damage, although nothing lacked.
#[test]
fn a_frame_that_is_there_twice_in_the_last_segment_is_taken_out() {
    let mut journal = Journal::new();
    let last = journal.last_segment();
    let frames = frames_of(&fs::read(journal.segment(last)).expect("it reads")).len();
    assert!(frames > 1);
    for nth in 0..frames {
        let whole = fs::read(journal.segment(last)).expect("it reads");
        let (_, range) = frames_of(&whole).swap_remove(nth);
        let twice = [&whole[..range.end], &whole[range.clone()], &whole[range.end..whole.len() - range.len()]].concat();
        fs::write(journal.segment(last), &twice).expect("it takes a write");
        assert!(journal.opens_whole().healed.iter().any(|place| place.starts_with("what does not belong there")));
    }
}

/// What an earlier cairn made of a copy behind its log: the last segment twice, under two numbers.
#[test]
fn a_log_that_holds_a_segment_twice_is_put_right() {
    let mut journal = Journal::new();
    let last = journal.last_segment();
    let mut bytes = fs::read(journal.segment(last)).expect("it reads");
    bytes[12..20].copy_from_slice(&(last + 1).to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..68]).to_le_bytes();
    bytes[68..72].copy_from_slice(&sum);
    fs::write(journal.segment(last + 1), &bytes).expect("it takes a write");
    assert_eq!(journal.opens_whole().healed.len(), 1);
}

#[test]
fn an_index_that_is_gone_or_unreadable_is_made_again_from_the_log() {
    let mut journal = Journal::new();
    fs::remove_dir_all(journal.index()).expect("it is there");
    let report = journal.opens_whole();
    assert_eq!(report.caught_up, journal.commits.len() as u64 - 1);

    // To sled this looks like nothing at all.
    fs::write(journal.index().join("db"), b"not what sled wrote").expect("it takes a write");
    assert_eq!(journal.opens_whole().caught_up, journal.commits.len() as u64 - 1);

    fs::write(journal.index().join("conf"), b"not what sled wrote").expect("it takes a write");
    let report = journal.opens_whole();
    assert!(report.rebuilt.is_some() && report.set_aside.is_some_and(|aside| aside.exists()));
    fs::write(journal.index().with_extension("suspect"), "it panicked").expect("it takes a write");
    assert_eq!(journal.opens_whole().rebuilt.as_deref(), Some("it panicked"));
}

/// Killed while sled writes a snapshot, the index was called unreadable, by `verify` too, and made again: sled took the piece
/// for its newest snapshot.
#[test]
fn an_index_whose_snapshot_was_cut_short_is_opened_as_it_was_before() {
    let mut journal = Journal::new();
    let piece = journal.index().join("snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&piece, b"half of a snapshot").expect("it takes a write");
    assert_eq!(check_index(journal.dir.path()).expect("it can be looked at").differences, [""; 0]);
    let report = journal.opens_whole();
    assert!(report.rebuilt.is_none() && report.caught_up == 0, "{report:?}");
    assert!(!piece.exists());
}

#[test]
fn bits_flipped_in_the_index_cost_nothing() {
    let mut journal = Journal::new();
    let db = journal.index().join("db");
    let whole = fs::read(&db).expect("it reads");
    let written = whole.iter().rposition(|byte| *byte != 0).expect("it has something");
    for nth in 0..12 {
        flip(&db, (written * nth / 12) as u64, 2);
        journal.opens_whole();
    }
}

#[test]
fn an_older_index_put_back_is_caught_up_and_an_older_log_is_put_right() {
    let mut journal = Journal::new();
    let older = tempfile::tempdir().expect("a temporary directory");
    copy(journal.dir.path(), older.path());
    let (store, _) = journal.open().expect("it opens");
    for number in 21..=30 {
        run(&store, number, submitted(Effect::Create, "acme", &format!("s{number}")), success());
    }
    journal.commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    store.close().expect("it comes to rest");
    drop(store);

    fs::remove_dir_all(journal.index()).expect("it is there");
    copy(&older.path().join("journal"), &journal.index());
    let report = journal.opens_whole();
    assert_eq!((report.rebuilt, report.caught_up), (None, 21));

    fs::remove_dir_all(journal.dir.path().join("log")).expect("it is there");
    copy(&older.path().join("log"), &journal.dir.path().join("log"));
    let report = journal.opens_whole();
    assert!(report.rebuilt.is_none() && report.healed.len() >= 21, "{report:?}");
}

/// I28, I29: what follows is folded on what the index has of a workflow, and that was read back in no test.
#[test]
fn an_index_that_ends_in_the_middle_of_a_workflow_is_caught_up() {
    let mut journal = Journal::new();
    let (store, _) = journal.open().expect("it opens");
    let mut facts = success();
    let rest = facts.split_off(3);
    run(&store, 21, submitted(Effect::Create, "acme", "s21"), facts);
    store.close().expect("it comes to rest");
    drop(store);
    let older = tempfile::tempdir().expect("a temporary directory");
    copy(&journal.index(), older.path());
    let (store, _) = journal.open().expect("it opens");
    commit_one(&store, append(&store, id(21), 4, rest)).expect("it is admitted");
    journal.commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
    store.close().expect("it comes to rest");
    drop(store);

    fs::remove_dir_all(journal.index()).expect("it is there");
    copy(older.path(), &journal.index());
    let report = journal.opens_whole();
    assert_eq!((report.rebuilt, report.caught_up), (None, 2));
}

#[test]
fn another_journals_index_is_set_aside_and_one_with_more_commits_is_named() {
    let mut journal = Journal::new();
    let short = tempfile::tempdir().expect("a temporary directory");
    let (store, _) = DurableStore::open(&small(short.path())).expect("it opens");
    run(&store, 1, submitted(Effect::Create, "other", "search"), success());
    store.close().expect("it comes to rest");
    drop(store);
    fs::remove_dir_all(journal.index()).expect("it is there");
    copy(&short.path().join("journal"), &journal.index());
    assert!(journal.opens_whole().rebuilt.is_some_and(|why| why.contains("commit 3 is another")));

    let (store, _) = DurableStore::open(&small(short.path())).expect("it opens");
    for number in 2..=60 {
        run(&store, number, submitted(Effect::Create, "other", &format!("s{number}")), success());
    }
    store.close().expect("it comes to rest");
    drop(store);
    fs::remove_dir_all(journal.index()).expect("it is there");
    copy(&short.path().join("journal"), &journal.index());
    journal.is_named(&format!("commit {}", journal.commits.len() + 1));
}

#[test]
fn damage_at_the_same_place_in_both_copies_is_named_and_nothing_starts_on_it() {
    let journal = Journal::new();
    let whole = fs::read(journal.segment(1)).expect("it reads");
    let (number, range) = frames_of(&whole).remove(5);
    let place = format!("commit {number}, log/000001.log at byte {}", range.start);
    flip(&journal.segment(1), range.start as u64 + 30, 1);
    fs::write(journal.index().join("db"), b"not what sled wrote").expect("it takes a write");
    journal.is_named(&place);
    journal.is_named(&place);
    fs::remove_dir_all(journal.index()).expect("it is there");
    journal.is_named(&place);
}

#[test]
fn a_tail_that_both_copies_may_lack_is_named() {
    let journal = Journal::new();
    fs::remove_dir_all(journal.index()).expect("it is there");
    let last = journal.last_segment();
    let file = OpenOptions::new().write(true).open(journal.segment(last)).expect("it is there");
    file.set_len(200).expect("it can be cut");
    journal.is_named(&format!("log/{last:06}.log at byte"));
}

/// The moment of a kill, or of a power cut: what is on disk while the store is open. Sled is behind by up to half a
/// second then, and has not come to rest.
#[test]
fn killed_after_any_commit_a_journal_opens_with_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
    let mut killed = 0;
    for number in 1..=8 {
        let submitted = submitted(Effect::Create, "acme", &format!("s{number}"));
        run(&store, number, submitted, failure());
        let image = tempfile::tempdir().expect("a temporary directory");
        copy(dir.path(), image.path());
        let acknowledged = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
        let mut journal = Journal { dir: image, commits: acknowledged };
        let report = journal.opens_whole();
        assert!(report.healed.is_empty() && report.cut.is_none(), "{report:?}");
        killed += 1;
    }
    println!("{killed} kills survived");
}

#[test]
fn a_write_that_was_torn_is_cut_and_told_and_what_stands_before_it_stays() {
    let mut journal = Journal::new();
    let last = journal.last_segment();
    let path = journal.segment(last);
    let whole = fs::read(&path).expect("it reads");
    let end = frames_of(&whole).last().expect("it has frames").1.end;
    // A frame of 1,000 bytes of which the first sector, a middle one or the last never reached the disk.
    let room = 1_000.min(whole.len() - end);
    let mut torn = vec![0x5a; room];
    torn[..4].copy_from_slice(&(room as u32 - 9).to_le_bytes());
    let sector = |nth: usize| (((end / 512 + nth) * 512).max(end) - end, ((end / 512 + nth + 1) * 512 - end).min(room));
    for missing in 0..(end + room).div_ceil(512) - end / 512 {
        let (from, to) = sector(missing);
        let mut left = torn.clone();
        left[from..to].fill(0);
        let mut bytes = whole.clone();
        bytes[end..end + room].copy_from_slice(&left);
        fs::write(&path, &bytes).expect("it takes a write");
        let mut logged = LogReader::open(journal.dir.path()).expect("it reads");
        assert_eq!(logged.by_ref().filter(Result::is_ok).count(), journal.commits.len());
        assert!(logged.ends_torn(), "sector {missing}");
        let image = tempfile::tempdir().expect("a temporary directory");
        copy(journal.dir.path(), image.path());
        let mut cut = Journal { dir: image, commits: journal.commits.clone() };
        let report = cut.opens_whole();
        let cut = report.cut.expect("it is told");
        assert_eq!((cut.file, cut.offset), (format!("log/{last:06}.log"), end as u64));
    }
    // All of it was written, and it is wrong: that is no torn write.
    let mut bytes = whole.clone();
    bytes[end..end + room].copy_from_slice(&torn);
    fs::write(&path, &bytes).expect("it takes a write");
    journal.is_named(&format!("log/{last:06}.log at byte {end}"));
    fs::write(&path, &whole).expect("it takes a write");
    journal.opens_whole();
}

#[test]
fn a_first_creation_that_was_killed_at_any_point_is_finished_by_the_next() {
    let left_behind: [&[(&str, &[u8])]; 6] = [
        &[],
        &[("lock", b"pid 1")],
        &[("log/next.tmp", b"")],
        &[("lock", b""), ("log/next.tmp", &[0; 5000])],
        &[("journal/conf", b""), ("log/next.tmp", &[0; 100])],
        &[("journal/db", &[0; 64]), ("journal/blobs/.keep", b"")],
    ];
    for files in left_behind {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("it is in the directory")).expect("it can be made");
            fs::write(path, bytes).expect("it takes a write");
        }
        let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
        run(&store, 1, submitted(Effect::Create, "acme", "search"), success());
        assert!(commit_one(&store, append(&store, crate::store::tests::samples::id(1), 6, success())).is_err());
        assert!(!dir.path().join("log/next.tmp").exists());
    }
}
