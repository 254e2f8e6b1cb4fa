//! The namespace: its label is what the scripts of its users look for, its annotations are whose it is.

use k8s_openapi::api::core::v1::Namespace;

use super::{Kind, Object, Part, Plan};
use crate::names;

pub(super) fn render(plan: &Plan<'_>) -> Object {
    let name = plan.request.namespace.as_str();
    let mut metadata = plan.metadata(Part::Elasticsearch, name);
    metadata.namespace = None;
    let labels = metadata.labels.get_or_insert_default();
    // A namespace is no part and has no version of its own.
    for label in [names::NAME_LABEL, names::COMPONENT_LABEL, names::VERSION_LABEL] {
        labels.remove(label);
    }
    labels.insert(names::CLUSTER_LABEL.0.to_owned(), names::CLUSTER_LABEL.1.to_owned());
    plan.object(Kind::Namespace, name, &Namespace { metadata, ..Namespace::default() })
}
