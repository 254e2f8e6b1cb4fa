//! The workflows: newest first and paged, or one.

use std::cmp::Ordering;

use axum::{Json, extract::State};
use cairn_engine::{
    Service, Tenant, Timestamp, WorkflowId,
    store::{ListQuery, Listed, Store, StoreError},
};
use cairn_steps::records::{Status, kind};
use serde::Serialize;

use super::{Shared, workflow::WorkflowView};
use crate::{
    auth::{Caller, Unseen},
    extract::{Params, Workflow},
    problem::Problem,
};

/// The most workflows of one page.
const PAGE_MAX: usize = 500;
/// The workflows of a page if nobody says otherwise.
const PAGE: usize = 50;
/// The most workflows that are looked at for one page: a filter that nothing passes must not read the whole journal.
const SCANNED_MAX: usize = 5_000;

/// One page. `next` goes into `after` for the next one; a page may be short, the last one has no `next`.
#[derive(Serialize)]
pub(crate) struct Page {
    workflows: Vec<WorkflowView>,
    next: Option<WorkflowId>,
}

struct Filter {
    tenant: Option<Tenant>,
    service: Option<Service>,
    status: Option<Status>,
    kind: Option<String>,
    after: Option<WorkflowId>,
    limit: usize,
}

/// `GET /workflows?user=&service_name=&status=&kind=&after=&limit=`
pub(crate) async fn list(State(app): Shared, caller: Caller, mut params: Params) -> Result<Json<Page>, Problem> {
    let mut filter = Filter {
        tenant: params.tenant(),
        service: params.service(),
        status: params.take("status", |text| {
            Status::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
                let all: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
                format!("is one of {}", all.join(", "))
            })
        }),
        kind: params.take("kind", |text| match text {
            "create" | "update" | "delete" => Ok(text.to_owned()),
            _ => Err("is one of create, update, delete"),
        }),
        after: params.take("after", |text| text.parse().map_err(|_| "is the `next` of the page before")),
        limit: params.number("limit", 1, PAGE_MAX).unwrap_or(PAGE),
    };
    params.finish()?;
    match caller.narrow(filter.tenant.take()) {
        Ok(tenant) => filter.tenant = tenant,
        Err(Unseen) => return Ok(Json(Page { workflows: Vec::new(), next: None })),
    }
    let now = app.now();
    Ok(Json(app.engine()?.read(move |store| page(store, &filter, now)).await?))
}

/// `GET /workflows/{id}`
pub(crate) async fn one(
    State(app): Shared,
    caller: Caller,
    Workflow(id): Workflow,
    params: Params,
) -> Result<Json<WorkflowView>, Problem> {
    params.finish()?;
    let state = app.engine_for(&caller, id).await?.state(id).await?;
    let state = state.ok_or_else(|| Problem::no_such_workflow(id))?;
    Ok(Json(WorkflowView::of(&state, app.now())))
}

fn page(store: &dyn Store, filter: &Filter, now: Timestamp) -> Result<Page, StoreError> {
    let mut workflows = Vec::new();
    let mut query = ListQuery {
        tenant: filter.tenant.clone(),
        service: filter.service.clone(),
        before: filter.after,
        limit: filter.limit,
    };
    let mut scanned = 0;
    loop {
        let listed = store.list(&query)?;
        for each in &listed {
            query.before = Some(each.workflow);
            scanned += 1;
            if let Some(view) = view(store, filter, each, now)? {
                workflows.push(view);
            }
            if workflows.len() == filter.limit {
                // One more look, so that the last page says that it is the last.
                let more = !store.list(&ListQuery { limit: 1, ..query.clone() })?.is_empty();
                return Ok(Page { workflows, next: query.before.filter(|_| more) });
            }
        }
        match (listed.len().cmp(&query.limit), scanned >= SCANNED_MAX) {
            (Ordering::Less, _) => return Ok(Page { workflows, next: None }),
            (_, true) => return Ok(Page { workflows, next: query.before }),
            _ => {}
        }
    }
}

fn view(
    store: &dyn Store,
    filter: &Filter,
    listed: &Listed,
    now: Timestamp,
) -> Result<Option<WorkflowView>, StoreError> {
    if filter.kind.as_deref().is_some_and(|wanted| wanted != kind(listed.effect)) {
        return Ok(None);
    }
    // How a finished one ended stands in the index: most of those that are not wanted are not read.
    let ended = listed.outcome.map(Status::ended);
    if let (Some(wanted), Some(ended)) = (filter.status, ended)
        && wanted != ended
    {
        return Ok(None);
    }
    let entries = store.workflow(listed.workflow)?;
    let state = cairn_engine::fold(&entries).map_err(|illegal| StoreError::Damaged {
        place: format!("workflow {}", listed.workflow),
        detail: illegal.to_string(),
    })?;
    let Some(state) = state else { return Ok(None) };
    if filter.status.is_some_and(|wanted| wanted != Status::of(&state, now)) {
        return Ok(None);
    }
    Ok(Some(WorkflowView::of(&state, now)))
}
