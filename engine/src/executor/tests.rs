//! The executor over the memory store and a world of three effects, on tokio's paused clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Amounts, Attempt, CommitNumber, ControlError, Definition, Effect, Engine, EngineOptions, Entry, ErrorClass, Fact,
    Hash, Json, Limits, NewSubmission, OnFailure, Outcome, Output, ParkReason, PausedClock, Phase, Probe, Registry,
    Residue, RetryPolicy, Step, StepContext, StepError, StepName, SystemChance, Timestamp, Who, WorkflowId,
    store::{Append, Around, ListQuery, MemoryStore, Refusal, Store, StoreError},
};

const STEPS: [&str; 3] = ["first", "second", "third"];

mod following;
mod irreversible;
mod parked;

/// What a step is to do in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Fail(ErrorClass),
    /// The effect takes place, the answer is lost.
    ApplyThenLose,
    Hang,
    Panic,
    WaitForEver,
}

/// The effects there are, and all that was done.
#[derive(Default)]
struct World {
    there: Mutex<BTreeSet<String>>,
    calls: Mutex<Vec<String>>,
    script: Mutex<BTreeMap<(String, u32), Act>>,
    compensations_fail: Mutex<BTreeSet<String>>,
    foreign: Mutex<BTreeSet<String>>,
    unreachable: AtomicBool,
    slow_compensations: AtomicBool,
}

impl World {
    fn will(&self, step: &str, attempt: u32, act: Act) {
        self.script.lock().unwrap().insert((step.to_owned(), attempt), act);
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn there(&self) -> Vec<String> {
        self.there.lock().unwrap().iter().cloned().collect()
    }

    fn reach(&self) -> Result<(), StepError> {
        if self.unreachable.load(Ordering::SeqCst) { Err(StepError::transient("nobody answers")) } else { Ok(()) }
    }

    fn call(&self, what: &str, step: &str) {
        self.calls.lock().unwrap().push(format!("{what} {step}"));
    }
}

struct Scripted {
    name: &'static str,
    world: Arc<World>,
}

#[async_trait]
impl Step for Scripted {
    fn name(&self) -> StepName {
        self.name.into()
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { attempts_max: 3, attempt_timeout: Duration::from_secs(5), ..RetryPolicy::default() }
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        self.world.call("run", self.name);
        let act = self.world.script.lock().unwrap().get(&(self.name.to_owned(), cx.attempt().0)).copied();
        let apply = || self.world.there.lock().unwrap().insert(self.name.to_owned());
        match act {
            Some(Act::Fail(class)) => return Err(StepError::new(class, "scripted")),
            Some(Act::ApplyThenLose) => {
                apply();
                return Err(StepError::unknown("the answer was lost"));
            }
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Panic) => panic!("scripted"),
            Some(Act::WaitForEver) => cx.wait(std::future::pending()).await?,
            None => {}
        }
        apply();
        Ok(Output::new(format!("{} is there", self.name), self.name)?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        self.world.call("probe", self.name);
        self.world.reach()?;
        if self.world.foreign.lock().unwrap().contains(self.name) {
            return Ok(Probe::Foreign { detail: format!("{} is somebody else's", self.name) });
        }
        Ok(if self.world.there.lock().unwrap().contains(self.name) {
            Probe::Applied { output: Output::new(format!("{} was there", self.name), self.name)? }
        } else {
            Probe::NotApplied
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        self.world.call("compensate", self.name);
        self.world.reach()?;
        if self.world.slow_compensations.load(Ordering::SeqCst) {
            cx.wait(tokio::time::sleep(Duration::from_secs(30))).await?;
        }
        if self.world.compensations_fail.lock().unwrap().contains(self.name) {
            return Err(StepError::permanent("it does not go away"));
        }
        self.world.there.lock().unwrap().remove(self.name);
        Ok(format!("{} is gone", self.name))
    }
}

struct Left(Arc<World>);

#[async_trait]
impl Residue for Left {
    async fn look(&self, _: &StepContext) -> Result<Vec<String>, StepError> {
        self.0.call("look for", "residue");
        Ok(self.0.there())
    }
}

fn definition(world: &Arc<World>) -> Definition {
    let step = |name| Arc::new(Scripted { name, world: Arc::clone(world) }) as Arc<dyn Step>;
    Definition::new("scripted", 1, Effect::Create, STEPS.map(step).to_vec(), Arc::new(Left(Arc::clone(world))))
}

/// When engines are opened here, if nothing else is said.
const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

async fn open(store: Arc<dyn Store>, definitions: Registry) -> Engine {
    open_at(store, definitions, NOW).await
}

async fn open_at(store: Arc<dyn Store>, definitions: Registry, now: Timestamp) -> Engine {
    let clock = Arc::new(PausedClock::starting_at(now));
    let (chance, limits) = (Arc::new(SystemChance), Limits::default());
    Engine::open(EngineOptions { store, definitions, clock, chance, limits }).await.unwrap()
}

async fn engine(world: &Arc<World>) -> (Engine, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    (open(Arc::clone(&store) as _, Registry::new([definition(world)])).await, store)
}

fn request(service: &str, on_failure: OnFailure) -> NewSubmission {
    NewSubmission {
        definition: "scripted".into(),
        tenant: "acme".into(),
        service: service.into(),
        input: Json::null(),
        key: None,
        body_hash: Hash::default(),
        who: "acme".into(),
        holds: Amounts::new(),
        quota: Amounts::new(),
        on_failure,
    }
}

async fn submit(engine: &Engine) -> WorkflowId {
    engine.submit(request("search", OnFailure::Rollback)).await.unwrap().id()
}

async fn names(engine: &Engine, workflow: WorkflowId) -> Vec<&'static str> {
    engine.entries(workflow).await.unwrap().iter().map(|entry| entry.fact.name()).collect()
}

fn who() -> Who {
    "operator".into()
}

/// I3, I8, I18: and a workflow of n steps waits for the disk n + 2 times.
#[tokio::test(start_paused = true)]
async fn a_workflow_that_meets_no_fault_runs_each_step_once_in_order() {
    let world = Arc::new(World::default());
    let (engine, store) = engine(&world).await;
    let before = store.head().0;
    let workflow = submit(&engine).await;
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Succeeded));
    assert_eq!(world.calls(), ["run first", "run second", "run third"]);
    assert_eq!(store.head().0.0 - before.0, STEPS.len() as u64 + 2);
    assert_eq!(engine.health().active, 0);
}

