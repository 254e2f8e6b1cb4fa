//! Rollbacks that meet what others have done to the cluster: each of these once parked, or forgot something, or took away
//! what was not ours.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::bench::Bench;
use super::steps::api;
use crate::names;
use crate::render::Kind;
use crate::sandbox::Fault;

async fn kubectl_scales(bench: &Bench, replicas: u32) {
    let params = PatchParams { field_manager: Some("kubectl-scale".to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api(bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &params, &patch).await.expect("scaled");
}

/// A creation that is through its rollout.
async fn rolled_out() -> Bench {
    let mut bench = Bench::new(json!({}));
    bench.up_to("tenant_synced").await;
    bench
}

/// The compensation applied the whole set without force: its replicas were another's by then, so that every try was a
/// conflict, and the rollback was parked for ever.
#[tokio::test(start_paused = true)]
async fn a_set_that_somebody_else_has_scaled_is_scaled_to_none_and_the_rollback_ends() {
    let bench = rolled_out().await;
    kubectl_scales(&bench, 5).await;
    let said = bench.compensate("rollout_completed").await.expect("taken back");
    assert_eq!(said, "scaled StatefulSet/elasticsearch and Deployment/kibana to 0");
    bench.roll_back_from("gpu_configured").await;
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

/// An admission rule that refuses every change of a set or a claim refused their compensations too, although the deletion
/// of the namespace takes both.
#[tokio::test(start_paused = true)]
async fn a_refusal_to_change_what_goes_with_the_namespace_does_not_stop_the_rollback() {
    for code in [403, 409, 422, 500] {
        let bench = rolled_out().await;
        for resource in ["statefulsets", "deployments", "persistentvolumeclaims", "services", "configmaps"] {
            bench.sandbox.faults().add(Fault::status(code).verb("write").resource(resource));
        }
        let said = bench.compensate("rollout_completed").await.unwrap_or_else(|error| panic!("{code}: {error}"));
        assert!(said.starts_with("scaled nothing to 0; goes with the namespace: cannot scale"), "{code}: {said}");
        bench.roll_back_from("gpu_configured").await;
        assert_eq!(bench.residue().await, Vec::<String>::new(), "{code}");
    }
}

/// Whose UID is not on record is another set, whatever it bears.
#[tokio::test(start_paused = true)]
async fn a_set_made_anew_under_our_mark_is_not_scaled() {
    let bench = rolled_out().await;
    let sets = api(&bench, Kind::StatefulSet);
    let mut copy = sets.get(names::STATEFUL_SET).await.expect("there");
    sets.delete(names::STATEFUL_SET, &DeleteParams::default()).await.expect("deleted");
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    copy.metadata.managed_fields = None;
    sets.create(&kube::api::PostParams::default(), &copy).await.expect("recreated");
    let said = bench.compensate("rollout_completed").await.expect("taken back");
    assert_eq!(said, "scaled Deployment/kibana to 0");
    let set = sets.get(names::STATEFUL_SET).await.expect("still there");
    assert_eq!(set.data["spec"]["replicas"], 1);
}
