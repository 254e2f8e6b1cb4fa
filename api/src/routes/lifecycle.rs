//! `PATCH` and `DELETE /clusters/{user}/{service}`: changes and deletions, accepted once they are on the disk.
//!
//! - What is there is read, and the submission made from it, with the service's own lock held: in between nothing else is
//!   submitted for it.
//! - A repetition (same key, same request) is answered first, whatever has become of the service since.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use cairn_engine::{
    Amounts, Effect, Engine, Hash, IdempotencyKey, NewSubmission, OnFailure, Outcome, Phase, ResourceName, Service,
    SubmitError, Tenant, WorkflowState,
    store::{Refusal, ServiceRecord, ServiceStatus},
};
use cairn_steps::{
    delete,
    elastic::Elastic,
    input::{Input, Origin},
    records::{DeploymentStatus, TenantContainer},
    report::{Report, reports},
    request::{FieldError, Request},
    update,
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::{
    Shared,
    clusters::{WAIT_MAX, accepted, as_submitted, holds, located, settled},
};
use crate::{
    app::App,
    auth::Caller,
    extract::{self, Named, Params},
    plan,
    problem::Problem,
};

/// What of its quota a deletion keeps charged for data that stays.
const DISK: &str = "disk_bytes";
/// How long the end of a parked workflow is waited for, before its cluster is deleted: it takes one look at the cluster.
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// A cluster after its change.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    container: TenantContainer,
    reports: Vec<Report>,
}

/// What is left of a cluster: how its deletion went.
#[derive(Serialize)]
struct Deleted {
    #[serde(flatten)]
    deployment: DeploymentStatus,
    reports: Vec<Report>,
}

/// What a client asks for, as far as both calls have it in common.
struct Asked {
    caller: Caller,
    tenant: Tenant,
    service: Service,
    key: Option<IdempotencyKey>,
    body_hash: Hash,
    wait: Option<Duration>,
}

/// `PATCH /clusters/{user}/{service}?wait=30s&dry_run=true`
pub(crate) async fn change(
    State(app): Shared,
    caller: Caller,
    named: Named,
    headers: HeaderMap,
    mut params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let body = extract::body(body).await?;
    let wait = params.duration("wait", WAIT_MAX);
    let dry_run = params.flag("dry_run");
    params.finish()?;
    let asked = Asked::new("PATCH", caller, named, &headers, &body, wait)?;
    let engine = app.engine()?;
    let lock = app.services.lock(&asked.tenant, &asked.service).await;
    if !dry_run && let Some(answered) = asked.again(engine).await? {
        drop(lock);
        return asked.answer(&app, engine, answered, true).await;
    }
    let record = asked.record(engine).await?.filter(|record| record.live).ok_or_else(|| asked.absent())?;
    if record.busy {
        return Err(asked.busy(engine, &record).await?);
    }
    if record.status != ServiceStatus::Created {
        return Err(Problem::not_whole(&record));
    }
    let before = request_of(&record)?;
    let request = before.changed_by(&body).map_err(|errors| Problem::invalid(&errors))?;
    let origin = origin(engine, &record).await?;
    let holds = holds(&request);
    let input = Input { request, before: Some(before), keep_data: false, origin: Some(origin) };
    if dry_run {
        drop(lock);
        return asked.plan_change(&app, &record, input, holds).await;
    }
    let submission = asked.submission(update::NAME, &input, holds, app.rules().quota(&asked.tenant))?;
    let (submitted, again) = asked.submit(engine, submission).await?;
    drop(lock);
    asked.answer(&app, engine, submitted, again).await
}

