//! Nodes that somebody has added by hand, and nodes whose pods say nothing any more: no rollback takes them or their disks away.

use cairn_engine::{ErrorClass, Output, Probe};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{api, changing, follow, set, sizes};
use crate::create::tests::bench::{Bench, made};
use crate::names;
use crate::render::Kind;
use crate::sandbox::{Fault, PodTrouble};

/// A cluster of two nodes.
async fn two_nodes() -> Bench {
    let mut bench = Bench::new(json!({"replicas": 2}));
    bench.up_to("").await;
    bench
}

/// Somebody sets the replicas, in the name of this program or in another one.
async fn scale(bench: &Bench, manager: &str, replicas: u32) {
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api(bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &params, &patch).await.expect("scaled");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
}

/// The UID of a node's disk that is there and stays.
async fn disk(bench: &Bench, ordinal: u32) -> String {
    let claim = api(bench, Kind::PersistentVolumeClaim).get(&names::claim(ordinal)).await.expect("it is there");
    assert_eq!(claim.metadata.deletion_timestamp, None, "it is being deleted");
    claim.metadata.uid.expect("it has one")
}

async fn fails_to_roll_out(bench: &mut Bench) {
    bench.up_to("update_rolled_out").await;
    bench.begun("update_rolled_out");
    bench.run("update_rolled_out").await.expect_err("no node has that much");
}

fn change_that_fails() -> Value {
    json!({"replicas": 3, "mem_request": "8Ti", "mem_limit": "8Ti"})
}

/// What a build that did not look at what is there has journaled of the first step.
async fn started_by_an_older_build(bench: &mut Bench) {
    bench.begun("update_started");
    let Output { message, result, .. } = bench.run("update_started").await.expect("it can be changed");
    let mut result = result.value().clone();
    let fields = result.as_object_mut().expect("an object");
    assert!(fields.remove("later_claims").is_some() && fields.remove("replicas").is_some());
    bench.succeeded("update_started", Output::new(message, &result).expect("small"));
}

/// The rollout replaces the pod of the added node first, and it cannot start: nothing shows any more that it had shards.
#[tokio::test(start_paused = true)]
async fn a_rollback_leaves_a_node_that_somebody_had_added_with_its_disk() {
    for manager in [names::FIELD_MANAGER, "kubectl"] {
        let mut bench = two_nodes().await;
        scale(&bench, manager, 3).await;
        let before = disk(&bench, 2).await;
        follow(&mut bench, &change_that_fails());
        fails_to_roll_out(&mut bench).await;
        let added = bench.state.output(&"claims_added".into()).expect("done");
        assert_eq!(added.message, "0 more claims of 10Gi; there already: elasticsearch-data-elasticsearch-2");
        assert_eq!(made(added), []);
        bench.roll_back_from("update_rolled_out").await;
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        assert_eq!(disk(&bench, 2).await, before, "{manager}");
        let set = set(&bench).await;
        assert_eq!(set["spec"]["replicas"], 3, "{manager}");
        assert_eq!((&set["status"]["readyReplicas"], &set["status"]["updatedReplicas"]), (&json!(3), &json!(3)));
        let limits = &set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!(limits["memory"], "2Gi");
        assert_eq!(bench.residue().await, Vec::<String>::new());
    }
}

