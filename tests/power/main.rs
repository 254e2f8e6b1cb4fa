//! Power loss: whatever a disk holds when the power fails, the journal opens with every commit that was acknowledged.
//!
//! - A process writes a journal with small segments; what it does to the disk is recorded below it. After each operation
//!   the model of the disk tells what may be there: nothing that was not synced, all of it, all but the last operation,
//!   only that, half of it, random sectors. Each such state is laid out and opened with the real store.
//! - Then the same within the recovery from some of these states, and a disk that lied: one copy as it was earlier, the
//!   other as it is. Such a loss is healed, or it is named and nothing starts (I28).
//! - At last real power cuts, on a real file system ([`block`]).

mod block;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{
    Commit, CommitNumber,
    store::{DurableStore, Store as _, StoreError, verify},
};
use cairn_tests::{
    disk::{Disk, Image, Kept},
    extent::{count, recorded},
    journal::small,
    program::path_of,
    shim::{Record, Shim},
    site::{Numbers, seed},
};

/// The file in which the writer tells what was acknowledged.
const ACKNOWLEDGED: &str = "acknowledged";

/// Where images are laid out: in memory, where there is room, since what is tried here is no disk.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}

/// What a writer did to its disk.
struct Recording {
    /// What was there before.
    before: Image,
    records: Vec<Record>,
    /// The whole journal, as it was in the end.
    commits: Vec<Commit>,
}

impl Recording {
    /// Has a journal written on top of what is in `before`.
    fn make(before: &Image, workflows: usize, openings: usize, seed: u64) -> anyhow::Result<Self> {
        let place = scratch()?;
        let data = place.path().join("data");
        before.write(&data)?;
        let shim = Shim { directory: data.clone(), record: place.path().join("record"), with_data: true, at: None };
        let numbers = [("--workflows", workflows as u64), ("--openings", openings as u64), ("--seed", seed)];
        let mut command = Command::new(path_of("journal-writer"));
        command.arg("--data").arg(&data).envs(shim.environment()?);
        for (name, value) in numbers {
            command.args([name.to_owned(), value.to_string()]);
        }
        let ended = command.output()?;
        ensure!(ended.status.success(), "the writer: {}", String::from_utf8_lossy(&ended.stderr));
        let commits = cairn_engine::store::LogReader::open(&data)?.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { before: before.clone(), records: shim.records()?, commits })
    }
}

/// One state of a disk, and what was promised when it was made.
struct State {
    image: Image,
    acknowledged: u64,
    /// Which one it is, for whoever has to look at it.
    name: String,
}

/// Reads on what the writer tells: in one write each, how many commits have been acknowledged so far.
fn read_on(acknowledged: &mut u64, record: &Record) {
    let told = if record.path == ACKNOWLEDGED { String::from_utf8_lossy(&record.data) } else { "".into() };
    if let Some((number, _)) = told.split_once(':') {
        *acknowledged = number.parse().unwrap_or(*acknowledged);
    }
}

fn variants(numbers: &mut Numbers, randoms: usize) -> Vec<Kept> {
    let mut variants = vec![Kept::Nothing, Kept::All, Kept::AllButTheLast, Kept::OnlyTheLast, Kept::HalfOfTheLast];
    let mut random = || Kept::Random { seed: numbers.below(u64::MAX), of_eight: 1 + numbers.below(7) };
    variants.extend((0..randoms).map(|_| random()));
    variants
}

/// Every state that the power may leave behind, operation by operation, handed to `each`.
fn states(
    recording: &Recording,
    randoms: usize,
    numbers: &mut Numbers,
    mut each: impl FnMut(State) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut disk = Disk::holding(&recording.before);
    let mut acknowledged = 0;
    for (at, record) in recording.records.iter().enumerate() {
        disk.apply(record);
        read_on(&mut acknowledged, record);
        if record.path == ACKNOWLEDGED {
            continue;
        }
        let variants = if disk.is_durable() { vec![Kept::All] } else { variants(numbers, randoms) };
        for kept in variants {
            let mut image = disk.image(kept);
            image.take(ACKNOWLEDGED);
            let name = format!("{kept:?} after operation {} ({record})", at + 1);
            each(State { image, acknowledged, name })?;
        }
    }
    Ok(())
}

/// What came of opening a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Whole,
    Named,
}

/// Opens it and sees that all that was acknowledged is there, and nothing that never was.
fn open(place: &Path, state: &State, commits: &[Commit]) -> anyhow::Result<Opened> {
    state.image.write(place)?;
    let (store, report) = match DurableStore::open(&small(place)) {
        Ok(opened) => opened,
        Err(StoreError::Damaged { .. }) => return Ok(Opened::Named),
        Err(error) => bail!("it does not open: {error}"),
    };
    let found = store.commits(CommitNumber(0), usize::MAX)?;
    let (opening, found) = found.split_last().context("its opening is a commit")?;
    ensure!(opening.entries.is_empty(), "its opening is not the last commit: {opening:?}");
    let kept = found.len() as u64;
    ensure!(kept >= state.acknowledged, "{kept} commits of {} are left: {report:?}", state.acknowledged);
    ensure!(commits.get(..found.len()) == Some(found), "it has commits that were never made: {report:?}");
    verify(found.iter().chain([opening]).cloned().map(Ok))?;
    store.close()?;
    Ok(Opened::Whole)
}

