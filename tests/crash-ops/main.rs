//! The crash sweep below the program: the unmodified `cairn` is killed before, within and after each of its storage
//! operations (log, index, views, lock, ballast), started again, and must end as if nothing had happened.
//!
//! - A clean run counts the operations; then one run for each point. In CI an even sample of them, with a printed seed;
//!   with `tests/run proof` all. Fewer than `tests/counts.toml` records is a failure.
//! - Swept are a creation that succeeds, some that fail and roll back, a change and a deletion; a proof samples the creations
//!   that fail at each of the other steps, too. Then pairs: killed again while it recovers.
//! - The cluster lives on in a process of its own. What must hold at the end is the oracle's to say.
//! - At random moments, too, under the load of many tenants ([`load`]).
//! - Threads take turns as they like: the same point may be another operation in the next run. So a failure names the
//!   operation that was last recorded, and the sweep looks at each place many times.

mod load;

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context as _, ensure};
use cairn_engine::WorkflowId;
use cairn_steps::report::STATUSES;
use cairn_tests::{
    client::{Answer, Client},
    creation::{Later, accepted, ends, submit, workflow_of},
    extent::{count, is_proof, recorded, sample},
    oracle::Told,
    program::{Cairn, CairnOptions, Ended, Started},
    shim::{Cut, Point, Record, Shim},
    site::{Numbers, Site, seed, verify},
};
use futures::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Points that are tried at the same time: most of each is waiting.
const AT_ONCE: usize = 4;

/// How often a run that was over before its point is made again.
const TRIES: usize = 4;

/// What fails, so that there is something to roll back: early, in the middle, and at the very end.
const FAILING: [&str; 3] = ["namespace_created", "rollout_completed", "completed"];

/// In a proof one of so many points of the creations that fail elsewhere.
const ELSEWHERE: usize = 8;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// A creation that succeeds.
    Create,
    /// One that fails at this step, and is taken back.
    Fail(&'static str),
    /// What comes after a creation that nobody has disturbed.
    After(Later),
}

impl Scenario {
    fn options(self) -> CairnOptions {
        let fail_at = match self {
            Self::Fail(step) => Some(step.to_owned()),
            Self::Create | Self::After(_) => None,
        };
        CairnOptions { fail_at, ..CairnOptions::default() }
    }

    fn is_taken_back(self) -> bool {
        matches!(self, Self::Fail(_))
    }

    async fn submit(self, client: &Client, wait: &str) -> anyhow::Result<Answer> {
        match self {
            Self::Create | Self::Fail(_) => submit(client, wait).await,
            Self::After(later) => later.submit(client, wait).await,
        }
    }

    /// A place where it can be begun.
    async fn site(self) -> anyhow::Result<Site> {
        match self {
            Self::Create | Self::Fail(_) => Site::new().await,
            Self::After(_) => Site::like(&created().await?.0).await,
        }
    }

    async fn ends(self, site: &Site, cairn: &Cairn, told: Vec<Told>) -> anyhow::Result<()> {
        match self {
            Self::Create | Self::Fail(_) => ends(site, cairn, told, self.is_taken_back()).await,
            Self::After(later) => later.ends(site, cairn, told, created().await?.1).await,
        }
    }
}

/// Where a cluster was created, and nothing runs any more; and the workflow that has created it. Made once.
async fn created() -> anyhow::Result<&'static (TempDir, WorkflowId)> {
    static CREATED: OnceCell<(TempDir, WorkflowId)> = OnceCell::const_new();
    let create = async || -> anyhow::Result<(TempDir, WorkflowId)> {
        let site = Site::new().await?;
        let cairn = site.cairn(CairnOptions::default()).await?;
        let workflow = workflow_of(&submit(&cairn.client, "?wait=60s").await?.expect(201)?)?;
        cairn.process.terminate().await?;
        Ok((site.kill_sandbox().await?.0, workflow))
    };
    CREATED.get_or_try_init(create).await
}

fn shim(site: &Site, life: usize, at: Option<Point>) -> Shim {
    let record = site.path(&format!("record-{life}"));
    Shim { directory: site.data(), record, with_data: false, at }
}

