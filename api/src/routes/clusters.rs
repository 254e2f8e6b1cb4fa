//! `POST /clusters`: a creation is accepted once its submission is on the disk, and not before.
//!
//! A repetition (same key, same bytes) is answered first, whatever the settings and the service have become since.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use cairn_engine::{
    Amounts, Engine, Following, Hash, IdempotencyKey, NewSubmission, OnFailure, Outcome, Quota, Service, Settled,
    SubmitError, Tenant, WorkflowId, WorkflowState, fold, store::Refusal,
};
use cairn_steps::{
    input::Input,
    names,
    records::TenantContainer,
    report::{Report, reports},
    request::{self, Request},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::{Shared, left::record_after, there, workflow::WorkflowView};
use crate::{
    admission::{self, holds},
    app::App,
    auth::Caller,
    engine::CREATE,
    extract::{self, Params},
    plan::{self, Charge},
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
struct Asked<'a> {
    caller: &'a Caller,
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
    let key = extract::idempotency_key(&headers)?;
    let engine = app.engine()?;
    let body_hash = Hash(*blake3::hash(&body).as_bytes());
    let accepted = match submitted(&app, engine, &caller, key.clone(), &body, body_hash, dry_run).await {
        Ok(Made::Plan(plan)) => return Ok(plan),
        Ok(Made::Workflow(accepted)) => accepted,
        // Whatever speaks against it by now: a repetition has its answer already. Asked only here, since most are none.
        Err(problem) => {
            let tenant = tenant_of(&body).filter(|tenant| caller.sees(tenant));
            let before = match tenant {
                Some(tenant) => submitted_before(engine, &tenant, key.as_ref(), body_hash).await?,
                None => None,
            };
            Accepted::again(before.ok_or(problem)?)
        }
    };
    answer(&app, engine, accepted, wait).await
}

/// What a request has come to.
enum Made {
    Workflow(Accepted),
    /// What it would do, which was all that was asked for.
    Plan(Response),
}

/// A creation that is on the disk.
struct Accepted {
    submitted: WorkflowState,
    /// It was submitted before, by the same request.
    again: bool,
    /// Follows it to its end; none if it may have ended long since.
    following: Option<Following>,
}

impl Accepted {
    fn again(submitted: WorkflowState) -> Self {
        Self { submitted, again: true, following: None }
    }

    /// The workflow once it is finished or parked; `None` if that takes too long, or the program ends.
    async fn settled(self, app: &App, engine: &Engine, wait: Duration) -> Option<Settled> {
        let workflow = self.submitted.id();
        let settled = async move {
            match self.following {
                Some(mut following) => following.settled().await,
                None => {
                    let state = engine.settled(workflow).await.ok()?;
                    Some(Settled { state: Arc::new(state), entries: engine.entries(workflow).await.ok()? })
                }
            }
        };
        tokio::select! {
            // Whatever speaks against an answer now, the submission is durable, and 202 says where to ask.
            settled = tokio::time::timeout(wait, settled) => settled.ok()?,
            () = app.stopping.cancelled() => None,
        }
    }
}

/// Submits the creation that the body asks for, or says what it would do.
async fn submitted(
    app: &App,
    engine: &Engine,
    caller: &Caller,
    key: Option<IdempotencyKey>,
    body: &[u8],
    body_hash: Hash,
    dry_run: bool,
) -> Result<Made, Problem> {
    let asked = Asked::new(app, caller, key, body, body_hash)?;
    if !dry_run {
        app.views_in_time(engine).await?;
    }
    let lock = app.services.lock(&asked.tenant, &asked.service).await;
    let input = there::creation(engine, &asked.request, &app.elastic).await?;
    let submission = asked.submission(&input)?;
    if dry_run {
        drop(lock);
        return plan_creation(app, engine, input, submission).await.map(Made::Plan);
    }
    let accepted = match engine.submit_and_follow(submission).await {
        Ok((submitted, following)) => Accepted { submitted, again: false, following: Some(following) },
        Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => {
            Accepted::again(as_submitted(engine, workflow).await?)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Made::Workflow(accepted))
}

/// 202 and the workflow, or, for a client that waits, how it ended.
async fn answer(
    app: &Arc<App>,
    engine: &Engine,
    accepted: Accepted,
    wait: Option<Duration>,
) -> Result<Response, Problem> {
    let again = accepted.again;
    let Some(wait) = wait else { return Ok(self::accepted(&accepted.submitted, again)) };
    let submitted = accepted.submitted.clone();
    if let Some(settled) = accepted.settled(app, engine, wait).await
        && let Some(answer) = ended(engine, &settled, again).await?
    {
        return Ok(answer);
    }
    Ok(self::accepted(&submitted, again))
}

/// Whose request this is, as far as it says: enough to look a key up, before anything else of it is judged.
fn tenant_of(body: &[u8]) -> Option<Tenant> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let user = names::Tenant::parse(body.get("user")?.as_str()?).ok()?;
    Some(Tenant::new(user.as_str()))
}

impl<'a> Asked<'a> {
    fn new(
        app: &App,
        caller: &'a Caller,
        key: Option<IdempotencyKey>,
        body: &[u8],
        body_hash: Hash,
    ) -> Result<Self, Problem> {
        let rules = app.rules();
        let request =
            admission::creation(body, &app.gitlab, app.strict_sizing).map_err(|errors| Problem::invalid(&errors))?;
        let tenant = Tenant::new(request.user.as_str());
        caller.must_be(&tenant)?;
        let service = Service::new(request.service_name.as_str());
        let quota = rules.quota(&tenant);
        Ok(Self { caller, request, tenant, service, key, body_hash, quota })
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

/// The workflow, as it was accepted, that this very request became before.
///
/// # Errors
/// [`Problem`] if the key was used for another request, or the journal cannot be read.
pub(super) async fn submitted_before(
    engine: &Engine,
    tenant: &Tenant,
    key: Option<&IdempotencyKey>,
    body_hash: Hash,
) -> Result<Option<WorkflowState>, Problem> {
    let Some(key) = key else { return Ok(None) };
    match engine.look(|store| store.submission(tenant, key))? {
        None => Ok(None),
        Some(found) if found.body_hash == body_hash => Ok(Some(as_submitted(engine, found.workflow).await?)),
        Some(found) => Err(Refusal::KeyUsed { workflow: found.workflow, same_body: false }.into()),
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
async fn as_submitted(engine: &Engine, workflow: WorkflowId) -> Result<WorkflowState, Problem> {
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
async fn ended(engine: &Engine, settled: &Settled, again: bool) -> Result<Option<Response>, Problem> {
    let Settled { state, entries } = settled;
    if state.outcome() != Some(Outcome::Succeeded) {
        return Err(Problem::failed(state.id(), Report::of_failure(state).as_ref()));
    }
    let reports = reports(entries).map_err(|_| Problem::internal())?;
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

/// What the creation would do: refused as it would be, and nothing is changed.
async fn plan_creation(
    app: &App,
    engine: &Engine,
    input: Input,
    submission: NewSubmission,
) -> Result<Response, Problem> {
    match rehearsed(engine, submission).await? {
        Rehearsed::Again(submitted) => Ok(accepted(&submitted, true)),
        Rehearsed::Admitted(quota) => {
            let (elastic, overlay) = (app.elastic.clone(), app.overlay.as_deref().cloned());
            let planned = plan::of_creation(app.cluster.cluster(), input, elastic, overlay, Charge::Met(quota)).await;
            Ok(Json(planned).into_response())
        }
    }
}

/// What would become of a submission.
pub(super) enum Rehearsed {
    /// It would be admitted, and meet this quota.
    Admitted(Quota),
    /// It was made before: its answer is this workflow, as it was accepted.
    Again(WorkflowState),
}

/// Asks what would become of a submission, and records nothing.
///
/// # Errors
/// [`Problem`]: what the submission would be refused with.
pub(super) async fn rehearsed(engine: &Engine, submission: NewSubmission) -> Result<Rehearsed, Problem> {
    match engine.rehearse(submission).await {
        Ok(quota) => Ok(Rehearsed::Admitted(quota)),
        Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => {
            Ok(Rehearsed::Again(as_submitted(engine, workflow).await?))
        }
        Err(error) => Err(error.into()),
    }
}
