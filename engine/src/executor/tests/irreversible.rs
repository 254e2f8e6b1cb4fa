//! A cancel that raced with the start of a step that cannot be taken back: whoever asked had looked before it began, and the
//! workflow was rolled back over what could not come back. What is asked is decided on the state that it is appended to.

use std::sync::mpsc as blocking;

use tokio::sync::mpsc;

use super::*;

/// The definition of the other tests, in which `second` cannot be taken back.
fn irreversible(world: &Arc<World>) -> Registry {
    Registry::new([definition(world).irreversible(&["second"])])
}

/// A store that says when `second` is about to start, and makes that durable only once it is told to.
struct Holding {
    inner: Arc<dyn Store>,
    about_to: mpsc::UnboundedSender<()>,
    go_on: Mutex<blocking::Receiver<()>>,
}

impl Around for Holding {
    fn within(&self) -> &dyn Store {
        self.inner.as_ref()
    }

    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        let mut facts = appends.iter().flat_map(|append| &append.facts);
        if facts.any(|fact| started(fact, &"second".into())) {
            self.about_to.send(()).expect("the test waits for it");
            self.go_on.lock().unwrap().recv().expect("the test lets it go on");
        }
        self.inner.commit(appends, now)
    }
}

// A commit holds the thread that it is made on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_meets_the_start_of_an_irreversible_step_is_refused() {
    let world = Arc::new(World::default());
    let (about_to, mut is_about_to) = mpsc::unbounded_channel();
    let (go_on, goes_on) = blocking::channel();
    let store = Holding { inner: Arc::new(MemoryStore::new()), about_to, go_on: Mutex::new(goes_on) };
    let engine = open(Arc::new(store), irreversible(&world)).await;
    let workflow = submit(&engine).await;
    is_about_to.recv().await.expect("it starts");
    // As late as it can be asked: nothing on the disk says yet that the step has begun.
    let before = engine.state(workflow).await.unwrap().unwrap();
    assert_eq!(before.progress()[1].attempt, crate::Attempt(0));
    let mut cancel = std::pin::pin!(engine.cancel(workflow, who(), false));
    assert!(futures::poll!(&mut cancel).is_pending(), "it is asked, and not answered before it is decided");
    go_on.send(()).unwrap();
    let refused = cancel.await;
    assert!(
        matches!(&refused, Err(ControlError::Irreversible { step, .. }) if step.as_str() == "second"),
        "{refused:?}"
    );
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn up_to_an_irreversible_step_a_workflow_is_cancelled_and_after_it_only_by_force() {
    let world = Arc::new(World::default());
    world.will("first", 1, Act::WaitForEver);
    let engine = open(Arc::new(MemoryStore::new()), irreversible(&world)).await;
    let workflow = submit(&engine).await;
    engine.grown(workflow, crate::Sequence(1)).await;
    engine.cancel(workflow, who(), false).await.unwrap();
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Cancelled));

    // A step that has failed has begun: what it has done is not known to come back. Nor does a restart change that.
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Permanent));
    let store = Arc::new(MemoryStore::new());
    let engine = open(Arc::clone(&store) as Arc<dyn Store>, irreversible(&world)).await;
    let workflow = engine.submit(request("kept", OnFailure::Keep)).await.unwrap().id();
    engine.settled(workflow).await.unwrap();
    engine.shutdown(Duration::ZERO).await.unwrap();
    let engine = open(Arc::new(store.reopen()), irreversible(&world)).await;
    let refused = engine.cancel(workflow, who(), false).await;
    assert!(matches!(refused, Err(ControlError::Irreversible { .. })), "{refused:?}");
    assert!(matches!(engine.state(workflow).await.unwrap().unwrap().phase(), crate::Phase::Parked { .. }));
    engine.cancel(workflow, who(), true).await.unwrap();
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Cancelled));
}

/// A journal of a build that marked nothing has a cancel after such a step: it still folds, and is rolled back as far as it goes.
#[tokio::test(start_paused = true)]
async fn a_cancel_that_an_older_build_accepted_still_counts() {
    let world = Arc::new(World::default());
    world.will("second", 1, Act::Fail(ErrorClass::Permanent));
    world.slow_compensations.store(true, Ordering::SeqCst);
    let store = Arc::new(MemoryStore::new());
    let engine = open(Arc::clone(&store) as Arc<dyn Store>, Registry::new([definition(&world)])).await;
    let workflow = engine.submit(request("kept", OnFailure::Keep)).await.unwrap().id();
    engine.settled(workflow).await.unwrap();
    engine.cancel(workflow, who(), false).await.unwrap();
    engine.shutdown(Duration::ZERO).await.unwrap();
    let engine = open(Arc::new(store.reopen()), irreversible(&world)).await;
    assert_eq!(engine.settled(workflow).await.unwrap().outcome(), Some(Outcome::Cancelled));
}