/// What became of one life of the program.
struct Life {
    /// It was killed where it should be.
    killed: bool,
    /// Its storage operations.
    records: Vec<Record>,
}

/// One life of the program: from its start until it is killed, or until what is asked for has ended and it is told to end.
async fn life(
    site: &Site,
    scenario: Scenario,
    number: usize,
    at: Option<Point>,
    told: &mut Vec<Told>,
) -> anyhow::Result<Life> {
    let shim = shim(site, number, at);
    let options = site.options(CairnOptions { environment: shim.environment()?, ..scenario.options() });
    let ended = match Cairn::start(&site.data(), &options).await? {
        Started::Ended(ended) => ended,
        Started::Ready(cairn) => lived(*cairn, scenario, told).await?,
    };
    let records = shim.records()?;
    if ended.status.signal() == Some(9) {
        return Ok(Life { killed: true, records });
    }
    ensure!(ended.status.success(), "it ended with {} and said:\n{}", ended.status, ended.output);
    if let Some(point) = at {
        ensure!(records.len() < point.operation, "it was to be killed at {point:?}, and was not");
    }
    Ok(Life { killed: false, records })
}

async fn lived(cairn: Cairn, scenario: Scenario, told: &mut Vec<Told>) -> anyhow::Result<Ended> {
    // Each may be the last that the client hears.
    for wait in ["", "?wait=60s"] {
        let Ok(answer) = scenario.submit(&cairn.client, wait).await else { return cairn.process.ended().await };
        // A program that is about to die may still have said that nobody knows.
        if answer.status < 300 {
            told.push(accepted(workflow_of(&answer)?));
        }
    }
    cairn.process.terminate().await
}

/// What came of one run.
#[derive(Default)]
struct Run {
    /// How many of its points were reached.
    reached: usize,
    /// How many storage operations its last life took, if that was over before its point.
    over_after: Option<usize>,
    /// How often it was made again with another point.
    moved: usize,
}

/// What is killed at each of these points in turn, and then left alone.
async fn killed_at(scenario: Scenario, points: &[Point]) -> anyhow::Result<Run> {
    let site = scenario.site().await?;
    let (mut told, mut run) = (Vec::new(), Run::default());
    for (number, point) in points.iter().enumerate() {
        let life = life(&site, scenario, number, Some(*point), &mut told).await?;
        let last = life.records.last().map_or("nothing".to_owned(), ToString::to_string);
        run.over_after = (!life.killed).then_some(life.records.len());
        if life.killed {
            run.reached += 1;
            // Before its first segment is in place there is no journal to speak of.
            if site.data().join("log/000001.log").exists() {
                verify(&site.data()).await.with_context(|| format!("verify, killed after {last}"))?;
            }
        }
    }
    let cairn = site.cairn(scenario.options()).await.context("the last start")?;
    scenario.ends(&site, &cairn, told).await?;
    let ended = cairn.process.terminate().await?;
    ensure!(ended.status.success(), "{ended:?}");
    site.verify().await.context("at the end")?;
    Ok(run)
}

/// The same at one point. A run that was over before it, since its threads took other turns, is made again with a point
/// that it has.
async fn killed_once_at(scenario: Scenario, mut point: Point) -> anyhow::Result<Run> {
    let mut run = Run::default();
    for moved in 0..TRIES {
        run = killed_at(scenario, &[point]).await.with_context(|| format!("{point:?}"))?;
        run.moved = moved;
        let Some(operations) = run.over_after.filter(|operations| *operations > 0) else { break };
        point.operation = 1 + point.operation % operations;
    }
    Ok(run)
}

/// The storage operations of one that nobody disturbs, from the start to the end.
async fn operations(scenario: Scenario) -> anyhow::Result<Vec<Record>> {
    let site = scenario.site().await?;
    let life = life(&site, scenario, 0, None, &mut Vec::new()).await?;
    site.verify().await?;
    Ok(life.records)
}

fn points(operations: &[Record]) -> impl Iterator<Item = Point> {
    operations.iter().enumerate().flat_map(|(at, record)| {
        let half = record.can_be_halved().then_some(Cut::Half);
        let cuts = [Some(Cut::Before), half, Some(Cut::After)];
        cuts.into_iter().flatten().map(move |cut| Point { operation: at + 1, cut })
    })
}

