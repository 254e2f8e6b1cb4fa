//! A line on the terminal while reading takes long.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

/// Quiet for so long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Shown anew so often.
const PERIOD: Duration = Duration::from_millis(200);

/// Passes on what `inner` gives; says on a terminal how much that was, once it takes more than a second.
pub(crate) struct Progress<I> {
    inner: I,
    commits: u64,
    /// When the line is shown next; never if nobody would see it.
    due: Option<Instant>,
    shown: bool,
}

impl<I> Progress<I> {
    pub(crate) fn new(inner: I) -> Self {
        let due = stderr().is_terminal().then(|| Instant::now() + PATIENCE);
        Self { inner, commits: 0, due, shown: false }
    }

    /// What gives the commits.
    pub(crate) fn inner(&self) -> &I {
        &self.inner
    }
}

impl<T, I: Iterator<Item = T>> Iterator for Progress<I> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let next = self.inner.next();
        self.commits += 1;
        // The clock is asked once in a while only: a commit is read in microseconds.
        if let Some(due) = self.due
            && self.commits.is_multiple_of(64)
            && Instant::now() >= due
        {
            // A terminal that does not take the line does not matter.
            let _ = write!(stderr(), "\r{} commits read\u{1b}[K", self.commits);
            self.due = Some(Instant::now() + PERIOD);
            self.shown = true;
        }
        next
    }
}

impl<I> Drop for Progress<I> {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(stderr(), "\r\u{1b}[K");
        }
    }
}
