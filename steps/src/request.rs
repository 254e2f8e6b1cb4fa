//! A request for a cluster: parsed once at the edge, and proved right from then on.
//!
//! - [`Request::parse`] reports **every** wrong field at once, by the name that the user wrote.
//! - An unknown field is an error: a typo must not quietly mean a default.
//! - What [`Request::to_json`] gives, [`Request::parse_with`] reads back as the same request: it is the input in the journal.
//! - No arithmetic over a request can overflow: what its replicas take together is checked here.
//!
//! What the live cluster has to say about a request is the first step's work, and the quota the engine's.

mod change;
mod fields;
mod heading;
mod link;

use serde::{Deserialize, Deserializer, Serialize};

use self::fields::Fields;
pub use self::heading::Heading;
use crate::names::{Namespace, Service, Tenant};
use crate::quantity::Quantity;

/// The most Elasticsearch nodes in one cluster.
pub const REPLICAS_MAX: u32 = 100;
/// The most GPUs of one node.
pub const GPU_COUNT_MAX: u32 = 64;
/// The largest dimension of a vector that Elasticsearch indexes (C11).
pub const DIMENSION_MAX: u32 = 4096;
/// The most vectors that a cluster is sized for: far more than 100 nodes can hold, and far from an overflow.
pub const VECTOR_COUNT_MAX: u64 = 1_000_000_000_000;
/// The smallest CPU request or limit, in thousandths of a core: with less no node ever gets through its start.
pub const CPU_MILLIS_MIN: u64 = 10;
/// The smallest memory request or limit: half of it is heap, and with less than 128 MiB of that Elasticsearch does not start.
pub const MEMORY_BYTES_MIN: u64 = 256 << 20;
/// The smallest disk: the smallest volume that common provisioners make.
pub const DISK_BYTES_MIN: u64 = 1 << 30;

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The field as the user wrote it; `body` when there are no fields to speak of.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl FieldError {
    /// An error of this field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// What the operator of this installation allows beyond the strict rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestRules {
    /// `gitlab_url` may be plain `http`.
    pub allow_http: bool,
    /// `gitlab_url` may be an address inside: loopback, private, link-local.
    pub allow_private: bool,
    /// `gitlab_url` may have any query. New requests may not: it could be a secret (I32).
    pub allow_any_query: bool,
}

impl RequestRules {
    /// What a request out of the journal is read with: it was judged when it was accepted, and the rules may have changed since.
    pub const JOURNALED: Self = Self { allow_http: true, allow_private: true, allow_any_query: true };
}

/// What happens to the objects of a creation that fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Everything is taken back.
    #[default]
    Rollback,
    /// What was made is left, for a look.
    Keep,
}

/// A request whose every field is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The tenant.
    pub user: Tenant,
    /// The service: the name of the cluster within the tenant.
    pub service_name: Service,
    /// Where the cluster goes.
    pub namespace: Namespace,
    /// Elasticsearch nodes, at least one.
    pub replicas: u32,
    /// CPU that each node is promised.
    pub cpu_request: Quantity,
    /// CPU that each node may use.
    pub cpu_limit: Quantity,
    /// Memory that each node is promised.
    pub mem_request: Quantity,
    /// Memory that each node may use; half of it is the heap.
    pub mem_limit: Quantity,
    /// Disk of each node.
    pub disk_size: Quantity,
    /// GPUs of each node.
    pub gpu_count: u32,
    /// Dimension of the vectors that the cluster is meant for.
    pub dimension: u32,
    /// How many vectors the cluster is meant for.
    pub vector_count: u64,
    /// Where settings for `elasticsearch.yml` are pulled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gitlab_url: Option<String>,
    /// What happens if the creation fails.
    pub on_failure: OnFailure,
}

/// Reads a request out of the journal: see [`Request::journaled`].
impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::journaled(value.to_string().as_bytes()).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(|error| format!("`{}` {}", error.field, error.message)).collect();
            serde::de::Error::custom(all.join("; "))
        })
    }
}

