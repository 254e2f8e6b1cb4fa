//! `POST /clusters`: a creation is accepted once its submission is on the disk, and not before.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use cairn_engine::{
    Amounts, Engine, Hash, IdempotencyKey, NewSubmission, OnFailure, Outcome, ResourceName, Service, SubmitError,
    Tenant, WorkflowId, WorkflowState, fold, store::Refusal,
};
use cairn_steps::{
    input::Input,
    records::TenantContainer,
    render::{Marks, Through, render},
    report::{Report, reports},
    request::{self, Request},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{Shared, left::record_after, there, workflow::WorkflowView};
use crate::{
    admission,
    app::App,
    auth::Caller,
    engine::CREATE,
    extract::{self, Params},
    plan,
    problem::Problem,
};

/// The longest that a client may wait for the end of a creation.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// A cluster that is there, and how it came to be.
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    container: TenantContainer,
    reports: Vec<Report>,
}

/// What a client asks for.
struct Asked {
    caller: Caller,
    request: Request,
    tenant: Tenant,
    service: Service,
    key: Option<IdempotencyKey>,
    body_hash: Hash,
    quota: Amounts,
}

/// `POST /clusters?wait=30s&dry_run=true`
pub(crate) async fn create(
    State(app): Shared,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let body = extract::body(body).await?;
    let wait = params.duration("wait", WAIT_MAX);
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let asked = Asked::new(&app, caller, &headers, &body)?;
    if dry_run {
        let Asked { request, tenant, service, quota, .. } = asked;
        return rehearse(&app, &request, tenant, service, quota).await;
    }
    let engine = app.engine()?;
    let lock = app.services.lock(&asked.tenant, &asked.service).await;
    let input = asked.input(&app, engine).await?;
    let (submitted, again) = submit(engine, asked.submission(&input)?).await?;
    drop(lock);
    if let Some(wait) = wait
        && let Some(state) = settled(&app, engine, submitted.id(), wait).await
        && let Some(answer) = ended(engine, &state, again).await?
    {
        return Ok(answer);
    }
    Ok(accepted(&submitted, again))
}

impl Asked {
    fn new(app: &App, caller: Caller, headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let key = extract::idempotency_key(headers)?;
        let rules = app.rules();
        let request =
            admission::creation(body, &app.gitlab, app.strict_sizing).map_err(|errors| Problem::invalid(&errors))?;
        let tenant = Tenant::new(request.user.as_str());
        caller.must_be(&tenant)?;
        let service = Service::new(request.service_name.as_str());
        let quota = rules.quota(&tenant);
        Ok(Self { caller, request, tenant, service, key, body_hash: Hash(*blake3::hash(body).as_bytes()), quota })
    }

    /// The request, and the data that it goes on with, if there is any.
    async fn input(&self, app: &App, engine: &Engine) -> Result<Input, Problem> {
        match there::creation(engine, &self.request, &app.elastic).await {
            // A repetition is answered whatever has become of the service since.
            Err(_) if self.key_was_used(engine).await? => Ok(Input::creation(self.request.clone())),
            input => input,
        }
    }

    async fn key_was_used(&self, engine: &Engine) -> Result<bool, Problem> {
        let (Some(key), tenant) = (self.key.clone(), self.tenant.clone()) else { return Ok(false) };
        Ok(engine.read(move |store| store.submission(&tenant, &key)).await?.is_some())
    }

    fn submission(&self, input: &Input) -> Result<NewSubmission, Problem> {
        Ok(NewSubmission {
            definition: CREATE.into(),
            tenant: self.tenant.clone(),
            service: self.service.clone(),
            input: input.to_json().map_err(|error| Problem::unjournalable(&input.request, &error))?,
            key: self.key.clone(),
            body_hash: self.body_hash,
            who: self.caller.who(),
            holds: holds(&self.request),
            quota: self.quota.clone(),
            on_failure: match self.request.on_failure {
                request::OnFailure::Rollback => OnFailure::Rollback,
                request::OnFailure::Keep => OnFailure::Keep,
            },
        })
    }
}

