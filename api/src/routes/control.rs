//! What a person asks of a workflow: cancel, retry, pause, resume. The answer is the workflow once that wish is durable.

use axum::{Json, extract::State};
use cairn_engine::Who;
use http::StatusCode;

use super::{Shared, workflow::WorkflowView};
use crate::{
    extract::{Params, Workflow},
    problem::Problem,
};

/// Who asks, as long as everybody on this machine is the same person.
pub(crate) fn local() -> Who {
    Who::new("local")
}

type Answer = Result<(StatusCode, Json<WorkflowView>), Problem>;

/// `POST /workflows/{id}/cancel`: stop after the attempt in hand, then roll back; `?force=true` ends it at once.
pub(crate) async fn cancel(State(app): Shared, Workflow(id): Workflow, mut params: Params) -> Answer {
    let force = params.flag("force");
    params.finish()?;
    let state = app.engine()?.cancel(id, local(), force).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}

/// `POST /workflows/{id}/retry`: a parked workflow goes on, a waiting one does not wait.
pub(crate) async fn retry(State(app): Shared, Workflow(id): Workflow, params: Params) -> Answer {
    params.finish()?;
    let state = app.engine()?.retry(id, local()).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}

/// `POST /workflows/{id}/pause`: takes effect between steps, and survives a restart.
pub(crate) async fn pause(State(app): Shared, Workflow(id): Workflow, params: Params) -> Answer {
    params.finish()?;
    let state = app.engine()?.pause(id, local()).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}

/// `POST /workflows/{id}/resume`
pub(crate) async fn resume(State(app): Shared, Workflow(id): Workflow, params: Params) -> Answer {
    params.finish()?;
    let state = app.engine()?.resume(id, local()).await?;
    Ok((StatusCode::ACCEPTED, Json(WorkflowView::of(&state, app.now()))))
}
