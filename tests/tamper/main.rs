//! Tampering: a journal of 64 KiB with any bit flipped, cut to any length, with any frame removed, repeated, swapped, aged
//! or taken from another journal. In one copy it is found and healed; in both it is found and named; and a good journal is
//! never called bad.
//!
//! The reference is kept as several journals of a few frames each, so that each change costs the reading of one of them.

mod frames;

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use cairn_engine::{
    Commit, CommitNumber, Timestamp,
    store::{DurableOptions, DurableStore, LogReader, Store as _, StoreError, check_index, verify},
};
use cairn_tests::{
    disk::Image,
    extent::{count, recorded, sample},
    journal::{small, write},
    site::{Numbers, seed},
};

use self::frames::{HEADER_BYTES, Segment, framed};

/// How much of a log the changes go through.
const REFERENCE_BYTES: usize = 64 * 1024;

/// Threads for work that is mostly waiting.
const WAITING_THREADS: usize = 128;

const FIRST_SEGMENT: &str = "log/000001.log";

/// In memory, where there is room: what is tried here is no disk.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}

/// A journal at rest.
struct Journal {
    image: Image,
    commits: Vec<Commit>,
}

impl Journal {
    fn make(seed: u64, workflows: usize, options: impl FnOnce(&Path) -> DurableOptions) -> anyhow::Result<Self> {
        let place = scratch()?;
        let (store, _) = DurableStore::open(&options(place.path()))?;
        write(&store, &mut Numbers::of(seed), workflows, |_| Ok(()))?;
        let commits = store.commits(CommitNumber(0), usize::MAX)?;
        store.close()?;
        drop(store);
        Ok(Self { image: Image::read(place.path())?, commits })
    }

    /// One whose log is one segment.
    fn of_one_segment(seed: u64) -> anyhow::Result<Self> {
        Self::make(seed, 4, |dir| DurableOptions { segment_bytes: 32 * 1024, ..small(dir) })
    }

    fn segment(&self) -> Segment {
        Segment::of(self.image.file(FIRST_SEGMENT).unwrap_or_default())
    }
}

/// The segments of a log, by their paths.
fn segments(image: &Image) -> Vec<(String, Segment)> {
    let paths = image.paths().filter(|path| path.starts_with("log/") && path.ends_with(".log"));
    paths.map(|path| (path.to_owned(), Segment::of(image.file(path).unwrap_or_default()))).collect()
}

/// As many as there are cores: for work that is not waiting.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The reference: journals of one segment each.
fn reference(numbers: &mut Numbers) -> anyhow::Result<Vec<Journal>> {
    let (mut journals, mut bytes) = (Vec::new(), 0);
    while bytes < REFERENCE_BYTES {
        let journal = Journal::of_one_segment(numbers.below(u64::MAX))?;
        let segment = journal.segment();
        ensure!(segment.file() == journal.image.file(FIRST_SEGMENT).unwrap_or_default(), "the page describes another");
        bytes += segment.places().last().map_or(0, |place| place.end);
        journals.push(journal);
    }
    Ok(journals)
}