/// `DELETE /clusters/{user}/{service}?keep_data=true&wait=30s&dry_run=true`
pub(crate) async fn delete(
    State(app): Shared,
    caller: Caller,
    named: Named,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = params.duration("wait", WAIT_MAX);
    let (keep_data, dry_run) = (params.flag("keep_data"), params.flag("dry_run"));
    params.finish()?;
    let keeps: &[u8] = if keep_data { b"keep_data" } else { b"" };
    let asked = Asked::new("DELETE", caller, named, &headers, keeps, wait)?;
    let engine = app.engine()?;
    let lock = app.services.lock(&asked.tenant, &asked.service).await;
    if !dry_run && let Some(answered) = asked.again(engine).await? {
        drop(lock);
        return asked.answer(&app, engine, answered, true).await;
    }
    let mut record = asked.record(engine).await?.ok_or_else(|| asked.absent())?;
    if record.busy && dry_run {
        return Err(asked.busy(engine, &record).await?);
    }
    if record.busy {
        record = asked.end_parked(engine, record).await?;
    }
    if !record.live && record.holds.is_empty() {
        return Err(asked.absent());
    }
    let kept = if keep_data { data_to_keep(&record)? } else { Amounts::new() };
    let mut origin = origin(engine, &record).await?;
    if !record.live {
        origin = origin.of_kept_data();
    }
    if dry_run {
        drop(lock);
        return asked.plan_deletion(&app, &record, &origin, keep_data, kept).await;
    }
    let input = Input { request: request_of(&record)?, before: None, keep_data, origin: Some(origin) };
    let submission = asked.submission(delete::NAME, &input, kept, Amounts::new())?;
    let (submitted, again) = asked.submit(engine, submission).await?;
    drop(lock);
    asked.answer(&app, engine, submitted, again).await
}

/// What is there of the service before its creation: data that a deletion has kept, if there is any.
///
/// # Errors
/// [`Problem`] if the request does not fit the data, with every field that does not.
pub(super) async fn over_kept_data(engine: &Engine, request: &Request, installs: &Elastic) -> Result<Input, Problem> {
    let (tenant, service) = (Tenant::new(request.user.as_str()), Service::new(request.service_name.as_str()));
    let record = engine.read(move |store| store.service(&tenant, &service)).await?;
    let Some(record) = record.filter(|record| !record.live && !record.busy && !record.holds.is_empty()) else {
        return Ok(Input::creation(request.clone()));
    };
    let kept = request_of(&record)?;
    let differs = |field: &str, kept: String| {
        FieldError::new(
            field,
            format!(
                "has to be `{kept}`, as that of the data that was kept: create it so and change it then, or DELETE the data"
            ),
        )
    };
    let mut errors = Vec::new();
    if request.namespace != kept.namespace {
        errors.push(differs("namespace", kept.namespace.to_string()));
    }
    if request.replicas != kept.replicas {
        errors.push(differs("replicas", kept.replicas.to_string()));
    }
    if request.disk_size != kept.disk_size {
        errors.push(differs("disk_size", kept.disk_size.to_string()));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(&errors));
    }
    let origin = origin(engine, &record).await?.of_kept_data();
    if installs.is_older_than(&origin.elastic) {
        return Err(Problem::newer_data(&record, origin.elastic.version(), installs.version()));
    }
    Ok(Input { request: request.clone(), before: None, keep_data: false, origin: Some(origin) })
}

impl Asked {
    fn new(
        method: &str,
        caller: Caller,
        named: Named,
        headers: &HeaderMap,
        body: &[u8],
        wait: Option<Duration>,
    ) -> Result<Self, Problem> {
        let Named { tenant, service } = named;
        if !caller.sees(&tenant) {
            return Err(absent(&tenant, &service));
        }
        // Whose and what is part of what a key was used for, as the body of a creation has it.
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{method} {tenant}/{service}\n").as_bytes()).update(body);
        let body_hash = Hash(*hasher.finalize().as_bytes());
        Ok(Self { caller, tenant, service, key: extract::idempotency_key(headers)?, body_hash, wait })
    }

