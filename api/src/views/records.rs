//! The record files: `deployments.json` with every DeploymentStatus, `tenant_data/{user}_{service}.json` for each
//! TenantContainer there is.

use std::{
    io,
    path::{Path, PathBuf},
};

use cairn_engine::{Service, Tenant, store::Store};
use cairn_steps::records::{DeploymentStatus, TenantContainer};
use serde::Serialize;

use super::files;

/// Where TenantContainers are.
pub(crate) fn tenant_dir(views: &Path) -> PathBuf {
    views.join("tenant_data")
}

/// The file of every DeploymentStatus.
pub(crate) fn deployments(views: &Path) -> PathBuf {
    views.join("deployments.json")
}

/// Writes the TenantContainer of this service, or removes its file once there is none.
///
/// # Errors
/// If the journal cannot be read, or the disk does not take it.
pub(crate) fn write_tenant(views: &Path, store: &dyn Store, tenant: &Tenant, service: &Service) -> io::Result<()> {
    let path = tenant_dir(views).join(format!("{tenant}_{service}.json"));
    let record = store.service(tenant, service).map_err(io::Error::other)?;
    match record.as_ref().and_then(TenantContainer::of) {
        Some(container) => files::replace(&path, &pretty(&container), Some(container.updated_at)),
        None => files::remove(&path),
    }
}

/// Writes every DeploymentStatus.
///
/// # Errors
/// If the journal cannot be read, or the disk does not take it.
pub(crate) fn write_deployments(views: &Path, store: &dyn Store) -> io::Result<()> {
    let records = store.services(None).map_err(io::Error::other)?;
    let all: Vec<DeploymentStatus> = records.iter().map(DeploymentStatus::of).collect();
    files::replace(&deployments(views), &pretty(&all), None)
}

fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("records are plain data");
    bytes.push(b'\n');
    bytes
}
