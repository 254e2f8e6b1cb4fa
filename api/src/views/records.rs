//! The record files: `deployments.json` with every DeploymentStatus, `tenant_data/{user}_{service}.json` for each
//! TenantContainer there is.
//!
//! - `deployments.json` has every service in it. However many there are, a twentieth of the time goes into writing records:
//!   where that takes long, they are written less often, and a service that changes meanwhile as it is then.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cairn_engine::{Service, Tenant, store::Store};
use cairn_steps::records::{DeploymentStatus, TenantContainer};
use serde::{Serialize, Serializer as _, ser::SerializeSeq as _};

use super::files::Files;

/// So many times as long as writing took it is not written again.
const PAUSE: u32 = 20;

/// Where TenantContainers are.
pub(crate) fn tenant_dir(views: &Path) -> PathBuf {
    views.join("tenant_data")
}

/// The file of every DeploymentStatus.
pub(crate) fn deployments(views: &Path) -> PathBuf {
    views.join("deployments.json")
}

/// The record files, and which of them are to be written.
pub(crate) struct Records {
    /// Services whose record may have changed since it was written.
    touched: BTreeSet<(Tenant, Service)>,
    /// `deployments.json` may lack something.
    is_stale: bool,
    /// They are not written before that.
    not_before: Instant,
}

impl Records {
    /// What was written before is not known.
    pub(crate) fn unknown() -> Self {
        Self { touched: BTreeSet::new(), is_stale: true, not_before: Instant::now() }
    }

    /// The record of this service may have changed.
    pub(crate) fn touch(&mut self, tenant: &Tenant, service: &Service) {
        let touched = (tenant.clone(), service.clone());
        self.touched.insert(touched);
        self.is_stale = true;
    }

    /// Whether anything is to be written.
    pub(crate) fn has_changed(&self) -> bool {
        self.is_stale
    }

    /// Writes what it is time to write.
    ///
    /// # Errors
    /// If the journal cannot be read, or the disk does not take it: it is tried again then.
    pub(crate) fn write_due(&mut self, files: &mut Files, views: &Path, store: &dyn Store) -> io::Result<()> {
        let began = Instant::now();
        if !self.is_stale || began < self.not_before {
            return Ok(());
        }
        self.write_touched(files, views, store)?;
        self.write_all(files, views, store)?;
        self.not_before = Instant::now() + began.elapsed() * PAUSE;
        Ok(())
    }

    /// Writes each TenantContainer that may have changed, and removes the files of those that are gone.
    ///
    /// # Errors
    /// As [`Records::write_due`].
    pub(crate) fn write_touched(&mut self, files: &mut Files, views: &Path, store: &dyn Store) -> io::Result<()> {
        while let Some((tenant, service)) = self.touched.first() {
            let path = tenant_dir(views).join(format!("{tenant}_{service}.json"));
            let record = store.service(tenant, service).map_err(io::Error::other)?;
            match record.as_ref().and_then(TenantContainer::of) {
                Some(container) => files.put(&path, &pretty(&container), container.updated_at)?,
                None => files.remove(&path)?,
            }
            self.touched.pop_first();
        }
        Ok(())
    }

    /// Writes `deployments.json`, service by service: there may be more of them than fit into memory.
    ///
    /// # Errors
    /// As [`Records::write_due`].
    pub(crate) fn write_all(&mut self, files: &mut Files, views: &Path, store: &dyn Store) -> io::Result<()> {
        files.write(&deployments(views), |file| {
            let mut file = BufWriter::new(file);
            write_services(&mut file, store)?;
            file.write_all(b"\n")?;
            file.flush()
        })?;
        self.is_stale = false;
        Ok(())
    }

    /// How long it is until they may be written; `None` if there is nothing to write.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.is_stale.then(|| self.not_before.saturating_duration_since(Instant::now()))
    }
}

fn write_services(to: &mut impl Write, store: &dyn Store) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::pretty(to);
    let mut all = serializer.serialize_seq(None).map_err(io::Error::other)?;
    let mut written = Ok(());
    let read = store.each_service(None, &mut |record| {
        written = all.serialize_element(&DeploymentStatus::of(&record));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    read.map_err(io::Error::other)?;
    written?;
    Ok(all.end()?)
}

fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("records are plain data");
    bytes.push(b'\n');
    bytes
}
