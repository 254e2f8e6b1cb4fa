//! Watches: a client's place in the history of changes, read on as it grows.
//!
//! - A watch from a version that the history has forgotten gets one ERROR event with a 410 Status, and ends: list again.
//! - A watch without a version begins with what is there.
//! - Bookmarks are sent when asked for, a minute after the last event if others' changes have gone by since.

use super::Shared;
use super::faults::FaultAction;
use super::json::set;
use super::read;
use super::request::{ApiRequest, ObjectTarget};
use super::selectors::Selector;
use super::service::{ConnectionLost, SandboxBody, call_of, stream_response};
use super::status::Refusal;
use super::store::Change;
use bytes::Bytes;
use futures::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const BOOKMARK_AFTER: Duration = Duration::from_secs(60);

struct Watch {
    shared: Arc<Shared>,
    request: ApiRequest,
    target: ObjectTarget,
    selector: Selector,
    /// The version up to which everything is in `pending` or sent.
    at: u64,
    /// The version that the client knows.
    told: u64,
    pending: VecDeque<Value>,
    delivered: u64,
    ends: Option<Instant>,
    bookmarks: bool,
    versions: watch::Receiver<u64>,
    faults: watch::Receiver<u64>,
    is_over: bool,
}

/// Opens a watch.
///
/// # Errors
/// 400 for a version or selector that cannot be read.
pub(super) fn open(
    shared: &Arc<Shared>,
    request: &ApiRequest,
    target: &ObjectTarget,
) -> Result<Response<SandboxBody>, Refusal> {
    let mut fields = request.option("fieldSelector").to_owned();
    if !target.name.is_empty() {
        fields = format!("metadata.name={},{fields}", target.name);
    }
    let selector = Selector::parse(request.option("labelSelector"), &fields)?;
    let version = request.option("resourceVersion");
    let version: u64 = if version.is_empty() { 0 } else { version.parse().map_err(|_| bad_version(version))? };
    let seconds = request.option("timeoutSeconds").parse().ok();
    let mut watch = Watch {
        shared: shared.clone(),
        request: request.clone(),
        target: target.clone(),
        selector,
        at: version,
        told: version,
        pending: VecDeque::new(),
        delivered: 0,
        ends: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        bookmarks: request.is("allowWatchBookmarks"),
        versions: shared.versions.subscribe(),
        faults: shared.faults.changes(),
        is_over: false,
    };
    if version == 0 || request.is("sendInitialEvents") {
        watch.begin_with_what_is_there();
    }
    let lines = stream::unfold(watch, |mut watch| async move { watch.next().await.map(|item| (item, watch)) });
    Ok(stream_response(200, StreamBody::new(lines).boxed_unsync()))
}

fn bad_version(version: &str) -> Refusal {
    Refusal::bad_request(format!("resourceVersion: Invalid value: \"{version}\": must be a number"))
}

type Item = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

impl Watch {
    fn begin_with_what_is_there(&mut self) {
        let state = self.shared.lock();
        let found = state.list(self.target.kind, self.target.namespace_if_any());
        let found: Vec<Arc<Value>> =
            found.filter(|(_, object)| self.selector.matches(object)).map(|(_, object)| object.clone()).collect();
        self.at = state.version();
        drop(state);
        for object in found {
            self.pending.push_back(json!({"type": "ADDED", "object": self.shown(&object)}));
        }
        if self.request.is("sendInitialEvents") {
            let mut bookmark = self.bookmark();
            set(&mut bookmark, "/object/metadata/annotations/k8s.io~1initial-events-end", "true");
            self.pending.push_back(bookmark);
        }
    }

    async fn next(&mut self) -> Option<Item> {
        loop {
            if self.is_over {
                return None;
            }
            // Read before looking, so that what changes meanwhile wakes the wait below.
            self.versions.mark_unchanged();
            self.faults.mark_unchanged();
            match self.shared.faults.on_watch(call_of(&self.request), self.delivered) {
                Some(FaultAction::Gone) => return Some(self.expire()),
                Some(_) => {
                    self.is_over = true;
                    return Some(Err(ConnectionLost.into()));
                }
                None => {}
            }
            if let Some(event) = self.pending.pop_front() {
                self.delivered += 1;
                self.told = self.at;
                return Some(Ok(line(&event)));
            }
            if !self.read_on() {
                return Some(self.expire());
            }
            if !self.pending.is_empty() {
                continue;
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    /// Takes over the changes since the last look; false if some of them are forgotten.
    fn read_on(&mut self) -> bool {
        let state = self.shared.lock();
        let Some(changes) = state.changes_after(self.at) else { return false };
        let changes: Vec<Change> = changes.filter(|change| self.concerns(change)).cloned().collect();
        self.at = state.version();
        drop(state);
        for change in changes {
            if let Some(event) = self.event(&change) {
                self.pending.push_back(event);
            }
        }
        true
    }

    /// Waits for a change, a fault, or a bookmark's time; false when the watch's own time is over.
    async fn wait(&mut self) -> bool {
        let has_news = self.bookmarks && self.at > self.told;
        let ends = self.ends;
        tokio::select! {
            // A sandbox that is gone changes nothing any more.
            changed = self.versions.changed() => changed.is_ok(),
            changed = self.faults.changed() => changed.is_ok(),
            () = sleep_until(ends) => false,
            () = tokio::time::sleep(BOOKMARK_AFTER), if has_news => {
                let bookmark = self.bookmark();
                self.pending.push_back(bookmark);
                true
            }
        }
    }

    fn concerns(&self, change: &Change) -> bool {
        let namespace = self.target.namespace_if_any();
        change.key.kind == self.target.kind && namespace.is_none_or(|wanted| change.key.namespace == wanted)
    }

    /// An object that comes to match is added, one that no longer does is deleted, as far as this watch can see.
    fn event(&self, change: &Change) -> Option<Value> {
        let before = change.before.as_deref().filter(|object| self.selector.matches(object));
        let after = change.after.as_deref().filter(|object| self.selector.matches(object));
        let (kind, object) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after.clone()),
            (Some(_), Some(after)) => ("MODIFIED", after.clone()),
            (Some(before), None) => {
                let mut last = change.deleted.as_deref().unwrap_or(before).clone();
                set(&mut last, "/metadata/resourceVersion", change.version.to_string());
                ("DELETED", last)
            }
        };
        Some(json!({"type": kind, "object": self.shown(&object)}))
    }

    fn shown(&self, object: &Value) -> Value {
        read::show(self.target.kind, object, self.shared.now(), &self.request)
    }

    fn bookmark(&self) -> Value {
        let kind = self.target.kind;
        let mut bare = json!({"kind": kind.info().kind, "apiVersion": kind.api_version()});
        set(&mut bare, "/metadata/resourceVersion", self.at.to_string());
        json!({"type": "BOOKMARK", "object": bare})
    }

    fn expire(&mut self) -> Item {
        self.is_over = true;
        let refusal = Refusal::gone(format!("too old resource version: {} ({})", self.at, *self.versions.borrow()));
        Ok(line(&json!({"type": "ERROR", "object": refusal.body()})))
    }
}

fn line(event: &Value) -> Frame<Bytes> {
    let mut bytes = serde_json::to_vec(event).expect("a JSON value encodes");
    bytes.push(b'\n');
    Frame::data(Bytes::from(bytes))
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
