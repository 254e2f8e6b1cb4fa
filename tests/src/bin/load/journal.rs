//! A journal of millions of entries: how soon it is ready, what reading and appending take then, how fast the tools are.
//!
//! It is written through the store itself, in groups as many workflows make them at once. Each opening that is measured is a
//! process of its own, so that its memory is the opening's, and the way to kill it is SIGKILL.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cairn_engine::{
    Amounts, Attempt, CommitNumber, Effect, Engine, EngineOptions, Fact, Hash, Json, Limits, OnFailure, Outcome,
    Output as StepOutput, Registry, Sequence, StepName, Submitted, SystemChance, SystemClock, Timestamp, WorkflowId,
    store::{Append, DurableOptions, DurableStore, ListQuery, Store},
};
use cairn_tests::no_op;
use tokio::runtime::Runtime;

use crate::{
    output::{Output, percentile_ms},
    process,
};

/// Appends in a commit: as many as a few hundred workflows in flight make at once.
const GROUP: usize = 64;
/// Workflows that are appended to see how fast that is.
const APPENDED: usize = 4_000;
/// The entries of a workflow: its submission, each step's start and end, its end.
const ENTRIES: usize = 2 * no_op::STEPS + 2;
/// How often an opening after a close, and one after a kill, is measured.
const ROUNDS: usize = 3;
/// How many histories and pages are read.
const READS: usize = 200;
/// Workflows a page.
const PAGE: usize = 100;
const TENANTS: usize = 64;

/// Measures a journal of `workflows` workflows in `directory`; the tools, where `tools` is the program `cairn-journal`.
pub(crate) fn measure(directory: &Path, workflows: usize, tools: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    output.title(&format!("A journal of {workflows} finished workflows of ten steps"));
    let large = directory.join("journal");
    let start = Instant::now();
    let entries = fill(&large, workflows)?;
    output.row(
        "journal: made",
        &[
            ("workflows", workflows as f64),
            ("entries", entries as f64),
            ("entries_per_s", entries as f64 / start.elapsed().as_secs_f64()),
            ("log_bytes_per_workflow", process::journal_bytes(&large.join("log"))? as f64 / workflows as f64),
            ("index_bytes_per_workflow", process::allocated_bytes(&large.join("journal")) as f64 / workflows as f64),
        ],
    );
    for round in 0..ROUNDS {
        let empty = directory.join(format!("empty-{round}"));
        opened_in_a_process(&empty, Ending::Closed, "journal: new and empty", output)?;
        std::fs::remove_dir_all(&empty)?;
        opened_in_a_process(&large, Ending::Killed, "journal: opened after a close", output)?;
        opened_in_a_process(&large, Ending::Closed, "journal: opened after a kill", output)?;
    }
    if let Some(tools) = tools {
        let entries = entries + 2 * ROUNDS * APPENDED * ENTRIES;
        for arguments in [&["verify"][..], &["verify", "--log-only"], &["replay", "--all"], &["rebuild"]] {
            tool(tools, arguments, &large, entries, output)?;
        }
    }
    Ok(std::fs::remove_dir_all(&large)?)
}

/// What becomes of an opening once it is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Killed,
}

fn opened_in_a_process(directory: &Path, ending: Ending, measured: &str, output: &Output) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("opened").arg(directory).args(["--measured", measured]);
    command.args(output.json.then_some("--json")).args((ending == Ending::Killed).then_some("--killed"));
    let status = command.stdin(Stdio::null()).status().context("cannot start this program again")?;
    ensure!(status.success() || ending == Ending::Killed, "the opening of {} failed: {status}", directory.display());
    Ok(())
}