/// I12
#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_at_a_journaled_time_until_the_policy_ends() {
    let world = Arc::new(World::default());
    for attempt in 1..=9 {
        world.will("second", attempt, Act::Fail(ErrorClass::Transient));
    }
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Failed));
    let runs = world.calls().iter().filter(|call| *call == "run second").count();
    assert_eq!(runs, 3, "as often as its policy says");
    let entries = engine.entries(workflow).await.unwrap();
    for (entry, next) in entries.iter().zip(&entries[1..]) {
        if let Fact::AttemptFailed { attempt, retry_at, .. } = entry.fact {
            assert_eq!(retry_at.is_some(), attempt < Attempt(3));
            assert!(retry_at.is_none_or(|at| next.time >= at), "it did not wait: {next:?}");
        }
    }
}

/// I13, I14
#[tokio::test(start_paused = true)]
async fn a_permanent_failure_takes_back_every_step_that_began_newest_first() {
    let world = Arc::new(World::default());
    world.will("third", 1, Act::Fail(ErrorClass::Permanent));
    let (engine, _) = engine(&world).await;
    let state = engine.settled(submit(&engine).await).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Failed));
    assert_eq!(
        world.calls()[3..],
        ["probe third", "compensate third", "compensate second", "compensate first", "look for residue"]
    );
    assert!(world.there().is_empty());
}

/// I9, I10
#[tokio::test(start_paused = true)]
async fn an_answer_lost_after_the_effect_is_probed_and_the_step_not_run_again() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::ApplyThenLose);
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Succeeded));
    assert_eq!(world.calls(), ["run first", "run second", "probe second", "run third"]);
    assert!(names(&engine, workflow).await.contains(&"probed"));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_or_panics_is_probed_and_then_run_again() {
    let world = Arc::new(World::default());
    world.will("first", 1, Act::Hang);
    world.will("second", 1, Act::Panic);
    let (engine, _) = engine(&world).await;
    let state = engine.settled(submit(&engine).await).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Succeeded));
    assert_eq!(
        world.calls(),
        ["run first", "probe first", "run first", "run second", "probe second", "run second", "run third"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_finds_to_be_foreign_fails_the_step() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Unknown));
    world.foreign.lock().unwrap().insert("second".to_owned());
    let (engine, _) = engine(&world).await;
    let state = engine.settled(submit(&engine).await).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Failed));
    assert_eq!(state.failure().unwrap().1.message, "second is somebody else's");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_a_wait_and_rolls_back() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::WaitForEver);
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(3)).await;
    engine.cancel(workflow, who(), false).await.unwrap();
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Cancelled));
    assert!(world.there().is_empty());
    let again = engine.cancel(workflow, who(), false).await;
    assert!(matches!(again, Err(ControlError::NotNow { .. })), "{again:?}");
}

