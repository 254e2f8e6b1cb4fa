//! The two records of a service: DeploymentStatus and TenantContainer.

use axum::{Json, extract::State};
use cairn_steps::records::{DeploymentStatus, TenantContainer};

use super::Shared;
use crate::{
    auth::Caller,
    extract::{Named, Params},
    problem::Problem,
};

/// `GET /deployments?user=&service_name=`: filtered by either, both or none.
pub(crate) async fn deployments(
    State(app): Shared,
    caller: Caller,
    mut params: Params,
) -> Result<Json<Vec<DeploymentStatus>>, Problem> {
    let (tenant, service) = (params.tenant(), params.service());
    params.finish()?;
    let Ok(tenant) = caller.narrow(tenant) else { return Ok(Json(Vec::new())) };
    let records = app
        .engine()?
        .read(move |store| match (tenant, &service) {
            (Some(tenant), Some(service)) => Ok(store.service(&tenant, service)?.into_iter().collect()),
            (tenant, _) => {
                let mut records = store.services(tenant.as_ref())?;
                records.retain(|record| service.as_ref().is_none_or(|service| record.service == *service));
                Ok(records)
            }
        })
        .await?;
    Ok(Json(records.iter().map(DeploymentStatus::of).collect()))
}

/// `GET /tenant/containers/{user}/{service}`: 404 once it is rolled back or deleted.
pub(crate) async fn tenant_container(
    State(app): Shared,
    caller: Caller,
    named: Named,
) -> Result<Json<TenantContainer>, Problem> {
    let Named { tenant, service } = named;
    let absent = Problem::not_found(format!("{tenant} has no service {service}"));
    if !caller.sees(&tenant) {
        return Err(absent);
    }
    let record = app.engine()?.read(move |store| store.service(&tenant, &service)).await?;
    record.as_ref().and_then(TenantContainer::of).map(Json).ok_or(absent)
}
