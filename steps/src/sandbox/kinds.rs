//! The kinds that the sandbox serves, and their schema.
//!
//! - One row a kind: its names, its scope, its subresources. Paths, discovery and tables read nothing else.
//! - The schema is k8s-openapi's own types: an object is decoded into its type and encoded again, so that
//!   a field of the wrong type is refused, and one that the type does not know is found by its absence afterwards.
//!
//! Not here: defaults (`defaults.rs`), rules across fields (`validate.rs`), merge keys (`fields.rs`).

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::storage::v1 as storage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A kind of object that the sandbox serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Namespace,
    Node,
    PersistentVolume,
    StorageClass,
    ConfigMap,
    Endpoints,
    Event,
    PersistentVolumeClaim,
    Pod,
    ResourceQuota,
    Secret,
    Service,
    ServiceAccount,
    ControllerRevision,
    Deployment,
    ReplicaSet,
    StatefulSet,
    EndpointSlice,
    PodDisruptionBudget,
}

/// What the world calls a kind, and what can be done with it.
pub(super) struct Info {
    /// API group, empty for the core group.
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) namespaced: bool,
    pub(super) subresources: &'static [&'static str],
    /// Whether `kubectl get all` lists it.
    pub(super) in_all: bool,
}

impl Kind {
    /// Every kind; the order in which a namespace's content is deleted, owners after what they own.
    pub(super) const ALL: [Kind; 19] = [
        Kind::Namespace,
        Kind::Node,
        Kind::PersistentVolume,
        Kind::StorageClass,
        Kind::ConfigMap,
        Kind::Endpoints,
        Kind::Event,
        Kind::PersistentVolumeClaim,
        Kind::Pod,
        Kind::ResourceQuota,
        Kind::Secret,
        Kind::Service,
        Kind::ServiceAccount,
        Kind::ControllerRevision,
        Kind::Deployment,
        Kind::ReplicaSet,
        Kind::StatefulSet,
        Kind::EndpointSlice,
        Kind::PodDisruptionBudget,
    ];

    pub(super) fn info(self) -> &'static Info {
        &INFOS[self as usize]
    }

    /// `v1`, `apps/v1`: every group served here has the one version.
    pub(super) fn api_version(self) -> &'static str {
        match self.info().group {
            "" => "v1",
            "apps" => "apps/v1",
            "discovery.k8s.io" => "discovery.k8s.io/v1",
            "policy" => "policy/v1",
            _ => "storage.k8s.io/v1",
        }
    }

    /// `pods`, `statefulsets.apps`: the name in messages and in quota keys.
    pub(super) fn qualified(self) -> String {
        let info = self.info();
        if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) }
    }

    pub(super) fn find(group: &str, plural: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.info().group == group && kind.info().plural == plural)
    }

    pub(super) fn named(kind: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|candidate| candidate.info().kind == kind)
    }

    /// Whether `metadata.generation` counts the changes of its spec.
    pub(super) fn has_generation(self) -> bool {
        matches!(self, Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::PodDisruptionBudget)
    }

    pub(super) fn has_status(self) -> bool {
        self.info().subresources.contains(&"status")
    }

    /// The object as its type has it: unknown fields and nulls are gone.
    ///
    /// # Errors
    /// A field has the wrong type, or `apiVersion` or `kind` are another kind's.
    pub(super) fn decode(self, value: &Value) -> Result<Value, serde_json::Error> {
        match self {
            Kind::Namespace => through::<core::Namespace>(value),
            Kind::Node => through::<core::Node>(value),
            Kind::PersistentVolume => through::<core::PersistentVolume>(value),
            Kind::StorageClass => through::<storage::StorageClass>(value),
            Kind::ConfigMap => through::<core::ConfigMap>(value),
            Kind::Endpoints => through::<core::Endpoints>(value),
            Kind::Event => through::<core::Event>(value),
            Kind::PersistentVolumeClaim => through::<core::PersistentVolumeClaim>(value),
            Kind::Pod => through::<core::Pod>(value),
            Kind::ResourceQuota => through::<core::ResourceQuota>(value),
            Kind::Secret => through::<core::Secret>(value),
            Kind::Service => through::<core::Service>(value),
            Kind::ServiceAccount => through::<core::ServiceAccount>(value),
            Kind::ControllerRevision => through::<apps::ControllerRevision>(value),
            Kind::Deployment => through::<apps::Deployment>(value),
            Kind::ReplicaSet => through::<apps::ReplicaSet>(value),
            Kind::StatefulSet => through::<apps::StatefulSet>(value),
            Kind::EndpointSlice => through::<discovery::EndpointSlice>(value),
            Kind::PodDisruptionBudget => through::<policy::PodDisruptionBudget>(value),
        }
    }
}

