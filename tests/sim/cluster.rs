//! The simulated cluster: objects by name, a log of what changed them, and a way there on which anything gets lost.
//!
//! - A call is done whole or not at all. One that nobody waits for any more is done at that moment, or never.
//! - Each object has an owner's mark and a UID; it is changed and removed by its UID only.
//! - What a call must have in the journal is looked up there, on the disk, when it leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use cairn_engine::{StepContext, StepError, WorkflowId};
use cairn_tests::site::Numbers;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    disk::{Hands, Holds},
    life::{Life, Reach},
    notes::Notes,
};

/// Something in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// Whose; nobody's of ours, if there is none.
    pub(crate) mark: Option<String>,
    pub(crate) uid: String,
    pub(crate) version: u64,
}

/// What has changed an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) workflow: WorkflowId,
    pub(crate) what: What,
    pub(crate) object: Object,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Made,
    Set,
    Removed,
}

/// What is asked of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Make it, unless it is there. `known`: the journal knows that it is.
    Make { name: String, mark: String, version: u64, known: bool },
    /// Give it this version.
    Set { name: String, uid: String, version: u64 },
    /// Take it away.
    Remove { name: String, uid: String },
    /// What is there under these names?
    Find { names: Vec<String> },
    /// What bears this mark?
    List { mark: String },
}

impl Request {
    fn is_write(&self) -> bool {
        matches!(self, Self::Make { .. } | Self::Set { .. } | Self::Remove { .. })
    }
}

/// What the cluster answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It is there, with this UID.
    Made(String),
    /// It is as asked.
    Done,
    /// There is another one, or none.
    NotThere,
    /// What is there, by name.
    Found(BTreeMap<String, Object>),
}

/// The cluster. It outlives engines.
pub(crate) struct Cluster {
    things: Mutex<Things>,
}

struct Things {
    numbers: Numbers,
    objects: BTreeMap<String, Object>,
    made: BTreeMap<String, u64>,
    log: BTreeMap<String, Vec<Change>>,
    in_flight: BTreeSet<WorkflowId>,
}

impl Cluster {
    pub(crate) fn new(numbers: Numbers) -> Self {
        let (objects, made, log, in_flight) = Default::default();
        Self { things: Mutex::new(Things { numbers, objects, made, log, in_flight }) }
    }

    /// Puts something of somebody else's there.
    pub(crate) fn add_foreign(&self, name: String) {
        let foreign = Object { mark: None, uid: "theirs".to_owned(), version: 0 };
        self.things().objects.insert(name, foreign);
    }

    /// All there is.
    pub(crate) fn objects(&self) -> BTreeMap<String, Object> {
        self.things().objects.clone()
    }

    /// All that was changed, by name and in order.
    pub(crate) fn log(&self) -> BTreeMap<String, Vec<Change>> {
        self.things().log.clone()
    }

    /// Whose calls are on their way.
    pub(crate) fn in_flight(&self) -> BTreeSet<WorkflowId> {
        self.things().in_flight.clone()
    }

    fn things(&self) -> MutexGuard<'_, Things> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Things {
    fn done(&mut self, workflow: WorkflowId, request: &Request) -> Answer {
        match request {
            Request::Make { name, mark, version, .. } => match self.objects.get(name) {
                Some(object) if object.mark.as_ref() == Some(mark) => Answer::Made(object.uid.clone()),
                Some(_) => Answer::NotThere,
                None => {
                    let made = self.made.entry(name.clone()).or_default();
                    *made += 1;
                    let uid = format!("{name}#{made}");
                    let object = Object { mark: Some(mark.clone()), uid: uid.clone(), version: *version };
                    self.objects.insert(name.clone(), object.clone());
                    self.changed(name, workflow, What::Made, object);
                    Answer::Made(uid)
                }
            },
            Request::Set { name, uid, version } => match self.objects.get_mut(name) {
                Some(object) if object.uid == *uid => {
                    object.version = *version;
                    let object = object.clone();
                    self.changed(name, workflow, What::Set, object);
                    Answer::Done
                }
                _ => Answer::NotThere,
            },
            Request::Remove { name, uid } => {
                if self.objects.get(name).is_some_and(|object| object.uid == *uid)
                    && let Some(object) = self.objects.remove(name)
                {
                    self.changed(name, workflow, What::Removed, object);
                }
                Answer::Done
            }
            Request::Find { names } => {
                let there = names.iter().filter_map(|name| Some((name.clone(), self.objects.get(name)?.clone())));
                Answer::Found(there.collect())
            }
            Request::List { mark } => {
                let marked = self.objects.iter().filter(|(_, object)| object.mark.as_ref() == Some(mark));
                Answer::Found(marked.map(|(name, object)| (name.clone(), object.clone())).collect())
            }
        }
    }

