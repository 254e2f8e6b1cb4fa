//! The crash sweep, in process: one creation for each of its commits and each of its calls to the cluster, cut before
//! it and cut after it, then recovered by the next life of the engine.
//!
//! - It counts first, on a clean run, and then sweeps. Fewer points than `counts.toml` records is a failure: a sweep that
//!   has lost points proves less than it says.
//! - A creation that succeeds is swept, and one that fails at each of the ten steps after that step's work was done.
//! - What must hold at the end is the oracle's to say.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{Outcome, WorkflowState};
use cairn_steps::report::STATUSES;
use cairn_tests::{
    life::{Cut, Operation, Side},
    oracle::verdict,
    world::{World, request},
};

/// What is swept.
#[derive(Clone, Copy)]
struct Scenario {
    /// Its name in `counts.toml`.
    name: &'static str,
    /// The step that fails; none: the creation succeeds.
    failing: Option<&'static str>,
}

impl Scenario {
    /// How it ends when nothing is cut.
    fn end(self) -> Outcome {
        if self.failing.is_some() { Outcome::Failed } else { Outcome::Succeeded }
    }
}

#[derive(Default)]
struct Tally {
    points: usize,
    resumed: usize,
    rolled_back: usize,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        self.points += 1;
        match outcome {
            Outcome::Succeeded => self.resumed += 1,
            Outcome::Failed | Outcome::Cancelled => self.rolled_back += 1,
        }
    }
}

/// The lives of one creation: cut off at each of these in turn, then left alone to its end.
///
/// Returns how it ended, and how many commits and calls the last life made.
fn lives(scenario: Scenario, cuts: &[Cut]) -> anyhow::Result<(Outcome, (u64, u64))> {
    World::run(async |mut world: World| {
        let request = request("acme", "search");
        world.add_foreign().await?;
        for cut in cuts {
            // A cut within the opening itself leaves no engine: that is a life, too.
            let Ok(running) = world.open(Some(*cut), scenario.failing).await else { continue };
            if let Some(workflow) = world.submit(&running, &request).await? {
                world.settle(&running, workflow).await?;
            }
            running.kill();
        }
        let running = world.open(None, scenario.failing).await?;
        // A client that was not answered asks again, with the same key.
        let workflow = world.submit(&running, &request).await?.context("nobody stops this life")?;
        let state: WorkflowState = world.settle(&running, workflow).await?.context("nobody ends this life")?;
        let counts = running.life.counts();
        world.rest().await;
        let verdict = verdict(&world.evidence(true)?);
        ensure!(verdict.is_empty(), "violations:\n{verdict}");
        let outcome = state.outcome().with_context(|| format!("parked: {:?}", state.phase()))?;
        Ok((outcome, counts))
    })
}

fn points((commits, calls): (u64, u64)) -> impl Iterator<Item = Cut> + Clone {
    let operations = (1..=commits).map(Operation::Commit).chain((1..=calls).map(Operation::Call));
    operations.flat_map(|at| Side::BOTH.map(|side| Cut { at, side }))
}

fn swept(scenario: Scenario, cuts: &[Cut], tally: &mut Tally, faults: &mut Vec<String>) {
    match lives(scenario, cuts) {
        Ok((outcome, _)) if outcome == scenario.end() => tally.count(outcome),
        Ok((outcome, _)) => faults.push(format!("{}, cut at {cuts:?}: ended {outcome:?}", scenario.name)),
        Err(error) => faults.push(format!("{}, cut at {cuts:?}: {error:#}", scenario.name)),
    }
}

/// Every commit and every call, once before and once after.
fn sweep(scenario: Scenario) -> anyhow::Result<()> {
    let (end, counts) = lives(scenario, &[]).context("the clean run")?;
    ensure!(end == scenario.end(), "the clean run ended {end:?}");
    not_fewer_than_recorded(scenario.name, counts)?;
    let (mut tally, mut faults) = (Tally::default(), Vec::new());
    for cut in points(counts) {
        swept(scenario, &[cut], &mut tally, &mut faults);
    }
    report(scenario.name, &tally, &faults)
}

