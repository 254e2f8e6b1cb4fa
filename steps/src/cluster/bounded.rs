//! So many requests at the same time and no more: what bounds the connections to the API server.
//!
//! The client opens a connection for each request that finds none free, and keeps it for a minute and a half. A thousand rollouts
//! that end at once would be a thousand connections, and no faster: the server takes turns anyway (API priority and fairness).
//!
//! - A request has its place until its answer was read to the end, as long as it has its connection.
//! - First come, first served. Rehearsals go through a smaller bound before this one, so that at most so many of their requests
//!   stand before a step's, however many a tenant asks for (I25).
//! - Watches do not go through here, and neither does the question whether the server answers at all.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Response;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service};

/// Requests at the same time. The server is told `429` before it is ill; this is a fraction of what it lets one client have.
pub(super) const AT_ONCE: usize = 16;
/// Those of them that may be rehearsals'.
pub(super) const REHEARSALS_AT_ONCE: usize = 4;

/// Puts a bound around a service.
#[derive(Debug, Clone)]
pub(super) struct Bounded {
    places: Arc<Semaphore>,
}

impl Bounded {
    /// A bound of so many.
    pub(super) fn new(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)) }
    }
}

impl<S> Layer<S> for Bounded {
    type Service = BoundedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BoundedService { inner, places: Arc::clone(&self.places) }
    }
}

/// A service with a bound around it.
pub(super) struct BoundedService<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S, R, B> Service<R> for BoundedService<S>
where
    S: Service<R, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
{
    type Response = Response<UnsyncBoxBody<B::Data, B::Error>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let places = Arc::clone(&self.places);
        // Nothing of it happens before it is polled.
        let answer = self.inner.call(request);
        async move {
            let place = places.acquire_owned().await?;
            let answer = answer.await.map_err(Into::into)?;
            // Given back with the body: who has read it, or reads no further, drops it.
            Ok(answer.map(|body| {
                body.map_frame(move |frame| {
                    let _held = &place;
                    frame
                })
                .boxed_unsync()
            }))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures::poll;
    use http_body_util::Full;
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
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::new())))
        });
        let bound = Bounded::new(AT_ONCE);
        let all = (0..1000).map(|_| bound.layer(server).oneshot(()));
        let read = all.map(|answer| async { answer.await.map(drop) });
        let answers = futures::future::join_all(read).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(MOST.load(Ordering::SeqCst), AT_ONCE);
    }

    /// It was given back with the head of the answer, and the bodies of long lists were as many connections as anybody liked.
    #[tokio::test]
    async fn a_place_is_held_until_the_answer_was_read() {
        let server =
            service_fn(|_: ()| async { Ok::<_, BoxError>(Response::new(Full::new(Bytes::from_static(b"all of it")))) });
        let bound = Bounded::new(1);
        let first = bound.layer(server).oneshot(()).await.expect("an answer");
        let mut second = std::pin::pin!(bound.layer(server).oneshot(()));
        assert!(poll!(&mut second).is_pending(), "the first is not read yet");
        let read = first.into_body().collect().await.expect("in memory").to_bytes();
        assert_eq!(read, "all of it");
        drop(second.await.expect("an answer"));
        assert_eq!(bound.places.available_permits(), 1, "one that nobody reads is given back too");
    }
}
