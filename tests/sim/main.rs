//! The real fold, decide, executor, writer and recovery on a simulated clock, disk and cluster: thousands of workflows under
//! trouble that is drawn from a seed, then calm, in which all must end; and the same seed gives the same run.

mod clients;
mod cluster;
mod disk;
mod judge;
mod life;
mod notes;
mod steps;
mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use cairn_tests::{
    extent::{count, recorded},
    site::seed,
};

use crate::world::{Ran, run};

/// So many workflows meet in one world, about.
const TOGETHER: usize = 64;

/// What every run of some thousand workflows has met: a run that has not has proved less than it says.
const MET: [&str; 27] = [
    "answers lost",
    "calls answered",
    "calls done after nobody waited for them",
    "calls forbidden",
    "calls lost",
    "calls refused",
    "calls that hang",
    "calls that panic",
    "cancelled",
    "cancelled by force",
    "commits kept that nobody learned of",
    "commits lost",
    "compensations",
    "ended where it was parked",
    "failed",
    "keys used for something else",
    "lives that a failed write ended",
    "lives that were asked to end",
    "lives that were killed",
    "parked",
    "paused",
    "probes",
    "submissions beyond the quota",
    "submissions of which nobody knew",
    "submissions repeated",
    "succeeded",
    "tried again",
];

/// I1, I3 to I10, I12 to I17, I22, I26, I27, I29 and I30; of I33 that no workflow is ever unrecoverable.
#[test]
fn whatever_goes_wrong_every_creation_completes_or_leaves_nothing() -> anyhow::Result<()> {
    let wanted = count(20_000, 1_000_000);
    let (first, began) = (seed(), Instant::now());
    let (next, done) = (AtomicU64::new(first), AtomicUsize::new(0));
    let all: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let one_after_another = || {
        while done.load(Ordering::Relaxed) < wanted {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let Ran { workflows, notes, .. } = good(seed).inspect_err(|_| done.store(wanted, Ordering::Relaxed))?;
            done.fetch_add(workflows, Ordering::Relaxed);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            for (what, times) in notes.counts {
                *all.entry(what).or_default() += times;
            }
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one_after_another)).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("it has not panicked"))
    })?;
    let (workflows, worlds) = (done.into_inner(), next.into_inner() - first);
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{workflows} workflows in {worlds} worlds, {:.0} s, 0 violations", began.elapsed().as_secs_f64());
    println!("{}", all.iter().map(|(what, times)| format!("{times} {what}")).collect::<Vec<_>>().join(", "));
    for what in MET {
        ensure!(all.contains_key(what), "in {workflows} workflows there were no {what}");
    }
    recorded("sim", workflows)
}

#[test]
fn the_same_seed_gives_the_same_run_byte_for_byte() -> anyhow::Result<()> {
    let first = seed();
    let mut heads = Vec::new();
    for seed in first..first + 10 {
        let [one, other] = [run(seed, TOGETHER)?, run(seed, TOGETHER)?];
        ensure!(serde_json::to_vec(&one.journal)? == serde_json::to_vec(&other.journal)?, "{}", repeat(seed));
        ensure!(one == other, "{}: the journals are the same, and the worlds are not", repeat(seed));
        let head = one.journal.last().context("there are commits")?.hash;
        ensure!(!heads.contains(&head), "two seeds give one run");
        println!("seed {seed}: {} workflows, {} commits up to {head}", one.workflows, one.journal.len());
        heads.push(head);
    }
    recorded("sim-twice", heads.len())
}

/// Runs the world of this seed, in which nothing may be broken.
fn good(seed: u64) -> anyhow::Result<Ran> {
    let ran = run(seed, TOGETHER).with_context(|| repeat(seed))?;
    ensure!(ran.notes.broken.is_empty(), "{}\n{}", repeat(seed), ran.notes.broken.join("\n"));
    Ok(ran)
}

fn repeat(seed: u64) -> String {
    format!("CAIRN_TEST_SEED={seed} tests/run sim begins with this world")
}