/// Does `work` for every number below `all` in `threads` threads, each with a directory of its own.
fn in_threads(
    all: usize,
    threads: usize,
    work: impl Fn(&Path, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<usize> {
    let place = scratch()?;
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (next, faults, work) = (&next, &faults, &work);
            let directory = place.path().join(thread.to_string());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        break;
                    }
                    if let Err(fault) = work(&directory, number) {
                        faults.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{fault:#}"));
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    let some: Vec<&str> = faults.iter().take(20).map(String::as_str).collect();
    ensure!(faults.is_empty(), "{} of {all}:\n{}", faults.len(), some.join("\n"));
    Ok(all)
}

/// Reads the log in `directory` as `cairn-journal verify` does. The error names the place.
fn read(directory: &Path) -> Result<(Vec<Commit>, bool), String> {
    let mut reader = LogReader::open(directory).map_err(|error| error.to_string())?;
    let commits = reader.by_ref().collect::<Result<Vec<_>, _>>().map_err(|bad| bad.to_string())?;
    verify(commits.iter().cloned().map(Ok)).map_err(|bad| bad.to_string())?;
    Ok((commits, reader.ends_torn()))
}

/// Puts a log into `directory`, in place of the one before.
fn lay_out(directory: &Path, file: &[u8]) -> anyhow::Result<PathBuf> {
    let path = directory.join(FIRST_SEGMENT);
    fs::create_dir_all(directory.join("log"))?;
    fs::write(&path, file)?;
    Ok(path)
}

/// Opens what lies there, and sees that it has all of the journal.
fn opens_whole(directory: &Path, commits: &[Commit], options: &DurableOptions) -> anyhow::Result<()> {
    let (store, report) = DurableStore::open(options).context("it does not open")?;
    let found = store.commits(CommitNumber(0), usize::MAX)?;
    ensure!(found.get(..commits.len()) == Some(commits), "{} of {}: {report:?}", found.len(), commits.len());
    ensure!(found.len() == commits.len() + 1, "it has more than it had: {report:?}");
    store.close()?;
    drop(store);
    let (read, torn) = read(directory).map_err(|bad| anyhow::anyhow!("it was not healed: {bad}"))?;
    ensure!(read == found && !torn, "the log has another journal than the store");
    Ok(())
}

/// The place of an error, which begins with the commit.
fn names(error: &str, commit: usize) -> bool {
    let after = error.strip_prefix(&format!("commit {commit}"));
    after.is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ':']))
}

/// I27: also where whoever flipped it has put the checksum right.
#[test]
fn every_flipped_bit_of_the_log_is_found_and_its_commit_is_named() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let journals = reference(&mut numbers)?;
    let segments: Vec<Segment> = journals.iter().map(Journal::segment).collect();
    // A piece of work is a byte: of which journal, where, and in which frame, if it is not in the header.
    let mut work = Vec::new();
    for (journal, segment) in segments.iter().enumerate() {
        work.extend((0..HEADER_BYTES).map(|at| (journal, at, None)));
        for (frame, place) in segment.places().into_iter().enumerate() {
            work.extend(place.clone().map(|at| (journal, at, Some((frame, place.start)))));
        }
    }
    // A reader looks at what seems wrong again, after a moment: most of these only wait.
    let bytes = in_threads(work.len(), WAITING_THREADS, |directory, number| {
        let (journal, at, frame) = work[number];
        let segment = &segments[journal];
        let path = lay_out(directory, &segment.file())?;
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let whole = segment.file()[at];
        for bit in 0..8 {
            let flipped = whole ^ (1 << bit);
            file.write_all_at(&[flipped], at as u64)?;
            let found = read(directory).err().with_context(|| format!("bit {bit} of byte {at} is not found"))?;
            let is_named = match frame {
                Some((frame, _)) => names(&found, frame + 1),
                None => found.contains("000001.log"),
            };
            ensure!(is_named, "bit {bit} of byte {at}, in frame {frame:?}: {found}");
            file.write_all_at(&[whole], at as u64)?;
        }
        let Some((frame, start)) = frame else { return Ok(()) };
        let Some(within) = at.checked_sub(start + 8).filter(|within| *within < segment.frames[frame].len()) else {
            return Ok(());
        };
        for bit in 0..8 {
            let mut content = segment.frames[frame].clone();
            content[within] ^= 1 << bit;
            file.write_all_at(&framed(&content), start as u64)?;
            let found = read(directory).err().with_context(|| format!("bit {bit} of byte {at}, checksum put right"))?;
            ensure!(names(&found, frame + 1), "bit {bit} of byte {at}, checksum put right: {found}");
        }
        Ok(())
    })?;
    println!("flipped in the log: {} bits, each found and named; then again with the checksum put right", bytes * 8);
    recorded("tamper-bits", bytes * 8)
}

