//! A real crash at a chosen point: the process sends itself SIGKILL, and nothing of it runs any more.
//!
//! For `cairn demo --crash-at` and for tests that kill the engine at every one of its appends. Not a simulation: no
//! destructor, no flush, no lock file removed.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_engine::{
    Entry, Fact, Timestamp,
    store::{Append, Around, Refusal, Store, StoreError},
};
use cairn_steps::report::STATUSES;

/// When to die.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KillPoint {
    /// Before the K-th commit with facts is written.
    Before(u64),
    /// After it is durable, before anybody hears of it.
    After(u64),
    /// After the start of this step is durable, before it has any effect.
    Step(String),
}

impl KillPoint {
    /// Reads `append:K:before`, `append:K:after` or `step:NAME`.
    ///
    /// # Errors
    /// One sentence about what can be written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for KillPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither `append:K:before`, `append:K:after` nor `step:NAME`, K from 1");
        let parts: Vec<&str> = text.split(':').collect();
        let count = |text: &str| text.parse::<u64>().ok().filter(|count| *count > 0).ok_or_else(wrong);
        match parts.as_slice() {
            ["append", count_text, "before"] => Ok(Self::Before(count(count_text)?)),
            ["append", count_text, "after"] => Ok(Self::After(count(count_text)?)),
            ["step", name] if STATUSES.contains(name) => Ok(Self::Step((*name).to_owned())),
            ["step", _] => Err(format!("there is no such step: the ten are {}", STATUSES.join(", "))),
            _ => Err(wrong()),
        }
    }
}

/// A store that kills its process at a point; up to there it is the store within.
pub(crate) struct KillingStore {
    inner: Arc<dyn Store>,
    point: KillPoint,
    commits: AtomicU64,
}

impl KillingStore {
    /// `inner`, until `point` is reached.
    pub(crate) fn new(inner: Arc<dyn Store>, point: KillPoint) -> Self {
        Self { inner, point, commits: AtomicU64::new(0) }
    }
}

impl Around for KillingStore {
    fn within(&self) -> &dyn Store {
        self.inner.as_ref()
    }

    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        let facts = appends.iter().any(|append| !append.facts.is_empty());
        let number = if facts { self.commits.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        if facts && self.point == KillPoint::Before(number) {
            die();
        }
        let starts = |append: &Append| {
            append.facts.iter().any(|fact| match (fact, &self.point) {
                (Fact::AttemptStarted { step, .. }, KillPoint::Step(name)) => step.as_str() == name,
                _ => false,
            })
        };
        let at_step = appends.iter().any(starts);
        let answers = self.inner.commit(appends, now)?;
        if at_step || (facts && self.point == KillPoint::After(number)) {
            die();
        }
        Ok(answers)
    }
}

fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal may be delivered to another thread first; this one must not get any further.
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_others_refused() {
        assert_eq!(KillPoint::parse("append:3:before"), Ok(KillPoint::Before(3)));
        assert_eq!(KillPoint::parse("append:1:after"), Ok(KillPoint::After(1)));
        assert_eq!(KillPoint::parse("step:k8s_applied"), Ok(KillPoint::Step("k8s_applied".to_owned())));
        for wrong in ["", "append", "append:0:after", "append:x:after", "append:1:during", "step:nope", "step"] {
            assert!(KillPoint::parse(wrong).is_err(), "{wrong}");
        }
    }
}
