//! A store and a cluster that a [`Life`] goes through: each counts what is asked of it, and fails on cue.
//!
//! Cut before an operation, nothing of it happens; cut after, all of it happens and its answer is lost. Either way
//! nothing that the same life asks for later happens: to the engine that is the end of its process.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use cairn_engine::{
    CommitNumber, Entry, Timestamp,
    store::{Append, Around, Refusal, Store, StoreError},
};
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use tower::{BoxError, Service, ServiceExt as _};

use crate::life::{Event, Life, Verdict};

/// A store as one life sees it.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    life: Arc<Life>,
}

impl FaultyStore {
    /// `inner`, as long as `life` lasts.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, life: Arc<Life>) -> Self {
        Self { inner, life }
    }

    /// Puts on the tape what was committed since number `before`.
    fn record(&self, before: CommitNumber) -> Result<(), StoreError> {
        for commit in self.inner.commits(before, usize::MAX)? {
            self.life.tape().push(Event::Committed(commit));
        }
        Ok(())
    }
}

impl Around for FaultyStore {
    fn within(&self) -> &dyn Store {
        self.inner.as_ref()
    }

    fn commit(&self, appends: Vec<Append>, now: Timestamp) -> Result<Vec<Result<Vec<Entry>, Refusal>>, StoreError> {
        let verdict = self.life.next_commit();
        if verdict == Verdict::Refused {
            return Err(StoreError::Stopped);
        }
        let (before, _) = self.inner.head();
        let answers = self.inner.commit(appends, now)?;
        self.record(before)?;
        if verdict == Verdict::LastWord { Err(StoreError::Stopped) } else { Ok(answers) }
    }

    fn readable(&self) -> Result<(), StoreError> {
        if self.life.is_over() { Err(StoreError::Stopped) } else { Ok(()) }
    }
}

/// A cluster as one life sees it: stands around the service that answers for the cluster.
#[derive(Clone)]
pub struct FaultyCluster<S> {
    inner: S,
    life: Arc<Life>,
}

impl<S> FaultyCluster<S> {
    /// `inner`, as long as `life` lasts.
    pub fn new(inner: S, life: Arc<Life>) -> Self {
        Self { inner, life }
    }
}

impl<S, A, B> Service<Request<A>> for FaultyCluster<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    A: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let verdict = self.life.next_call(request.method().as_str(), &path);
        let (inner, life) = (self.inner.clone(), Arc::clone(&self.life));
        async move {
            if verdict == Verdict::Refused {
                return Err("connection refused: this process is over".into());
            }
            let answer = inner.oneshot(request).await.map_err(Into::into);
            if let Some(deed) = life.deed() {
                deed.await;
            }
            // An answer that comes after the end of the process reaches nobody.
            if life.is_over() { Err("connection reset: this process is over".into()) } else { answer }
        }
        .boxed()
    }
}
