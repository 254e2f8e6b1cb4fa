//! A client of the API, as plain as `curl`: it adds nothing, hides nothing and tries nothing again.

use std::{sync::Once, time::Duration};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use http::{HeaderMap, Method};
use serde_json::Value;

/// The longest that one answer may take: more than the longest wait that a test asks for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// A client of one program.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{} is no JSON: {}", self.status, self.text))
    }

    /// The same, if the status is as expected.
    ///
    /// # Errors
    /// If it is another, with the body.
    pub fn expect(self, status: u16) -> anyhow::Result<Self> {
        if self.status == status { Ok(self) } else { bail!("{} instead of {status}: {}", self.status, self.text) }
    }

    /// A header's text; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The fields that a problem names as wrong, in order.
    #[must_use]
    pub fn wrong_fields(&self) -> Vec<String> {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str().map(str::to_owned)).collect()
    }
}

impl Client {
    /// Where it asks.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// A client of the program at this URL.
    ///
    /// # Panics
    /// If there is no TLS provider, which is installed here.
    #[must_use]
    pub fn new(base: &str) -> Self {
        static PROVIDER: Once = Once::new();
        // Another part of the test may have installed it already.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIME_MAX)
            .no_proxy()
            .build()
            .expect("a client with nothing special about it");
        Self { base: base.to_owned(), http }
    }

    /// `GET path`
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], None).await
    }

    /// `POST path`, with a JSON body.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.post_with(path, body, &[]).await
    }

    /// The same with further headers.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, headers, Some(body.to_string().into_bytes())).await
    }

    /// Any request.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, text: answer.text().await? })
    }

    /// Returns once `/readyz` answers 200.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn ready(&self, deadline: Duration) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            let answer = self.get("/readyz").await;
            if matches!(&answer, Ok(answer) if answer.status == 200) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= end {
                bail!("not ready in time: {answer:?}");
            }
            // There is nothing to wait on: readiness is only ever asked for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads the workflow's events from after `seen` until `enough` says so, or the stream ends. Returns all of them.
    ///
    /// # Errors
    /// If the stream breaks, or takes too long.
    pub async fn events(
        &self,
        workflow: &str,
        seen: u64,
        mut enough: impl FnMut(&Event) -> bool,
    ) -> anyhow::Result<Vec<Event>> {
        let mut request = self.http.get(format!("{}/workflows/{workflow}/events", self.base));
        if seen > 0 {
            request = request.header("last-event-id", seen.to_string());
        }
        let answer = request.send().await?;
        if answer.status().as_u16() != 200 {
            bail!("{}: {}", answer.status(), answer.text().await?);
        }
        let (mut stream, mut text, mut events) = (answer.bytes_stream(), String::new(), Vec::new());
        while let Some(bytes) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&bytes?));
            while let Some((block, rest)) = text.split_once("\n\n") {
                let event = Event::parse(block);
                text = rest.to_owned();
                let Some(event) = event else { continue };
                let last = enough(&event);
                events.push(event);
                if last {
                    return Ok(events);
                }
            }
        }
        Ok(events)
    }

    /// Returns the workflow once `enough` holds for it: after every entry it is asked for anew.
    ///
    /// # Errors
    /// If it ends first, or cannot be read.
    pub async fn workflow_when(&self, workflow: &str, enough: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut seen = 0;
        loop {
            let state = self.get(&format!("/workflows/{workflow}")).await?.expect(200)?.json()?;
            if enough(&state) {
                return Ok(state);
            }
            seen = state["sequence"].as_u64().unwrap_or(seen);
            let ended = ["succeeded", "failed", "cancelled"].iter().any(|status| state["status"] == *status);
            if ended {
                bail!("the workflow has ended: {state}");
            }
            self.events(workflow, seen, |_| true).await?;
        }
    }
}

/// A server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id: the sequence.
    pub id: u64,
    /// Its name: the fact's.
    pub name: String,
    /// The entry.
    pub data: Value,
}

impl Event {
    /// The event in this block of lines; `None` if it is only a comment.
    fn parse(block: &str) -> Option<Self> {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim_start));
        let data = serde_json::from_str(field("data")?).ok()?;
        Some(Self { id: field("id")?.parse().ok()?, name: field("event")?.to_owned(), data })
    }
}