fn tool(program: &Path, arguments: &[&str], data: &Path, entries: usize, output: &Output) -> anyhow::Result<()> {
    output.title(&format!("cairn-journal {}", arguments.join(" ")));
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(arguments).arg("--data").arg(data).stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut running = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let id = i32::try_from(running.id())?;
    let (mut peak, mut cpu) = (f64::NAN, f64::NAN);
    let status = loop {
        // Gone once it has ended: what is seen last counts.
        peak = peak.max(process::peak_rss_mib_of(id));
        cpu = cpu.max(process::cpu_seconds_of(id));
        match running.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    ensure!(status.success(), "{} {arguments:?} ended with {status}", program.display());
    let took = start.elapsed().as_secs_f64();
    let figures = [
        ("seconds", took),
        ("cpu_s", cpu),
        ("entries_per_s", entries as f64 / took),
        ("entries_per_cpu_s", entries as f64 / cpu),
        ("peak_rss_mib", peak),
    ];
    output.row(&format!("journal: {}", arguments.join(" ")), &figures);
    Ok(())
}

/// Opens the journal in `directory`, reads and appends, and says what that took; with `killed` it does not return.
pub(crate) fn opened(
    runtime: &Runtime,
    directory: &Path,
    measured: &str,
    killed: bool,
    output: &Output,
) -> anyhow::Result<()> {
    output.title(measured);
    let start = Instant::now();
    let (store, report) = DurableStore::open(&DurableOptions::new(directory))?;
    let (open, cpu) = (start.elapsed(), process::cpu_seconds());
    ensure!(report.healed.is_empty() && report.set_aside.is_none(), "it is not as it was left: {report:?}");
    let store: Arc<dyn Store> = Arc::new(store);
    let engine = runtime.block_on(Engine::open(EngineOptions {
        store: Arc::clone(&store),
        definitions: Registry::new([no_op::definition(false)]),
        clock: Arc::new(SystemClock),
        chance: Arc::new(SystemChance),
        limits: Limits::default(),
    }))?;
    let ready = start.elapsed();
    let mut figures = vec![
        ("open_ms", open.as_secs_f64() * 1e3),
        ("ready_ms", ready.as_secs_f64() * 1e3),
        ("open_cpu_ms", cpu * 1e3),
        ("caught_up", report.caught_up as f64),
        ("rss_mib", process::rss_bytes() / f64::from(1 << 20)),
    ];
    reads(store.as_ref(), &mut figures)?;
    appends(store.as_ref(), &mut figures)?;
    figures.push(("peak_rss_mib", process::peak_rss_mib()));
    output.row(measured, &figures);
    if killed {
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::KILL)?;
    }
    runtime.block_on(engine.shutdown(Duration::ZERO))?;
    Ok(())
}

/// What one workflow's history, the first page and one in the middle take.
fn reads(store: &dyn Store, figures: &mut Vec<(&str, f64)>) -> anyhow::Result<()> {
    let query = |before, limit| ListQuery { before, limit, ..ListQuery::default() };
    let Some(newest) = store.list(&query(None, 1))?.first().map(|listed| listed.workflow) else { return Ok(()) };
    let first = store.commits(CommitNumber(0), 8)?;
    let oldest = first.iter().find_map(|commit| commit.entries.first()).context("it has workflows and no entries")?;
    let (oldest, newest) = (submitted_at(oldest.workflow), submitted_at(newest));
    let mut sample = Vec::with_capacity(READS);
    for at in 1..=READS as u64 {
        let time = oldest + (newest - oldest) * at / READS as u64;
        let before = id_of(time);
        sample.extend(store.list(&query(Some(before), 1))?.first().map(|listed| listed.workflow));
    }
    ensure!(!sample.is_empty(), "no workflow is older than the newest");
    // Far apart from one to the next, so that what one has read is of no use to the next.
    let spread = |at: usize| sample[at * 79 % sample.len()];
    let timed = |work: &dyn Fn(usize) -> anyhow::Result<usize>| {
        let mut times = Vec::with_capacity(READS);
        for at in 0..READS {
            let start = Instant::now();
            std::hint::black_box(work(at)?);
            times.push(start.elapsed());
        }
        times.sort();
        anyhow::Ok((percentile_ms(&times, 50), percentile_ms(&times, 99)))
    };
    let history = timed(&|at| Ok(store.workflow(spread(at))?.len()))?;
    let first = timed(&|_| Ok(store.list(&query(None, PAGE))?.len()))?;
    let deep = timed(&|at| Ok(store.list(&query(Some(spread(at)), PAGE))?.len()))?;
    figures.extend([
        ("history_p50_ms", history.0),
        ("history_p99_ms", history.1),
        ("page_p50_ms", first.0),
        ("page_p99_ms", first.1),
        ("deep_page_p50_ms", deep.0),
        ("deep_page_p99_ms", deep.1),
    ]);
    Ok(())
}

/// The id of a workflow that is submitted in this millisecond.
fn id_of(millisecond: u64) -> WorkflowId {
    let mut bytes: [u8; 16] = rand::random();
    bytes[..6].copy_from_slice(&millisecond.to_be_bytes()[2..]);
    // Version 7, and the variant that goes with it.
    (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x70, bytes[8] & 0x3f | 0x80);
    WorkflowId::from_bytes(bytes)
}

