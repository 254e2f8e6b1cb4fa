//! The group commit under a model checker: three workflows at once, from their submissions to their ends, their threads taking
//! turns in any order, on a store that works, or fails at any of its commits. An order that breaks a rule is printed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shuttle::{
    rand::Rng as _,
    sync::mpsc,
    thread::{JoinHandle, yield_now},
};

use super::*;
use crate::{
    fact::Effect,
    ids::{Sequence, Timestamp, WorkflowId},
    store::{
        Around, MemoryStore,
        tests::samples::{self, NOW, id},
    },
};

/// How many orders are tried of each kind, in CI and in a proof.
const ORDERS: (usize, usize) = (4_000, 200_000);
/// How many changes of turn there are where they are few.
pub(crate) const CHANGES: usize = 4;
/// How many submissions may wait: fewer than there are.
const QUEUE: usize = 1;

/// A store that gives other threads their turn within a commit, may fail, and sees whether its writer behaves.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) within: MemoryStore,
    commits: AtomicUsize,
    /// The commit that fails: 1 for the first, 0 for none.
    fails_at: usize,
    /// What fails is kept all the same: nobody was told, and it is there.
    keeps: bool,
    busy: AtomicBool,
    /// A commit began while another one was being made, or after one that had failed.
    misused: AtomicBool,
}

impl Disk {
    pub(crate) fn new(within: MemoryStore, fails_at: usize, keeps: bool) -> Self {
        Self { within, fails_at, keeps, ..Self::default() }
    }

    /// Whether a commit began while another one was being made, or after one that had failed.
    pub(crate) fn was_misused(&self) -> bool {
        self.misused.load(Ordering::Relaxed)
    }
}

impl Around for Disk {
    fn within(&self) -> &dyn Store {
        &self.within
    }

    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        let has_failed = self.fails_at != 0 && number > self.fails_at;
        if self.busy.swap(true, Ordering::Relaxed) || has_failed || appends.is_empty() {
            self.misused.store(true, Ordering::Relaxed);
        }
        yield_now();
        let fails = number == self.fails_at;
        let mut result = Ok(Vec::new());
        if !fails || self.keeps {
            result = Store::commit(&self.within, appends, now);
        }
        if fails {
            result = Err(StoreError::Index("the disk is gone".to_owned()));
        }
        yield_now();
        self.busy.store(false, Ordering::Relaxed);
        result
    }
}

/// Who appends: each has one append under way, as the executor has for a workflow.
struct Appender {
    writer: Writer,
    store: Arc<Disk>,
    workflow: WorkflowId,
}

impl Appender {
    /// Appends, waits, and sees that what is acknowledged is there.
    fn append(&self, expected: u64, fact: Fact, urgent: bool) -> Answer {
        let (sender, answer) = mpsc::channel();
        let append = samples::append(&*self.store, self.workflow, expected, vec![fact]);
        let (head, store) = (self.writer.head(), Arc::clone(&self.store));
        let reply: Reply = Box::new(move |answer| {
            // Nobody else commits before this has returned.
            let is_told = *head.borrow() == store.head().0;
            assert!(is_told || answer.is_err(), "it is answered before its commit is told of");
            sender.send(answer).expect("somebody waits for it");
        });
        let here = if urgent {
            let queued = |request| self.writer.append(vec![request]);
            self.writer.append_alone(Request { append, reply }).map_err(queued).ok()
        } else {
            self.writer.submit(append, reply);
            None
        };
        let answer = here.unwrap_or_else(|| answer.recv().expect("every append is answered"));
        if answer.is_ok() {
            assert_eq!(self.len(), expected + 1, "it is answered before it is there");
        }
        answer
    }

    fn len(&self) -> u64 {
        self.store.workflow(self.workflow).expect("it reads").last().map_or(0, |entry| entry.sequence.0)
    }

    /// A workflow from its submission to its end. Returns how many of its entries were acknowledged.
    fn live(self) -> (WorkflowId, u64) {
        let submitted = samples::submitted(Effect::Create, "alice", &self.workflow.to_string());
        let mut acknowledged = 0;
        for fact in [Fact::Submitted(submitted)].into_iter().chain(samples::success()) {
            match self.append(acknowledged, fact, acknowledged > 0) {
                Ok(entries) => {
                    assert_eq!(entries.last().map(|entry| entry.sequence), Some(Sequence(acknowledged + 1)));
                    acknowledged += 1;
                }
                Err(AppendError::Overloaded) => {
                    assert_eq!(acknowledged, 0, "the executor is never refused");
                    break;
                }
                Err(AppendError::Stopped(_)) => {
                    assert!(self.store.fails_at > 0, "nothing has failed");
                    // Once it has stopped, it takes nothing any more.
                    let again = self.append(acknowledged, samples::started("one"), true);
                    assert!(matches!(again, Err(AppendError::Stopped(_))), "{again:?}");
                    break;
                }
                Err(AppendError::Refused(refusal)) => panic!("{refusal}"),
            }
        }
        (self.workflow, acknowledged)
    }
}

/// One life of a writer, on a store that fails at a commit or never.
fn life() {
    let fails_at = shuttle::rand::thread_rng().gen_range(0..8);
    let store = Arc::new(Disk::new(MemoryStore::new(), fails_at, false));
    let clock = Arc::new(SteadyClock::starting_at(NOW));
    let (writer, _) = Writer::start(Arc::clone(&store) as Arc<dyn Store>, clock, QUEUE).expect("a thread");
    let threads: Vec<JoinHandle<(WorkflowId, u64)>> = (1..=3)
        .map(|number| {
            let appender = Appender { writer: writer.clone(), store: Arc::clone(&store), workflow: id(number) };
            thread::spawn(move || appender.live())
        })
        .collect();
    // The last way to it may be any thread's: the writer ends when that does.
    drop(writer);
    let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
    assert!(!store.was_misused(), "two commits at once, an empty one, or one after a failure");
    for (workflow, acknowledged) in ends {
        let kept = store.workflow(workflow).expect("it reads").len() as u64;
        assert_eq!(kept, acknowledged, "what failed has written nothing, so what is there was acknowledged");
    }
}

/// Runs `check` with the number of orders, in CI or in a proof, where the writer finds a runtime: it asks which kind it is on.
pub(crate) fn on_a_runtime(orders: (usize, usize), check: impl FnOnce(usize)) {
    let orders = if std::env::var_os("CAIRN_PROOF").is_some_and(|value| value == "1") { orders.1 } else { orders.0 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let _entered = runtime.enter();
    check(orders);
    println!("orders tried {orders}, violations 0");
}

/// I1, I5, I8: every append is answered once, after its commit; one commit at a time; none after one that failed; nobody
/// waits for ever, whatever the order.
#[test]
fn threads_that_take_turns_at_random_break_no_rule_of_the_group_commit() {
    on_a_runtime(ORDERS, |orders| shuttle::check_random(life, orders));
}

/// The same where turns change seldom, at a few moments that may be any.
#[test]
fn threads_that_are_held_up_anywhere_break_no_rule_of_the_group_commit() {
    on_a_runtime(ORDERS, |orders| shuttle::check_pct(life, orders, CHANGES));
}
