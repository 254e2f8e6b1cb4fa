//! Rollbacks that meet what others have done to the cluster: each of these once parked, or forgot something, or took away
//! what was not ours.

use std::time::Duration;

use cairn_engine::{ErrorClass, Probe};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::bench::{Bench, made};
use super::steps::api;
use crate::cluster::gone::Deletion;
use crate::gitlab::GitLabRules;
use crate::names;
use crate::render::Kind;
use crate::sandbox::{Fault, Sandbox, SandboxOptions};

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

/// Every 409 was taken for "another object stands there": the namespace was called somebody else's and left behind.
#[tokio::test(start_paused = true)]
async fn a_conflict_while_our_own_object_is_deleted_is_tried_again() {
    let bench = rolled_out().await;
    bench.sandbox.faults().add(Fault::status(409).verb("delete").resource("namespaces").times(1));
    let error = bench.compensate("namespace_created").await.expect_err("it is still there");
    assert_eq!(error.failure.class, ErrorClass::Transient, "{error}");
    bench.compensate("namespace_created").await.expect("deleted");
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

/// What is replaced or deleted between our look and our deletion is told apart by reading it once more.
#[tokio::test(start_paused = true)]
async fn an_object_replaced_while_it_is_deleted_is_left_alone_and_one_that_went_is_gone() {
    for (replaced, wanted) in [(true, Deletion::NotOurs), (false, Deletion::Absent)] {
        let bench = rolled_out().await;
        let output = bench.state.output(&"k8s_applied".into()).expect("applied").clone();
        let map = made(&output).into_iter().find(|made| made.kind == "ConfigMap").expect("made");
        bench.sandbox.faults().add(Fault::latency(Duration::from_secs(9)).verb("delete").times(1));
        let deleting = crate::cluster::Cluster::new(bench.sandbox.client());
        let somebody = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            api(&bench, Kind::ConfigMap).delete(names::CONFIG_MAP, &DeleteParams::default()).await.expect("deleted");
            if replaced {
                let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": names::CONFIG_MAP, "namespace": "acme--search"}});
                bench.stranger(theirs).await;
            }
        };
        let workflow = bench.workflow();
        let (deletion, ()) = tokio::join!(deleting.delete_ours(&map, &workflow), somebody);
        assert_eq!(deletion.expect("an answer"), wanted);
    }
}

fn theirs(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "acme--search"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

/// The look ended at the first object of somebody else: the UIDs of what had been made before it were never journaled, the
/// compensation said that nothing was made, and the claims stayed.
#[tokio::test(start_paused = true)]
async fn what_was_made_before_a_foreign_object_was_met_is_journaled_and_taken_back() {
    let mut bench = Bench::new(json!({"replicas": 3}));
    bench.up_to("disk_configured").await;
    bench.stranger(theirs("PersistentVolumeClaim", &names::claim(2))).await;
    bench.begun("disk_configured");
    // Killed within the attempt: two claims are there, and nobody has heard of them.
    bench.run("disk_configured").await.expect_err("the third is somebody else's");
    let answer = bench.probe("disk_configured").await.expect("an answer");
    let Probe::Partly { made } = &answer else { panic!("{answer:?}") };
    assert_eq!(made.value()["made"].as_array().map(Vec::len), Some(2), "{made:?}");
    bench.probed("disk_configured", answer);
    // Forward it stays what it is: somebody else's claim, which is never taken.
    let error = bench.run("disk_configured").await.expect_err("the third is somebody else's");
    assert_eq!(error.failure.class, ErrorClass::Permanent, "{error}");
    // Where the namespace is not ours to delete, the claims go one by one.
    disown_namespace(&bench).await;
    let said = bench.compensate("disk_configured").await.expect("taken back");
    assert_eq!(said, "deleted 2 objects");
    let left = api(&bench, Kind::PersistentVolumeClaim).list(&kube::api::ListParams::default()).await.expect("a list");
    let left: Vec<String> = left.items.into_iter().filter_map(|claim| claim.metadata.name).collect();
    assert_eq!(left, [names::claim(2)]);
}

/// Takes our mark from the namespace: from now on it is not ours to delete.
async fn disown_namespace(bench: &Bench) {
    let all: kube::Api<kube::api::DynamicObject> =
        kube::Api::all_with(bench.sandbox.client(), &Kind::Namespace.api_resource());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {names::WORKFLOW_ANNOTATION: null}}}));
    all.patch("acme--search", &PatchParams::default(), &patch).await.expect("relabelled");
}

