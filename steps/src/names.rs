//! Names: what a tenant and a service may be called, and what the objects made for them are called.
//!
//! - A tenant's and a service's name are RFC 1123 labels of at most 30 characters without `--` (C9). So `{user}--{service}`
//!   is a label too, and no other pair can make it: (user, service) ↔ namespace is one to one (I24).
//! - A namespace of the requester's own choice never has the form of another pair's, and reserved ones are out of reach.
//! - Inside a namespace all names are constants: nothing a user writes gets into an object's name, a path or a selector.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest name of a tenant or a service.
pub const NAME_CHARS_MAX: usize = 30;

/// The longest name of a namespace (RFC 1123).
pub const NAMESPACE_CHARS_MAX: usize = 63;

/// The field manager of every server-side apply: one, and it always sends the complete intent (C2).
pub const FIELD_MANAGER: &str = "cairn";
/// The field manager of what Kubernetes' own controllers make, a set's missing claims among it.
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// What a GPU is called where containers ask for one and nodes offer some (C6).
pub const GPU: &str = "nvidia.com/gpu";

/// The StatefulSet of the Elasticsearch nodes.
pub const STATEFUL_SET: &str = "elasticsearch";
/// The Service that clients of Elasticsearch use.
pub const CLIENT_SERVICE: &str = "elasticsearch";
/// The Service through which the nodes find each other, ready or not.
pub const HEADLESS_SERVICE: &str = "elasticsearch-nodes";
/// The ConfigMap that holds `elasticsearch.yml`.
pub const CONFIG_MAP: &str = "elasticsearch-config";
/// The Secret with the credentials of the cluster.
pub const SECRET: &str = "elasticsearch-credentials";
/// The PodDisruptionBudget of the Elasticsearch nodes.
pub const DISRUPTION_BUDGET: &str = "elasticsearch";
/// The Deployment, and the Service, of Kibana.
pub const KIBANA: &str = "kibana";
/// The claim template of the StatefulSet: claims are called `{template}-{stateful set}-{ordinal}`.
pub const CLAIM_TEMPLATE: &str = "elasticsearch-data";
/// The container of an Elasticsearch node.
pub const ELASTICSEARCH_CONTAINER: &str = "elasticsearch";
/// The container of Kibana.
pub const KIBANA_CONTAINER: &str = "kibana";

/// Annotation: the id of the workflow that made the object. With the journaled UID it is the proof that an object is ours (C3).
pub const WORKFLOW_ANNOTATION: &str = "cairn.dev/workflow";
/// Annotation: the tenant that the object was made for.
pub const TENANT_ANNOTATION: &str = "cairn.dev/tenant";
/// Annotation: the service that the object was made for.
pub const SERVICE_ANNOTATION: &str = "cairn.dev/service";
/// Annotation of the StatefulSet: the dimension of the vectors that the cluster is meant for.
pub const DIMENSION_ANNOTATION: &str = "cairn.dev/dimension";
/// Annotation of the StatefulSet: how many vectors the cluster is meant for.
pub const VECTOR_COUNT_ANNOTATION: &str = "cairn.dev/vector-count";
/// Annotation of the StatefulSet: the estimated bytes that these vectors need on disk.
pub const VECTOR_DISK_ANNOTATION: &str = "cairn.dev/vector-disk-bytes";
/// Annotation of the StatefulSet: the estimated bytes of page cache that these vectors need.
pub const VECTOR_MEMORY_ANNOTATION: &str = "cairn.dev/vector-memory-bytes";
/// Annotation of the StatefulSet and the Deployment: the replicas that the rollout will scale to.
pub const REPLICAS_ANNOTATION: &str = "cairn.dev/replicas";
/// Annotation of the pod template: the SHA-256 of the configuration, so that a change of it replaces the pods.
pub const CONFIG_ANNOTATION: &str = "cairn.dev/config-sha256";