    fn changed(&mut self, name: &str, workflow: WorkflowId, what: What, object: Object) {
        self.log.entry(name.to_owned()).or_default().push(Change { workflow, what, object });
    }
}

/// How long a call takes one way: now and then long.
fn latency(numbers: &mut Numbers) -> Duration {
    let millis_max = if numbers.happens(3) { 5_000 } else { 40 };
    Duration::from_millis(1 + numbers.below(millis_max))
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    LostBefore,
    LostAfter,
    Refused,
    RefusedFor(Duration),
    Forbidden,
    HangsBefore,
    HangsAfter,
    Panics,
}

impl Fate {
    fn is_done(self) -> bool {
        matches!(self, Self::Answered | Self::LostAfter | Self::HangsAfter)
    }

    fn drawn(numbers: &mut Numbers) -> Self {
        match numbers.below(16) {
            0..=1 => Self::LostBefore,
            2..=5 => Self::LostAfter,
            6..=9 => Self::Refused,
            10 => Self::RefusedFor(Duration::from_secs(1 + numbers.below(40))),
            11 => Self::Forbidden,
            12 => Self::HangsBefore,
            13..=14 => Self::HangsAfter,
            _ => Self::Panics,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "calls answered",
            Self::LostBefore => "calls lost",
            Self::LostAfter => "answers lost",
            Self::Refused | Self::RefusedFor(_) => "calls refused",
            Self::Forbidden => "calls forbidden",
            Self::HangsBefore | Self::HangsAfter => "calls that hang",
            Self::Panics => "calls that panic",
        }
    }
}

/// The way to the cluster, as one life of an engine has it.
#[derive(Clone)]
pub(crate) struct Way {
    /// Who wants something of a workflow at the very moment at which it is answered.
    pub(crate) somebody: mpsc::UnboundedSender<WorkflowId>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) hands: Arc<Hands>,
    pub(crate) life: Arc<Life>,
    pub(crate) notes: Arc<Notes>,
}

/// A call that is on its way.
struct Flight<'a> {
    way: &'a Way,
    workflow: WorkflowId,
    /// Still to be done.
    request: Option<Request>,
    /// What becomes of it if nobody waits for it any more.
    done_if_abandoned: bool,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut things = self.way.cluster.things();
        if let Some(request) = self.request.take().filter(|_| self.done_if_abandoned) {
            self.way.notes.count("calls done after nobody waited for them");
            things.done(self.workflow, &request);
        }
        things.in_flight.remove(&self.workflow);
    }
}

