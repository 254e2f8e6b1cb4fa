//! Rollouts that something else than their pods holds up: older pods in the way, disks that are never made.

use std::time::Duration;

use cairn_engine::ErrorClass;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::bench::Bench;
use super::steps::api;
use crate::names;
use crate::render::Kind;
use crate::sandbox::{Fault, PodTrouble};

const REVISION: &str = "controller-revision-hash";

async fn revisions(bench: &Bench) -> Vec<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(bench.sandbox.client(), "acme--search");
    let ours = ListParams::default().labels(&format!("{}=elasticsearch", names::NAME_LABEL));
    let pods = pods.list(&ours).await.expect("a list").items;
    pods.into_iter().map(|pod| pod.metadata.labels.unwrap_or_default().remove(REVISION)).collect()
}

/// The controller replaces none as long as one is not ready (C15): a corrected template never reached them.
#[tokio::test(start_paused = true)]
async fn pods_of_an_older_revision_that_never_got_ready_are_replaced() {
    let mut bench = Bench::new(json!({"replicas": 3}));
    bench.up_to("rollout_completed").await;
    let unready = bench.sandbox.faults().add(Fault::pods(PodTrouble::NotReady).name("elasticsearch-"));
    let somebody = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let corrected = json!({"spec": {"template": {"metadata": {"annotations": {"corrected": "yes"}}}}});
        let set = api(&bench, Kind::StatefulSet);
        set.patch(names::STATEFUL_SET, &PatchParams::default(), &Patch::Merge(&corrected)).await.expect("patched");
        tokio::time::sleep(Duration::from_secs(20)).await;
        let newest = set.get(names::STATEFUL_SET).await.expect("there").data["status"]["updateRevision"].clone();
        let newest = newest.as_str().map(str::to_owned);
        let before = revisions(&bench).await;
        assert_eq!(before.iter().filter(|revision| **revision == newest).count(), 0, "{before:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(revisions(&bench).await, vec![newest; 3]);
        bench.sandbox.faults().remove(unready);
    };
    let (result, ()) = tokio::join!(bench.run("rollout_completed"), somebody);
    result.expect("rolled out");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_gets_no_volume_fails_the_rollout_after_its_grace_and_names_the_class() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("rollout_completed").await;
    let classes: Api<StorageClass> = Api::all(bench.sandbox.client());
    classes.delete("standard", &DeleteParams::default()).await.expect("deleted");
    let started = tokio::time::Instant::now();
    let error = bench.run("rollout_completed").await.expect_err("no disk");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    for words in [
        "PersistentVolumeClaim/elasticsearch-data-elasticsearch-0 gets no volume",
        "standard",
        "the operator sees to the storage class",
    ] {
        assert!(error.failure.message.contains(words), "{words}: {error}");
    }
    let took = started.elapsed().as_secs();
    assert!((120..140).contains(&took), "{took} s");
}

/// C1: a thousand rollouts that waited for nodes listed events two hundred times a second, each for itself.
#[tokio::test(start_paused = true)]
async fn a_rollout_that_waits_for_a_node_asks_for_events_ever_more_rarely() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("rollout_completed").await;
    bench.sandbox.faults().add(Fault::pods(PodTrouble::Unschedulable).name("elasticsearch-"));
    bench.sandbox.faults().add(Fault::latency(Duration::ZERO).verb("list").resource("events"));
    let started = tokio::time::Instant::now();
    bench.run("rollout_completed").await.expect_err("no node takes it");
    assert!(started.elapsed() >= Duration::from_secs(5 * 60));
    let asked: Vec<u64> = bench.sandbox.faults().list().iter().map(|active| active.fired).collect();
    assert!((3..=12).contains(&asked[1]), "{asked:?}");
}
