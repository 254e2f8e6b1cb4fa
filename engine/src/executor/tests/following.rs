//! Who submits a workflow and waits for its end is told of the end with all that led to it, as the journal has it.

use super::*;
use crate::SubmitError;

async fn follow(engine: &Engine, service: &str) -> crate::Following {
    engine.submit_and_follow(request(service, OnFailure::Rollback)).await.unwrap().1
}

/// I2
#[tokio::test(start_paused = true)]
async fn who_follows_a_workflow_is_told_every_entry_as_the_journal_has_it() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Transient));
    let (engine, _) = engine(&world).await;
    let settled = follow(&engine, "search").await.settled().await.expect("the engine goes on");
    let workflow = settled.state.id();
    assert_eq!(settled.state.outcome(), Some(Outcome::Succeeded));
    assert_eq!(settled.entries, engine.entries(workflow).await.unwrap());
    assert_eq!(Some(&*settled.state), engine.state(workflow).await.unwrap().as_ref());
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_workflow_that_parks_is_told_so() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Permanent));
    let (engine, _) = engine(&world).await;
    let (submitted, mut following) = engine.submit_and_follow(request("kept", OnFailure::Keep)).await.unwrap();
    let settled = following.settled().await.expect("the engine goes on");
    assert!(matches!(settled.state.phase(), Phase::Parked { .. }), "{:?}", settled.state.phase());
    assert_eq!(settled.entries, engine.entries(submitted.id()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_workflow_that_does_not_end_hears_of_the_engines_end() {
    let world = Arc::new(World::default());
    world.will("first", 1, Act::WaitForEver);
    let (engine, _) = engine(&world).await;
    let mut following = follow(&engine, "search").await;
    let (settled, closed) = tokio::join!(following.settled(), engine.shutdown(Duration::ZERO));
    closed.unwrap();
    assert!(settled.is_none(), "it has not ended");
}

/// I34
#[tokio::test(start_paused = true)]
async fn with_as_many_workflows_as_there_may_be_one_more_is_refused_until_one_has_ended() {
    let world = Arc::new(World::default());
    world.will("first", 1, Act::Fail(ErrorClass::Transient));
    let clock = Arc::new(PausedClock::starting_at(Timestamp::from_micros(1_767_225_600_000_000)));
    let limits = Limits { active: 1, ..Limits::default() };
    let (store, chance) = (Arc::new(MemoryStore::new()), Arc::new(SystemChance));
    let definitions = Registry::new([definition(&world)]);
    let engine = Engine::open(EngineOptions { store, definitions, clock, chance, limits }).await.unwrap();
    let mut first = follow(&engine, "one").await;
    let refused = engine.submit(request("two", OnFailure::Rollback)).await;
    assert!(matches!(refused, Err(SubmitError::Overloaded)), "{refused:?}");
    first.settled().await.expect("the engine goes on");
    engine.submit(request("two", OnFailure::Rollback)).await.expect("there is room again");
}
