//! The whole engine under a model checker: clients that submit, cancel, pause and shut down, the executor, the attempts in
//! flight and the writer, all taking turns in any order; on a store that works, or fails at any of its commits; and then the
//! engine that opens after it. An order that breaks a rule is printed.
//!
//! - It is the engine as it is, but for its tasks, threads and locks, which are the model checker's (`threads.rs`).
//! - Time stands still: no timeout fires, and nobody looks again by himself. Whoever is not woken waits for ever, and is found.
//! - Not modelled: what goes on within one of tokio's channels, and reads that are stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng as _, thread_rng},
};

use crate::{
    Amounts, Chance, ControlError, Definition, Effect, Engine, EngineOptions, Fact, Hash, Json, Limits, NewSubmission,
    OnFailure, Outcome, Output, PausedClock, Phase, Probe, Registry, Residue, RetryPolicy, Step, StepContext,
    StepError, StepName, SubmitError, WorkflowId, WorkflowState,
    journal::writer::model::{CHANGES, Disk, on_a_runtime},
    store::{MemoryStore, Store, tests::samples::NOW},
};

/// How many orders are tried of each kind, in CI and in a proof.
const ORDERS: (usize, usize) = (1_500, 40_000);
/// How many clients there are, each with a workflow.
const CLIENTS: usize = 2;
const STEPS: [&str; 2] = ["first", "second"];

/// Ids differ, and no wait is longer than nothing.
#[derive(Default)]
struct Counted(AtomicU64);

impl Chance for Counted {
    fn bits(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The effects there are, by workflow and step; and what was wrong: a step that panics is the engine's to bear.
#[derive(Default)]
struct World {
    store: Mutex<Option<Arc<Disk>>>,
    there: Mutex<BTreeMap<WorkflowId, BTreeSet<String>>>,
    busy: Mutex<BTreeSet<WorkflowId>>,
    broken: Mutex<Vec<String>>,
}

/// Held for a moment only, between two turns: the model checker need not know of it.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while it is held")
}

impl World {
    fn rule(&self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            held(&self.broken).push(broken());
        }
    }

    fn there(&self, workflow: WorkflowId) -> Vec<String> {
        held(&self.there).get(&workflow).into_iter().flatten().cloned().collect()
    }

    /// What is on the disk of the workflow.
    fn phase(&self, workflow: WorkflowId) -> Option<Phase> {
        let store = held(&self.store).clone().expect("an engine runs");
        let state = crate::state::fold(&store.within.workflow(workflow).expect("it reads")).expect("it folds");
        state.map(|state| state.phase().clone())
    }
}

/// Something of the workflow's is under way: the only one.
struct UnderWay {
    world: Arc<World>,
    workflow: WorkflowId,
}

impl UnderWay {
    fn new(world: &Arc<World>, cx: &StepContext) -> Self {
        let workflow = cx.workflow();
        world.rule(held(&world.busy).insert(workflow), || format!("two attempts of {workflow} at once"));
        Self { world: Arc::clone(world), workflow }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        held(&self.world.busy).remove(&self.workflow);
    }
}

struct Modelled {
    name: &'static str,
    world: Arc<World>,
}

impl Modelled {
    fn make(&self, cx: &StepContext) {
        held(&self.world.there).entry(cx.workflow()).or_default().insert(self.name.to_owned());
    }
}

