//! The engine in process, on both copies of the journal, with views off.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cairn_engine::{
    Amounts, Engine, EngineOptions, Hash, Json, Limits, NewSubmission, OnFailure, Outcome, Registry, SystemChance,
    SystemClock, WorkflowState,
    store::{DurableOptions, DurableStore},
};
use cairn_tests::no_op;
use tokio::runtime::Runtime;

use crate::{
    disk::Disk,
    output::{Output, percentile_ms},
    process,
    timed::{Timed, counted},
};

/// The entries of a workflow that succeeds: its submission, each step's start and end, its end.
const ENTRIES: usize = 2 * no_op::STEPS + 2;

async fn open(directory: &Path, limits: Limits, waits: bool) -> anyhow::Result<Engine> {
    let (store, _) = DurableStore::open(&DurableOptions::new(directory))?;
    let options = EngineOptions {
        store: Arc::new(store),
        definitions: Registry::new([no_op::definition(waits)]),
        clock: Arc::new(SystemClock),
        chance: Arc::new(SystemChance),
        limits,
    };
    Ok(Engine::open(options).await?)
}

async fn submit(engine: &Engine, number: usize) -> anyhow::Result<WorkflowState> {
    let submission = NewSubmission {
        definition: no_op::NAME.into(),
        tenant: format!("tenant-{}", number % 64).as_str().into(),
        service: format!("service-{number}").as_str().into(),
        input: Json::of(&"y".repeat(200))?,
        key: None,
        body_hash: Hash::default(),
        who: "load".into(),
        holds: Amounts::new(),
        quota: Amounts::new(),
        on_failure: OnFailure::Rollback,
    };
    Ok(engine.submit(submission).await?)
}

/// Runs `work` for every number below `count`, `at_once` at a time, and gives the sorted times.
async fn in_parallel<F>(count: usize, at_once: usize, work: impl Fn(usize) -> F) -> anyhow::Result<Vec<Duration>>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let work = &work;
    let next = &AtomicUsize::new(0);
    let workers = (0..at_once).map(|_| async move {
        let mut times = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return anyhow::Ok(times);
            }
            let start = Instant::now();
            tokio::spawn(work(number)).await??;
            times.push(start.elapsed());
        }
    });
    let mut times: Vec<_> = futures::future::try_join_all(workers).await?.into_iter().flatten().collect();
    times.sort();
    Ok(times)
}

/// Workflows a second, from submission to end.
pub(crate) fn workflows(
    runtime: &Runtime,
    directory: &Path,
    in_flight: &[usize],
    count: Option<usize>,
    disk: &Disk,
    output: &Output,
) -> anyhow::Result<()> {
    output.title(
        "The engine: ten no-op steps a workflow, every step durable before and after, both copies of the journal",
    );
    for &in_flight in in_flight {
        let count = counted(in_flight, count);
        let path = directory.join(format!("engine-{in_flight}"));
        runtime.block_on(async {
            let limits = Limits { in_flight, in_flight_per_tenant: in_flight, ..Limits::default() };
            let engine = open(&path, limits, false).await?;
            let (cpu_before, start) = (process::cpu_seconds(), Instant::now());
            let times = in_parallel(count, in_flight, |number| {
                let engine = engine.clone();
                async move {
                    let state = submit(&engine, number).await?;
                    let state = engine.settled(state.id()).await?;
                    anyhow::ensure!(state.outcome() == Some(Outcome::Succeeded), "a no-op failed: {state:?}");
                    Ok(())
                }
            })
            .await?;
            let timed = Timed { asked: count, took: start.elapsed(), times, cpu_before };
            let cpu = process::cpu_seconds();
            engine.shutdown(Duration::from_secs(10)).await?;
            let log = process::journal_bytes(&path.join("log"))?;
            let index = process::allocated_bytes(&path.join("journal"));
            let mut figures = timed.workflows(in_flight, cpu);
            figures.extend([
                ("entries_per_s", timed.per_second() * ENTRIES as f64),
                ("ratio_to_disk", percentile_ms(&timed.times, 50) / disk.waits_ms()),
                ("journal_bytes_per_workflow", log as f64 / count as f64),
                ("index_bytes_per_workflow", index as f64 / count as f64),
                ("peak_rss_mib", process::peak_rss_mib()),
            ]);
            output.row("engine", &figures);
            anyhow::Ok(())
        })?;
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}

/// Submissions acknowledged a second: durable, indexed, nothing run.
pub(crate) fn submissions(runtime: &Runtime, directory: &Path, count: usize, output: &Output) -> anyhow::Result<()> {
    output.title("Submissions acknowledged: durable and indexed, with 1024 clients");
    let path = directory.join("submit");
    runtime.block_on(async {
        let engine = open(&path, Limits { in_flight: 0, ..Limits::default() }, false).await?;
        let (cpu_before, start) = (process::cpu_seconds(), Instant::now());
        let times = in_parallel(count, 1_024, |number| {
            let engine = engine.clone();
            async move { submit(&engine, number).await.map(drop) }
        })
        .await?;
        let timed = Timed { asked: count, took: start.elapsed(), times, cpu_before };
        output.row("engine: submissions", &timed.submissions(process::cpu_seconds()));
        engine.shutdown(Duration::ZERO).await?;
        anyhow::Ok(())
    })?;
    Ok(std::fs::remove_dir_all(&path)?)
}

/// Memory a workflow that waits for its retry time, and the time to open a journal full of them.
pub(crate) fn waiting(runtime: &Runtime, directory: &Path, count: usize, output: &Output) -> anyhow::Result<()> {
    output.title("Waiting: each workflow's first step waits for its retry time");
    let path = directory.join("waiting");
    runtime.block_on(async {
        let engine = open(&path, Limits::default(), true).await?;
        in_parallel(count, 1_024, |number| {
            let engine = engine.clone();
            async move {
                let state = submit(&engine, number).await?;
                // Submitted, started, failed: with the third entry it waits.
                engine.grown(state.id(), cairn_engine::Sequence(2)).await;
                Ok(())
            }
        })
        .await?;
        engine.shutdown(Duration::ZERO).await.context("closing the journal of those that wait")
    })?;
    // Measured on a fresh opening: what submitting them took does not count.
    runtime.block_on(async {
        let before = process::rss_bytes();
        let start = Instant::now();
        let engine = open(&path, Limits::default(), true).await?;
        let opened = start.elapsed();
        // Recovery has read them all; the executor takes them over one by one.
        while engine.health().active < count {
            tokio::task::yield_now().await;
        }
        output.row(
            "engine: waiting",
            &[
                ("workflows", count as f64),
                ("active", engine.health().active as f64),
                ("open_ms", opened.as_secs_f64() * 1e3),
                ("rss_growth_bytes_per_workflow", (process::rss_bytes() - before) / count as f64),
            ],
        );
        engine.shutdown(Duration::ZERO).await?;
        anyhow::Ok(())
    })?;
    Ok(std::fs::remove_dir_all(&path)?)
}
