//! `render(request, through)`: the objects of a cluster, as a pure function of the request and of how far its creation has come.
//!
//! - Each call gives the **complete intent so far**. A step that applies it under the one field manager takes nothing back
//!   that an earlier step set (C0, C2): what an earlier render holds, a later one holds too. Two things change on the way, by
//!   design: the replicas, which are 0 until the rollout, and the bootstrap list, which goes once the cluster has formed (C10).
//! - Nothing starts before [`Through::RolloutCompleted`], so no step in between can cause a restart.
//! - The same arguments give the same bytes, on every machine.

mod claims;
mod configmap;
mod deployment;
mod namespace;
mod pdb;
mod pod;
mod secret;
mod services;
mod statefulset;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use serde::Serialize;
use serde_json::Value;

use crate::elastic::Elastic;
use crate::names;
use crate::request::Request;
use crate::settings::Settings;

/// How far a creation has come. Later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Through {
    /// The namespace with its marks.
    NamespaceCreated,
    /// Services, configuration, credentials, disruption budget, StatefulSet and Deployment, both at 0 replicas.
    K8sApplied,
    /// CPU, memory, heap, and what the cluster is meant for.
    ResourcesConfigured,
    /// The claims.
    DiskConfigured,
    /// The GPUs.
    GpuConfigured,
    /// Both at the wanted replicas.
    RolloutCompleted,
    /// The nodes have found each other: the bootstrap list is gone.
    Formed,
}

impl Through {
    /// Every stage in order.
    pub const ALL: [Self; 7] = [
        Self::NamespaceCreated,
        Self::K8sApplied,
        Self::ResourcesConfigured,
        Self::DiskConfigured,
        Self::GpuConfigured,
        Self::RolloutCompleted,
        Self::Formed,
    ];
}

/// The kinds of objects that a cluster is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1 Namespace`
    Namespace,
    /// `v1 Service`
    Service,
    /// `v1 ConfigMap`
    ConfigMap,
    /// `v1 Secret`
    Secret,
    /// `policy/v1 PodDisruptionBudget`
    PodDisruptionBudget,
    /// `apps/v1 StatefulSet`
    StatefulSet,
    /// `apps/v1 Deployment`
    Deployment,
    /// `v1 PersistentVolumeClaim`
    PersistentVolumeClaim,
}

impl Kind {
    /// Every kind, in the order in which they are applied.
    pub const ALL: [Self; 8] = [
        Self::Namespace,
        Self::Service,
        Self::ConfigMap,
        Self::Secret,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
        Self::Deployment,
        Self::PersistentVolumeClaim,
    ];

    /// Group, version and plural, as the API server knows the kind.
    #[must_use]
    pub fn api_resource(self) -> ApiResource {
        let (group, plural) = match self {
            Self::Namespace => ("", "namespaces"),
            Self::Service => ("", "services"),
            Self::ConfigMap => ("", "configmaps"),
            Self::Secret => ("", "secrets"),
            Self::PodDisruptionBudget => ("policy", "poddisruptionbudgets"),
            Self::StatefulSet => ("apps", "statefulsets"),
            Self::Deployment => ("apps", "deployments"),
            Self::PersistentVolumeClaim => ("", "persistentvolumeclaims"),
        };
        ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") },
            kind: self.to_string(),
            plural: plural.to_owned(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One object, ready to be applied. Printed as `StatefulSet/elasticsearch`.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The namespace it lies in; a Namespace lies in none.
    pub namespace: Option<String>,
    /// The whole manifest, with `apiVersion` and `kind`.
    pub body: Value,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Whose work the objects are: written on each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The id of the workflow that makes them.
    pub workflow: String,
}

/// All that a render depends on.
struct Plan<'a> {
    request: &'a Request,
    elastic: &'a Elastic,
    through: Through,
    settings: Option<&'a Settings>,
    marks: &'a Marks,
}

/// The objects of the cluster that `request` asks for, as they shall be once its creation has come `through` this far.
#[must_use]
pub fn render(
    request: &Request,
    elastic: &Elastic,
    through: Through,
    settings: Option<&Settings>,
    marks: &Marks,
) -> Vec<Object> {
    let plan = Plan { request, elastic, through, settings, marks };
    let mut objects = vec![namespace::render(&plan)];
    if through >= Through::K8sApplied {
        objects.extend(services::render(&plan));
        objects.push(configmap::render(&plan));
        objects.push(secret::render(&plan));
        objects.push(pdb::render(&plan));
        objects.push(statefulset::render(&plan));
        objects.push(deployment::render(&plan));
    }
    if through >= Through::DiskConfigured {
        objects.extend(claims::render(&plan));
    }
    objects
}

/// The parts of a cluster that are told apart by labels.
#[derive(Clone, Copy)]
enum Part {
    Elasticsearch,
    Kibana,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Elasticsearch => "elasticsearch",
            Self::Kibana => "kibana",
        }
    }
}

impl Plan<'_> {
    fn namespace(&self) -> Option<String> {
        Some(self.request.namespace.to_string())
    }

    fn instance(&self) -> String {
        names::instance(&self.request.user, &self.request.service_name)
    }

    /// The replicas that a workload is rendered with: none before the rollout.
    fn replicas(&self, wanted: u32) -> Option<i32> {
        let replicas = if self.through >= Through::RolloutCompleted { wanted } else { 0 };
        Some(i32::try_from(replicas).expect("a request has at most 100 replicas"))
    }

    /// The labels of a selector: few, and the same for ever, because a selector cannot change (C3).
    fn selector(&self, part: Part) -> BTreeMap<String, String> {
        [(names::NAME_LABEL, part.name().to_owned()), (names::INSTANCE_LABEL, self.instance())].map(owned).into()
    }

    fn labels(&self, part: Part) -> BTreeMap<String, String> {
        let mut labels = self.selector(part);
        labels.extend(
            [
                (names::COMPONENT_LABEL, part.name().to_owned()),
                (names::VERSION_LABEL, self.elastic.version().to_owned()),
                (names::PART_OF_LABEL.0, names::PART_OF_LABEL.1.to_owned()),
                (names::MANAGED_BY_LABEL.0, names::MANAGED_BY_LABEL.1.to_owned()),
            ]
            .map(owned),
        );
        labels
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        [
            (names::WORKFLOW_ANNOTATION, self.marks.workflow.clone()),
            (names::TENANT_ANNOTATION, self.request.user.to_string()),
            (names::SERVICE_ANNOTATION, self.request.service_name.to_string()),
        ]
        .map(owned)
        .into()
    }

    fn metadata(&self, part: Part, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: self.namespace(),
            labels: Some(self.labels(part)),
            annotations: Some(self.annotations()),
            ..ObjectMeta::default()
        }
    }

    fn object(&self, kind: Kind, name: &str, body: &impl Serialize) -> Object {
        Object {
            kind,
            name: name.to_owned(),
            namespace: if kind == Kind::Namespace { None } else { self.namespace() },
            body: serde_json::to_value(body).expect("the types of k8s-openapi are plain JSON"),
        }
    }
}

fn owned((key, value): (&str, String)) -> (String, String) {
    (key.to_owned(), value)
}

#[cfg(test)]
mod tests;