/// Steps that change what an earlier one made also make it anew where somebody has deleted it. The new UID was in no output,
/// so that the rollback took the new object for somebody else's.
#[tokio::test(start_paused = true)]
async fn what_a_later_step_makes_anew_is_journaled_and_taken_back() {
    for step in ["resources_configured", "gpu_configured", "rollout_completed"] {
        let mut bench = Bench::new(json!({"gpu_count": 1}));
        bench.up_to(step).await;
        let sets = api(&bench, Kind::StatefulSet);
        sets.delete(names::STATEFUL_SET, &DeleteParams::default()).await.expect("deleted");
        bench.begun(step);
        let output = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        let uid = sets.get(names::STATEFUL_SET).await.expect("made anew").metadata.uid;
        assert!(made(&output).iter().any(|made| Some(&made.uid) == uid.as_ref()), "{step}: {output:?}");
        bench.succeeded(step, output);
        disown_namespace(&bench).await;
        for step in ["rollout_completed", "gpu_configured", "disk_configured", "resources_configured", "k8s_applied"] {
            bench.compensate(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        }
        assert!(sets.get_opt(names::STATEFUL_SET).await.expect("an answer").is_none(), "{step}");
    }
}

/// Only the kinds that a cluster is made of were looked at: whatever else others had put into the namespace went with it.
#[tokio::test(start_paused = true)]
async fn an_object_of_a_kind_that_we_never_make_keeps_the_namespace_as_well() {
    let bench = rolled_out().await;
    let quotas: kube::Api<k8s_openapi::api::core::v1::ResourceQuota> =
        kube::Api::namespaced(bench.sandbox.client(), "acme--search");
    let theirs = serde_json::from_value(json!({"metadata": {"name": "shared"}, "spec": {"hard": {"pods": "50"}}}));
    quotas.create(&kube::api::PostParams::default(), &theirs.expect("a quota")).await.expect("created");
    let error = bench.compensate("namespace_created").await.expect_err("refused");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("ResourceQuota/shared"), "{error}");
    quotas.delete("shared", &DeleteParams::default()).await.expect("moved away");
    // The right to list Secrets is the right to read them, and often withheld.
    bench.sandbox.faults().add(Fault::status(403).verb("list").resource("secrets"));
    let said = bench.compensate("namespace_created").await.expect("deleted");
    assert!(said.ends_with("whether others had secrets there may not be seen"), "{said}");
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

/// Scaled to none, the pods were still stopping when the namespace was deleted: its controller found them, and looked again only
/// after half of their grace of 180 s (C15). The sandbox, which noticed at once, hid that.
#[tokio::test(start_paused = true)]
async fn on_a_control_plane_as_slow_as_a_real_one_a_rollback_does_not_wait_for_half_of_the_grace_of_pods() {
    let sandbox = Sandbox::open(SandboxOptions::as_slow_as_real()).expect("a sandbox in memory");
    let mut bench = Bench::on(sandbox, json!({"replicas": 2}), GitLabRules::default());
    bench.up_to("tenant_synced").await;
    let started = tokio::time::Instant::now();
    let said = bench.compensate("rollout_completed").await.expect("taken back");
    assert_eq!(said, "scaled StatefulSet/elasticsearch and Deployment/kibana to 0");
    bench.roll_back_from("gpu_configured").await;
    assert_eq!(bench.residue().await, Vec::<String>::new());
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