/// What a number of states came to.
#[derive(Default)]
struct Tally {
    states: AtomicUsize,
    named: AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, state: &State, opened: anyhow::Result<Opened>, may_be_named: bool) {
        self.states.fetch_add(1, Ordering::Relaxed);
        let fault = match opened {
            Ok(Opened::Whole) => return,
            Ok(Opened::Named) => {
                self.named.fetch_add(1, Ordering::Relaxed);
                if may_be_named {
                    return;
                }
                "it does not start, though every sync was kept".to_owned()
            }
            Err(error) => format!("{error:#}"),
        };
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {fault}", state.name));
    }

    fn end(self, name: &str) -> anyhow::Result<usize> {
        let (states, named) = (self.states.into_inner(), self.named.into_inner());
        let faults = self.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("{name}: states {states}, named {named}, violations {}", faults.len());
        let some: Vec<&str> = faults.iter().take(20).map(String::as_str).collect();
        ensure!(faults.is_empty(), "{}", some.join("\n"));
        Ok(states)
    }
}

/// Opens every state that `make` hands out, on all cores.
fn sweep(
    commits: &[Commit],
    may_be_named: bool,
    tally: &Tally,
    make: impl FnOnce(&mut dyn FnMut(State) -> anyhow::Result<()>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let place = scratch()?;
    let (sender, receiver) = mpsc::sync_channel::<State>(64);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for worker in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (receiver, place) = (&receiver, place.path());
            scope.spawn(move || {
                for number in 0.. {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(state) = next else { break };
                    let directory: PathBuf = place.join(format!("{worker}-{number}"));
                    tally.count(&state, open(&directory, &state, commits), may_be_named);
                    // What is left of it is gone with the whole place at the latest.
                    let _ = std::fs::remove_dir_all(directory);
                }
            });
        }
        make(&mut |state| sender.send(state).context("the workers are there")).inspect(|()| drop(sender))
    })
}

/// I1, I4, I28, I29: nothing that was acknowledged is lost with the power, whatever the disk did in which order.
#[test]
fn whatever_a_power_cut_leaves_the_journal_opens_with_all_that_was_acknowledged() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let recording = Recording::make(&Image::default(), count(130, 400), count(4, 16), numbers.below(u64::MAX))?;
    println!("{} storage operations, {} commits", recording.records.len(), recording.commits.len());
    let tally = Tally::default();
    let randoms = count(4, 20);
    sweep(&recording.commits, false, &tally, |each| states(&recording, randoms, &mut numbers, each))?;
    recorded("power", tally.end("power cut")?)
}

/// The same for a cut within the recovery from a cut.
#[test]
fn whatever_a_power_cut_within_the_recovery_leaves_the_journal_opens_with_all_that_was_acknowledged()
-> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let first = Recording::make(&Image::default(), 24, 2, numbers.below(u64::MAX))?;
    let mut cuts = Vec::new();
    states(&first, 2, &mut numbers, |state| {
        cuts.push(state);
        Ok(())
    })?;
    let tally = Tally::default();
    for _ in 0..count(6, 120) {
        let cut = &cuts[usize::try_from(numbers.below(cuts.len() as u64))?];
        let before = &cut.image;
        let recording = Recording::make(before, 2, 1, numbers.below(u64::MAX)).with_context(|| cut.name.clone())?;
        sweep(&recording.commits, false, &tally, |each| {
            states(&recording, 2, &mut numbers, |state| {
                let acknowledged = state.acknowledged.max(cut.acknowledged);
                let name = format!("{}, recovered from {}", state.name, cut.name);
                each(State { acknowledged, name, ..state })
            })
        })?;
    }
    recorded("power-recovery", tally.end("power cut within a recovery")?)
}

/// I28: a disk that lost what it had said to be safe, of one copy: it is put back from the other, or named.
///
/// While a journal is open its index is behind by a moment: what only the log had, and lost, nobody knows of. So a log is
/// aged under an index that is at rest, which knows everything; the index at any moment.
#[test]
fn what_one_copy_has_lost_although_it_was_synced_is_put_back_or_named() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let recording = Recording::make(&Image::default(), 60, 6, numbers.below(u64::MAX))?;
    let (mut disk, mut acknowledged) = (Disk::new(), 0);
    let (mut moments, mut at_rest) = (Vec::new(), Vec::new());
    for record in &recording.records {
        disk.apply(record);
        read_on(&mut acknowledged, record);
        let mut image = disk.image(Kept::All);
        image.take(ACKNOWLEDGED);
        if record.path == ACKNOWLEDGED && record.data == b"at rest\n" {
            at_rest.push(moments.len());
        }
        moments.push((image, acknowledged));
    }
    ensure!(at_rest.len() == 5, "the writer came to rest {} times", at_rest.len());
    let tally = Tally::default();
    sweep(&recording.commits, true, &tally, |each| {
        let mut pick = |of: usize| usize::try_from(numbers.below(of as u64)).unwrap_or(0);
        for number in 0..count(600, 5_000) {
            let (copy, now) = match number % 2 {
                0 => ("log", at_rest[pick(at_rest.len())]),
                _ => ("journal", pick(moments.len())),
            };
            let then = pick(now + 1);
            let image = moments[now].0.with(copy, &moments[then].0);
            let name = format!("{copy} as after operation {}, all else as after {}", then + 1, now + 1);
            each(State { image, acknowledged: moments[now].1, name })?;
        }
        Ok(())
    })?;
    recorded("power-lies", tally.end("one copy as it was earlier")?)
}
