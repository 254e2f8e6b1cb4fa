//! Threads, tasks, locks and waits: the standard library's and tokio's, or those of a model checker, which tries the orders in
//! which threads and tasks may take turns (`tests/run model`).
//!
//! Tokio's channels stay tokio's: they wake whoever waits on them, whatever it runs on. The model checker takes what they do for one
//! step, within which no turn ends.

#[cfg(not(all(test, feature = "model")))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};
#[cfg(not(all(test, feature = "model")))]
pub(crate) use tokio::{
    spawn,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, sleep_until, timeout},
};

#[cfg(all(test, feature = "model"))]
pub(crate) use self::modelled::{sleep, sleep_until, spawn_blocking, timeout};
#[cfg(all(test, feature = "model"))]
pub(crate) use shuttle::{
    future::{JoinHandle, spawn},
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(all(test, feature = "model"))]
pub(crate) use std::sync::PoisonError;

/// Waits without time: nobody is rescued by a timeout or a look every now and then, so whoever is not woken waits for ever, and the
/// model checker tells.
#[cfg(all(test, feature = "model"))]
mod modelled {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
        time::Duration,
    };

    use shuttle::future::{JoinHandle, spawn};
    use tokio::time::Instant;

    pub(crate) fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        spawn(async { work() })
    }

    pub(crate) async fn timeout<T>(_: Duration, work: impl Future<Output = T>) -> Result<T, Infallible> {
        Ok(work.await)
    }

    pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
        Sleep { deadline }
    }

    pub(crate) async fn sleep(_: Duration) {
        std::future::pending().await
    }

    /// One that nobody wakes from.
    pub(crate) struct Sleep {
        deadline: Instant,
    }

    impl Sleep {
        pub(crate) fn is_elapsed(&self) -> bool {
            false
        }

        pub(crate) fn deadline(&self) -> Instant {
            self.deadline
        }

        pub(crate) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
            self.deadline = deadline;
        }
    }

    impl Future for Sleep {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
}
