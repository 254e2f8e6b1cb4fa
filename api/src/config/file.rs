//! The file of `--config`: TOML, every key optional, none unknown.

use std::{collections::BTreeMap, path::Path, path::PathBuf};

use cairn_engine::{Amounts, ResourceName};
use cairn_steps::quantity::Quantity;
use serde::Deserialize;

use crate::telemetry::LogFormat;

/// The file as it is, before anything is checked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) data: Option<PathBuf>,
    pub(crate) port: Option<u16>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log_filter: Option<String>,
    pub(crate) views: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) context: Option<String>,
    pub(crate) grace: Option<String>,
    pub(crate) limits: LimitsFile,
    pub(crate) gitlab: GitLabFile,
    pub(crate) cluster: ClusterFile,
    pub(crate) quota: QuotaFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsFile {
    pub(crate) in_flight: Option<usize>,
    pub(crate) in_flight_per_tenant: Option<usize>,
    pub(crate) queue: Option<usize>,
    pub(crate) connections: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GitLabFile {
    pub(crate) hosts: Vec<String>,
    pub(crate) private_hosts: Vec<String>,
    pub(crate) allow_http: bool,
}

/// What is particular to the Kubernetes cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// What the cluster puts into its namespaces by itself, and what therefore may go with one of ours.
    pub(crate) tolerate: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuotaFile {
    pub(crate) default: Quota,
    pub(crate) tenants: BTreeMap<String, Quota>,
}

/// The most that a tenant may hold. What is not named is not limited.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Quota {
    clusters: Option<u64>,
    cpu: Option<String>,
    memory: Option<String>,
    disk: Option<String>,
    gpus: Option<u64>,
}

impl File {
    /// The file at `path`; an empty one without a path.
    ///
    /// # Errors
    /// One line that names the file, the place in it and the key.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("config: {} cannot be read: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("config: {}: {error}", path.display()))
    }
}

impl Quota {
    /// The amounts under the names by which requests are counted (`Request::holds`).
    pub(crate) fn amounts(&self, key: &str, errors: &mut Vec<String>) -> Amounts {
        let mut quantity = |name: &str, text: &Option<String>, read: fn(&Quantity) -> u64| {
            let text = text.as_deref()?;
            match text.parse::<Quantity>() {
                Ok(quantity) => Some(read(&quantity)),
                Err(error) => {
                    errors.push(format!("{key}.{name}: {error}"));
                    None
                }
            }
        };
        [
            ("clusters", self.clusters),
            ("cpu_millis", quantity("cpu", &self.cpu, Quantity::as_millis)),
            ("memory_bytes", quantity("memory", &self.memory, Quantity::as_bytes)),
            ("disk_bytes", quantity("disk", &self.disk, Quantity::as_bytes)),
            ("gpus", self.gpus),
        ]
        .into_iter()
        .filter_map(|(name, amount)| Some((ResourceName::new(name), amount?)))
        .collect()
    }
}