/// A second cut within the recovery from the first, for every `stride`-th pair of points.
fn sweep_twice(scenario: Scenario, stride: usize) -> anyhow::Result<()> {
    let (_, counts) = lives(scenario, &[]).context("the clean run")?;
    let (mut tally, mut faults) = (Tally::default(), Vec::new());
    let pairs = points(counts).flat_map(|first| {
        // A recovery makes at most about as many commits and calls as the run that it recovers.
        points(counts).map(move |second| [first, second])
    });
    for pair in pairs.step_by(stride) {
        swept(scenario, &pair, &mut tally, &mut faults);
    }
    report(&format!("{}, cut again within the recovery", scenario.name), &tally, &faults)
}

fn report(name: &str, tally: &Tally, faults: &[String]) -> anyhow::Result<()> {
    println!(
        "{name}: points swept {}, resumed {}, rolled back {}, violations {}",
        tally.points + faults.len(),
        tally.resumed,
        tally.rolled_back,
        faults.len()
    );
    if !faults.is_empty() {
        // The first few say it: one fault breaks many points.
        bail!("{}", faults.iter().take(5).cloned().collect::<Vec<_>>().join("\n\n"));
    }
    Ok(())
}

/// Held against `counts.toml`, where each scenario has the commits and calls of its clean run.
fn not_fewer_than_recorded(name: &str, (commits, calls): (u64, u64)) -> anyhow::Result<()> {
    let recorded: BTreeMap<String, [u64; 2]> = toml::from_str(include_str!("counts.toml"))?;
    let [recorded_commits, recorded_calls] =
        recorded.get(name).with_context(|| format!("counts.toml has no `{name} = [{commits}, {calls}]`"))?;
    ensure!(
        commits >= *recorded_commits && calls >= *recorded_calls,
        "{name} has {commits} commits and {calls} calls, and {recorded_commits} and {recorded_calls} are recorded: \
         if it became shorter on purpose, write `{name} = [{commits}, {calls}]` into counts.toml"
    );
    Ok(())
}

macro_rules! sweeps {
    ($($(#[$doc:meta])* $test:ident: $name:literal, $failing:expr;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $test() -> anyhow::Result<()> {
                sweep(Scenario { name: $name, failing: $failing })
            }
        )*

        #[test]
        fn every_step_is_swept() {
            let swept: Vec<Option<&str>> = vec![$($failing),*];
            assert!(STATUSES.iter().all(|step| swept.contains(&Some(step))) && swept.contains(&None));
        }
    };
}

sweeps! {
    cut_at_any_point_a_creation_ends_with_ten_reports: "succeeding", None;
    cut_at_any_point_a_creation_that_fails_at_starting_leaves_nothing: "failing_at_starting", Some("starting");
    cut_at_any_point_a_creation_that_fails_at_namespace_created_leaves_nothing: "failing_at_namespace_created", Some("namespace_created");
    cut_at_any_point_a_creation_that_fails_at_gitlab_pulled_leaves_nothing: "failing_at_gitlab_pulled", Some("gitlab_pulled");
    cut_at_any_point_a_creation_that_fails_at_k8s_applied_leaves_nothing: "failing_at_k8s_applied", Some("k8s_applied");
    cut_at_any_point_a_creation_that_fails_at_resources_configured_leaves_nothing: "failing_at_resources_configured", Some("resources_configured");
    cut_at_any_point_a_creation_that_fails_at_disk_configured_leaves_nothing: "failing_at_disk_configured", Some("disk_configured");
    cut_at_any_point_a_creation_that_fails_at_gpu_configured_leaves_nothing: "failing_at_gpu_configured", Some("gpu_configured");
    cut_at_any_point_a_creation_that_fails_at_rollout_completed_leaves_nothing: "failing_at_rollout_completed", Some("rollout_completed");
    cut_at_any_point_a_creation_that_fails_at_tenant_synced_leaves_nothing: "failing_at_tenant_synced", Some("tenant_synced");
    cut_at_any_point_a_creation_that_fails_at_completed_leaves_nothing: "failing_at_completed", Some("completed");
}

#[test]
fn cut_again_within_its_recovery_a_creation_ends_with_ten_reports() -> anyhow::Result<()> {
    sweep_twice(Scenario { name: "succeeding", failing: None }, 97)
}

#[test]
fn cut_again_within_its_recovery_a_rollback_leaves_nothing() -> anyhow::Result<()> {
    sweep_twice(Scenario { name: "failing_at_completed", failing: Some("completed") }, 397)
}