/// The nine fields that every report shows as they are in force, in the order of the contract (S62–S70).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Elasticsearch nodes.
    pub replicas: u32,
    /// CPU that each node is promised.
    pub cpu_request: Quantity,
    /// CPU that each node may use.
    pub cpu_limit: Quantity,
    /// Memory that each node is promised.
    pub mem_request: Quantity,
    /// Memory that each node may use.
    pub mem_limit: Quantity,
    /// Disk of each node.
    pub disk_size: Quantity,
    /// GPUs of each node.
    pub gpu_count: u32,
    /// Dimension of the vectors.
    pub dimension: u32,
    /// Number of the vectors.
    pub vector_count: u64,
}

impl Request {
    /// Reads a request by the strict rules.
    ///
    /// # Errors
    /// Every wrong field, in the order of the contract.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        Self::parse_with(body, RequestRules::default())
    }

    /// Reads a request by the rules of this installation.
    ///
    /// # Errors
    /// Every wrong field, in the order of the contract.
    pub fn parse_with(body: &[u8], rules: RequestRules) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields::parse(body)?;
        let user = fields.required("user", Tenant::parse);
        let service = fields.required("service_name", Service::parse);
        let namespace = namespace(&mut fields, user.as_ref(), service.as_ref());
        let replicas = fields.whole("replicas", 1, 1..=REPLICAS_MAX.into()).and_then(|n| u32::try_from(n).ok());
        let cpu_request = fields.quantity("cpu_request", "500m").and_then(|q| cpu(&mut fields, "cpu_request", q));
        let cpu_limit = fields.quantity("cpu_limit", "2").and_then(|q| cpu(&mut fields, "cpu_limit", q));
        fields.at_most("cpu_request", cpu_request.as_ref(), "cpu_limit", cpu_limit.as_ref());
        let mem_request =
            fields.quantity("mem_request", "1Gi").and_then(|q| bytes(&mut fields, "mem_request", q, MEMORY_BYTES_MIN));
        let mem_limit =
            fields.quantity("mem_limit", "2Gi").and_then(|q| bytes(&mut fields, "mem_limit", q, MEMORY_BYTES_MIN));
        fields.at_most("mem_request", mem_request.as_ref(), "mem_limit", mem_limit.as_ref());
        let disk_size =
            fields.quantity("disk_size", "10Gi").and_then(|q| bytes(&mut fields, "disk_size", q, DISK_BYTES_MIN));
        let gpu_count = fields.whole("gpu_count", 0, 0..=GPU_COUNT_MAX.into()).and_then(|n| u32::try_from(n).ok());
        let dimension = fields.whole("dimension", 128, 1..=DIMENSION_MAX.into()).and_then(|n| u32::try_from(n).ok());
        let vector_count = fields.whole("vector_count", 10_000, 0..=VECTOR_COUNT_MAX);
        let gitlab_url = fields.optional("gitlab_url", |text| link::check(text, rules));
        let on_failure = fields.on_failure("on_failure");
        if let (Some(replicas), quantities) =
            (replicas, [("cpu_limit", &cpu_limit), ("mem_limit", &mem_limit), ("disk_size", &disk_size)])
        {
            for (field, quantity) in quantities {
                let Some(quantity) = quantity else { continue };
                // The strictest of the two units, so that neither sum can wrap, whichever is asked for.
                if quantity.as_millis() == u64::MAX || quantity.as_millis().checked_mul(replicas.into()).is_none() {
                    fields.wrong(
                        field,
                        format!(
                            "`{quantity}` for each of {replicas} replicas is more than can be counted: ask for less"
                        ),
                    );
                }
            }
        }
        fields.finish()?;
        let read = || {
            Some(Self {
                user: user?,
                service_name: service?,
                namespace: namespace?,
                replicas: replicas?,
                cpu_request: cpu_request?,
                cpu_limit: cpu_limit?,
                mem_request: mem_request?,
                mem_limit: mem_limit?,
                disk_size: disk_size?,
                gpu_count: gpu_count?,
                dimension: dimension?,
                vector_count: vector_count?,
                gitlab_url,
                on_failure: on_failure?,
            })
        };
        Ok(read().expect("a field that could not be read has left its error, and `finish` returned it"))
    }

    /// Reads the request in the input of a workflow, with [`RequestRules::JOURNALED`]. That of a creation is the request itself;
    /// where a workflow needs to know more (a change, a deletion), the request stands under `request`, as it is in force once
    /// that workflow has succeeded.
    ///
    /// # Errors
    /// Every wrong field, in the order of the contract.
    pub fn journaled(input: &[u8]) -> Result<Self, Vec<FieldError>> {
        let value: Option<serde_json::Value> = serde_json::from_slice(input).ok();
        match value.as_ref().and_then(|value| value.get("request")) {
            Some(request) => Self::parse_with(request.to_string().as_bytes(), RequestRules::JOURNALED),
            None => Self::parse_with(input, RequestRules::JOURNALED),
        }
    }

    /// The request with all its defaults in force, as compact JSON in the order of the contract: the workflow's input.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a request is plain strings and numbers")
    }

    /// The nine fields that every report carries.
    #[must_use]
    pub fn details(&self) -> Details {
        Details {
            replicas: self.replicas,
            cpu_request: self.cpu_request.clone(),
            cpu_limit: self.cpu_limit.clone(),
            mem_request: self.mem_request.clone(),
            mem_limit: self.mem_limit.clone(),
            disk_size: self.disk_size.clone(),
            gpu_count: self.gpu_count,
            dimension: self.dimension,
            vector_count: self.vector_count,
        }
    }

    /// What the cluster takes of its tenant's quota: each kind of good with the amount, over all replicas.
    #[must_use]
    pub fn holds(&self) -> Vec<(&'static str, u64)> {
        let all = |each: u64| {
            each.checked_mul(self.replicas.into()).expect("`parse_with` refuses what does not fit, thousandfold")
        };
        vec![
            ("clusters", 1),
            ("cpu_millis", all(self.cpu_limit.as_millis())),
            ("memory_bytes", all(self.mem_limit.as_bytes())),
            ("disk_bytes", all(self.disk_size.as_bytes())),
            ("gpus", all(self.gpu_count.into())),
        ]
    }
}

