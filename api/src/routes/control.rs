//! What a person asks of a workflow: cancel, retry, pause, resume. The answer is the workflow once that wish is durable.

use axum::{Json, extract::State};
use http::StatusCode;

use super::{Shared, workflow::WorkflowView};
use crate::{
    auth::Caller,
    extract::{Params, Workflow},
    problem::Problem,
};

type Answer = Result<(StatusCode, Json<WorkflowView>), Problem>;

/// `POST /workflows/{id}/cancel`: stop after the attempt in hand, then roll back; `?force=true` ends it at once.
pub(crate) async fn cancel(State(app): Shared, caller: Caller, Workflow(id): Workflow, mut params: Params) -> Answer {
    let force = params.flag("force");
    params.finish()?;
    let state = app.engine_for(&caller, id).await?.cancel(id, caller.who(), force).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}

/// `POST /workflows/{id}/retry`: a parked workflow goes on, a waiting one does not wait.
pub(crate) async fn retry(State(app): Shared, caller: Caller, Workflow(id): Workflow, params: Params) -> Answer {
    params.finish()?;
    let state = app.engine_for(&caller, id).await?.retry(id, caller.who()).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}

/// `POST /workflows/{id}/pause`: takes effect between steps, and survives a restart.
pub(crate) async fn pause(State(app): Shared, caller: Caller, Workflow(id): Workflow, params: Params) -> Answer {
    params.finish()?;
    let state = app.engine_for(&caller, id).await?.pause(id, caller.who()).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}

/// `POST /workflows/{id}/resume`
pub(crate) async fn resume(State(app): Shared, caller: Caller, Workflow(id): Workflow, params: Params) -> Answer {
    params.finish()?;
    let state = app.engine_for(&caller, id).await?.resume(id, caller.who()).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}
