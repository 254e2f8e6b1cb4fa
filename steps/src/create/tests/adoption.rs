//! Objects that somebody puts in the way of an apply. What was found missing was applied all the same when somebody had made it
//! by then: the server merged the two, and our mark made it ours, to be deleted by a rollback. A copy of our own manifest passed
//! for ours as well.

use std::time::Duration;

use cairn_engine::ErrorClass;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::bench::Bench;
use super::steps::api;
use crate::names;
use crate::render::Kind;
use crate::sandbox::Fault;

fn their_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"theirs": "stays"},
        "metadata": {"name": names::CONFIG_MAP, "namespace": "acme--search", "labels": {"team": "other"}}})
}

/// What of the map is anybody's intent.
async fn map(bench: &Bench) -> Value {
    let map = api(bench, Kind::ConfigMap).get(names::CONFIG_MAP).await.expect("there");
    json!({"uid": map.metadata.uid, "labels": map.metadata.labels, "annotations": map.metadata.annotations, "data": map.data["data"]})
}

#[tokio::test(start_paused = true)]
async fn an_object_made_by_somebody_between_our_look_and_our_apply_is_given_back_as_it_was() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("k8s_applied").await;
    bench.begun("k8s_applied");
    bench.sandbox.faults().add(Fault::latency(Duration::from_secs(9)).verb("apply").resource("configmaps").times(1));
    let somebody = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        bench.stranger(their_map()).await;
        map(&bench).await
    };
    let (result, before) = tokio::join!(bench.run("k8s_applied"), somebody);
    let error = result.expect_err("somebody else's");
    assert_eq!(error.failure.class, ErrorClass::Permanent, "{error}");
    assert!(error.failure.message.contains("made by somebody else at the same time"), "{error}");
    assert_eq!(error.failure.evidence, Vec::<String>::new());
    assert_eq!(map(&bench).await, before);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_replaces_ours_between_our_look_and_our_apply_is_not_changed() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("k8s_applied").await;
    bench.begun("k8s_applied");
    bench.run("k8s_applied").await.expect("applied");
    bench.sandbox.faults().add(Fault::latency(Duration::from_secs(9)).verb("apply").resource("configmaps").times(1));
    let somebody = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        api(&bench, Kind::ConfigMap).delete(names::CONFIG_MAP, &DeleteParams::default()).await.expect("deleted");
        bench.stranger(their_map()).await;
        map(&bench).await
    };
    let (result, before) = tokio::join!(bench.run("k8s_applied"), somebody);
    assert_eq!(result.expect_err("another one").failure.class, ErrorClass::Transient);
    assert_eq!(bench.run("k8s_applied").await.expect_err("theirs").failure.class, ErrorClass::Permanent);
    assert_eq!(map(&bench).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_our_manifest_with_another_uid_is_not_changed() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("resources_configured").await;
    let sets = api(&bench, Kind::StatefulSet);
    let mut copy = sets.get(names::STATEFUL_SET).await.expect("there");
    sets.delete(names::STATEFUL_SET, &DeleteParams::default()).await.expect("deleted");
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    copy.metadata.managed_fields = None;
    let before = sets.create(&PostParams::default(), &copy).await.expect("recreated");
    bench.begun("resources_configured");
    let error = bench.run("resources_configured").await.expect_err("not the one that was made");
    assert_eq!(error.failure.class, ErrorClass::Permanent, "{error}");
    assert!(error.failure.message.contains("somebody made it anew"), "{error}");
    let after = sets.get(names::STATEFUL_SET).await.expect("there");
    assert_eq!(after.data["spec"], before.data["spec"]);
}
