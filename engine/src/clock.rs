//! What time it is, so that tests own time.
//!
//! Waiting is tokio's: a test that pauses tokio's clock pauses all waits, and [`PausedClock`] tells the same time.
//! An engine asks its clock once, when it opens; from then on its time is steady.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::ids::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The time now, UTC.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }
}

/// Tokio's clock, counted from a fixed moment: with a paused runtime, a manual clock.
#[derive(Clone, Copy, Debug)]
pub struct PausedClock {
    zero: tokio::time::Instant,
    start: Timestamp,
}

impl PausedClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { zero: tokio::time::Instant::now(), start }
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.zero.elapsed())
    }
}

/// An engine's own time: begins where the clock or the journal stands, whichever is later, and then only goes forward,
/// at the pace of a monotonic clock. A clock that is set, by an hour or a year, is followed at the next opening.
pub(crate) struct SteadyClock {
    zero: tokio::time::Instant,
    start: Timestamp,
    last: AtomicI64,
}

impl SteadyClock {
    /// Begins at `start`.
    pub(crate) fn starting_at(start: Timestamp) -> Self {
        Self { zero: tokio::time::Instant::now(), start, last: AtomicI64::new(start.as_micros()) }
    }

    /// When it began.
    pub(crate) fn start(&self) -> Timestamp {
        self.start
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        let last = Timestamp::from_micros(self.last.load(Ordering::Relaxed));
        self.start.after(self.zero.elapsed()).max(last)
    }

    /// The time now, later than any that this has returned before: what two commits say tells them apart.
    pub(crate) fn tick(&self) -> Timestamp {
        let now = self.start.after(self.zero.elapsed()).as_micros();
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        Timestamp::from_micros(now.max(before.unwrap_or(now) + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// I18
    #[tokio::test(start_paused = true)]
    async fn a_frozen_clock_still_tells_commits_apart_and_never_goes_back() {
        let clock = SteadyClock::starting_at(Timestamp::from_micros(1_000));
        assert_eq!(clock.tick(), Timestamp::from_micros(1_001));
        assert_eq!(clock.tick(), Timestamp::from_micros(1_002));
        assert_eq!(clock.now(), Timestamp::from_micros(1_002));
        tokio::time::advance(Duration::from_micros(500)).await;
        assert_eq!(clock.now(), Timestamp::from_micros(1_500));
    }
}