/// A set that is scaled down keeps the claims, and what lies on them.
#[tokio::test(start_paused = true)]
async fn a_rollback_leaves_the_disk_of_a_node_that_was_scaled_away_before() {
    let mut bench = two_nodes().await;
    scale(&bench, names::FIELD_MANAGER, 3).await;
    let before = disk(&bench, 2).await;
    scale(&bench, names::FIELD_MANAGER, 2).await;
    follow(&mut bench, &change_that_fails());
    fails_to_roll_out(&mut bench).await;
    let error = bench.compensate("update_applied").await.expect_err("it may hold data");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    let words = "elasticsearch-2 have disks that this change is not known to have made, and may hold data and votes: ";
    assert!(error.failure.message.starts_with(words), "{error}");
    bench.compensate("claims_added").await.expect("it has made none");
    assert_eq!(disk(&bench, 2).await, before);
    // A person has looked, and scaled it away.
    scale(&bench, names::FIELD_MANAGER, 2).await;
    bench.roll_back_from("update_rolled_out").await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(disk(&bench, 2).await, before);
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

/// The step that has seen the node ready is in the journal; that its pod waits now for another place says nothing.
#[tokio::test(start_paused = true)]
async fn a_rollback_takes_away_no_node_that_was_ready_and_has_lost_its_pod() {
    let mut bench = changing(json!({"replicas": 2}), json!({"replicas": 3, "cpu_limit": "3"})).await;
    bench.up_to("updated").await;
    let before = disk(&bench, 2).await;
    bench.sandbox.faults().add(Fault::pods(PodTrouble::Unschedulable).name(names::node(2)));
    let pods: kube::Api<Pod> = kube::Api::namespaced(bench.sandbox.client(), "acme--search");
    pods.delete(&names::node(2), &DeleteParams::default()).await.expect("drained");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let phase = pods.get(&names::node(2)).await.expect("made anew").status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Pending"));
    let effects = bench.effects();
    for (step, words) in [
        ("update_applied", "elasticsearch-2 have started, and may hold data and votes"),
        ("claims_added", "the set has 3 nodes, and elasticsearch-data-elasticsearch-2 are their disks"),
    ] {
        let error = bench.compensate(step).await.expect_err("it may hold data");
        assert_eq!(error.failure.class, ErrorClass::Permanent);
        assert!(error.failure.message.starts_with(words), "{error}");
    }
    assert_eq!(bench.effects(), effects);
    assert_eq!(disk(&bench, 2).await, before);
}

/// After a crash the probe finds what the step has made, and what was there: only the one is taken back.
#[tokio::test(start_paused = true)]
async fn a_probe_tells_the_disks_that_were_there_from_those_that_the_change_has_made() {
    let mut bench = two_nodes().await;
    scale(&bench, names::FIELD_MANAGER, 3).await;
    let before = disk(&bench, 2).await;
    follow(&mut bench, &json!({"replicas": 4}));
    bench.up_to("claims_added").await;
    bench.begun("claims_added");
    assert_eq!(bench.probe("claims_added").await.expect("an answer"), Probe::NotApplied);
    let output = bench.run("claims_added").await.expect("made");
    let names: Vec<String> = made(&output).into_iter().map(|one| one.name).collect();
    assert_eq!(names, [names::claim(3)]);
    assert_eq!(bench.probe("claims_added").await.expect("an answer"), Probe::Applied { output: output.clone() });
    bench.succeeded("claims_added", output);
    assert_eq!(bench.residue().await.len(), 1, "only what it has made is left by it");
    bench.compensate("claims_added").await.expect("taken back");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(disk(&bench, 2).await, before);
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

/// Between two steps a person may scale the set: the controller makes the claim, from our template and with our mark.
#[tokio::test(start_paused = true)]
async fn a_disk_that_the_controller_makes_during_the_change_is_not_taken_for_made_by_it() {
    let mut bench = changing(json!({"replicas": 2}), json!({"replicas": 3})).await;
    bench.up_to("claims_added").await;
    scale(&bench, names::FIELD_MANAGER, 3).await;
    let before = disk(&bench, 2).await;
    bench.begun("claims_added");
    let Probe::Applied { output } = bench.probe("claims_added").await.expect("an answer") else {
        panic!("it is there")
    };
    assert_eq!(made(&output), []);
    bench.succeeded("claims_added", output);
    bench.compensate("claims_added").await.expect("nothing to do");
    assert_eq!(disk(&bench, 2).await, before);
}

/// Nothing of the change is applied, and yet its claim is in use: somebody has scaled the set to it.
#[tokio::test(start_paused = true)]
async fn a_claim_of_a_change_that_another_ones_node_uses_is_not_taken_back() {
    let mut bench = changing(json!({"replicas": 2}), json!({"replicas": 3})).await;
    bench.up_to("update_applied").await;
    let before = disk(&bench, 2).await;
    scale(&bench, "kubectl", 3).await;
    let error = bench.compensate("claims_added").await.expect_err("it is in use");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.starts_with("the set has 3 nodes, and"), "{error}");
    assert_eq!(disk(&bench, 2).await, before);
}

/// An apply of the replicas that were asked for would take them away.
#[tokio::test(start_paused = true)]
async fn nodes_that_somebody_adds_during_a_change_stop_it_and_stay() {
    for step in ["update_applied", "update_rolled_out"] {
        let mut bench = changing(json!({"replicas": 2}), sizes()).await;
        bench.up_to(step).await;
        scale(&bench, names::FIELD_MANAGER, 3).await;
        let effects = bench.effects();
        bench.begun(step);
        let error = bench.run(step).await.expect_err("a node would go");
        assert!(error.failure.message.contains("was scaled to 3 by somebody"), "{step}: {error}");
        let back = bench.compensate("update_applied").await;
        match step {
            "update_applied" => assert_eq!(back.expect("taken back"), "nothing of it was applied"),
            _ => {
                let error = back.expect_err("a node would go");
                assert!(error.failure.message.starts_with("elasticsearch-2 have started"), "{error}");
            }
        }
        assert_eq!(bench.effects(), effects, "{step}");
        assert_eq!(set(&bench).await["spec"]["replicas"], 3);
    }
}

/// Such a journal does not say which claims were there: every one may have been.
#[tokio::test(start_paused = true)]
async fn a_rollback_of_a_change_that_an_older_build_began_takes_no_disk_away() {
    let mut bench = two_nodes().await;
    scale(&bench, names::FIELD_MANAGER, 3).await;
    let before = disk(&bench, 2).await;
    follow(&mut bench, &change_that_fails());
    started_by_an_older_build(&mut bench).await;
    bench.begun("claims_added");
    let claim = json!({"kind": "PersistentVolumeClaim", "name": names::claim(2), "namespace": "acme--search",
        "uid": before});
    bench.succeeded("claims_added", Output::new("1 more claims of 10Gi", &json!({"made": [claim]})).expect("small"));
    bench.up_to_next("update_applied").await;
    bench.begun("update_rolled_out");
    bench.run("update_rolled_out").await.expect_err("no node has that much");
    let error = bench.compensate("update_applied").await.expect_err("a node would go");
    assert!(error.failure.message.starts_with("elasticsearch-2 have disks"), "{error}");
    // A person has scaled it away, and not yet looked at the disk.
    scale(&bench, names::FIELD_MANAGER, 2).await;
    bench.compensate("update_applied").await.expect("taken back");
    let error = bench.compensate("claims_added").await.expect_err("nobody knows whose it is");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("may have been there before this change"), "{error}");
    assert_eq!(disk(&bench, 2).await, before);
    api(&bench, Kind::PersistentVolumeClaim).delete(&names::claim(2), &DeleteParams::default()).await.expect("deleted");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    bench.compensate("claims_added").await.expect("nothing is left");
    assert_eq!(bench.residue().await, Vec::<String>::new());
}