fn namespace(fields: &mut Fields, user: Option<&Tenant>, service: Option<&Service>) -> Option<Namespace> {
    let chosen = fields.optional("namespace", |text| Ok::<_, std::convert::Infallible>(text.to_owned()));
    let read = match (chosen, user, service) {
        (Some(chosen), Some(user), Some(service)) => Namespace::parse(&chosen, user, service),
        (Some(chosen), _, _) => Namespace::unpaired(&chosen),
        (None, Some(user), Some(service)) => {
            return Namespace::default_for(user, service)
                .map_err(|error| fields.wrong("user", format!("makes a default namespace that cannot be: {error}")))
                .ok();
        }
        (None, _, _) => return None,
    };
    read.map_err(|error| fields.wrong("namespace", error.to_string())).ok()
}

fn cpu(fields: &mut Fields, field: &str, quantity: Quantity) -> Option<Quantity> {
    if !quantity.is_whole_millis() {
        fields.wrong(
            field,
            format!("`{quantity}` is finer than a thousandth of a core, which is the finest there is: `1m`"),
        );
        return None;
    }
    if quantity.as_millis() < CPU_MILLIS_MIN {
        fields.wrong(field, format!("`{quantity}` is too little: at least {CPU_MILLIS_MIN}m"));
        return None;
    }
    Some(quantity)
}

fn bytes(fields: &mut Fields, field: &str, quantity: Quantity, least: u64) -> Option<Quantity> {
    let least_text = format!("{}Mi", least >> 20);
    if !quantity.is_whole() {
        fields.wrong(field, format!("`{quantity}` is no whole number of bytes: at least {least_text}, such as `10Gi`"));
        return None;
    }
    if quantity.as_bytes() < least {
        fields.wrong(field, format!("`{quantity}` is too little: at least {least_text}"));
        return None;
    }
    Some(quantity)
}

#[cfg(test)]
mod tests;
