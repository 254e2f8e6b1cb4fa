//! The reports of a cluster, and how many there are of each status.

use axum::{Json, extract::State};
use cairn_engine::{
    Service, Tenant,
    store::{ListQuery, Store, StoreError},
};
use cairn_steps::report::{Counts, Report, reports};

use super::Shared;
use crate::{
    app::App,
    auth::Caller,
    extract::{Named, Params},
    problem::Problem,
};

/// Workflows that are read from the index at once.
const PAGE: usize = 256;

/// `GET /deployment/reports/{user}/{service}`: every report of that cluster, oldest first, across its workflows.
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    named: Named,
    params: Params,
) -> Result<Json<Vec<Report>>, Problem> {
    params.finish()?;
    Ok(Json(read(&app, &caller, named).await?))
}

/// `GET /deployment/reports/{user}/{service}/stats`
pub(crate) async fn stats(
    State(app): Shared,
    caller: Caller,
    named: Named,
    params: Params,
) -> Result<Json<Counts>, Problem> {
    params.finish()?;
    Ok(Json(Counts::of(&read(&app, &caller, named).await?)))
}

async fn read(app: &App, caller: &Caller, named: Named) -> Result<Vec<Report>, Problem> {
    if !caller.sees(&named.tenant) {
        return Ok(Vec::new());
    }
    Ok(app.engine()?.read(move |store| of_service(store, &named.tenant, &named.service)).await?)
}

fn of_service(store: &dyn Store, tenant: &Tenant, service: &Service) -> Result<Vec<Report>, StoreError> {
    let mut query =
        ListQuery { tenant: Some(tenant.clone()), service: Some(service.clone()), before: None, limit: PAGE };
    let mut workflows = Vec::new();
    loop {
        let page = store.list(&query)?;
        query.before = page.last().map(|listed| listed.workflow);
        workflows.extend(page.iter().map(|listed| listed.workflow));
        if page.len() < PAGE {
            break;
        }
    }
    let mut all = Vec::new();
    for workflow in workflows.into_iter().rev() {
        let made = reports(&store.workflow(workflow)?).map_err(|illegal| StoreError::Damaged {
            place: format!("workflow {workflow}"),
            detail: illegal.to_string(),
        })?;
        all.extend(made);
    }
    Ok(all)
}
