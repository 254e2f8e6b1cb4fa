//! The journal as it is stored, decoded: of one workflow its entries, of the whole journal its commits.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use cairn_engine::CommitNumber;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, header};
use serde::Serialize;

use super::Shared;
use crate::{
    auth::Caller,
    extract::{Params, Workflow},
    problem::Problem,
};

/// Commits that are read at once.
const BATCH: usize = 64;

/// `GET /workflows/{id}/journal`: its entries in order, each with its hash; `?format=ndjson` gives one a line.
pub(crate) async fn of_workflow(
    State(app): Shared,
    caller: Caller,
    Workflow(id): Workflow,
    mut params: Params,
) -> Result<Response, Problem> {
    let lines = params.take("format", |text| match text {
        "json" => Ok(false),
        "ndjson" => Ok(true),
        _ => Err("is `json` or `ndjson`"),
    });
    params.finish()?;
    let entries = app.engine_for(&caller, id).await?.entries(id).await?;
    if entries.is_empty() {
        return Err(Problem::no_such_workflow(id));
    }
    if !lines.unwrap_or(false) {
        return Ok(Json(entries).into_response());
    }
    Ok(ndjson(stream::iter(entries).map(|entry| Ok(line(&entry)))))
}

/// `GET /journal?after=N`: every commit after number N with its entries, one a line, up to the last one there is now.
///
/// It ends early, in the middle of the transfer, if the journal cannot be read: what arrived is then no whole journal.
pub(crate) async fn all(State(app): Shared, caller: Caller, mut params: Params) -> Result<Response, Problem> {
    let after = params.number("after", 0, u64::MAX).unwrap_or(0);
    params.finish()?;
    caller.must_be_operator()?;
    let engine = app.engine()?.clone();
    let until = *engine.commits().borrow();
    let batches = stream::try_unfold(CommitNumber(after), move |at| {
        let engine = engine.clone();
        async move {
            if at >= until {
                return Ok(None);
            }
            let commits = engine.read(move |store| store.commits(at, BATCH)).await?;
            let Some(last) = commits.last() else { return Ok(None) };
            let next = last.number;
            let lines: Vec<u8> = commits
                .iter()
                .filter(|commit| commit.number <= until)
                .flat_map(|commit| line(commit).to_vec())
                .collect();
            Ok::<_, cairn_engine::store::StoreError>(Some((Bytes::from(lines), next)))
        }
    });
    let batches = batches.inspect_err(|error| tracing::error!(%error, "the journal cannot be read"));
    Ok(with_type(Body::from_stream(batches)))
}

fn line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("entries are plain data");
    line.push(b'\n');
    line.into()
}

fn ndjson(lines: impl futures::Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    with_type(Body::from_stream(lines))
}

fn with_type(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