/// Runs all of these, and says what came of it. Returns how many points were reached.
async fn sweep(name: &str, runs: Vec<(Scenario, Vec<Point>)>) -> anyhow::Result<usize> {
    let ran = runs.len();
    let results: Vec<(bool, Result<Run, String>)> = stream::iter(runs)
        .map(|(scenario, points)| async move {
            let result = match points[..] {
                [point] => killed_once_at(scenario, point).await,
                _ => killed_at(scenario, &points).await,
            };
            let result = result.map_err(|error| format!("{scenario:?} killed at {points:?}: {error:#}"));
            if let Err(fault) = &result {
                // A sweep is long: whoever waits for it hears of this now.
                println!("{fault}");
            }
            (scenario.is_taken_back(), result)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let reached: usize = results.iter().filter_map(|(_, result)| result.as_ref().ok()).map(|run| run.reached).sum();
    let moved: usize = results.iter().filter_map(|(_, result)| result.as_ref().ok()).map(|run| run.moved).sum();
    let ended = |failing: bool| results.iter().filter(|(fails, result)| *fails == failing && result.is_ok()).count();
    let faults: Vec<&String> = results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    println!(
        "{name}: runs {ran}, points reached {reached} ({moved} of them others than meant), resumed {}, rolled back {}, violations {}",
        ended(false),
        ended(true),
        faults.len()
    );
    ensure!(faults.is_empty(), "{}", faults.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n\n"));
    Ok(reached)
}

/// Every point of every scenario.
async fn all_points() -> anyhow::Result<Vec<(Scenario, Point)>> {
    let mut all = Vec::new();
    let failing = FAILING.map(Scenario::Fail);
    let later = [Later::Change, Later::Delete].map(Scenario::After);
    for scenario in [Scenario::Create].into_iter().chain(failing).chain(later) {
        let operations = operations(scenario).await.with_context(|| format!("{scenario:?}, undisturbed"))?;
        let before = all.len();
        all.extend(points(&operations).map(|point| (scenario, point)));
        println!("{scenario:?}: {} storage operations, {} points", operations.len(), all.len() - before);
    }
    Ok(all)
}

/// Some points of the creations that fail at each step that is not among those.
async fn points_elsewhere() -> anyhow::Result<Vec<(Scenario, Point)>> {
    let mut some = Vec::new();
    for (at, step) in STATUSES.into_iter().filter(|step| !FAILING.contains(step)).enumerate() {
        let scenario = Scenario::Fail(step);
        let operations = operations(scenario).await.with_context(|| format!("{scenario:?}, undisturbed"))?;
        some.extend(points(&operations).skip(at % ELSEWHERE).step_by(ELSEWHERE).map(|point| (scenario, point)));
    }
    Ok(some)
}

/// I1-I21: wherever between two storage operations, or within one, it dies.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_storage_operation_everything_ends_whole_or_leaves_nothing() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let mut all = all_points().await?;
    if is_proof() {
        all.extend(points_elsewhere().await?);
    }
    let runs = sample(all, 280, &mut numbers).into_iter().map(|(scenario, point)| (scenario, vec![point]));
    let reached = sweep("killed at storage operations", runs.collect()).await?;
    recorded("crash-ops", reached)
}

/// The same, and killed again within the recovery that follows.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_while_it_recovers_everything_ends_whole_or_leaves_nothing() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let all = all_points().await?;
    let mut runs = Vec::new();
    for _ in 0..count(70, 1_500) {
        let (scenario, first) = all[usize::try_from(numbers.below(all.len() as u64))?];
        // Opening again takes some 70 operations: so half of these die before anything goes on.
        let operation = usize::try_from(1 + numbers.below(140))?;
        let cut = [Cut::Before, Cut::Half, Cut::After][usize::try_from(numbers.below(3))?];
        runs.push((scenario, vec![first, Point { operation, cut }]));
    }
    let reached = sweep("killed again while recovering", runs).await?;
    recorded("crash-ops-pairs", reached)
}