/// I27.
#[test]
fn a_log_cut_to_any_length_is_found_and_the_first_commit_that_is_missing_is_named() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let segments: Vec<Segment> = reference(&mut numbers)?.iter().map(Journal::segment).collect();
    let mut work = Vec::new();
    for (journal, segment) in segments.iter().enumerate() {
        let end = segment.places().last().map_or(0, |place| place.end);
        // Behind its last frame there are only zeros.
        work.extend((0..end).chain((end..segment.bytes).step_by(512)).map(|length| (journal, length)));
    }
    let lengths = in_threads(work.len(), WAITING_THREADS, |directory, number| {
        let (journal, length) = work[number];
        let segment = &segments[journal];
        lay_out(directory, &segment.file()[..length])?;
        let found = read(directory).err().with_context(|| format!("cut to {length}, and not found"))?;
        let whole = segment.places().iter().filter(|place| place.end <= length).count();
        let is_named = if length < HEADER_BYTES { found.contains("000001.log") } else { names(&found, whole + 1) };
        ensure!(is_named, "cut to {length}: {found}");
        Ok(())
    })?;
    println!("cut to {lengths} lengths, each found and named");
    recorded("tamper-lengths", lengths)
}

/// A change of a frame, or of a whole segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tampered {
    Removed,
    Repeated,
    SwappedWithTheNext,
    TakenFromAnotherJournal,
    /// The segment as it was when this frame was its last.
    Aged,
}

const CHANGES: [Tampered; 5] = [
    Tampered::Removed,
    Tampered::Repeated,
    Tampered::SwappedWithTheNext,
    Tampered::TakenFromAnotherJournal,
    Tampered::Aged,
];

/// A journal of many segments, and another with as many commits.
struct Pair {
    journal: Journal,
    segments: Vec<(String, Segment)>,
    others: Vec<Vec<u8>>,
}

impl Pair {
    fn make(numbers: &mut Numbers) -> anyhow::Result<Self> {
        let journal = Journal::make(numbers.below(u64::MAX), 60, small)?;
        // Of another beginning: else its first commits would be the same.
        let later = |dir: &Path| DurableOptions { now: Timestamp::from_micros(1), ..small(dir) };
        let other = Journal::make(numbers.below(u64::MAX), 60, later)?;
        let others = segments(&other.image).into_iter().flat_map(|(_, segment)| segment.frames).collect();
        Ok(Self { segments: segments(&journal.image), journal, others })
    }

    /// Every change of every frame: the image it leaves, the first commit that is not as it was, and whether all that
    /// is wrong is that the end is missing.
    fn changes(&self) -> Vec<(String, Image, usize, bool)> {
        let mut changed = Vec::new();
        let mut first = 1;
        for (at, (path, segment)) in self.segments.iter().enumerate() {
            let is_last = at + 1 == self.segments.len();
            for frame in 0..segment.frames.len() {
                for change in CHANGES {
                    let mut with = segment.clone();
                    let (is_end, number) = (is_last && frame + 1 == segment.frames.len(), first + frame);
                    let (bad, lost_end) = match change {
                        Tampered::Removed => {
                            with.frames.remove(frame);
                            (number, is_end)
                        }
                        Tampered::Repeated => {
                            with.frames.insert(frame, segment.frames[frame].clone());
                            (number + 1, false)
                        }
                        Tampered::SwappedWithTheNext if frame + 1 < segment.frames.len() => {
                            with.frames.swap(frame, frame + 1);
                            (number, false)
                        }
                        Tampered::TakenFromAnotherJournal if number <= self.others.len() => {
                            with.frames[frame] = self.others[number - 1].clone();
                            (number, false)
                        }
                        Tampered::Aged if frame + 1 < segment.frames.len() => {
                            with.frames.truncate(frame + 1);
                            (number + 1, is_last)
                        }
                        _ => continue,
                    };
                    let mut image = self.journal.image.clone();
                    image.put(path, with.file());
                    changed.push((format!("commit {number} in {path}: {change:?}"), image, bad, lost_end));
                }
            }
            first += segment.frames.len();
        }
        changed
    }
}