/// A SelfSubjectAccessReview as its type has it. It is answered, not kept, so it is no [`Kind`].
pub(super) fn decode_access_review(value: &Value) -> Result<Value, serde_json::Error> {
    through::<authorization::SelfSubjectAccessReview>(value)
}

fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(value)?)
}

/// The paths that are in `sent` and not in `known`: fields that the kind's type does not have.
pub(super) fn unknown_fields(sent: &Value, known: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect_unknown(sent, Some(known), "", &mut found);
    found
}

fn collect_unknown(sent: &Value, known: Option<&Value>, path: &str, found: &mut Vec<String>) {
    match (sent, known) {
        // Nulls, and lists and maps with nothing in them, are dropped by an encoder without being unknown.
        (Value::Null, _) => {}
        (Value::Object(sent), None) if sent.is_empty() => {}
        (Value::Array(sent), None) if sent.is_empty() => {}
        (_, None) => found.push(path.to_owned()),
        (Value::Object(sent), Some(Value::Object(known))) => {
            for (name, value) in sent {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                // FieldsV1 is free-form, and nobody's typo.
                if at == "metadata.managedFields" {
                    continue;
                }
                collect_unknown(value, known.get(name), &at, found);
            }
        }
        (Value::Array(sent), Some(Value::Array(known))) => {
            for (index, value) in sent.iter().enumerate() {
                collect_unknown(value, known.get(index), &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

const STATUS: &[&str] = &["status"];
const SCALED: &[&str] = &["status", "scale"];

/// In the order of [`Kind`]'s variants.
static INFOS: [Info; 19] = [
    row("", "Namespace", "namespaces", "namespace", &["ns"], false, &["status", "finalize"], false),
    row("", "Node", "nodes", "node", &["no"], false, STATUS, false),
    row("", "PersistentVolume", "persistentvolumes", "persistentvolume", &["pv"], false, STATUS, false),
    row("storage.k8s.io", "StorageClass", "storageclasses", "storageclass", &["sc"], false, &[], false),
    row("", "ConfigMap", "configmaps", "configmap", &["cm"], true, &[], false),
    row("", "Endpoints", "endpoints", "endpoints", &["ep"], true, &[], false),
    row("", "Event", "events", "event", &["ev"], true, &[], false),
    row("", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", &["pvc"], true, STATUS, false),
    row("", "Pod", "pods", "pod", &["po"], true, &["status", "log"], true),
    row("", "ResourceQuota", "resourcequotas", "resourcequota", &["quota"], true, STATUS, false),
    row("", "Secret", "secrets", "secret", &[], true, &[], false),
    row("", "Service", "services", "service", &["svc"], true, STATUS, true),
    row("", "ServiceAccount", "serviceaccounts", "serviceaccount", &["sa"], true, &[], false),
    row("apps", "ControllerRevision", "controllerrevisions", "controllerrevision", &[], true, &[], false),
    row("apps", "Deployment", "deployments", "deployment", &["deploy"], true, SCALED, true),
    row("apps", "ReplicaSet", "replicasets", "replicaset", &["rs"], true, SCALED, true),
    row("apps", "StatefulSet", "statefulsets", "statefulset", &["sts"], true, SCALED, true),
    row("discovery.k8s.io", "EndpointSlice", "endpointslices", "endpointslice", &[], true, &[], false),
    row("policy", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget", &["pdb"], true, STATUS, false),
];

#[expect(clippy::too_many_arguments, reason = "a row of a table, read as one")]
const fn row(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    subresources: &'static [&'static str],
    in_all: bool,
) -> Info {
    Info { group, kind, plural, singular, short, namespaced, subresources, in_all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_stands_at_its_own_row() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.info().kind), Some(kind));
            assert_eq!(format!("{kind:?}"), kind.info().kind);
        }
    }

    #[test]
    fn a_field_that_the_type_does_not_have_is_named_with_its_path() {
        let sent = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "a"},
            "spec": {"replica": 1, "selector": {}, "serviceName": "a",
                "template": {"spec": {"containers": [{"name": "c", "imagee": "x"}]}}}});
        let known = Kind::StatefulSet.decode(&sent).expect("types are right");
        assert_eq!(unknown_fields(&sent, &known), ["spec.replica", "spec.template.spec.containers[0].imagee"]);
    }
}
