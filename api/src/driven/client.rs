//! A client of the API, as any user could write one.

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use cairn_engine::{Entry, Sequence};
use futures::{Stream, StreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};

/// The longest that one answer may take; streams of events are no answers.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// Names that are tried for the service, in a data directory that has clusters already.
const NAMES_MAX: usize = 100;

/// A client of one engine.
pub(crate) struct Client {
    url: String,
    http: reqwest::Client,
}

/// A submission that was accepted.
pub(crate) struct Accepted {
    /// The workflow's id.
    pub(crate) id: String,
    /// Whose.
    pub(crate) user: String,
    /// For what.
    pub(crate) service: String,
}

impl Client {
    /// A client of the engine at this URL.
    pub(crate) fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(ANSWER_TIME_MAX).build();
        Self { url: url.to_owned(), http: http.expect("no setting of these can be wrong") }
    }

    /// Whether recovery is done, and all is there.
    pub(crate) async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("{}/readyz", self.url)).timeout(ANSWER_TIME_MAX).send().await;
        asked.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// Submits a creation with these fields and the defaults of the rest, under the first name that is free.
    ///
    /// # Errors
    /// If it is not accepted.
    pub(crate) async fn submit(&self, user: &str, wanted: &Value) -> anyhow::Result<Accepted> {
        for number in 1..=NAMES_MAX {
            let service = if number == 1 { "search".to_owned() } else { format!("search-{number}") };
            let mut body = wanted.clone();
            body["user"] = json!(user);
            body["service_name"] = json!(service);
            let asked = self.http.post(format!("{}/clusters", self.url)).timeout(ANSWER_TIME_MAX).json(&body);
            let answer = asked.send().await.context("the engine does not answer")?;
            let status = answer.status();
            let body: Value = answer.json().await.context("the engine's answer is no JSON")?;
            match status {
                StatusCode::ACCEPTED => {
                    let id = body["id"].as_str().context("the answer names no workflow")?.to_owned();
                    return Ok(Accepted { id, user: user.to_owned(), service });
                }
                // Left by an earlier demo in this directory.
                StatusCode::CONFLICT => {}
                _ => bail!("the engine refused the creation: {}", body["detail"].as_str().unwrap_or("?")),
            }
        }
        bail!("{user} has {NAMES_MAX} clusters here already: choose another --data")
    }

    /// Asks for this creation under `key`, and waits for its end for at most `wait`: the status and the body.
    ///
    /// # Errors
    /// If there is no answer: nobody knows then whether it was accepted, and asking again with the same key is safe.
    pub(crate) async fn create(
        &self,
        wanted: &Value,
        key: &str,
        wait: Duration,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("{}/clusters?wait={}s", self.url, wait.as_secs());
        let asked = self.http.post(url).timeout(wait + ANSWER_TIME_MAX).header("idempotency-key", key).json(wanted);
        let answer = asked.send().await.context("the engine does not answer")?;
        Ok((answer.status(), answer.json().await.context("the engine's answer is no JSON")?))
    }

    /// Submits a change of this cluster.
    ///
    /// # Errors
    /// If it is not accepted.
    pub(crate) async fn change(&self, of: &Accepted, wanted: &Value) -> anyhow::Result<Accepted> {
        let Accepted { user, service, .. } = of;
        let at = format!("{}/clusters/{user}/{service}", self.url);
        let answer = self.http.patch(at).timeout(ANSWER_TIME_MAX).json(wanted).send().await;
        let answer = answer.context("the engine does not answer")?;
        let status = answer.status();
        let body: Value = answer.json().await.context("the engine's answer is no JSON")?;
        if status != StatusCode::ACCEPTED {
            bail!("the engine refused the change: {}", body["detail"].as_str().unwrap_or("?"));
        }
        let id = body["id"].as_str().context("the answer names no workflow")?.to_owned();
        Ok(Accepted { id, user: user.clone(), service: service.clone() })
    }

    /// What is at this path.
    ///
    /// # Errors
    /// If it is not there.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let asked = self.http.get(format!("{}{path}", self.url)).timeout(ANSWER_TIME_MAX);
        let answer = asked.send().await.and_then(reqwest::Response::error_for_status);
        answer.with_context(|| format!("GET {path}"))?.json().await.with_context(|| format!("GET {path}"))
    }

    /// The workflow's events after `seen`; none if the engine does not answer, which it may once it is dead.
    ///
    /// # Errors
    /// If the engine does not know the workflow.
    pub(crate) async fn events(&self, id: &str, seen: Sequence) -> anyhow::Result<Option<Events>> {
        let asked = self.http.get(format!("{}/workflows/{id}/events", self.url)).header("last-event-id", seen.0);
        let Ok(answer) = asked.send().await else { return Ok(None) };
        let answer = answer.error_for_status().context("the engine does not know the workflow that it accepted")?;
        Ok(Some(Events { stream: Box::pin(answer.bytes_stream()), buffer: Vec::new() }))
    }
}

/// Server-sent events, each an entry.
pub(crate) struct Events {
    stream: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next entry; none once the stream has ended or broken off.
    ///
    /// # Errors
    /// If an event is no entry.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Entry>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                match data(&event) {
                    Some(data) => return serde_json::from_slice(data).map(Some).context("an event is no entry"),
                    // A comment, to keep the connection.
                    None => continue,
                }
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

/// What follows `data:`; an entry is one line.
fn data(event: &[u8]) -> Option<&[u8]> {
    event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data:")).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_an_event_is_found_and_comments_have_none() {
        assert_eq!(data(b"id: 1\nevent: finished\ndata: {\"a\":1}\n\n"), Some(&b"{\"a\":1}"[..]));
        assert_eq!(data(b": still here\n\n"), None);
    }
}