/// I4, I27, I28: the other copy has it.
#[test]
fn a_frame_that_was_tampered_with_in_the_log_is_healed_from_the_index() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let pair = Pair::make(&mut numbers)?;
    let changes = sample(pair.changes(), 600, &mut numbers);
    let healed = in_threads(changes.len(), threads(), |directory, number| {
        let (name, image, ..) = &changes[number];
        let place = directory.join(number.to_string());
        image.write(&place)?;
        opens_whole(&place, &pair.journal.commits, &small(&place)).with_context(|| name.clone())?;
        Ok(fs::remove_dir_all(place)?)
    })?;
    println!("tampered with in the log: {healed} frames, each healed from the index");
    recorded("tamper-healed", healed)
}

/// I27, I28: no copy has it, so it is named, and nothing starts. A missing end alone leaves a good journal of an earlier
/// time: against that a head is kept elsewhere.
#[test]
fn a_frame_that_was_tampered_with_is_named_where_there_is_no_index() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let pair = Pair::make(&mut numbers)?;
    let changes = pair.changes();
    let every = changes.len().div_ceil(count(300, usize::MAX)).max(1);
    let named = in_threads(changes.len(), threads(), |directory, number| {
        let (name, image, bad, lost_end) = &changes[number];
        // Another journal's first commit follows nothing either: only the second shows that it is another's.
        let bad = if *bad == 1 && name.ends_with("TakenFromAnotherJournal") { 2 } else { *bad };
        let place = directory.join(number.to_string());
        let mut log = image.clone();
        image.paths().filter(|path| !path.starts_with("log/")).for_each(|path| drop(log.take(path)));
        log.write(&place)?;
        match read(&place) {
            Ok((commits, _)) => ensure!(*lost_end && pair.journal.commits.starts_with(&commits), "{name}: not found"),
            Err(found) => ensure!(names(&found, bad) && !lost_end, "{name}: {found}"),
        }
        // Opening takes longer than reading, and finds the same.
        if number % every == 0 {
            match DurableStore::open(&small(&place)) {
                // One that is there twice, where the next segment says that it is not needed, is left out.
                Ok((store, _)) => {
                    let found = store.commits(CommitNumber(0), usize::MAX)?;
                    ensure!(*lost_end || found.starts_with(&pair.journal.commits), "{name}: it opens");
                }
                Err(StoreError::Damaged { place, .. }) => ensure!(names(&place, bad), "{name}: named {place}"),
                Err(other) => anyhow::bail!("{name}: {other}"),
            }
        }
        Ok(fs::remove_dir_all(place)?)
    })?;
    println!("tampered with in both copies: {named} frames, each found and named");
    recorded("tamper-named", named)
}

/// I27: one bit in each frame at the same time, each time other bits. A length hides where the next frame begins: those
/// that are flipped there are alone in their segment.
#[test]
fn bits_flipped_in_all_frames_at_once_are_healed_from_the_index() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let journal = Journal::make(numbers.below(u64::MAX), 60, small)?;
    let segments = segments(&journal.image);
    let (rounds, seed) = (count(300, 8_000), numbers.below(u64::MAX));
    let flipped = AtomicUsize::new(0);
    in_threads(rounds, threads(), |directory, number| {
        let mut numbers = Numbers::of(seed ^ number as u64);
        let mut image = journal.image.clone();
        for (path, segment) in &segments {
            let mut file = segment.file();
            let places = segment.places();
            let alone = usize::try_from(numbers.below(places.len() as u64))?;
            let lengths = number % 8 == 0;
            for place in
                places.iter().enumerate().filter(|(frame, _)| !lengths || *frame == alone).map(|(_, place)| place)
            {
                let (from, to) = if lengths { (0, 4) } else { (4, place.len()) };
                let at = place.start + from + usize::try_from(numbers.below((to - from) as u64))?;
                file[at] ^= 1 << numbers.below(8);
                flipped.fetch_add(1, Ordering::Relaxed);
            }
            image.put(path, file);
        }
        let place = directory.join(number.to_string());
        image.write(&place)?;
        opens_whole(&place, &journal.commits, &small(&place)).with_context(|| format!("seed {seed} ^ {number}"))?;
        Ok(fs::remove_dir_all(place)?)
    })?;
    println!(
        "flipped in the log: {} bits in {rounds} openings, each healed from the index",
        flipped.load(Ordering::Relaxed)
    );
    recorded("tamper-bits-healed", flipped.into_inner())
}

