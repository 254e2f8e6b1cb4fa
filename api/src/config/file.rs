//! The file of `--config`: TOML, every key optional, none unknown.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_engine::{Amounts, ResourceName};
use cairn_steps::{
    cluster::rollout::RolloutRules,
    gitlab::{AllowedHost, Token, TokenKind, TokenSource},
    quantity::Quantity,
};
use serde::Deserialize;

use super::duration;
use crate::telemetry::LogFormat;

/// The file as it is, before anything is checked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) tokens: Option<PathBuf>,
    pub(crate) overlay: Option<PathBuf>,
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
    pub(crate) elastic: ElasticFile,
    pub(crate) rollout: RolloutFile,
    pub(crate) quota: QuotaFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsFile {
    pub(crate) in_flight: Option<usize>,
    pub(crate) in_flight_per_tenant: Option<usize>,
    pub(crate) queue: Option<usize>,
    pub(crate) active: Option<usize>,
    pub(crate) connections: Option<usize>,
    pub(crate) views_behind: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GitLabFile {
    pub(crate) hosts: Vec<String>,
    pub(crate) private_hosts: Vec<String>,
    pub(crate) allow_http: bool,
    pub(crate) tokens: BTreeMap<String, TokenFile>,
}

/// Where a token for private projects lies, and for whom it is. Its value is never written here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TokenFile {
    host: String,
    tenants: Vec<String>,
    file: Option<PathBuf>,
    variable: Option<String>,
    bearer: bool,
}

impl TokenFile {
    /// The token of this name.
    pub(crate) fn token(&self, name: &str, errors: &mut Vec<String>) -> Option<Token> {
        let mut wrong = |field: &str, what: &str| {
            errors.push(format!("gitlab.tokens.{name}.{field}: {what}"));
            None
        };
        let source = match (&self.file, &self.variable) {
            (Some(path), None) => TokenSource::File(path.clone()),
            (None, Some(variable)) => TokenSource::Variable(variable.clone()),
            _ => {
                return wrong(
                    "file",
                    "say where the value is: either `file`, or `variable` for one of the environment",
                );
            }
        };
        if self.tenants.is_empty() {
            return wrong("tenants", "name the tenants that may use it, or [\"*\"] for all");
        }
        let Ok(host) = AllowedHost::parse(&self.host) else {
            return wrong("host", "it is sent to one host only: name it, such as `gitlab.example.com`");
        };
        let kind = if self.bearer { TokenKind::Bearer } else { TokenKind::Private };
        Some(Token { name: name.to_owned(), host, tenants: self.tenants.clone(), kind, source })
    }
}

/// What is particular to the Kubernetes cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// What the cluster puts into its namespaces by itself, and what therefore may go with one of ours.
    pub(crate) tolerate: Vec<String>,
}

/// What creations install.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ElasticFile {
    pub(crate) version: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) kibana_image: Option<String>,
    pub(crate) strict_sizing: bool,
}

/// The longest that one attempt of a rollback may wait for a namespace.
const NAMESPACE_GRACE_MAX: Duration = Duration::from_secs(50);

/// How long a rollout, and each sign of trouble in it, may last (C8).
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolloutFile {
    deadline: Option<String>,
    config_grace: Option<String>,
    image_grace: Option<String>,
    schedule_grace: Option<String>,
    volume_grace: Option<String>,
    namespace_grace: Option<String>,
    restarts_max: Option<i32>,
}

impl RolloutFile {
    /// These rules, and the usual ones where nothing is said.
    pub(crate) fn rules(&self, errors: &mut Vec<String>) -> RolloutRules {
        let mut rules = RolloutRules::default();
        let trouble = &mut rules.trouble;
        let durations = [
            ("deadline", &self.deadline, &mut rules.deadline),
            ("config_grace", &self.config_grace, &mut trouble.config_grace),
            ("image_grace", &self.image_grace, &mut trouble.image_grace),
            ("schedule_grace", &self.schedule_grace, &mut trouble.schedule_grace),
            ("volume_grace", &self.volume_grace, &mut trouble.volume_grace),
            ("namespace_grace", &self.namespace_grace, &mut rules.namespace_grace),
        ];
        for (name, text, rule) in durations {
            match text.as_deref().map(duration) {
                Some(Ok(read)) => *rule = read,
                Some(Err(error)) => errors.push(format!("rollout.{name}: {error}")),
                None => {}
            }
        }
        if rules.deadline.is_zero() {
            errors.push("rollout.deadline: no rollout is done at once: it is 10m if nothing is said".to_owned());
        }
        if rules.namespace_grace > NAMESPACE_GRACE_MAX {
            errors.push(format!(
                "rollout.namespace_grace: at most {} s: the attempt that waits may take a minute",
                NAMESPACE_GRACE_MAX.as_secs()
            ));
        }
        match self.restarts_max {
            Some(restarts) if restarts < 1 => errors.push("rollout.restarts_max: it is at least 1".to_owned()),
            Some(restarts) => rules.trouble.restarts_max = restarts,
            None => {}
        }
        rules
    }
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
