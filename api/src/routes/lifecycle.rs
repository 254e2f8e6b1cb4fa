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
    Amounts, Effect, Engine, Hash, IdempotencyKey, NewSubmission, OnFailure, Outcome, Quota, Service, Tenant,
    WorkflowState, store::ServiceStatus,
};
use cairn_steps::{
    delete,
    input::Input,
    records::{DeploymentStatus, TenantContainer},
    report::{Report, reports},
    update,
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::{
    Shared,
    clusters::{Rehearsed, WAIT_MAX, accepted, located, rehearsed, settled, submit, submitted_before},
    left::record_after,
    there::{Deletion, There},
};
use crate::{
    admission::{self, holds},
    app::App,
    auth::Caller,
    extract::{self, Named, Params},
    plan::{self, Charge, Ends},
    problem::Problem,
};

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
    if let Some(answered) = asked.again(engine).await? {
        drop(lock);
        return asked.answer(&app, engine, answered, true).await;
    }
    let there = asked.there(engine).await?.filter(|there| there.record.live).ok_or_else(|| asked.absent())?;
    if there.record.busy {
        return Err(there.busy());
    }
    if there.record.status != ServiceStatus::Created {
        return Err(Problem::not_whole(&there.record));
    }
    let before = there.request()?;
    let request = admission::change(&before, &body, app.strict_sizing).map_err(|errors| Problem::invalid(&errors))?;
    let holds = holds(&request);
    let (origin, _) = there.origin(engine).await?;
    let input = Input::change(before, request, origin);
    let journaled = input.to_json().map_err(|error| Problem::unjournalable_change(&there.record, &error))?;
    let submission = asked.submission(update::NAME, journaled, holds, app.rules().quota(&asked.tenant));
    if dry_run {
        drop(lock);
        return plan_change(&app, engine, input, submission).await;
    }
    let (submitted, again) = submit(engine, submission).await?;
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
    if let Some(answered) = asked.again(engine).await? {
        drop(lock);
        return asked.answer(&app, engine, answered, true).await;
    }
    let mut there = asked.there(engine).await?.filter(|there| !there.is_nothing()).ok_or_else(|| asked.absent())?;
    if there.record.busy && !there.may_be_ended() {
        return Err(there.busy());
    }
    // Whatever refuses it does so here, before anything is ended for it.
    let mut deletion = there.deletion(engine, keep_data).await?;
    if dry_run {
        drop(lock);
        return asked.plan_deletion(&app, &there, deletion).await;
    }
    if there.record.busy {
        there = asked.end_parked(engine, there).await?;
        if there.is_nothing() || keep_data && there.is_data_alone() {
            return asked.gone(engine, &there).await;
        }
        deletion = there.deletion(engine, keep_data).await?;
    }
    let submission = asked.submission(delete::NAME, deletion.journaled, deletion.keeps, Amounts::new());
    let (submitted, again) = submit(engine, submission).await?;
    drop(lock);
    asked.answer(&app, engine, submitted, again).await
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
        submitted_before(engine, &self.tenant, self.key.as_ref(), self.body_hash).await
    }

    async fn there(&self, engine: &Engine) -> Result<Option<There>, Problem> {
        There::of(engine, &self.tenant, &self.service).await
    }

    /// What the deletion would do, and nothing is changed.
    async fn plan_deletion(&self, app: &App, there: &There, deletion: Deletion) -> Result<Response, Problem> {
        let Deletion { input, keeps, .. } = deletion;
        let tenant = self.tenant.clone();
        let used = app.engine()?.read(move |store| store.usage(&tenant)).await?;
        let (held, limits) = (there.record.holds.clone(), app.rules().quota(&self.tenant));
        let charge = Charge::Met(Quota { used, held, wanted: keeps, limits });
        let ends = there.record.busy.then(|| Ends::of(&there.last));
        let planned = plan::of_deletion(app.cluster.cluster(), &input, ends, charge).await;
        Ok(Json(planned.map_err(|_| Problem::internal())?).into_response())
    }

    fn absent(&self) -> Problem {
        absent(&self.tenant, &self.service)
    }

    /// A creation or a change that waits for a person is ended as it stands: what it has left is deleted with the rest. A retry does
    /// not take the service's lock, so the engine decides whether it still waits.
    async fn end_parked(&self, engine: &Engine, there: There) -> Result<There, Problem> {
        engine.end_parked(there.record.workflow, self.caller.who()).await?;
        let ended = tokio::time::timeout(END_TIME_MAX, engine.settled(there.record.workflow)).await;
        match ended {
            Ok(ended) => drop(ended?),
            Err(_) => return Err(there.busy()),
        }
        self.there(engine).await?.ok_or_else(Problem::internal)
    }

    /// The answer where a parked creation was ended, and had made nothing, or nothing beside the data that it was to go on with:
    /// there is nothing left to submit a deletion of.
    async fn gone(&self, engine: &Engine, there: &There) -> Result<Response, Problem> {
        let reports = reports(&engine.entries(there.last.id()).await?).map_err(|_| Problem::internal())?;
        let body = Deleted { deployment: DeploymentStatus::of(&there.record), reports };
        Ok(located(StatusCode::OK, &format!("/workflows/{}", there.last.id()), Json(body).into_response()))
    }

    fn submission(&self, definition: &str, input: cairn_engine::Json, holds: Amounts, quota: Amounts) -> NewSubmission {
        NewSubmission {
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

    /// 200 with what the workflow has left and its reports, or 500 with the report of the failure. What has become of the
    /// service since is another workflow's answer.
    async fn ended(&self, engine: &Engine, state: &WorkflowState) -> Result<Option<Response>, Problem> {
        if state.outcome() != Some(Outcome::Succeeded) {
            return Err(Problem::failed(state.id(), Report::of_failure(state).as_ref()));
        }
        let reports = reports(&engine.entries(state.id()).await?).map_err(|_| Problem::internal())?;
        let record = record_after(engine, state).await?;
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

/// What the change would do: refused as it would be, and nothing is changed.
async fn plan_change(app: &App, engine: &Engine, input: Input, submission: NewSubmission) -> Result<Response, Problem> {
    match rehearsed(engine, submission).await? {
        Rehearsed::Again(submitted) => Ok(accepted(&submitted, true)),
        Rehearsed::Admitted(quota) => {
            let planned = plan::of_change(app.cluster.cluster(), input, Charge::Met(quota)).await;
            Ok(Json(planned.map_err(|_| Problem::internal())?).into_response())
        }
    }
}

/// What is not there, and what is somebody else's, look the same (I23).
fn absent(tenant: &Tenant, service: &Service) -> Problem {
    Problem::not_found(format!("{tenant} has no service {service}"))
}