/// I27, I29: whatever becomes of the index, the log makes it again.
#[test]
fn an_index_with_flipped_bits_or_cut_files_costs_nothing() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let journal = Journal::make(numbers.below(u64::MAX), 30, small)?;
    let files: Vec<&str> = journal.image.paths().filter(|path| !path.starts_with("log/") && *path != "lock").collect();
    ensure!(!files.is_empty(), "there is an index");
    let (rounds, seed) = (count(400, 8_000), numbers.below(u64::MAX));
    in_threads(rounds, threads(), |directory, number| {
        let mut numbers = Numbers::of(seed ^ number as u64);
        let path = files[usize::try_from(numbers.below(files.len() as u64))?];
        let mut file = journal.image.file(path).unwrap_or_default().to_vec();
        let at = usize::try_from(numbers.below(file.len().max(1) as u64))?;
        let cut = number % 4 == 0 || file.is_empty();
        if cut {
            file.truncate(at);
        } else {
            file[at] ^= 1 << numbers.below(8);
        }
        let mut image = journal.image.clone();
        image.put(path, file);
        let place = directory.join(number.to_string());
        image.write(&place)?;
        let what = if cut { "cut" } else { "flipped" };
        opens_whole(&place, &journal.commits, &small(&place)).with_context(|| format!("{path} {what} at byte {at}"))?;
        Ok(fs::remove_dir_all(place)?)
    })?;
    println!("index flipped or cut at {rounds} places: all of them without a loss");
    recorded("tamper-index", rounds)
}

/// I27: open or closed, large or small, of one opening or of several.
#[test]
fn a_good_journal_is_never_called_bad() -> anyhow::Result<()> {
    let (rounds, seed) = (count(200, 2_000), seed());
    in_threads(rounds, threads(), |directory, number| {
        let mut numbers = Numbers::of(seed ^ number as u64);
        let (place, copy) = (directory.join(number.to_string()), directory.join("copy"));
        let segment_bytes = 1024 << numbers.below(6);
        for _ in 0..=numbers.below(3) {
            let (store, _) = DurableStore::open(&DurableOptions { segment_bytes, ..small(&place) })?;
            let workflows = usize::try_from(numbers.below(12))?;
            write(&store, &mut numbers, workflows, |_| Ok(()))?;
            // As a kill would leave it.
            Image::read(&place)?.write(&copy)?;
            let commits = store.commits(CommitNumber(0), usize::MAX)?;
            if numbers.below(2) == 0 {
                store.close()?;
            }
            drop(store);
            for good in [&place, &copy] {
                let read = read(good).map_err(|bad| anyhow::anyhow!("it is called bad: {bad}"))?;
                ensure!(read == (commits.clone(), false), "it reads as another");
                let check = check_index(good)?;
                let named = (check.differences.as_slice(), check.ahead);
                ensure!(named == (&[], 0), "its index is called bad: {named:?}");
            }
            fs::remove_dir_all(&copy)?;
        }
        Ok(fs::remove_dir_all(place)?)
    })?;
    println!("good journals: {rounds}, none called bad");
    recorded("tamper-good", rounds)
}
