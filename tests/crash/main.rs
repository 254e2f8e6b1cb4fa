//! The crash sweep, in process: one workflow for each of its commits and each of its calls to the cluster, cut before
//! it and cut after it, then recovered by the next life of the engine.
//!
//! - It counts first, on a clean run, and then sweeps. Fewer points than `counts.toml` records is a failure: a sweep that
//!   has lost points proves less than it says.
//! - A creation that succeeds is swept, and one that fails at each of the ten steps after that step's work was done; so are
//!   changes and deletions of a cluster that is there. A deletion that fails stops, and goes on once a person retries it. So does
//!   the rollback of a change that has started nodes; one that has grown disks is ended by force.
//! - What must hold at the end is the oracle's to say.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{Fact, Outcome, ParkReason, Phase, WorkflowId, WorkflowState};
use cairn_steps::names::STATEFUL_SET;
use cairn_steps::report::{DELETE_STATUSES, STATUSES, UPDATE_STATUSES};
use cairn_tests::{
    later::Later,
    life::{Cut, Operation, Side},
    oracle::verdict,
    world::{Running, TESTER, World, request},
};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// What is swept.
#[derive(Clone, Copy)]
struct Scenario {
    /// Its name in `counts.toml`.
    name: &'static str,
    /// What is done.
    deed: Deed,
    /// The step that fails; none: it succeeds.
    failing: Option<&'static str>,
}

/// What is done: a creation, or what comes after one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Create,
    /// A change of which everything can be taken back.
    Resize,
    /// A change of everything that can change.
    Grow,
    /// A change that adds a node: its rollback waits for a person to take that away.
    AddNode,
    /// A change that makes the disks larger: its rollback can only be ended by force.
    GrowDisks,
    Delete,
    DeleteKeepingData,
}

impl Deed {
    /// What comes after the creation, if that is not all there is.
    fn later(self) -> Option<Later> {
        match self {
            Self::Create => None,
            Self::Resize => Some(Later::Change(json!({ "cpu_limit": "3", "mem_limit": "4Gi", "gpu_count": 0 }))),
            Self::Grow => Some(Later::Change(json!({ "replicas": 3, "cpu_limit": "3", "disk_size": "30Gi" }))),
            Self::AddNode => Some(Later::Change(json!({ "replicas": 3 }))),
            Self::GrowDisks => Some(Later::Change(json!({ "disk_size": "30Gi" }))),
            Self::Delete => Some(Later::Deletion { keep_data: false }),
            Self::DeleteKeepingData => Some(Later::Deletion { keep_data: true }),
        }
    }

    fn is_deletion(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteKeepingData)
    }
}

impl Scenario {
    /// How it ends when nothing is cut.
    fn end(self) -> Outcome {
        // What is deleted does not come back: a deletion that fails is retried until it ends.
        match (self.failing, self.deed) {
            (None, _) | (Some(_), Deed::Delete | Deed::DeleteKeepingData) => Outcome::Succeeded,
            (Some(_), Deed::GrowDisks) => Outcome::Cancelled,
            (Some(_), _) => Outcome::Failed,
        }
    }

