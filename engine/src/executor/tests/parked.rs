//! A deletion that read "parked", and then ended by force what somebody had let go on in between. Whether a workflow is parked is
//! decided where its end is appended.

use super::*;

/// A workflow that is parked at its second step, which would then wait until it is told to stop.
async fn parked() -> (Engine, WorkflowId) {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Permanent));
    world.will("second", 2, Act::WaitForEver);
    let engine = open(Arc::new(MemoryStore::new()), Registry::new([definition(&world)])).await;
    let workflow = engine.submit(request("kept", OnFailure::Keep)).await.unwrap().id();
    let state = engine.settled(workflow).await.unwrap();
    assert!(matches!(state.phase(), Phase::Parked { .. }), "{:?}", state.phase());
    (engine, workflow)
}

#[tokio::test(start_paused = true)]
async fn what_somebody_lets_go_on_is_not_ended_as_if_it_were_parked() {
    let (engine, workflow) = parked().await;
    // Both are asked before either is decided: the workflow is parked on the disk when its end is asked for.
    let (retried, ended) = tokio::join!(engine.retry(workflow, who()), engine.end_parked(workflow, who()));
    retried.unwrap();
    assert!(matches!(ended, Err(ControlError::NotParked { .. })), "{ended:?}");
    assert!(!names(&engine, workflow).await.contains(&"cancel_requested"), "nothing of it is in the journal");
    assert_eq!(engine.state(workflow).await.unwrap().unwrap().outcome(), None, "it goes on");
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_is_ended_and_whoever_lets_it_go_on_later_is_refused() {
    let (engine, workflow) = parked().await;
    let (ended, retried) = tokio::join!(engine.end_parked(workflow, who()), engine.retry(workflow, who()));
    ended.unwrap();
    assert!(matches!(retried, Err(ControlError::NotNow { .. } | ControlError::NotFound { .. })), "{retried:?}");
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Cancelled));
    let again = engine.end_parked(workflow, who()).await;
    assert!(matches!(again, Err(ControlError::NotNow { .. })), "what is finished says so: {again:?}");
}