    /// The workflow that this very request became before.
    async fn again(&self, engine: &Engine) -> Result<Option<WorkflowState>, Problem> {
        let Some(key) = self.key.clone() else { return Ok(None) };
        let tenant = self.tenant.clone();
        let found = engine.read(move |store| store.submission(&tenant, &key)).await?;
        match found {
            None => Ok(None),
            Some(found) if found.body_hash == self.body_hash => Ok(Some(as_submitted(engine, found.workflow).await?)),
            Some(found) => Err(Refusal::KeyUsed { workflow: found.workflow, same_body: false }.into()),
        }
    }

    async fn record(&self, engine: &Engine) -> Result<Option<ServiceRecord>, Problem> {
        let (tenant, service) = (self.tenant.clone(), self.service.clone());
        Ok(engine.read(move |store| store.service(&tenant, &service)).await?)
    }

    /// What the change would do: refused like one, and nothing is changed.
    async fn plan_change(
        &self,
        app: &App,
        record: &ServiceRecord,
        input: Input,
        holds: Amounts,
    ) -> Result<Response, Problem> {
        let quota = self.quota(app, record, holds).await?;
        if let Some((resource, used, asked, limit)) = quota.exceeded() {
            return Err(Problem::quota(self.tenant.as_str(), resource.as_str(), used, asked, limit));
        }
        let planned = plan::of_change(&app.cluster.cluster(), input, quota).await;
        Ok(Json(planned.map_err(|_| Problem::internal())?).into_response())
    }

    /// What the deletion would do, and nothing is changed.
    async fn plan_deletion(
        &self,
        app: &App,
        record: &ServiceRecord,
        origin: &Origin,
        keep_data: bool,
        kept: Amounts,
    ) -> Result<Response, Problem> {
        let (request, quota) = (request_of(record)?, self.quota(app, record, kept).await?);
        let planned = plan::of_deletion(&app.cluster.cluster(), &request, origin, keep_data, quota).await;
        Ok(Json(planned).into_response())
    }

    /// What the tenant would hold, with this in the place of what the service holds.
    async fn quota(&self, app: &App, record: &ServiceRecord, holds: Amounts) -> Result<plan::Quota, Problem> {
        let tenant = self.tenant.clone();
        let used = app.engine()?.read(move |store| store.usage(&tenant)).await?;
        Ok(plan::Quota::replacing(&record.holds, holds, used, app.rules().quota(&self.tenant)))
    }

    fn absent(&self) -> Problem {
        absent(&self.tenant, &self.service)
    }

    /// The answer while another workflow works on the service.
    async fn busy(&self, engine: &Engine, record: &ServiceRecord) -> Result<Problem, Problem> {
        let parked = engine.state(record.workflow).await?.as_ref().is_some_and(is_parked);
        Ok(Problem::busy(self.tenant.as_str(), self.service.as_str(), record.workflow, parked))
    }

    /// A creation or a change that waits for a person is ended as it stands: what it has left is deleted with the rest.
    async fn end_parked(&self, engine: &Engine, record: ServiceRecord) -> Result<ServiceRecord, Problem> {
        let state = engine.state(record.workflow).await?.ok_or_else(Problem::internal)?;
        if !is_parked(&state) || state.submitted().effect == Effect::Delete {
            return Err(self.busy(engine, &record).await?);
        }
        engine.cancel(record.workflow, self.caller.who(), true).await?;
        let ended = tokio::time::timeout(END_TIME_MAX, engine.settled(record.workflow)).await;
        match ended {
            Ok(ended) => drop(ended?),
            Err(_) => return Err(self.busy(engine, &record).await?),
        }
        self.record(engine).await?.ok_or_else(Problem::internal)
    }