/// I13: an attempt that has failed may have left something, whether another one follows or not.
#[tokio::test(start_paused = true)]
async fn a_cancel_between_two_attempts_of_a_step_takes_that_step_back_as_well() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Transient));
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(4)).await;
    engine.cancel(workflow, who(), false).await.unwrap();
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Cancelled));
    assert_eq!(world.calls()[2..], ["probe second", "compensate second", "compensate first", "look for residue"]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_takes_effect_between_steps_and_survives_a_restart() {
    let world = Arc::new(World::default());
    world.will("first", 1, Act::Fail(ErrorClass::Transient));
    let (engine, store) = engine(&world).await;
    let workflow = submit(&engine).await;
    let paused = engine.pause(workflow, who()).await.unwrap();
    assert!(paused.is_paused());
    engine.shutdown(Duration::from_secs(1)).await.unwrap();

    let engine = open(Arc::new(store.reopen()), Registry::new([definition(&world)])).await;
    // Long enough for every retry time there could be.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let state = engine.state(workflow).await.unwrap().unwrap();
    assert!(state.is_paused() && state.outcome().is_none());
    engine.resume(workflow, who()).await.unwrap();
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_kept_parks_and_a_retry_goes_on_from_the_step_that_failed() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Permanent));
    let (engine, _) = engine(&world).await;
    let workflow = engine.submit(request("search", OnFailure::Keep)).await.unwrap().id();
    let state = engine.settled(workflow).await.unwrap();
    assert!(matches!(state.phase(), Phase::Parked { reason: ParkReason::Kept, .. }), "{:?}", state.phase());
    assert_eq!(world.there(), ["first"]);
    engine.retry(workflow, who()).await.unwrap();
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Succeeded));
    assert_eq!(world.calls(), ["run first", "run second", "run second", "run third"]);
}

/// I14, I17
#[tokio::test(start_paused = true)]
async fn a_compensation_that_cannot_succeed_parks_and_ends_by_retry_or_by_force() {
    for force in [false, true] {
        let world = Arc::new(World::default());
        world.will("third", 1, Act::Fail(ErrorClass::Permanent));
        world.compensations_fail.lock().unwrap().insert("first".to_owned());
        let (engine, _) = engine(&world).await;
        let workflow = submit(&engine).await;
        let state = engine.settled(workflow).await.unwrap();
        assert!(matches!(state.phase(), Phase::Parked { reason: ParkReason::CompensationFailing, .. }));
        if force {
            engine.cancel(workflow, who(), true).await.unwrap();
            let state = engine.settled(workflow).await.unwrap();
            let left = vec!["first".to_owned()];
            assert_eq!(*state.phase(), Phase::Finished { outcome: Outcome::Cancelled, residue: left });
        } else {
            world.compensations_fail.lock().unwrap().clear();
            engine.retry(workflow, who()).await.unwrap();
            assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Failed));
            assert!(world.there().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn residue_parks_the_workflow_with_the_list() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Permanent));
    world.there.lock().unwrap().insert("something of ours".to_owned());
    let (engine, _) = engine(&world).await;
    let state = engine.settled(submit(&engine).await).await.unwrap();
    let Phase::Parked { reason: ParkReason::Residue { left }, .. } = state.phase() else { panic!("{state:?}") };
    assert_eq!(*left, ["something of ours"]);
}