    /// What the parked workflow says is left, where it waits for a person.
    fn left(self) -> Option<&'static str> {
        match self.deed {
            _ if self.failing.is_none() => None,
            Deed::AddNode => Some("elasticsearch-2 have started"),
            Deed::GrowDisks => Some("elasticsearch-data-elasticsearch-0 from 20Gi to 30Gi"),
            _ => None,
        }
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

/// The lives of one workflow: cut off at each of these in turn, then left alone to its end.
///
/// Returns how it ended, and how many commits and calls the last life made.
fn lives(scenario: Scenario, cuts: &[Cut]) -> anyhow::Result<(Outcome, (u64, u64))> {
    World::run(async |mut world: World| {
        world.add_foreign().await?;
        if scenario.deed != Deed::Create {
            let running = world.open(None, None).await?;
            let workflow = world.submit(&running, &request("acme", "search")).await?.context("it is accepted")?;
            world.settle(&running, workflow).await?;
            running.kill();
        }
        for cut in cuts {
            // A cut within the opening itself leaves no engine: that is a life, too.
            let Ok(running) = world.open(Some(*cut), scenario.failing).await else { continue };
            if let Some(workflow) = submit(&mut world, &running, scenario).await? {
                world.settle(&running, workflow).await?;
            }
            running.kill();
        }
        let running = world.open(None, scenario.failing).await?;
        // A client that was not answered asks again, with the same key.
        let workflow = submit(&mut world, &running, scenario).await?.context("nobody stops this life")?;
        let mut state: WorkflowState = world.settle(&running, workflow).await?.context("nobody ends this life")?;
        let counts = running.life.counts();
        if scenario.deed.is_deletion() && scenario.failing.is_some() {
            running.kill();
            state = retried(&mut world, workflow, &state).await?;
        } else if let Some(left) = scenario.left() {
            running.kill();
            state = seen_to(&mut world, workflow, &state, left).await?;
        }
        world.rest().await;
        let verdict = verdict(&world.evidence(true)?);
        ensure!(verdict.is_empty(), "violations:\n{verdict}");
        let outcome = state.outcome().with_context(|| format!("parked: {:?}", state.phase()))?;
        Ok((outcome, counts))
    })
}

async fn submit(world: &mut World, running: &Running, scenario: Scenario) -> anyhow::Result<Option<WorkflowId>> {
    match scenario.deed.later() {
        None => world.submit(running, &request("acme", "search")).await,
        Some(later) => world.submit_later(running, ("acme", "search"), &later).await,
    }
}

/// A deletion that has stopped waits for a person, with everything in order so far; in a life without the fault it goes on.
async fn retried(world: &mut World, workflow: WorkflowId, state: &WorkflowState) -> anyhow::Result<WorkflowState> {
    let kept = matches!(state.phase(), Phase::Parked { reason: ParkReason::Kept, .. });
    ensure!(kept, "it does not wait for a person: {:?}", state.phase());
    let verdict = verdict(&world.evidence(true)?);
    ensure!(verdict.is_empty(), "violations while it is parked:\n{verdict}");
    let running = world.open(None, None).await?;
    running.engine.retry(workflow, "tester".into()).await?;
    world.settle(&running, workflow).await?.context("nobody ends this life")
}

/// A rollback that is parked names what is left, and has everything in order so far. A person scales the set back and asks for
/// another try; where that changes nothing, because no disk gets smaller, it is ended by force.
async fn seen_to(
    world: &mut World,
    workflow: WorkflowId,
    state: &WorkflowState,
    left: &str,
) -> anyhow::Result<WorkflowState> {
    waits_for_a_person(world, workflow, state, left)?;
    let sets: Api<StatefulSet> = Api::namespaced(world.sandbox.client(), "acme--search");
    let params = PatchParams { field_manager: Some(TESTER.to_owned()), ..PatchParams::default() };
    sets.patch(STATEFUL_SET, &params, &Patch::Merge(json!({ "spec": { "replicas": 2 } }))).await?;
    world.rest().await;
    let running = world.open(None, None).await?;
    let effects = world.sandbox.effects().len();
    running.engine.retry(workflow, "tester".into()).await?;
    let state = world.settle(&running, workflow).await?.context("nobody ends this life")?;
    if state.outcome().is_some() {
        return Ok(state);
    }
    waits_for_a_person(world, workflow, &state, left)?;
    ensure!(world.sandbox.effects().len() == effects, "a retry in vain has changed something");
    running.engine.cancel(workflow, "tester".into(), true).await?;
    world.settle(&running, workflow).await?.context("nobody ends this life")
}

fn waits_for_a_person(world: &World, workflow: WorkflowId, state: &WorkflowState, left: &str) -> anyhow::Result<()> {
    let parked = matches!(state.phase(), Phase::Parked { reason: ParkReason::CompensationFailing, .. });
    ensure!(parked, "it does not wait for a person: {:?}", state.phase());
    let verdict = verdict(&world.evidence(true)?);
    ensure!(verdict.is_empty(), "violations while it is parked:\n{verdict}");
    let commits = world.evidence(true)?.commits;
    let entries = commits.iter().flat_map(|commit| &commit.entries).filter(|entry| entry.workflow == workflow);
    let said = entries.rev().find_map(|entry| match &entry.fact {
        Fact::CompensationFailed { error, .. } => Some(error.message.clone()),
        _ => None,
    });
    let said = said.context("no compensation has failed")?;
    ensure!(said.contains(left), "no word of {left:?} in {said:?}");
    Ok(())
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
    ($($(#[$doc:meta])* $test:ident: $name:literal, $deed:ident, $failing:expr;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $test() -> anyhow::Result<()> {
                sweep(Scenario { name: $name, deed: Deed::$deed, failing: $failing })
            }
        )*

        #[test]
        fn every_step_is_swept() {
            let swept: Vec<(Deed, Option<&str>)> = vec![$((Deed::$deed, $failing)),*];
            let all = |deed: Deed, steps: &[&'static str]| {
                steps.iter().all(|step| swept.contains(&(deed, Some(step)))) && swept.contains(&(deed, None))
            };
            assert!(all(Deed::Create, &STATUSES));
            assert!(all(Deed::Resize, &UPDATE_STATUSES));
            assert!(all(Deed::Delete, &DELETE_STATUSES));
            assert!(all(Deed::AddNode, &["update_rolled_out", "updated"]) && all(Deed::GrowDisks, &["disk_grown", "updated"]));
            assert!(swept.contains(&(Deed::Grow, None)) && swept.contains(&(Deed::DeleteKeepingData, None)));
        }
    };
}

sweeps! {
    cut_at_any_point_a_creation_ends_with_ten_reports: "succeeding", Create, None;
    cut_at_any_point_a_creation_that_fails_at_starting_leaves_nothing: "failing_at_starting", Create, Some("starting");
    cut_at_any_point_a_creation_that_fails_at_namespace_created_leaves_nothing: "failing_at_namespace_created", Create, Some("namespace_created");
    cut_at_any_point_a_creation_that_fails_at_gitlab_pulled_leaves_nothing: "failing_at_gitlab_pulled", Create, Some("gitlab_pulled");
    cut_at_any_point_a_creation_that_fails_at_k8s_applied_leaves_nothing: "failing_at_k8s_applied", Create, Some("k8s_applied");
    cut_at_any_point_a_creation_that_fails_at_resources_configured_leaves_nothing: "failing_at_resources_configured", Create, Some("resources_configured");
    cut_at_any_point_a_creation_that_fails_at_disk_configured_leaves_nothing: "failing_at_disk_configured", Create, Some("disk_configured");
    cut_at_any_point_a_creation_that_fails_at_gpu_configured_leaves_nothing: "failing_at_gpu_configured", Create, Some("gpu_configured");
    cut_at_any_point_a_creation_that_fails_at_rollout_completed_leaves_nothing: "failing_at_rollout_completed", Create, Some("rollout_completed");
    cut_at_any_point_a_creation_that_fails_at_tenant_synced_leaves_nothing: "failing_at_tenant_synced", Create, Some("tenant_synced");
    cut_at_any_point_a_creation_that_fails_at_completed_leaves_nothing: "failing_at_completed", Create, Some("completed");
    cut_at_any_point_a_change_ends_with_all_that_was_asked_for: "change_of_everything", Grow, None;
    cut_at_any_point_a_change_that_fails_at_claims_added_takes_its_claims_back: "change_of_everything_failing_at_claims_added", Grow, Some("claims_added");
    cut_at_any_point_a_change_of_sizes_ends_with_them: "change_of_sizes", Resize, None;
    cut_at_any_point_a_change_that_fails_at_update_started_leaves_everything_as_it_was: "change_of_sizes_failing_at_update_started", Resize, Some("update_started");
    cut_at_any_point_a_change_that_fails_at_claims_added_leaves_everything_as_it_was: "change_of_sizes_failing_at_claims_added", Resize, Some("claims_added");
    cut_at_any_point_a_change_that_fails_at_update_applied_leaves_everything_as_it_was: "change_of_sizes_failing_at_update_applied", Resize, Some("update_applied");
    cut_at_any_point_a_change_that_fails_at_update_rolled_out_leaves_everything_as_it_was: "change_of_sizes_failing_at_update_rolled_out", Resize, Some("update_rolled_out");
    cut_at_any_point_a_change_that_fails_at_disk_grown_leaves_everything_as_it_was: "change_of_sizes_failing_at_disk_grown", Resize, Some("disk_grown");
    cut_at_any_point_a_change_that_fails_at_updated_leaves_everything_as_it_was: "change_of_sizes_failing_at_updated", Resize, Some("updated");
    cut_at_any_point_a_change_that_adds_a_node_ends_with_it: "node_added", AddNode, None;
    cut_at_any_point_a_change_that_fails_with_its_node_started_is_parked_until_a_person_has_scaled_back: "node_added_failing_at_update_rolled_out", AddNode, Some("update_rolled_out");
    cut_at_any_point_a_change_that_fails_at_its_end_with_its_node_started_is_parked_until_a_person_has_scaled_back: "node_added_failing_at_updated", AddNode, Some("updated");
    cut_at_any_point_a_change_that_makes_disks_larger_ends_with_them: "disks_grown", GrowDisks, None;
    cut_at_any_point_a_change_that_fails_with_its_disks_larger_is_parked_until_it_is_ended_by_force: "disks_grown_failing_at_disk_grown", GrowDisks, Some("disk_grown");
    cut_at_any_point_a_change_that_fails_at_its_end_with_its_disks_larger_is_parked_until_it_is_ended_by_force: "disks_grown_failing_at_updated", GrowDisks, Some("updated");
    cut_at_any_point_a_deletion_leaves_nothing: "deletion", Delete, None;
    cut_at_any_point_a_deletion_that_keeps_the_data_leaves_that: "deletion_keeping_data", DeleteKeepingData, None;
    cut_at_any_point_a_deletion_that_stops_at_delete_started_goes_on_when_it_is_retried: "deletion_stopping_at_delete_started", Delete, Some("delete_started");
    cut_at_any_point_a_deletion_that_stops_at_scaled_down_goes_on_when_it_is_retried: "deletion_stopping_at_scaled_down", Delete, Some("scaled_down");
    cut_at_any_point_a_deletion_that_stops_at_objects_deleted_goes_on_when_it_is_retried: "deletion_stopping_at_objects_deleted", Delete, Some("objects_deleted");
    cut_at_any_point_a_deletion_that_stops_at_claims_deleted_goes_on_when_it_is_retried: "deletion_stopping_at_claims_deleted", Delete, Some("claims_deleted");
    cut_at_any_point_a_deletion_that_stops_at_namespace_deleted_goes_on_when_it_is_retried: "deletion_stopping_at_namespace_deleted", Delete, Some("namespace_deleted");
    cut_at_any_point_a_deletion_that_stops_at_deleted_goes_on_when_it_is_retried: "deletion_stopping_at_deleted", Delete, Some("deleted");
}

#[test]
fn cut_again_within_its_recovery_a_creation_ends_with_ten_reports() -> anyhow::Result<()> {
    sweep_twice(Scenario { name: "succeeding", deed: Deed::Create, failing: None }, 97)
}

#[test]
fn cut_again_within_its_recovery_a_rollback_leaves_nothing() -> anyhow::Result<()> {
    sweep_twice(Scenario { name: "failing_at_completed", deed: Deed::Create, failing: Some("completed") }, 397)
}

#[test]
fn cut_again_within_its_recovery_a_change_ends_with_all_that_was_asked_for() -> anyhow::Result<()> {
    sweep_twice(Scenario { name: "change_of_everything", deed: Deed::Grow, failing: None }, 797)
}

#[test]
fn cut_again_within_its_recovery_a_change_that_fails_leaves_everything_as_it_was() -> anyhow::Result<()> {
    sweep_twice(
        Scenario { name: "change_of_sizes_failing_at_updated", deed: Deed::Resize, failing: Some("updated") },
        397,
    )
}

#[test]
fn cut_again_within_its_recovery_a_deletion_leaves_nothing() -> anyhow::Result<()> {
    sweep_twice(Scenario { name: "deletion", deed: Deed::Delete, failing: None }, 397)
}
