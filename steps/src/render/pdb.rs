//! The disruption budget: one Elasticsearch node at a time may be taken away by a drain.
//!
//! As `maxUnavailable`, so that a change of replicas needs no change here; a cluster of one node does not block a drain (C10).

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Kind, Object, Part, Plan};
use crate::names;

pub(super) fn render(plan: &Plan<'_>) -> Object {
    let budget = PodDisruptionBudget {
        metadata: plan.metadata(Part::Elasticsearch, names::DISRUPTION_BUDGET),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(plan.selector(Part::Elasticsearch)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    };
    plan.object(Kind::PodDisruptionBudget, names::DISRUPTION_BUDGET, &budget)
}