impl Way {
    /// Asks the cluster, on behalf of this step.
    ///
    /// # Errors
    /// As the network and the cluster will have it.
    pub(crate) async fn ask(&self, cx: &StepContext, step: &str, request: Request) -> Result<Answer, StepError> {
        let reach = self.life.next_call();
        if reach == Reach::Over {
            pending::<()>().await;
        }
        let workflow = cx.workflow();
        self.judge(cx, step, &request);
        let (fate, there, back, abandoned) = self.draw();
        self.notes.count(fate.name());
        let last = matches!(reach, Reach::Last { .. });
        let done_if_abandoned = if let Reach::Last { done } = reach { done } else { abandoned };
        let mut flight = Flight { way: self, workflow, request: Some(request), done_if_abandoned };
        if last {
            pending::<()>().await;
        }
        sleep(there).await;
        self.alive().await;
        let request = flight.request.take().filter(|_| fate.is_done());
        let answer = request.map(|request| self.cluster.things().done(workflow, &request));
        sleep(back).await;
        self.alive().await;
        self.meet_somebody(workflow).await;
        match (fate, answer) {
            (Fate::Answered, Some(answer)) => Ok(answer),
            (Fate::Refused, _) => Err(StepError::transient("the cluster has no time")),
            (Fate::RefusedFor(delay), _) => Err(StepError::transient("come back later").with_retry_after(delay)),
            (Fate::Forbidden, _) => Err(StepError::permanent("the cluster does not allow this")),
            // As a panic does, but without its words on the terminal.
            (Fate::Panics, _) => std::panic::resume_unwind(Box::new("a bug of the step's")),
            (Fate::HangsBefore | Fate::HangsAfter, _) => pending().await,
            _ => Err(StepError::unknown("the connection broke")),
        }
    }

    /// I3, I6, I16: what leaves is in the journal, as the thing in hand, and nothing else of its workflow is on its way.
    fn judge(&self, cx: &StepContext, step: &str, request: &Request) {
        let workflow = cx.workflow();
        if !self.cluster.things().in_flight.insert(workflow) {
            self.notes.broken(format!("I6: two calls of {workflow} are on their way at once"));
        }
        let hand = self.hands.of(workflow);
        let is_in_hand = match &hand.holds {
            Holds::Attempt(in_hand, attempt, token) | Holds::Compensation(in_hand, attempt, token) => {
                in_hand.as_str() == step && (*attempt, *token) == (cx.attempt(), cx.token())
            }
            Holds::Nothing => false,
            Holds::Finished => {
                self.notes.broken(format!("I16: {request:?} leaves after {workflow} has finished"));
                true
            }
        };
        if request.is_write() && !is_in_hand {
            self.notes.broken(format!("I3: {request:?} leaves while {workflow} has {hand:?} in hand"));
        }
        if let Request::Make { name, mark, known: false, .. } = request
            && !hand.tried_again
            && self.cluster.things().objects.get(name).is_some_and(|object| object.mark.as_ref() == Some(mark))
        {
            self.notes.broken(format!("I10: {workflow} makes {name} again, without having looked"));
        }
    }

    /// What becomes of a call, how long it takes there and back, and whether it is done if nobody waits for it any more.
    fn draw(&self) -> (Fate, Duration, Duration, bool) {
        let trouble = &self.life.trouble;
        let age = self.life.age();
        let mut things = self.cluster.things();
        let numbers = &mut things.numbers;
        let (there, back) = (latency(numbers), latency(numbers));
        let goes_wrong = numbers.happens(trouble.calls) && age < trouble.fair_after;
        let fate = if trouble.outage.contains(&age) {
            Fate::Refused
        } else if goes_wrong {
            Fate::drawn(numbers)
        } else {
            Fate::Answered
        };
        (fate, there, back, numbers.happens(50))
    }

    /// Now and then somebody wants something of this workflow just now: a little earlier than the answer, or a little later.
    async fn meet_somebody(&self, workflow: WorkflowId) {
        let is_fair = self.life.age() >= self.life.trouble.fair_after;
        let turns = {
            let mut things = self.cluster.things();
            if is_fair || !things.numbers.happens(2) {
                return;
            }
            things.numbers.below(4)
        };
        // Nobody listens only when the engine is gone.
        let _ = self.somebody.send(workflow);
        for _ in 0..turns {
            let mut came = false;
            // Not tokio's: that lets everybody else come first.
            poll_fn(|context| {
                if std::mem::replace(&mut came, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    /// Nothing goes on for a process that is over.
    async fn alive(&self) {
        if self.life.is_over() {
            pending::<()>().await;
        }
    }
}