#[async_trait]
impl Step for Modelled {
    fn name(&self) -> StepName {
        self.name.into()
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy { attempts_max: 3, ..RetryPolicy::default() }
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let _under_way = UnderWay::new(&self.world, cx);
        let phase = self.world.phase(cx.workflow());
        let announced = matches!(phase, Some(Phase::Running { attempt, .. }) if attempt == cx.attempt());
        // A forced end overtakes an attempt that is about to be aborted.
        let overtaken = matches!(phase, Some(Phase::Forced | Phase::Finished { .. }));
        self.world.rule(announced || overtaken, || format!("{} runs, and on the disk is {phase:?}", self.name));
        yield_now().await;
        match thread_rng().gen_range(0..8) {
            0 => return Err(StepError::transient("not now")),
            1 => return Err(StepError::permanent("never")),
            2 => {
                self.make(cx);
                yield_now().await;
                return Err(StepError::unknown("the answer was lost"));
            }
            3 => cx.wait(yield_now()).await?,
            _ => {}
        }
        self.make(cx);
        yield_now().await;
        Ok(Output::new(format!("{} is there", self.name), self.name)?)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let _under_way = UnderWay::new(&self.world, cx);
        yield_now().await;
        Ok(if self.world.there(cx.workflow()).iter().any(|there| there == self.name) {
            Probe::Applied { output: Output::new(format!("{} was there", self.name), self.name)? }
        } else {
            Probe::NotApplied
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let _under_way = UnderWay::new(&self.world, cx);
        yield_now().await;
        if let Some(there) = held(&self.world.there).get_mut(&cx.workflow()) {
            there.remove(self.name);
        }
        yield_now().await;
        Ok(format!("{} is gone", self.name))
    }
}

struct Left(Arc<World>);

#[async_trait]
impl Residue for Left {
    async fn look(&self, cx: &StepContext) -> Result<Vec<String>, StepError> {
        yield_now().await;
        Ok(self.0.there(cx.workflow()))
    }
}

async fn open(world: &Arc<World>, store: Arc<Disk>) -> Option<Engine> {
    *held(&world.store) = Some(Arc::clone(&store));
    let step = |name| Arc::new(Modelled { name, world: Arc::clone(world) }) as Arc<dyn Step>;
    let steps = STEPS.map(step).to_vec();
    let definition = Definition::new("modelled", 1, Effect::Create, steps, Arc::new(Left(Arc::clone(world))));
    let options = EngineOptions {
        store,
        definitions: Registry::new([definition]),
        clock: Arc::new(PausedClock::starting_at(NOW)),
        chance: Arc::new(Counted(AtomicU64::new(held(&world.there).len() as u64 * 1_000))),
        // One slot fewer than there are workflows: they wait for each other.
        limits: Limits { in_flight: CLIENTS - 1, ..Limits::default() },
    };
    Engine::open(options).await.ok()
}

/// What a client has heard.
#[derive(Clone, Copy)]
struct Heard {
    workflow: WorkflowId,
    /// It was told that its forced end is durable: what is there then stays.
    forced: bool,
}

/// A client: submits, interferes, and waits for the end. Whatever it is told is on the disk.
async fn client(engine: Engine, store: Arc<Disk>, number: usize, may_stop: bool) -> Option<Heard> {
    let submission = NewSubmission {
        definition: "modelled".into(),
        tenant: "acme".into(),
        service: format!("service-{number}").as_str().into(),
        input: Json::null(),
        key: None,
        body_hash: Hash::default(),
        who: "acme".into(),
        holds: Amounts::new(),
        quota: Amounts::new(),
        on_failure: OnFailure::Rollback,
    };
    let workflow = match engine.submit(submission).await {
        Ok(state) => state.id(),
        Err(SubmitError::Stopped { .. } | SubmitError::ShuttingDown) => {
            assert!(may_stop, "nothing has stopped it");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let facts = || store.within.workflow(workflow).expect("it reads").into_iter().map(|entry| entry.fact);
    assert!(facts().any(|fact| matches!(fact, Fact::Submitted(_))), "it is answered before it is there");
    let mut heard = Heard { workflow, forced: false };
    for _ in 0..thread_rng().gen_range(0..3) {
        yield_now().await;
        let (asked, told) = match thread_rng().gen_range(0..4) {
            0 => ("cancel_requested", engine.cancel(workflow, "acme".into(), false).await),
            1 => {
                let told = engine.cancel(workflow, "acme".into(), true).await;
                heard.forced |= told.is_ok();
                ("cancel_requested", told)
            }
            2 => {
                let paused = engine.pause(workflow, "acme".into()).await;
                assert!(paused.is_err() || facts().any(|fact| fact.name() == "paused"), "told, and not there");
                ("resumed", engine.resume(workflow, "acme".into()).await)
            }
            _ => ("retry_requested", engine.retry(workflow, "acme".into()).await),
        };
        match told {
            Ok(_) => assert!(facts().any(|fact| fact.name() == asked), "{asked} was told, and is not there"),
            Err(ControlError::NotNow { .. } | ControlError::NotFound { .. }) => {}
            Err(ControlError::Stopped { .. } | ControlError::ShuttingDown) => {
                assert!(may_stop, "nothing has stopped it")
            }
            Err(error) => panic!("{error}"),
        }
    }
    match engine.settled(workflow).await {
        Ok(state) => assert!(state.outcome().is_some(), "parked: {:?}", state.phase()),
        Err(ControlError::Stopped { .. } | ControlError::ShuttingDown) => assert!(may_stop, "nothing has stopped it"),
        Err(error) => panic!("{error}"),
    }
    Some(heard)
}

/// What must hold of a workflow that has ended.
fn judge(world: &World, state: &WorkflowState, may_leave: bool) {
    let there = world.there(state.id());
    match state.outcome() {
        Some(Outcome::Succeeded) => assert_eq!(there, STEPS, "it has succeeded, and is not whole"),
        Some(_) => assert!(there.is_empty() || may_leave, "it was taken back, and left {there:?}"),
        None => panic!("it has not ended: {:?}", state.phase()),
    }
}

/// An engine that works, fails or is shut down; and the one after it, which nobody disturbs.
fn lives() {
    let world = Arc::new(World::default());
    let (fails_at, shuts_down) = (thread_rng().gen_range(0..24), thread_rng().gen_range(0..3) == 0);
    let store = Arc::new(Disk::new(MemoryStore::new(), fails_at, thread_rng().r#gen()));
    let may_stop = fails_at > 0 || shuts_down;
    let heard: Vec<Heard> = block_on(async {
        let engine = open(&world, Arc::clone(&store)).await.expect("there is nothing to recover");
        let asking = |number| spawn(client(engine.clone(), Arc::clone(&store), number, may_stop));
        let clients: Vec<_> = (0..CLIENTS).map(asking).collect();
        if shuts_down {
            for _ in 0..thread_rng().gen_range(0..40) {
                yield_now().await;
            }
            engine.shutdown(Duration::ZERO).await.expect("it closes");
        }
        let mut heard = Vec::new();
        for client in clients {
            heard.extend(client.await.expect("it does not panic"));
        }
        engine.shutdown(Duration::ZERO).await.expect("it closes");
        heard
    });
    assert!(!store.was_misused(), "two commits at once, an empty one, or one after a failure");
    assert!(held(&world.busy).is_empty(), "an attempt goes on although its engine has closed");
    let store = Arc::new(Disk::new(store.within.reopen(), 0, false));
    block_on(async {
        let engine = open(&world, Arc::clone(&store)).await.expect("nothing fails any more");
        for workflow in store.within.active().expect("it reads") {
            let state = engine.state(workflow).await.expect("it reads").expect("it is there");
            if state.is_paused() {
                match engine.resume(workflow, "acme".into()).await {
                    // What it was at when it was paused was its last, and it has finished meanwhile.
                    Ok(_) | Err(ControlError::NotNow { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            engine.settled(workflow).await.expect("nothing stops it");
        }
        engine.shutdown(Duration::ZERO).await.expect("it closes");
    });
    assert!(held(&world.busy).is_empty(), "an attempt goes on although its engine has closed");
    let broken = held(&world.broken).join("; ");
    assert!(broken.is_empty(), "{broken}");
    for heard in heard {
        let entries = store.within.workflow(heard.workflow).expect("it reads");
        let state = crate::state::fold(&entries).expect("it folds").expect("its client was told of it");
        // Nobody was told of a forced end that was kept although its commit has failed.
        let forced = entries.iter().any(|entry| matches!(entry.fact, Fact::CancelRequested { force: true, .. }));
        assert!(forced || !heard.forced, "its forced end was told, and is not there");
        judge(&world, &state, forced);
    }
}

/// I1-I3, I5-I7, I13, I14, I17: whoever hands over, waits or is woken, in whatever order, everything that was accepted ends, and
/// ends whole or leaves nothing.
#[test]
fn an_engine_whose_tasks_take_turns_at_random_breaks_no_rule() {
    on_a_runtime(ORDERS, |orders| shuttle::check_random(lives, orders));
}

/// The same where turns change seldom, at a few moments that may be any.
#[test]
fn an_engine_whose_tasks_are_held_up_anywhere_breaks_no_rule() {
    on_a_runtime(ORDERS, |orders| shuttle::check_pct(lives, orders, CHANGES));
}
