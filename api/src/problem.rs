//! Errors as clients see them: `application/problem+json` (RFC 9457). The only file that gives an error its status code.
//!
//! A rejected request names every offending field at once, in `errors`. What a client can do about it is in `detail`,
//! and, where time helps, in `Retry-After`.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use cairn_engine::{
    ControlError, Effect, SubmitError, WorkflowId,
    store::{Refusal, ServiceRecord, StoreError},
};
use cairn_steps::{
    report::Report,
    request::{FieldError, Request},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How long a client should wait when the engine is about to be back.
const SOON: Duration = Duration::from_secs(1);
/// How long a client should wait when a person may have to do something first.
const LATER: Duration = Duration::from_secs(5);

/// An error answer.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    close: bool,
    asks_for_token: bool,
    more: Map<String, Value>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            retry_after: None,
            close: false,
            asks_for_token: false,
            more: Map::new(),
        }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    fn about(self, workflow: WorkflowId) -> Self {
        self.with("workflow_id", json!(workflow)).with("links", json!({ "workflow": format!("/workflows/{workflow}") }))
    }

    /// Fields of a request are wrong, all of them named.
    pub(crate) fn invalid(errors: &[FieldError]) -> Self {
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = match fields.as_slice() {
            [] => "the request cannot be read".to_owned(),
            [field] => format!("`{field}` is wrong"),
            [most @ .., last] => format!("`{}` and `{last}` are wrong", most.join("`, `")),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is invalid", detail)
            .with("errors", json!(errors))
    }

    /// There is no such path.
    pub(crate) fn no_such_path(path: &str) -> Self {
        Self::not_found(format!("there is nothing at {path}"))
    }

    /// What was asked for is not there, or not visible: both look the same.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The path is there, but not for this method.
    pub(crate) fn method_not_allowed(method: &http::Method, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            format!("{path} takes no {method}: the header `Allow` says what it takes"),
        )
    }

    /// The body is longer than a request can be.
    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        let detail = format!("a body has at most {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail).closing()
    }

    /// More is being done than the views can be written of.
    pub(crate) fn views_behind(limit: Duration) -> Self {
        let detail = format!(
            "the report files are more than {} seconds behind: nothing was recorded; try again once they have caught up",
            limit.as_secs()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "views-behind", "The views are behind", detail).retry_after(LATER)
    }

    /// The body took longer than it may.
    pub(crate) fn too_slow(limit: Duration) -> Self {
        let detail = format!("a body has to arrive within {} seconds", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "The body did not arrive in time", detail).closing()
    }

    /// The body ended in the middle.
    pub(crate) fn broken_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "broken-body", "The body could not be received", detail).closing()
    }

    /// The request was made for another host, or by a page of another site: a browser is being used against its owner.
    pub(crate) fn foreign(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign-origin", "Only for this machine", detail)
    }

    /// Nobody who is known here. What was sent instead of a token is not told.
    pub(crate) fn unauthenticated() -> Self {
        let detail = "send a token that is known here: `Authorization: Bearer TOKEN`";
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Who is asking?", detail);
        Self { asks_for_token: true, ..problem }
    }

    /// Only for those who run this installation.
    pub(crate) fn operators_only() -> Self {
        let detail = "this is for operators: it has what is other tenants'";
        Self::new(StatusCode::FORBIDDEN, "operators-only", "Only for operators", detail)
    }

    /// The token is another tenant's.
    pub(crate) fn other_tenant(own: &str) -> Self {
        let detail = format!("this token is for {own}: `user` has to be {own}");
        Self::new(StatusCode::FORBIDDEN, "other-tenant", "Another tenant's", detail)
    }

    /// There is no such workflow, or it is another's: both look the same.
    pub(crate) fn no_such_workflow(workflow: WorkflowId) -> Self {
        Self::not_found(format!("there is no workflow {workflow}"))
    }

    /// Recovery has not ended: nothing is accepted and nothing is answered from a journal that is not read yet.
    pub(crate) fn recovering() -> Self {
        let detail = "the journal is being recovered: GET /readyz tells when that is done";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "recovering", "Not ready yet", detail).retry_after(SOON)
    }

    /// Some part is not ready; `checks` says which.
    pub(crate) fn not_ready(checks: &Value, failing: &[&str]) -> Self {
        let detail = format!("not ready: {}", failing.join(", "));
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", detail)
            .with("ready", Value::Bool(false))
            .with("checks", checks.clone())
            .retry_after(SOON)
    }

    /// A handler panicked: a bug of ours.
    pub(crate) fn internal() -> Self {
        let detail = "a fault in cairn: its log says more; whatever was acknowledged before is safe";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    /// The workflow that the client waited for did not succeed.
    pub(crate) fn failed(workflow: WorkflowId, report: Option<&Report>) -> Self {
        let detail = report.map_or_else(|| "the workflow failed".to_owned(), |report| report.message.clone());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "workflow-failed", "The workflow failed", detail)
            .about(workflow)
            .with("report", json!(report))
    }

    /// The service is there already, or is being made.
    pub(crate) fn taken(tenant: &str, service: &str, workflow: WorkflowId) -> Self {
        let detail = format!(
            "{tenant}/{service} exists or is being changed: see /workflows/{workflow}, or choose another `service_name`"
        );
        Self::new(StatusCode::CONFLICT, "service-exists", "The service exists", detail).about(workflow)
    }

    /// Another workflow works on the service.
    pub(crate) fn busy(record: &ServiceRecord, effect: Effect, parked: bool) -> Self {
        let ServiceRecord { tenant, service, workflow, .. } = record;
        let way_out = match (parked, effect) {
            (true, Effect::Delete) => {
                "which waits for a person: its status says for what; remove that and retry it. Once it has begun to delete, only \
                 cancel?force=true ends it"
            }
            (true, Effect::Create | Effect::Update) => {
                "which waits for a person: retry it, or cancel it, and then submit this again"
            }
            (false, Effect::Delete) => "wait until that has ended, and then submit this again",
            (false, Effect::Create | Effect::Update) => {
                "wait until that has ended, or cancel it, and then submit this again"
            }
        };
        let detail = format!("{tenant}/{service} is being worked on by /workflows/{workflow}: {way_out}");
        Self::new(StatusCode::CONFLICT, "service-busy", "Another workflow works on the service", detail)
            .about(*workflow)
    }

    /// The service is there in part only: its creation, or a deletion, was ended half-way.
    pub(crate) fn not_whole(record: &ServiceRecord) -> Self {
        let ServiceRecord { tenant, service, workflow, .. } = record;
        let detail = format!(
            "{tenant}/{service} is not whole, since /workflows/{workflow} was ended half-way: delete it, and create it anew"
        );
        Self::new(StatusCode::CONFLICT, "service-not-whole", "The service is not whole", detail).about(*workflow)
    }

    /// The data that was kept is of a newer Elasticsearch than would be installed.
    pub(crate) fn newer_data(record: &ServiceRecord, kept: &str, installed: &str) -> Self {
        let ServiceRecord { tenant, service, workflow, .. } = record;
        let detail = format!(
            "the data of {tenant}/{service} that was kept is of Elasticsearch {kept}, and {installed}, which would be installed, \
             cannot read it: the operator raises --es-version, or DELETE the data"
        );
        Self::new(StatusCode::CONFLICT, "newer-data", "The data is of a newer version", detail).about(*workflow)
    }

    /// The tenant would hold more than it may.
    pub(crate) fn quota(tenant: &str, resource: &str, used: u64, asked: u64, limit: u64) -> Self {
        let detail = format!(
            "{tenant} may hold {limit} {resource} and holds {used}: {asked} more are too many; delete a cluster, or ask for less"
        );
        Self::new(StatusCode::FORBIDDEN, "quota-exceeded", "The quota would be exceeded", detail).with(
            "quota",
            json!({ "user": tenant, "resource": resource, "used": used, "asked": asked, "limit": limit }),
        )
    }

    /// The rendered objects of `request` need a definition or a value that cannot be journaled.
    pub(crate) fn unjournalable(request: &Request, why: &impl std::fmt::Display) -> Self {
        let detail = format!("the request of {} cannot be journaled: {why}", request.user);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is invalid", detail)
    }

    /// A change bears with it what its cluster was rendered with, and that is too long.
    pub(crate) fn unjournalable_change(record: &ServiceRecord, why: &impl std::fmt::Display) -> Self {
        let ServiceRecord { tenant, service, .. } = record;
        let detail = format!(
            "the change of {tenant}/{service} cannot be journaled with the settings and the overlay of its creation: {why}; DELETE \
             it with keep_data, create it with a shorter file at `gitlab_url` (comments go first), and change it then"
        );
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", "The request is invalid", detail)
    }

    fn stopped(why: &str) -> Self {
        let detail = format!(
            "the journal has stopped ({why}): whether this was recorded only the next start can tell; send it again with the same Idempotency-Key"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "journal-stopped", "The journal cannot be written", detail)
            .retry_after(LATER)
    }

    fn shutting_down() -> Self {
        let detail = "the engine is shutting down: nothing was recorded; try again once it is back";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting-down", "Shutting down", detail).retry_after(LATER)
    }

    /// Nothing more is read from this connection: what is still under way on it cannot be told from a next request.
    fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("urn:cairn:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            more: &self.more,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
        }
        if self.asks_for_token {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cairn\""));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the journal cannot be read");
        match error {
            StoreError::Stopped => Self::stopped("after an earlier fault"),
            StoreError::Locked { .. }
            | StoreError::Io { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::Damaged { .. }
            | StoreError::Index(_) => {
                let detail = "the journal cannot be read: the log of cairn says why";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "journal-unreadable", "The journal cannot be read", detail)
                    .retry_after(LATER)
            }
        }
    }
}

