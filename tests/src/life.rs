//! One life of an engine process, inside the test's own process: what it did, in one order, and where it is cut off.
//!
//! - A life that has ended gets nothing more on the disk and nothing more to the cluster: that is what a kill is.
//! - The [`Tape`] runs through all lives of a world. What stands before what on it is what happened before what.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use cairn_engine::Commit;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// Where a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// At which operation.
    pub at: Operation,
    /// Whether that operation still takes effect. Its answer is lost either way.
    pub side: Side,
}

/// One of the operations of a life, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// This commit of the journal.
    Commit(u64),
    /// This call to the cluster.
    Call(u64),
}

/// On which side of an operation's effect a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The operation takes no effect.
    Before,
    /// The operation takes effect, and nobody learns of it.
    After,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Before, Self::After];
}

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// This commit became durable.
    Committed(Commit),
    /// This call left for the cluster.
    Called(Call),
    /// The life with this number ended.
    Ended(u32),
}

/// A call to the cluster.
#[derive(Clone, Debug)]
pub struct Call {
    /// In which life.
    pub life: u32,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
}

impl Call {
    /// It can change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD") && !self.path.contains("dryRun=All")
    }

    /// The namespace that it is about, if it is about one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        let path = self.path.split('?').next()?;
        let mut segments = path.split('/').skip_while(|segment| *segment != "namespaces").skip(1);
        segments.next().filter(|name| !name.is_empty())
    }
}

/// What happened in all lives of a world, in order.
#[derive(Debug, Default)]
pub struct Tape {
    events: Mutex<Vec<Event>>,
}

impl Tape {
    /// Adds what has just happened.
    pub fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// All so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One life.
pub struct Life {
    number: u32,
    cut: Option<Cut>,
    over: AtomicBool,
    commits: AtomicU64,
    calls: AtomicU64,
    ended: watch::Sender<bool>,
    somebody: Mutex<Option<(u64, Deed)>>,
    tape: Arc<Tape>,
}

/// What somebody else does to the cluster.
pub type Deed = BoxFuture<'static, ()>;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes effect, and its answer arrives.
    Whole,
    /// It takes effect, and the life ends.
    LastWord,
    /// It takes no effect: the life has ended.
    Refused,
}

impl Life {
    /// The life with this number, which ends at `cut`, or only when it is told to.
    #[must_use]
    pub fn new(number: u32, cut: Option<Cut>, tape: Arc<Tape>) -> Arc<Self> {
        Arc::new(Self {
            number,
            cut,
            over: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            ended: watch::Sender::new(false),
            somebody: Mutex::default(),
            tape,
        })
    }

    /// The next commit of this life.
    pub fn next_commit(&self) -> Verdict {
        if self.is_over() {
            return Verdict::Refused;
        }
        self.verdict(Operation::Commit(self.commits.fetch_add(1, Ordering::SeqCst) + 1))
    }

    /// The next call of this life.
    pub fn next_call(&self, method: &str, path: &str) -> Verdict {
        if self.is_over() {
            return Verdict::Refused;
        }
        let verdict = self.verdict(Operation::Call(self.calls.fetch_add(1, Ordering::SeqCst) + 1));
        if verdict != Verdict::Refused {
            let call = Call { life: self.number, method: method.to_owned(), path: path.to_owned() };
            self.tape.push(Event::Called(call));
        }
        verdict
    }

    /// Right after this call of this life somebody does that.
    pub fn after_call(&self, call: u64, deed: Deed) {
        *self.somebody.lock().unwrap_or_else(PoisonError::into_inner) = Some((call, deed));
    }

    /// What somebody does now, if it is time.
    pub(crate) fn deed(&self) -> Option<Deed> {
        let mut somebody = self.somebody.lock().unwrap_or_else(PoisonError::into_inner);
        let due = somebody.as_ref().is_some_and(|(call, _)| self.calls.load(Ordering::SeqCst) >= *call);
        if due { somebody.take().map(|(_, deed)| deed) } else { None }
    }

    fn verdict(&self, operation: Operation) -> Verdict {
        match self.cut {
            Some(cut) if cut.at == operation => {
                // The life is over before its last word takes effect: what else is under way gets nowhere.
                self.end();
                if cut.side == Side::Before { Verdict::Refused } else { Verdict::LastWord }
            }
            _ => Verdict::Whole,
        }
    }

    /// Ends it now.
    pub fn end(&self) {
        if !self.over.swap(true, Ordering::SeqCst) {
            self.tape.push(Event::Ended(self.number));
            self.ended.send_replace(true);
        }
    }

    /// It has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Returns once it has ended.
    pub async fn ended(&self) {
        // The sender is at hand: this cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// How many commits and calls it has made so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.commits.load(Ordering::SeqCst), self.calls.load(Ordering::SeqCst))
    }

    /// The tape that it runs on.
    #[must_use]
    pub fn tape(&self) -> &Tape {
        &self.tape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_is_cut_after_a_commit_makes_no_further_call() {
        let tape = Arc::new(Tape::default());
        let cut = Cut { at: Operation::Commit(2), side: Side::After };
        let life = Life::new(1, Some(cut), Arc::clone(&tape));
        assert_eq!(life.next_commit(), Verdict::Whole);
        assert_eq!(life.next_call("GET", "/api"), Verdict::Whole);
        assert_eq!(life.next_commit(), Verdict::LastWord);
        assert_eq!(life.next_call("GET", "/api"), Verdict::Refused);
        assert_eq!(life.counts(), (2, 1));
        assert!(matches!(tape.events()[..], [Event::Called(_), Event::Ended(1)]));
    }

    #[test]
    fn the_namespace_of_a_call_is_read_from_its_path() {
        let call = |path: &str| Call { life: 1, method: "PATCH".to_owned(), path: path.to_owned() };
        assert_eq!(call("/api/v1/namespaces/a--b?fieldManager=cairn").namespace(), Some("a--b"));
        assert_eq!(call("/apis/apps/v1/namespaces/a--b/statefulsets/elasticsearch").namespace(), Some("a--b"));
        assert_eq!(call("/version").namespace(), None);
        assert!(!call("/api/v1/namespaces/a--b?dryRun=All").is_write());
    }
}