/// I33
#[tokio::test(start_paused = true)]
async fn a_workflow_of_an_unknown_definition_is_parked_and_stops_nobody_else() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::WaitForEver);
    let (engine, store) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(3)).await;
    engine.shutdown(Duration::ZERO).await.unwrap();

    let mut steps = definition(&world).steps().to_vec();
    steps.truncate(1);
    let other = Definition::new("scripted", 2, Effect::Create, steps, Arc::new(Left(Arc::clone(&world))));
    let engine = open(Arc::new(store.reopen()), Registry::new([other])).await;
    let state = engine.state(workflow).await.unwrap().unwrap();
    assert!(matches!(state.phase(), Phase::Parked { reason: ParkReason::UnknownDefinition { .. }, .. }));
    let another = engine.submit(request("other", OnFailure::Rollback)).await.unwrap().id();
    assert_eq!(engine.settled(another).await.unwrap().outcome(), Some(Outcome::Succeeded));
    engine.shutdown(Duration::ZERO).await.unwrap();

    // The build that knows it takes it up again when a person says so.
    let engine = open(Arc::new(store.reopen()), Registry::new([definition(&world)])).await;
    engine.retry(workflow, who()).await.unwrap();
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Succeeded));
}

/// I5
#[tokio::test(start_paused = true)]
async fn after_a_failed_append_nothing_more_is_acknowledged_and_nothing_more_is_done() {
    let world = Arc::new(World::default());
    let store = Arc::new(MemoryStore::new());
    // The submission's commit and that of the first attempt's start succeed.
    let failing = Arc::new(Failing { inner: Arc::clone(&store) as _, after: AtomicU64::new(2), applied: false });
    let engine = open(failing, Registry::new([definition(&world)])).await;
    let workflow = submit(&engine).await;
    engine.stopped().await;
    assert!(engine.settled(workflow).await.is_err());
    assert!(engine.submit(request("other", OnFailure::Rollback)).await.is_err());
    assert_eq!(world.calls(), ["run first"]);
    assert!(engine.health().stopped.is_some());
}

/// I7, I9, I10, I14: stopped before or after each append in turn, the next engine ends what was begun.
#[tokio::test(start_paused = true)]
async fn stopped_at_any_append_the_next_engine_completes_it_or_takes_it_back() {
    for fails in [None, Some("third")] {
        for (point, applied) in (1..=12).flat_map(|point| [(point, false), (point, true)]) {
            let world = Arc::new(World::default());
            if let Some(step) = fails {
                world.will(step, 1, Act::Fail(ErrorClass::Permanent));
                world.will(step, 2, Act::Fail(ErrorClass::Permanent));
            }
            let store = Arc::new(MemoryStore::new());
            let failing = Failing { inner: Arc::clone(&store) as _, after: AtomicU64::new(point), applied };
            let engine = open(Arc::new(failing), Registry::new([definition(&world)])).await;
            let submitted = engine.submit(request("search", OnFailure::Rollback)).await;
            if let Ok(state) = &submitted {
                let _ = engine.settled(state.id()).await;
            }
            drop(engine);

            let engine = open(Arc::new(store.reopen()), Registry::new([definition(&world)])).await;
            let known = engine.store().list(&ListQuery { limit: 10, ..ListQuery::default() }).unwrap();
            assert!(known.len() == 1 || submitted.is_err(), "I1: an acknowledged submission is gone");
            for listed in known {
                let state = engine.settled(listed.workflow).await.unwrap();
                match state.outcome().unwrap() {
                    Outcome::Succeeded => assert_eq!(world.there(), STEPS),
                    _ => assert!(world.there().is_empty(), "cut at {point}: {:?} is left", world.there()),
                }
                assert_eq!(state.outcome() == Some(Outcome::Succeeded), fails.is_none());
                for step in STEPS.map(StepName::new) {
                    let entries = engine.entries(listed.workflow).await.unwrap();
                    let started = entries.iter().filter(|entry| started(&entry.fact, &step)).count();
                    let runs = world.calls().iter().filter(|call| **call == format!("run {step}")).count();
                    assert!(runs <= started, "I3: {runs} runs of {step}, {started} were announced");
                }
            }
            engine.shutdown(Duration::ZERO).await.unwrap();
        }
    }
}

/// Regression: a cancel of a workflow parked in its rollback skipped the reset that a retry gives, the exhausted
/// compensation could be neither started nor parked again, and the executor died of the contradiction, unseen.
#[tokio::test(start_paused = true)]
async fn a_cancel_of_a_workflow_parked_in_its_rollback_goes_on_rolling_back() {
    let world = Arc::new(World::default());
    world.will("third", 1, Act::Fail(ErrorClass::Permanent));
    world.unreachable.store(true, Ordering::SeqCst);
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    let state = engine.settled(workflow).await.unwrap();
    assert!(matches!(state.phase(), Phase::Parked { .. }), "{state:?}");
    world.unreachable.store(false, Ordering::SeqCst);
    engine.cancel(workflow, who(), false).await.unwrap();
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Cancelled));
    assert!(world.there().is_empty());
}

