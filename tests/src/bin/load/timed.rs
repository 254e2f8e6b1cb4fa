//! What a measurement came to, as every row of figures tells it: how many, how fast, how long each took, and at what cost.

use std::time::Duration;

use crate::output::percentile_ms;

/// How many workflows are measured: what takes a few seconds, if nobody says otherwise.
pub(crate) fn counted(in_flight: usize, count: Option<usize>) -> usize {
    count.unwrap_or((in_flight * 100).clamp(1_000, 20_000))
}

/// Work of one kind, done many times.
pub(crate) struct Timed {
    /// In all, those before the measurement included.
    pub(crate) asked: usize,
    pub(crate) took: Duration,
    /// Of each that was measured, sorted.
    pub(crate) times: Vec<Duration>,
    /// What the processor had worked when the measurement began.
    pub(crate) cpu_before: f64,
}

impl Timed {
    /// The figures of workflows that were run to their end; `cpu` is what the processor has worked by now, in seconds.
    pub(crate) fn workflows(&self, in_flight: usize, cpu: f64) -> Vec<(&'static str, f64)> {
        let count = ("workflows", self.times.len() as f64);
        let rate = ("workflows_per_s", self.per_second());
        [&[("in_flight", in_flight as f64), count, rate][..], &self.each(cpu)].concat()
    }

    /// The figures of submissions that were acknowledged.
    pub(crate) fn submissions(&self, cpu: f64) -> Vec<(&'static str, f64)> {
        let count = ("submissions", self.times.len() as f64);
        let rate = ("submissions_per_s", self.per_second());
        [&[count, rate][..], &self.each(cpu)].concat()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    fn each(&self, cpu: f64) -> [(&'static str, f64); 4] {
        [
            ("p50_ms", percentile_ms(&self.times, 50)),
            ("p95_ms", percentile_ms(&self.times, 95)),
            ("p99_ms", percentile_ms(&self.times, 99)),
            ("cpu_s_per_1000", (cpu - self.cpu_before) / self.times.len() as f64 * 1e3),
        ]
    }
}