    fn submission(
        &self,
        definition: &str,
        input: &Input,
        holds: Amounts,
        quota: Amounts,
    ) -> Result<NewSubmission, Problem> {
        let input = input.to_json().map_err(|error| Problem::unjournalable(&input.request, &error))?;
        Ok(NewSubmission {
            definition: definition.into(),
            tenant: self.tenant.clone(),
            service: self.service.clone(),
            input,
            key: self.key.clone(),
            body_hash: self.body_hash,
            who: self.caller.who(),
            holds,
            quota,
            // What is deleted does not come back: a deletion that cannot go on waits for a person.
            on_failure: if definition == delete::NAME { OnFailure::Keep } else { OnFailure::Rollback },
        })
    }

    async fn submit(&self, engine: &Engine, submission: NewSubmission) -> Result<(WorkflowState, bool), Problem> {
        match engine.submit(submission).await {
            Ok(state) => Ok((state, false)),
            Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => {
                Ok((as_submitted(engine, workflow).await?, true))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// 202 and the workflow, or, for a client that waits, how it ended.
    async fn answer(
        &self,
        app: &Arc<App>,
        engine: &Engine,
        submitted: WorkflowState,
        again: bool,
    ) -> Result<Response, Problem> {
        if let Some(wait) = self.wait
            && let Some(state) = settled(app, engine, submitted.id(), wait).await
            && let Some(answer) = self.ended(engine, &state).await?
        {
            return Ok(answer);
        }
        Ok(accepted(&submitted, again))
    }

    /// 200 with what is there now and the reports of the workflow, or 500 with the report of the failure.
    async fn ended(&self, engine: &Engine, state: &WorkflowState) -> Result<Option<Response>, Problem> {
        if state.outcome() != Some(Outcome::Succeeded) {
            return Err(Problem::failed(state.id(), Report::of_failure(state).as_ref()));
        }
        let reports = reports(&engine.entries(state.id()).await?).map_err(|_| Problem::internal())?;
        let Some(record) = self.record(engine).await? else { return Ok(None) };
        let (at, body) = if state.submitted().effect == Effect::Delete {
            let deployment = DeploymentStatus::of(&record);
            (format!("/workflows/{}", state.id()), Json(Deleted { deployment, reports }).into_response())
        } else {
            let Some(container) = TenantContainer::of(&record) else { return Ok(None) };
            let at = format!("/tenant/containers/{}/{}", self.tenant, self.service);
            (at, Json(Changed { container, reports }).into_response())
        };
        Ok(Some(located(StatusCode::OK, &at, body)))
    }
}

/// What is not there, and what is somebody else's, look the same (I23).
fn absent(tenant: &Tenant, service: &Service) -> Problem {
    Problem::not_found(format!("{tenant} has no service {service}"))
}

fn is_parked(state: &WorkflowState) -> bool {
    matches!(state.phase(), Phase::Parked { .. })
}

/// The request in force.
fn request_of(record: &ServiceRecord) -> Result<Request, Problem> {
    Request::journaled(record.input.as_bytes()).map_err(|_| unreadable(record))
}

/// Where what is there comes from: as the journal of the last workflow of the service knows it.
async fn origin(engine: &Engine, record: &ServiceRecord) -> Result<Origin, Problem> {
    let last = engine.state(record.workflow).await?.ok_or_else(|| unreadable(record))?;
    Origin::after(&last).map_err(|_| unreadable(record))
}

fn unreadable(record: &ServiceRecord) -> Problem {
    tracing::error!(workflow = %record.workflow, "the request of a service cannot be read by this build");
    Problem::internal()
}

/// What stays charged for the data of this service.
fn data_to_keep(record: &ServiceRecord) -> Result<Amounts, Problem> {
    let wrong = |why: &str| Err(Problem::invalid(&[FieldError::new("keep_data", why)]));
    if !record.live {
        return wrong("was asked for before: nothing but the data is left; leave it away to delete that too");
    }
    if record.status != ServiceStatus::Created {
        return wrong(
            "can be asked for where a cluster was completed: this one has no data that another could go on with",
        );
    }
    let disk = ResourceName::new(DISK);
    let bytes = record.holds.get(&disk).copied().unwrap_or(0);
    Ok([(disk, bytes)].into())
}
