//! What time it is, so that tests own time.
//!
//! Waiting is tokio's: a test that pauses tokio's clock pauses all waits, and [`PausedClock`] tells the same time.

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