/// Regression: a cancel made every probe due at once, and an unreachable cluster parked the workflow within a second.
#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_cluster_is_away_is_patient() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Unknown));
    world.unreachable.store(true, Ordering::SeqCst);
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(4)).await;
    let start = tokio::time::Instant::now();
    engine.cancel(workflow, who(), false).await.unwrap();
    let state = engine.settled(workflow).await.unwrap();
    assert!(matches!(state.phase(), Phase::Parked { reason: ParkReason::ProbeFailing, .. }));
    assert!(start.elapsed() > Duration::from_secs(10 * 60), "gave up after {:?}", start.elapsed());
}

/// Regression: whatever was asked of a cancelled workflow told its compensation to hurry, and cost it an attempt.
#[tokio::test(start_paused = true)]
async fn what_is_asked_during_a_rollback_does_not_interrupt_it() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::WaitForEver);
    world.slow_compensations.store(true, Ordering::SeqCst);
    let (engine, _) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(3)).await;
    engine.cancel(workflow, who(), false).await.unwrap();
    for _ in 0..20 {
        assert!(engine.cancel(workflow, who(), false).await.is_err());
        assert!(engine.retry(workflow, who()).await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let state = engine.settled(workflow).await.unwrap();
    assert_eq!(state.outcome(), Some(Outcome::Cancelled));
    assert!(!names(&engine, workflow).await.contains(&"compensation_failed"));
}

/// Regression: an attempt whose pause was refused by the store went on, detached, and its slot was lost.
#[tokio::test(start_paused = true)]
async fn fenced_by_another_opening_an_engine_stops_with_all_that_it_has_in_hand() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::WaitForEver);
    let (engine, store) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(3)).await;
    let _newer = store.reopen();
    assert!(engine.pause(workflow, who()).await.is_err());
    let why = engine.stopped().await;
    assert!(why.contains("another engine"), "{why}");
    assert!(engine.submit(request("other", OnFailure::Rollback)).await.is_err());
}

/// Regression: time in which no engine ran counted against a step's policy, and a long night off rolled it back.
#[tokio::test(start_paused = true)]
async fn a_night_without_an_engine_does_not_use_up_a_steps_time() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Transient));
    let (engine, store) = engine(&world).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(4)).await;
    engine.shutdown(Duration::ZERO).await.unwrap();
    let tomorrow = NOW.after(Duration::from_secs(24 * 60 * 60));
    world.will("second", 2, Act::Fail(ErrorClass::Transient));
    let engine = open_at(Arc::new(store.reopen()), Registry::new([definition(&world)]), tomorrow).await;
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Succeeded));
}

/// I18: a clock that was set back a year before the start does not make times go back.
#[tokio::test(start_paused = true)]
async fn times_do_not_go_back_when_the_clock_does() {
    let world = Arc::new(World::default());
    let (engine, store) = engine(&world).await;
    engine.settled(submit(&engine).await).await.unwrap();
    engine.shutdown(Duration::ZERO).await.unwrap();
    let a_year_ago = Timestamp::from_micros(1_735_689_600_000_000);
    let engine = open_at(Arc::new(store.reopen()), Registry::new([definition(&world)]), a_year_ago).await;
    let other = engine.submit(request("other", OnFailure::Rollback)).await.unwrap().id();
    engine.settled(other).await.unwrap();
    let commits = store.commits(CommitNumber(0), 1_000).unwrap();
    let times: Vec<_> = commits.iter().filter(|commit| !commit.entries.is_empty()).map(|commit| commit.time).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}

fn started(fact: &Fact, name: &StepName) -> bool {
    matches!(fact, Fact::AttemptStarted { step, .. } if step == name)
}

/// A store that fails once `after` commits have been made: before the next one is applied, or after it.
struct Failing {
    inner: Arc<dyn Store>,
    after: AtomicU64,
    applied: bool,
}

impl Around for Failing {
    fn within(&self) -> &dyn Store {
        self.inner.as_ref()
    }

    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        if self.after.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.inner.commit(appends, now);
        }
        if self.applied {
            self.inner.commit(appends, now)?;
        }
        Err(StoreError::Stopped)
    }
}