/// The milliseconds that a UUIDv7 begins with.
fn submitted_at(workflow: WorkflowId) -> u64 {
    workflow.as_bytes()[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte))
}

/// Workflows appended a second, in the groups in which the journal was made.
fn appends(store: &dyn Store, figures: &mut Vec<(&str, f64)>) -> anyhow::Result<()> {
    let (start, cpu) = (Instant::now(), process::cpu_seconds());
    Filling::new(store, APPENDED)?.run()?;
    figures.push(("append_workflows_per_s", APPENDED as f64 / start.elapsed().as_secs_f64()));
    figures.push(("append_cpu_s_per_1000", (process::cpu_seconds() - cpu) / APPENDED as f64 * 1e3));
    Ok(())
}

/// Makes the journal, and says how many entries it has.
fn fill(directory: &Path, workflows: usize) -> anyhow::Result<usize> {
    let (store, _) = DurableStore::open(&DurableOptions::new(directory))?;
    let entries = Filling::new(&store, workflows)?.run()?;
    store.close()?;
    Ok(entries)
}

/// Workflows that are appended side by side, a group at a time.
struct Filling<'a> {
    store: &'a dyn Store,
    left: usize,
    made: usize,
    steps: Vec<StepName>,
    /// Each with the number of appends that it has.
    running: Vec<(WorkflowId, Sequence, usize)>,
    run: u32,
}

impl<'a> Filling<'a> {
    fn new(store: &'a dyn Store, workflows: usize) -> anyhow::Result<Self> {
        let steps = (0..no_op::STEPS).map(|step| StepName::new(&format!("step_{step}"))).collect();
        Ok(Self { store, left: workflows, made: 0, steps, running: Vec::new(), run: rand::random() })
    }

    /// Appends all of them, and says how many entries that were.
    fn run(mut self) -> anyhow::Result<usize> {
        let mut entries = 0;
        loop {
            while self.running.len() < GROUP && self.left > 0 {
                self.left -= 1;
                self.running.push((id_of(u64::try_from(now().as_micros() / 1_000)?), Sequence(0), 0));
            }
            if self.running.is_empty() {
                return Ok(entries);
            }
            let mut appends = Vec::with_capacity(self.running.len());
            for at in 0..self.running.len() {
                let (workflow, expected, place) = self.running[at];
                let facts = self.facts(place)?;
                entries += facts.len();
                self.running[at] = (workflow, Sequence(expected.0 + facts.len() as u64), place + 1);
                let (token, quota) = (self.store.token(), Amounts::new());
                appends.push(Append { workflow, expected, token, facts, quota });
            }
            let answers = self.store.commit(appends, now())?;
            ensure!(answers.iter().all(Result::is_ok), "an append is refused: {answers:?}");
            self.running.retain(|(_, _, place)| *place < no_op::STEPS + 2);
        }
    }

    /// What the append at this place of a workflow holds.
    fn facts(&mut self, place: usize) -> anyhow::Result<Vec<Fact>> {
        let attempt = Attempt(1);
        let started = |step: usize| Fact::AttemptStarted { step: self.steps[step].clone(), attempt };
        let succeeded = |step: usize| {
            let output = StepOutput::new("nothing to do", &no_op::made())?;
            anyhow::Ok(Fact::AttemptSucceeded { step: self.steps[step].clone(), attempt, output })
        };
        let last = no_op::STEPS - 1;
        Ok(match place {
            0 => vec![Fact::Submitted(self.submitted()?)],
            1 => vec![started(0)],
            place if place - 2 < last => vec![succeeded(place - 2)?, started(place - 1)],
            _ => vec![succeeded(last)?, Fact::Finished { outcome: Outcome::Succeeded, residue: Vec::new() }],
        })
    }

    fn submitted(&mut self) -> anyhow::Result<Submitted> {
        self.made += 1;
        let number = self.made;
        let service = format!("service-{:x}-{number}", self.run);
        Ok(Submitted {
            definition: no_op::NAME.into(),
            version: 1,
            fingerprint: Hash([7; 32]),
            steps: self.steps.clone(),
            effect: Effect::Create,
            tenant: format!("tenant-{}", number % TENANTS).as_str().into(),
            service: service.as_str().into(),
            input: Json::of(&"y".repeat(200))?,
            key: Some(service.as_str().into()),
            body_hash: Hash::default(),
            who: "load".into(),
            holds: [("clusters".into(), 1)].into(),
            on_failure: OnFailure::Rollback,
        })
    }
}

fn now() -> Timestamp {
    use cairn_engine::Clock as _;
    SystemClock.now()
}
