//! So many requests at the same time and no more: what bounds the connections to the API server.
//!
//! The client opens a connection for each request that finds none free, and keeps it for a minute and a half. A thousand rollouts
//! that end at once would be a thousand connections, and no faster: the server takes turns anyway (API priority and fairness).
//! Watches do not go through here.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service};

/// Requests at the same time. The server is told `429` before it is ill; this is a fraction of what it lets one client have.
const AT_ONCE: usize = 16;

/// Puts a bound around a service.
#[derive(Debug, Clone)]
pub(super) struct Bounded {
    places: Arc<Semaphore>,
}

impl Default for Bounded {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl<S> Layer<S> for Bounded {
    type Service = BoundedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BoundedService { inner, places: Arc::clone(&self.places) }
    }
}

/// A service with a bound around it. First come, first served.
pub(super) struct BoundedService<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S, R> Service<R> for BoundedService<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let places = Arc::clone(&self.places);
        // Nothing of it happens before it is polled.
        let answer = self.inner.call(request);
        async move {
            let _place = places.acquire_owned().await?;
            answer.await.map_err(Into::into)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_requests_at_once_are_never_more_than_so_many() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let server = service_fn(|_: ()| async {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            NOW.fetch_sub(1, Ordering::SeqCst);
            Ok::<(), BoxError>(())
        });
        let bound = Bounded::default();
        let all = (0..1000).map(|_| bound.layer(server).oneshot(()));
        let answers = futures::future::join_all(all).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(MOST.load(Ordering::SeqCst), AT_ONCE);
    }
}
