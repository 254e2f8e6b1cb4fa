//! The claims for the nodes' disks, made before the nodes: by the names that the StatefulSet will look for, and of the size
//! of its template, so that no claim is resized after it is bound (C0).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Kind, Object, Part, Plan};
use crate::names;

pub(super) fn render(plan: &Plan<'_>) -> Vec<Object> {
    (0..plan.request.replicas)
        .map(|ordinal| {
            let name = names::claim(ordinal);
            let claim = PersistentVolumeClaim { spec: Some(spec(plan)), ..template(plan, &name) };
            plan.object(Kind::PersistentVolumeClaim, &name, &claim)
        })
        .collect()
}

/// The claim template of the StatefulSet. It carries our marks too: a claim that the controller makes from it is ours.
pub(super) fn claim_template(plan: &Plan<'_>) -> PersistentVolumeClaim {
    let mut template = template(plan, names::CLAIM_TEMPLATE);
    template.metadata.namespace = None;
    PersistentVolumeClaim { spec: Some(spec(plan)), ..template }
}

fn template(plan: &Plan<'_>, name: &str) -> PersistentVolumeClaim {
    let mut metadata = plan.metadata(Part::Elasticsearch, name);
    // A claim outlives versions, and a template cannot change.
    metadata.labels.get_or_insert_default().remove(names::VERSION_LABEL);
    PersistentVolumeClaim { metadata, ..PersistentVolumeClaim::default() }
}

fn spec(plan: &Plan<'_>) -> PersistentVolumeClaimSpec {
    let storage = BTreeMap::from([("storage".to_owned(), Quantity(plan.request.disk_size.to_string()))]);
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        resources: Some(VolumeResourceRequirements { requests: Some(storage), limits: None }),
        ..PersistentVolumeClaimSpec::default()
    }
}