/// Submits it; or the same again: one key, one workflow, one answer. The second says that it was there before.
pub(super) async fn submit(engine: &Engine, submission: NewSubmission) -> Result<(WorkflowState, bool), Problem> {
    match engine.submit(submission).await {
        Ok(state) => Ok((state, false)),
        Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => {
            Ok((as_submitted(engine, workflow).await?, true))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn holds(request: &Request) -> Amounts {
    request.holds().into_iter().map(|(name, amount)| (ResourceName::new(name), amount)).collect()
}

/// The workflow once it is finished or parked; `None` if that takes too long, or the program ends.
pub(super) async fn settled(
    app: &Arc<App>,
    engine: &Engine,
    workflow: WorkflowId,
    wait: Duration,
) -> Option<WorkflowState> {
    tokio::select! {
        // Whatever speaks against an answer now, the submission is durable, and 202 says where to ask.
        settled = tokio::time::timeout(wait, engine.settled(workflow)) => settled.ok()?.ok(),
        () = app.stopping.cancelled() => None,
    }
}

/// The workflow as it was when it was accepted.
pub(super) async fn as_submitted(engine: &Engine, workflow: WorkflowId) -> Result<WorkflowState, Problem> {
    let mut entries = engine.entries(workflow).await?;
    entries.truncate(1);
    fold(&entries).ok().flatten().ok_or_else(Problem::internal)
}

/// 202 and the workflow as it was accepted: a repetition of the submission gets the very same body, with 200.
pub(super) fn accepted(submitted: &WorkflowState, again: bool) -> Response {
    let view = WorkflowView::of(submitted, submitted.submitted_at());
    let status = if again { StatusCode::OK } else { StatusCode::ACCEPTED };
    located(status, &format!("/workflows/{}", submitted.id()), Json(view).into_response())
}

/// 201 with the cluster as it was created and its reports, or 500 with the report of the failure. What has become of it since is
/// another workflow's answer.
async fn ended(engine: &Engine, state: &WorkflowState, again: bool) -> Result<Option<Response>, Problem> {
    if state.outcome() != Some(Outcome::Succeeded) {
        return Err(Problem::failed(state.id(), Report::of_failure(state).as_ref()));
    }
    let entries = engine.entries(state.id()).await?;
    let reports = reports(&entries).map_err(|_| Problem::internal())?;
    let Some(container) = TenantContainer::of(&record_after(engine, state).await?) else { return Ok(None) };
    let at = format!("/tenant/containers/{}/{}", container.user, container.service_name);
    let status = if again { StatusCode::OK } else { StatusCode::CREATED };
    Ok(Some(located(status, &at, Json(Created { container, reports }).into_response())))
}

pub(super) fn located(status: StatusCode, at: &str, mut response: Response) -> Response {
    *response.status_mut() = status;
    let at = HeaderValue::from_str(at).expect("paths are made of ids and checked names");
    response.headers_mut().insert(header::LOCATION, at);
    response
}

/// What a submission would do: checked like one, every object rendered and tried, nothing changed.
async fn rehearse(
    app: &App,
    request: &Request,
    tenant: Tenant,
    service: Service,
    quota: Amounts,
) -> Result<Response, Problem> {
    let (of, name) = (tenant.clone(), service.clone());
    let (used, record) = app.engine()?.read(move |store| Ok((store.usage(&of)?, store.service(&of, &name)?))).await?;
    if let Some(record) = record.filter(|record| record.live || record.busy) {
        return Err(Problem::taken(tenant.as_str(), service.as_str(), record.workflow));
    }
    let holds = holds(request);
    for (resource, asked) in &holds {
        let used = used.get(resource).copied().unwrap_or(0);
        if let Some(limit) = quota.get(resource)
            && used.checked_add(*asked).is_none_or(|sum| sum > *limit)
        {
            return Err(Problem::quota(tenant.as_str(), resource.as_str(), used, *asked, *limit));
        }
    }
    let marks = Marks { workflow: plan::NOBODYS.to_owned() };
    let mut objects = render(request, &app.elastic, Through::RolloutCompleted, None, &marks);
    if let Some(overlay) = &app.overlay {
        overlay.apply(&mut objects, request, Through::RolloutCompleted, &marks);
    }
    let quota = plan::Quota::new(holds, Some(used), quota);
    let plan = plan::of_creation(app.cluster.cluster(), request, objects, quota).await;
    Ok(Json(plan).into_response())
}
