//! The time of the next attempt: exponential with full jitter, bounded in number and in time.
//!
//! Pure: `now` and the jitter's draw come in as arguments. The only file that names the crate `backoff`.

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};

use crate::ids::{Attempt, Timestamp};

/// How often, how long and how patiently a step is attempted.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The most attempts, the first included.
    pub attempts_max: u32,
    /// No attempt starts later than this after the first.
    pub total_max: Duration,
    /// One attempt that takes longer is over, and its outcome unknown.
    pub attempt_timeout: Duration,
    /// The most that the first wait can be.
    pub first_delay: Duration,
    /// The most that any wait can be.
    pub delay_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            // So many that the time rules: fifty waits of half a minute are more than ten minutes.
            attempts_max: 50,
            total_max: Duration::from_secs(10 * 60),
            attempt_timeout: Duration::from_secs(30),
            first_delay: Duration::from_millis(200),
            delay_max: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// How compensations, probes and residue checks are attempted: more patiently than steps, since giving up
    /// here needs a person. About an hour at the longest delay.
    #[must_use]
    pub fn patient() -> Self {
        Self {
            attempts_max: 120,
            total_max: Duration::from_secs(2 * 60 * 60),
            attempt_timeout: Duration::from_secs(60),
            ..Self::default()
        }
    }

    /// When the attempt after `attempt` may start; `None` if there is to be none.
    ///
    /// `first` is when the first attempt started, `draw` a number in `[0, 1)`, `at_least` what the server asked for
    /// (`Retry-After`): it is obeyed even where it exceeds `delay_max`, never where it exceeds `total_max`.
    #[must_use]
    pub fn next(
        &self,
        attempt: Attempt,
        first: Timestamp,
        now: Timestamp,
        draw: f64,
        at_least: Option<Duration>,
    ) -> Option<Timestamp> {
        if attempt.0 >= self.attempts_max {
            return None;
        }
        let delay = self.ceiling(attempt).mul_f64(draw.clamp(0.0, 1.0)).max(at_least.unwrap_or_default());
        let at = now.after(delay);
        (at <= first.after(self.total_max)).then_some(at)
    }

    /// The most that the wait after `attempt` can be: doubled each time up to `delay_max`.
    fn ceiling(&self, attempt: Attempt) -> Duration {
        let mut backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.first_delay)
            .with_multiplier(2.0)
            // The jitter is ours ("full": anything from zero to the ceiling), so that this stays pure.
            .with_randomization_factor(0.0)
            .with_max_interval(self.delay_max)
            .with_max_elapsed_time(None)
            .build();
        // Past 64 doublings any ceiling is `delay_max`.
        let ceiling =
            (0..attempt.0.clamp(1, 64)).filter_map(|_| backoff.next_backoff()).last().unwrap_or(self.delay_max);
        // The crate adds up to a nanosecond of noise; whole microseconds have none.
        Duration::from_micros(u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts_max: 5,
            total_max: Duration::from_secs(60),
            first_delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(4),
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_its_limit() {
        let ceilings: Vec<u64> = (1..=4).map(|attempt| policy().ceiling(Attempt(attempt)).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 4]);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(policy().next(Attempt(1), START, START, 0.0, None), Some(START));
        assert_eq!(policy().next(Attempt(2), START, START, 0.5, None), Some(START.after(Duration::from_secs(1))));
    }

    /// I12
    #[test]
    fn attempts_and_total_time_are_bounded() {
        assert_eq!(policy().next(Attempt(5), START, START, 0.0, None), None);
        let late = START.after(Duration::from_secs(61));
        assert_eq!(policy().next(Attempt(2), START, late, 0.0, None), None);
    }

    /// Giving up on what takes back needs a person.
    #[test]
    fn what_takes_back_is_tried_for_about_an_hour_and_has_more_time_than_what_runs() {
        let (patient, mut attempts, mut at) = (RetryPolicy::patient(), 1, START);
        while let Some(next) = patient.next(Attempt(attempts), START, at, 1.0, None) {
            (attempts, at) = (attempts + 1, next);
        }
        assert_eq!(attempts, 120);
        let minutes = at.since(START).as_secs() / 60;
        assert!((50..70).contains(&minutes), "{minutes} minutes");
        // They are what ends it: attempts take time, too.
        assert!(patient.total_max > 2 * at.since(START));
        assert!(patient.attempt_timeout > RetryPolicy::default().attempt_timeout);
    }

    #[test]
    fn what_the_server_asks_for_is_obeyed() {
        let asked = Duration::from_secs(20);
        assert_eq!(policy().next(Attempt(1), START, START, 0.9, Some(asked)), Some(START.after(asked)));
        assert_eq!(policy().next(Attempt(1), START, START, 0.9, Some(Duration::from_secs(3600))), None);
    }
}