/// The label that every namespace of a cluster carries, as the scripts of its users expect.
pub const CLUSTER_LABEL: (&str, &str) = ("es-cluster", "true");
/// The label by which the shared watches and the residue check find everything that was made by this program.
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", FIELD_MANAGER);
/// Label: what the program in a pod is called. With the instance it is the selector, which can never change (C3).
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label: `{user}--{service}`.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Label: `elasticsearch` or `kibana`.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Label: the version of the program in a pod.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// Label: what the parts are parts of.
pub const PART_OF_LABEL: (&str, &str) = ("app.kubernetes.io/part-of", "elasticsearch-cluster");

/// The claim of the node with this ordinal.
#[must_use]
pub fn claim(ordinal: u32) -> String {
    format!("{CLAIM_TEMPLATE}-{STATEFUL_SET}-{ordinal}")
}

/// The ordinal of the node whose disk a claim of this name is; none if no node's is called so.
#[must_use]
pub fn claim_ordinal(name: &str) -> Option<u32> {
    let ordinal = name.rsplit('-').next()?.parse().ok()?;
    (claim(ordinal) == name).then_some(ordinal)
}

/// The pod, and the Elasticsearch node, with this ordinal.
#[must_use]
pub fn node(ordinal: u32) -> String {
    format!("{STATEFUL_SET}-{ordinal}")
}

/// `{user}--{service}`: the default namespace, and the name of the instance in labels.
#[must_use]
pub fn instance(user: &Tenant, service: &Service) -> String {
    format!("{user}--{service}")
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("is empty: write lower case letters, digits and single hyphens")]
    Empty,
    /// More characters than a name may have.
    #[error("has {found} characters, and at most {max} are possible")]
    TooLong {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// Not an RFC 1123 label.
    #[error(
        "{0:?} may only have lower case letters a-z, digits and hyphens, and must begin and end with a letter or digit"
    )]
    NotALabel(String),
    /// Two hyphens next to each other, which stand between a tenant and a service.
    #[error("`{0}` has two hyphens next to each other, which are kept to separate user and service in names")]
    DoubleHyphen(String),
    /// A namespace of Kubernetes or of this program.
    #[error("`{0}` is reserved: choose a namespace that is not `default` and begins with neither `kube-` nor `cairn`")]
    Reserved(String),
    /// A namespace that has the form of another pair's default.
    #[error(
        "`{found}` has the form that is kept for other clusters: choose one without `--`, or leave it out to get `{default}`"
    )]
    OtherPair {
        /// What was written.
        found: String,
        /// What the default is.
        default: String,
    },
}

/// Checks that `text` is an RFC 1123 label of at most `max` characters. Bytes, so that look-alikes and NUL are refused too.
fn label(text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let found = text.chars().count();
    if found > max {
        return Err(NameError::TooLong { found, max });
    }
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    if !bytes.iter().all(inner) || bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
        return Err(NameError::NotALabel(text.to_owned()));
    }
    Ok(())
}

fn name(text: &str) -> Result<String, NameError> {
    label(text, NAME_CHARS_MAX)?;
    if text.contains("--") {
        return Err(NameError::DoubleHyphen(text.to_owned()));
    }
    Ok(text.to_owned())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Reads a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                name(text).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// A tenant: a request's `user`.
    Tenant
}
name_type! {
    /// A service: a request's `service_name`.
    Service
}

/// The namespace of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Namespace(String);

impl Namespace {
    /// `{user}--{service}`.
    ///
    /// # Errors
    /// [`NameError::Reserved`] when the tenant's name makes it one of Kubernetes' or of this program's.
    pub fn default_for(user: &Tenant, service: &Service) -> Result<Self, NameError> {
        Self::unreserved(instance(user, service))
    }

