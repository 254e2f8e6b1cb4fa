//! The sandbox's time: the system's at the start, tokio's from there on, so that a test that moves tokio's
//! clock moves the timestamps of objects with it.

use jiff::Timestamp;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started_at: Timestamp,
    started: Instant,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { started_at: Timestamp::now(), started: Instant::now() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.started_at.saturating_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }

    /// As `metav1.Time` is written: whole seconds.
    pub(super) fn stamp(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}
