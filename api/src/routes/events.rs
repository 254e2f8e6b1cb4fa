//! A workflow's entries as server-sent events, as they become durable.
//!
//! - `id:` is the sequence, `event:` the fact's name, `data:` the entry. A client that comes back with `Last-Event-ID` misses
//!   nothing and sees nothing twice.
//! - The stream ends after `Finished`; who comes back then gets 204, which tells a browser to stay away.
//! - It is read from the journal, never from memory: what is seen here is on the disk.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use cairn_engine::{Engine, Entry, Fact, Sequence, WorkflowId};
use cairn_steps::request::FieldError;
use futures::stream;
use http::{HeaderMap, StatusCode};

use super::Shared;
use crate::{
    app::App,
    auth::Caller,
    extract::{Params, Workflow},
    problem::Problem,
};

/// How often something is sent when nothing happens, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// When a browser should come back after a break.
const RETRY: Duration = Duration::from_secs(1);

/// `GET /workflows/{id}/events`
pub(crate) async fn of_workflow(
    State(app): Shared,
    caller: Caller,
    Workflow(id): Workflow,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let after = params.number("after", 0, u64::MAX);
    params.finish()?;
    let seen = match headers.get("last-event-id") {
        None => Sequence(after.unwrap_or(0)),
        Some(value) => {
            let read = value.to_str().ok().and_then(|text| text.trim().parse().ok());
            let wrong =
                || Problem::invalid(&[FieldError::new("Last-Event-ID", "is no `id` of an event of this stream")]);
            Sequence(read.ok_or_else(wrong)?)
        }
    };
    let engine = app.engine_for(&caller, id).await?.clone();
    let entries = engine.entries(id).await?;
    let Some(last) = entries.last() else { return Err(Problem::no_such_workflow(id)) };
    if seen > last.sequence {
        let message = format!("is beyond the last entry, {}: it is of another stream", last.sequence);
        return Err(Problem::invalid(&[FieldError::new("Last-Event-ID", message)]));
    }
    if seen == last.sequence && ends(last) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let feed = Feed { app: Arc::clone(&app), engine, id, seen, waiting: VecDeque::new(), ended: false };
    let events = stream::unfold(feed, |mut feed| async move {
        let entry = feed.next().await?;
        Some((event(&entry), feed))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here")).into_response())
}

struct Feed {
    app: Arc<App>,
    engine: Engine,
    id: WorkflowId,
    seen: Sequence,
    waiting: VecDeque<Entry>,
    ended: bool,
}

impl Feed {
    /// The next entry, once it is durable; none after the last, and none when the program ends.
    async fn next(&mut self) -> Option<Entry> {
        while self.waiting.is_empty() {
            if self.ended || self.app.stopping.is_cancelled() {
                return None;
            }
            let seen = self.seen;
            let entries = match self.engine.entries(self.id).await {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be read: a stream of events ends");
                    return None;
                }
            };
            self.waiting.extend(entries.into_iter().filter(|entry| entry.sequence > seen));
            if self.waiting.is_empty() {
                if self.engine.health().stopped.is_some() {
                    return None;
                }
                tokio::select! {
                    () = self.engine.grown(self.id, seen) => {}
                    () = self.app.stopping.cancelled() => {}
                }
            }
        }
        let entry = self.waiting.pop_front()?;
        self.seen = entry.sequence;
        self.ended = ends(&entry);
        Some(entry)
    }
}

fn ends(entry: &Entry) -> bool {
    matches!(entry.fact, Fact::Finished { .. })
}

fn event(entry: &Entry) -> Result<Event, axum::Error> {
    let event = Event::default().id(entry.sequence.to_string()).event(entry.fact.name());
    // Told once is enough.
    let event = if entry.sequence == Sequence(1) { event.retry(RETRY) } else { event };
    event.json_data(entry)
}
