//! Whether the process lives, and whether it can work.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use cairn_engine::ViewHealth;
use serde_json::{Value, json};

use super::Shared;
use crate::{auth::Caller, problem::Problem};

/// `GET /healthz`: the process lives.
pub(crate) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: recovery is done, the journal can be written, the cluster can be reached; says which is not.
///
/// Whoever has not said who he is hears which, and not why: that may be the operator's business.
pub(crate) async fn ready(State(app): Shared, caller: Option<Extension<Caller>>) -> Response {
    let known = caller.is_some_and(|Extension(caller)| caller.must_be_operator().is_ok());
    let check = |answer: Result<(), String>| match answer {
        Ok(()) => json!({ "ok": true }),
        Err(_) if !known => json!({ "ok": false }),
        Err(why) => json!({ "ok": false, "detail": why }),
    };
    let (recovery, journal, health) = match app.engine() {
        Err(_) => (Err("the journal is being recovered".to_owned()), Err("it is not open yet".to_owned()), None),
        Ok(engine) => {
            let health = engine.health();
            let journal = match (&health.stopped, health.shutting_down || app.stopping.is_cancelled()) {
                (Some(why), _) => Err(why.clone()),
                (None, true) => Err("the engine is shutting down".to_owned()),
                (None, false) => Ok(()),
            };
            (Ok(()), journal, Some(health))
        }
    };
    let parts = [("recovery", recovery), ("journal", journal), ("cluster", app.cluster.reachable().await)];
    let failing: Vec<&str> = parts.iter().filter(|(_, answer)| answer.is_err()).map(|(name, _)| *name).collect();
    let failing_names = failing.clone();
    let mut checks = serde_json::Map::new();
    for (name, answer) in parts.clone() {
        checks.insert(name.to_owned(), check(answer));
    }
    let checks = Value::Object(checks);
    if !failing_names.is_empty() {
        return Problem::not_ready(&checks, &failing_names).into_response();
    }
    let health = health.filter(|_| known);
    // They are behind what is durable, and stand in nobody's way.
    let views = health.as_ref().and_then(|health| health.views.first()).map(|view| {
        let ViewHealth { commits_behind, behind, failing, .. } = view;
        json!({ "commits_behind": commits_behind, "behind_ms": millis(*behind), "failing": failing })
    });
    let health = health.map(|health| {
        // They stop nobody else, so they do not make the engine unready; but somebody should look.
        let left_alone: Vec<Value> = health
            .unrecoverable
            .iter()
            .map(|(workflow, why)| json!({ "workflow_id": workflow, "detail": why }))
            .collect();
        json!({ "active": health.active, "in_flight": health.in_flight, "left_alone": left_alone })
    });
    Json(json!({ "ready": true, "checks": checks, "workflows": health, "views": views })).into_response()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