    /// Reads the namespace that a request of this tenant for this service chose.
    ///
    /// # Errors
    /// [`NameError`]: no label, reserved, or of the form that is kept for another pair's default.
    pub fn parse(text: &str, user: &Tenant, service: &Service) -> Result<Self, NameError> {
        let default = instance(user, service);
        if text.contains("--") && text != default {
            label(text, NAMESPACE_CHARS_MAX)?;
            return Err(NameError::OtherPair { found: text.to_owned(), default });
        }
        Self::unpaired(text)
    }

    /// Checks what can be checked while the tenant or the service is not known: label and reservation.
    ///
    /// # Errors
    /// [`NameError`]: no label, or reserved.
    pub fn unpaired(text: &str) -> Result<Self, NameError> {
        label(text, NAMESPACE_CHARS_MAX)?;
        Self::unreserved(text.to_owned())
    }

    fn unreserved(text: String) -> Result<Self, NameError> {
        if text == "default" || text.starts_with("kube-") || text.starts_with("cairn") {
            return Err(NameError::Reserved(text));
        }
        Ok(Self(text))
    }

    /// The namespace as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(text: &str) -> Tenant {
        Tenant::parse(text).expect(text)
    }

    fn service(text: &str) -> Service {
        Service::parse(text).expect(text)
    }

    #[test]
    fn plain_labels_are_names() {
        for text in ["a", "acme", "0", "a-b-c", "123", &"a".repeat(30)] {
            assert_eq!(tenant(text).as_str(), text);
        }
    }

    #[test]
    fn what_could_leave_a_path_or_meet_another_name_is_no_name() {
        let long = "a".repeat(31);
        let longer = "a".repeat(64);
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "a_b",
            "a.b",
            "a--b",
            "-a",
            "a-",
            "a b",
            "a\0",
            "a\n",
            "а",
            "ａ",
            "é",
            "a\u{200b}",
            "%2e",
            &long,
            &longer,
        ] {
            assert!(Tenant::parse(text).is_err(), "{text:?}");
            assert!(Service::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_default_namespace_is_the_pair() {
        let namespace = Namespace::default_for(&tenant("acme"), &service("search")).expect("not reserved");
        assert_eq!(namespace.as_str(), "acme--search");
    }

    #[test]
    fn reserved_namespaces_are_out_of_reach() {
        let (user, service) = (tenant("acme"), service("search"));
        for text in ["kube-system", "kube-public", "kube-x", "default", "cairn", "cairn-system"] {
            assert!(matches!(Namespace::parse(text, &user, &service), Err(NameError::Reserved(_))), "{text}");
        }
        assert!(matches!(Namespace::default_for(&tenant("kube-a"), &service), Err(NameError::Reserved(_))));
        assert!(matches!(Namespace::default_for(&tenant("cairn"), &service), Err(NameError::Reserved(_))));
    }

    #[test]
    fn a_namespace_in_the_form_of_another_pair_is_refused() {
        let (user, service) = (tenant("acme"), service("search"));
        assert!(matches!(Namespace::parse("beta--search", &user, &service), Err(NameError::OtherPair { .. })));
        assert_eq!(Namespace::parse("acme--search", &user, &service).expect("its own").as_str(), "acme--search");
        assert_eq!(Namespace::parse("vectors", &user, &service).expect("free").as_str(), "vectors");
    }

    #[test]
    fn the_claims_are_those_of_the_stateful_set() {
        assert_eq!(claim(0), "elasticsearch-data-elasticsearch-0");
    }

    proptest! {
        #[test]
        fn two_pairs_never_meet_in_one_default_namespace(
            a in "[a-z0-9](-?[a-z0-9]){0,10}", b in "[a-z0-9](-?[a-z0-9]){0,10}",
            c in "[a-z0-9](-?[a-z0-9]){0,10}", d in "[a-z0-9](-?[a-z0-9]){0,10}",
        ) {
            let one = instance(&tenant(&a), &service(&b));
            let other = instance(&tenant(&c), &service(&d));
            prop_assert_eq!(one == other, (a, b) == (c, d));
            prop_assert!(one.len() <= NAMESPACE_CHARS_MAX);
        }
    }
}