impl Problem {
    fn disk_full(detail: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "disk-full", "The disk is nearly full", detail).retry_after(LATER)
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => refusal.into(),
            SubmitError::UnknownDefinition { .. } => {
                tracing::error!(%error, "a route submits what this build does not know");
                Self::internal()
            }
            SubmitError::ShuttingDown => Self::shutting_down(),
            SubmitError::Store(error) => error.into(),
            SubmitError::Overloaded => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "Too many requests", error.to_string())
                    .retry_after(SOON)
            }
            SubmitError::Stopped { why } => Self::stopped(&why),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::ServiceTaken { tenant, service, workflow } => {
                Self::taken(tenant.as_str(), service.as_str(), *workflow)
            }
            Refusal::KeyUsed { workflow, .. } => {
                let detail = format!(
                    "this Idempotency-Key was used with another body before, for /workflows/{workflow}: use a new key for a new request"
                );
                Self::new(StatusCode::CONFLICT, "key-reused", "The Idempotency-Key was used before", detail)
                    .about(*workflow)
            }
            Refusal::Quota { tenant, resource, used, asked, limit } => {
                Self::quota(tenant.as_str(), resource.as_str(), *used, *asked, *limit)
            }
            Refusal::NoSuchService { .. } => Self::not_found(refusal.to_string()),
            Refusal::Sequence { .. } | Refusal::Illegal { .. } => {
                Self::new(StatusCode::CONFLICT, "not-now", "Not now", refusal.to_string())
            }
            Refusal::Fenced { .. } => Self::stopped(&refusal.to_string()),
            Refusal::DiskFull { .. } => Self::disk_full(refusal.to_string()),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotFound { workflow } => Self::no_such_workflow(workflow),
            ControlError::NotNow { workflow, illegal } => {
                let detail = format!("workflow {workflow}: {illegal}");
                Self::new(StatusCode::CONFLICT, "not-now", "Not now", detail).about(workflow)
            }
            ControlError::Irreversible { workflow, step } => {
                let detail = format!(
                    "workflow {workflow} has begun {step}, which does not come back: let it end, or retry it if it is parked; \
                     `?force=true` ends it where it is"
                );
                Self::new(StatusCode::CONFLICT, "not-now", "Not now", detail).about(workflow)
            }
            error @ ControlError::NotParked { workflow } => {
                Self::new(StatusCode::CONFLICT, "not-now", "Not now", error.to_string()).about(workflow)
            }
            ControlError::ShuttingDown => Self::shutting_down(),
            ControlError::Stopped { why } => Self::stopped(&why),
            ControlError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(problem: Problem) -> (http::HeaderMap, Value) {
        use http_body_util::BodyExt as _;
        let response = problem.into_response();
        let headers = response.headers().clone();
        let bytes = response.into_body().collect().await.expect("in memory").to_bytes();
        (headers, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn every_wrong_field_is_named() {
        let errors = [FieldError::new("user", "is empty"), FieldError::new("replicas", "is 0")];
        let (headers, body) = body(Problem::invalid(&errors)).await;
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(body["status"], 422);
        assert_eq!(body["detail"], "`user` and `replicas` are wrong");
        assert_eq!(body["errors"][1]["field"], "replicas");
    }

    #[tokio::test]
    async fn a_full_quota_gives_its_figures() {
        let refusal = Refusal::Quota { tenant: "acme".into(), resource: "gpus".into(), used: 3, asked: 2, limit: 4 };
        let (_, body) = body(refusal.into()).await;
        assert_eq!(body["status"], 403);
        assert_eq!(body["quota"], json!({ "user": "acme", "resource": "gpus", "used": 3, "asked": 2, "limit": 4 }));
    }

    #[tokio::test]
    async fn what_time_helps_says_when_to_come_back() {
        let (headers, body) = body(SubmitError::Overloaded.into()).await;
        assert_eq!((body["status"].as_u64(), headers[header::RETRY_AFTER].as_bytes()), (Some(429), &b"1"[..]));
    }
}
