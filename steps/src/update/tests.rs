//! Every step of a change on the sandbox: run twice, probed before and after, compensated twice, compensated without ever having
//! run; what a rollback restores, and what it must not take away.

mod scaled;

use cairn_engine::{ErrorClass, Probe};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{STEPS, update_definition};
use crate::cluster::rollout::RolloutRules;
use crate::create::tests::bench::Bench;
use crate::input::{Input, Origin};
use crate::names;
use crate::render::Kind;
use crate::request::Request;
use crate::sandbox::{Fault, PodTrouble};

/// The steps that leave something other than it was.
const EFFECTIVE: [&str; 4] = ["claims_added", "update_applied", "update_rolled_out", "disk_grown"];

/// A cluster with these fields, and a change of it.
async fn changing(extra: Value, change: Value) -> Bench {
    let mut bench = Bench::new(extra);
    bench.up_to("").await;
    follow(&mut bench, &change);
    bench
}

fn follow(bench: &mut Bench, change: &Value) {
    let origin = Origin::after(&bench.state).expect("readable");
    let before: Request = bench.state.submitted().input.read().expect("a request");
    let request = before.changed_by(change.to_string().as_bytes()).expect("a good change");
    let input = Input::change(before, request, origin);
    bench.follow(update_definition(bench.cluster(), RolloutRules::default()), &input);
}

/// Everything that can change does.
fn whole() -> Value {
    json!({"replicas": 3, "cpu_limit": "3", "mem_limit": "4Gi", "disk_size": "20Gi", "gpu_count": 1})
}

/// What can be taken back at any point.
fn sizes() -> Value {
    json!({"cpu_request": "250m", "cpu_limit": "3", "mem_limit": "4Gi", "gpu_count": 1})
}

fn api(bench: &Bench, kind: Kind) -> kube::Api<kube::api::DynamicObject> {
    kube::Api::namespaced_with(bench.sandbox.client(), "acme--search", &kind.api_resource())
}

async fn set(bench: &Bench) -> Value {
    serde_json::to_value(api(bench, Kind::StatefulSet).get(names::STATEFUL_SET).await.expect("there")).expect("JSON")
}

/// What is asked of each object, without what the server keeps beside it.
fn asked(bench: &Bench) -> Vec<Value> {
    let mut things = bench.things();
    things.retain(|object| Kind::ALL.iter().any(|kind| object["kind"] == kind.to_string()));
    let part = |object: &Value| {
        json!({"kind": object["kind"], "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
            "annotations": object["metadata"]["annotations"], "labels": object["metadata"]["labels"],
            "spec": object["spec"], "data": object["data"]})
    };
    things.iter().map(part).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_runs_through_and_leaves_what_was_asked_for() {
    let mut bench = changing(json!({}), whole()).await;
    let before = set(&bench).await;
    bench.up_to("").await;
    let after = set(&bench).await;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["spec"]["replicas"], 3);
    let container = &after["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"], json!({"cpu": "3", "memory": "4Gi", "nvidia.com/gpu": "1"}));
    assert!(container["env"].to_string().contains("-Xms2048m -Xmx2048m"), "{container}");
    // C4: the template can never change; the claims do.
    assert_eq!(after["spec"]["volumeClaimTemplates"], before["spec"]["volumeClaimTemplates"]);
    for ordinal in 0..3 {
        let claim = api(&bench, Kind::PersistentVolumeClaim).get(&names::claim(ordinal)).await.expect("there");
        assert_eq!(claim.data["spec"]["resources"]["requests"]["storage"], "20Gi", "{ordinal}");
        assert_eq!(claim.data["status"]["capacity"]["storage"], "20Gi", "{ordinal}");
    }
    let message = |step: &str| bench.state.output(&step.into()).expect("succeeded").message.clone();
    assert_eq!(
        message("update_started"),
        "replicas from 1 to 3, cpu_limit from 2 to 3, mem_limit from 2Gi to 4Gi, disk_size from 10Gi to 20Gi, gpu_count from 0 to 1"
    );
    assert_eq!(message("claims_added"), "2 more claims of 20Gi");
    assert_eq!(message("update_applied"), "applied StatefulSet/elasticsearch");
    assert_eq!(message("update_rolled_out"), "ready: StatefulSet/elasticsearch 3/3");
    assert_eq!(message("disk_grown"), "3 claims have 20Gi");
}

/// A node that is added must join what is there: the bootstrap list does not come back (C10).
#[tokio::test(start_paused = true)]
async fn nodes_that_are_added_find_no_bootstrap_list() {
    let mut bench = changing(json!({}), json!({"replicas": 3})).await;
    let (before, pods) = (set(&bench).await, bench.things());
    bench.up_to("").await;
    let config = api(&bench, Kind::ConfigMap).get(names::CONFIG_MAP).await.expect("there");
    assert!(!config.data.to_string().contains("initial_master_nodes"));
    // And the node that is there is not restarted for them.
    assert_eq!(set(&bench).await["spec"]["template"], before["spec"]["template"]);
    let first = |things: &[Value]| {
        let pod = things.iter().find(|object| object["metadata"]["name"] == names::node(0) && object["kind"] == "Pod");
        pod.map(|pod| pod["metadata"]["uid"].clone())
    };
    assert_eq!(first(&bench.things()), first(&pods));
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_change_run_twice_has_one_effect() {
    for step in STEPS {
        let mut bench = changing(json!({}), whole()).await;
        bench.up_to(step).await;
        bench.begun(step);
        let first = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        let effects = bench.effects();
        let second = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(second.result, first.result, "{step}");
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_change_sees_nothing_before_and_everything_after() {
    for step in EFFECTIVE {
        let mut bench = changing(json!({}), whole()).await;
        bench.up_to(step).await;
        bench.begun(step);
        assert_eq!(bench.probe(step).await.expect("an answer"), Probe::NotApplied, "{step}");
        let output = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(bench.probe(step).await.expect("an answer"), Probe::Applied { output }, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_change_compensated_without_ever_having_run_changes_nothing() {
    for step in STEPS {
        let mut bench = changing(json!({}), whole()).await;
        bench.up_to(step).await;
        let effects = bench.effects();
        if !matches!(step, "update_rolled_out" | "disk_grown" | "updated") {
            bench.compensate(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        }
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_from_any_step_leaves_everything_as_it_was_and_may_be_repeated() {
    for step in STEPS {
        let mut bench = changing(json!({"replicas": 2}), sizes()).await;
        let before = asked(&bench);
        bench.up_to(step).await;
        bench.begun(step);
        let output = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        bench.succeeded(step, output);
        bench.roll_back_from(step).await;
        let differences = before.iter().zip(asked(&bench)).filter(|(before, after)| *before != after);
        assert_eq!(differences.collect::<Vec<_>>(), [], "{step}");
        assert_eq!(bench.residue().await, Vec::<String>::new(), "{step}");
        let effects = bench.effects();
        bench.roll_back_from(step).await;
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

/// Nodes that never started hold nothing: they and their claims are taken back.
#[tokio::test(start_paused = true)]
async fn nodes_that_could_not_start_are_taken_back_with_their_claims() {
    let mut bench = changing(json!({}), json!({"replicas": 3, "mem_request": "8Ti", "mem_limit": "8Ti"})).await;
    let before = asked(&bench);
    bench.up_to("update_rolled_out").await;
    bench.begun("update_rolled_out");
    let error = bench.run("update_rolled_out").await.expect_err("no node has that much");
    assert_eq!(error.failure.class, ErrorClass::Permanent, "{error}");
    bench.roll_back_from("update_rolled_out").await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(bench.residue().await, Vec::<String>::new());
    assert_eq!(asked(&bench), before);
}

/// The only copy of a shard may lie on a node that was added and has started.
#[tokio::test(start_paused = true)]
async fn a_rollback_takes_away_no_node_that_has_started_until_a_person_has() {
    let mut bench = changing(json!({}), json!({"replicas": 2})).await;
    bench.up_to("updated").await;
    let effects = bench.effects();
    let error = bench.compensate("update_applied").await.expect_err("it may hold data");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.starts_with("elasticsearch-1 have started"), "{error}");
    assert_eq!(bench.effects(), effects);
    assert!(!bench.residue().await.is_empty(), "its claim is there");
    // A person has moved everything off it, and scaled it away.
    let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
    api(&bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &PatchParams::default(), &patch).await.expect("scaled");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    for step in ["update_applied", "claims_added"] {
        bench.compensate(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_has_grown_cannot_be_taken_back_and_says_so() {
    let mut bench = changing(json!({"replicas": 2}), json!({"disk_size": "20Gi"})).await;
    assert_eq!(bench.compensate("disk_grown").await.expect("nothing to do"), "no disk has grown");
    bench.up_to("updated").await;
    let error = bench.compensate("disk_grown").await.expect_err("it cannot be made smaller");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("elasticsearch-data-elasticsearch-0 from 10Gi to 20Gi"), "{error}");
    for step in ["update_applied", "update_rolled_out"] {
        assert!(bench.state.output(&step.into()).expect("done").skipped, "no pod is restarted for a disk");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_whose_class_cannot_grow_is_refused_before_anything_changes() {
    let bench = changing(json!({}), json!({"disk_size": "20Gi", "replicas": 3})).await;
    let classes: kube::Api<k8s_openapi::api::storage::v1::StorageClass> = kube::Api::all(bench.sandbox.client());
    let claim = api(&bench, Kind::PersistentVolumeClaim).get(&names::claim(0)).await.expect("there");
    let class = claim.data["spec"]["storageClassName"].as_str().expect("a class").to_owned();
    let patch = Patch::Merge(json!({"allowVolumeExpansion": false}));
    classes.patch(&class, &PatchParams::default(), &patch).await.expect("changed");
    let effects = bench.effects();
    let error = bench.run("update_started").await.expect_err("it cannot grow");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("allowVolumeExpansion"), "{error}");
    assert_eq!(bench.effects(), effects);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_did_to_the_set_is_seen_before_anything_changes() {
    let bench = changing(json!({}), sizes()).await;
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}}));
    api(&bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &PatchParams::default(), &patch).await.expect("scaled");
    let error = bench.run("update_started").await.expect_err("3 nodes would be taken away");
    assert!(error.failure.message.contains("was scaled to 4 by somebody"), "{error}");
    api(&bench, Kind::StatefulSet).delete(names::STATEFUL_SET, &DeleteParams::default()).await.expect("deleted");
    let error = bench.run("update_started").await.expect_err("it is gone");
    assert!(error.failure.message.contains("is gone: somebody deleted it"), "{error}");
}

/// Seen on a real server: the change was refused, and its rollback, which was refused for the same reason, waited for a person.
#[tokio::test(start_paused = true)]
async fn a_change_that_runs_into_a_field_of_others_has_nothing_to_take_back() {
    let mut bench = changing(json!({}), sizes()).await;
    let limits = json!({"containers": [{"name": "elasticsearch", "resources": {"limits": {"memory": "3Gi"}}}]});
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": limits}}}));
    let params = PatchParams { field_manager: Some("kubectl-set".to_owned()), ..PatchParams::default() };
    api(&bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &params, &patch).await.expect("set");
    bench.up_to("update_applied").await;
    bench.begun("update_applied");
    let error = bench.run("update_applied").await.expect_err("it is kubectl-set's");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    let before = asked(&bench);
    assert_eq!(bench.compensate("update_applied").await.expect("taken back"), "nothing of it was applied");
    assert_eq!(asked(&bench), before);
}

/// The same once the change has been applied: the values are there, and a person has to see to the field.
#[tokio::test(start_paused = true)]
async fn a_change_that_is_applied_is_not_called_undone_for_a_field_of_others() {
    let mut bench = changing(json!({}), sizes()).await;
    bench.up_to("update_rolled_out").await;
    let limits = json!({"containers": [{"name": "elasticsearch", "resources": {"limits": {"memory": "3Gi"}}}]});
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": limits}}}));
    let params = PatchParams { field_manager: Some("kubectl-set".to_owned()), ..PatchParams::default() };
    api(&bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &params, &patch).await.expect("set");
    let error = bench.compensate("update_applied").await.expect_err("the other values are there");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("kubectl-set"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_could_not_start_goes_back_to_pods_that_do() {
    let mut bench = changing(json!({"replicas": 2}), json!({"mem_request": "8Ti", "mem_limit": "8Ti"})).await;
    bench.up_to("update_rolled_out").await;
    bench.begun("update_rolled_out");
    bench.run("update_rolled_out").await.expect_err("no node has that much");
    bench.roll_back_from("update_rolled_out").await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let status = &set(&bench).await["status"];
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(2), &json!(2)), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_second_change_goes_on_from_the_first() {
    let mut bench = changing(json!({}), json!({"replicas": 2, "disk_size": "20Gi"})).await;
    bench.up_to("").await;
    follow(&mut bench, &json!({"replicas": 3, "disk_size": "30Gi"}));
    let template = bench.state.submitted().input.value()["origin"]["template_disk"].clone();
    assert_eq!(template, "10Gi", "the template is that of the creation");
    bench.up_to("").await;
    for ordinal in 0..3 {
        let claim = api(&bench, Kind::PersistentVolumeClaim).get(&names::claim(ordinal)).await.expect("there");
        assert_eq!(claim.data["status"]["capacity"]["storage"], "30Gi", "{ordinal}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_nothing_applies_nothing() {
    let mut bench = changing(json!({}), json!({"replicas": 1})).await;
    let effects = bench.effects();
    bench.up_to("").await;
    assert_eq!(bench.effects(), effects);
    let started = bench.state.output(&"update_started".into()).expect("done");
    assert_eq!(started.message, "everything as it was, applied again");
}

#[test]
fn golden_statefulset_of_a_change() {
    let before = Request::parse(br#"{"user":"acme","service_name":"search"}"#).expect("good");
    let request = before.changed_by(whole().to_string().as_bytes()).expect("good");
    let origin = Origin::new("0197a000-0000-7000-8000-000000000001".to_owned(), before.disk_size.clone());
    let plan = crate::create::plan::Plan::of_living(request, &origin).expect("a plan");
    let objects = plan.objects(crate::render::Through::Formed, &[Kind::StatefulSet]);
    insta::assert_yaml_snapshot!(objects[0].body);
}

#[test]
fn the_steps_are_the_statuses_of_the_reports() {
    assert_eq!(STEPS, crate::report::UPDATE_STATUSES);
}

/// Of which manager and how a field of the set is, by the server's own book.
async fn owners_of_replicas(bench: &Bench) -> Vec<String> {
    let set = set(bench).await;
    let entries = set["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owns = |entry: &&Value| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
    let name = |entry: &Value| format!("{}/{}", entry["manager"], entry["operation"]).replace('"', "");
    let mut owners: Vec<String> = entries.iter().filter(owns).map(name).collect();
    owners.sort();
    owners
}

/// A set that is scaled by anything else than an apply has its `replicas` from another manager, although of the same name: the next
/// change ran into a conflict with ourselves.
#[tokio::test(start_paused = true)]
async fn a_change_of_replicas_follows_a_deletion_that_was_cancelled() {
    let mut bench = changing(json!({}), sizes()).await;
    let Input { before, origin, .. } = bench.state.submitted().input.read().expect("an input");
    let request = before.expect("of a change");
    let input = Input { request, before: None, keep_data: false, origin };
    bench.follow(crate::delete::delete_definition(bench.cluster()), &input);
    bench.up_to("scaled_down").await;
    bench.begun("scaled_down");
    let output = bench.run("scaled_down").await.expect("scaled down");
    bench.succeeded("scaled_down", output);
    bench.compensate("scaled_down").await.expect("scaled back");
    assert_eq!(owners_of_replicas(&bench).await, ["cairn/Update"]);
    let Input { request, origin, .. } = input;
    let before = request.clone();
    let request = before.changed_by(br#"{"replicas": 2}"#).expect("a good change");
    let input = Input { request, before: Some(before), keep_data: false, origin };
    bench.follow(update_definition(bench.cluster(), RolloutRules::default()), &input);
    bench.up_to("").await;
    assert_eq!(set(&bench).await["spec"]["replicas"], 2);
    assert_eq!(owners_of_replicas(&bench).await, ["cairn/Apply"], "and it is given back");
}

/// C2, C3: what a person has scaled is the person's. It is named, with the way to give it back, and that way works.
#[tokio::test(start_paused = true)]
async fn replicas_that_somebody_has_scaled_are_not_taken_and_the_way_to_give_them_back_works() {
    let mut bench = changing(json!({}), json!({"replicas": 3})).await;
    let by = |manager: &str| PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let to = |replicas: u32| Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let sets = api(&bench, Kind::StatefulSet);
    sets.patch_scale(names::STATEFUL_SET, &by("kubectl"), &to(2)).await.expect("scaled");
    bench.up_to("update_applied").await;
    let effects = bench.effects();
    let error = bench.run("update_applied").await.expect_err("it is somebody else's");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("others own these fields (kubectl)"), "{error}");
    assert!(error.failure.message.contains("`kubectl patch --field-manager=cairn`"), "{error}");
    assert_eq!(bench.effects(), effects);
    sets.patch(names::STATEFUL_SET, &by("cairn"), &to(3)).await.expect("given back");
    for step in ["update_applied", "update_rolled_out", "disk_grown", "updated"] {
        bench.up_to_next(step).await;
    }
    follow(&mut bench, &json!({"replicas": 4}));
    bench.up_to("").await;
    assert_eq!(set(&bench).await["spec"]["replicas"], 4);
    assert_eq!(owners_of_replicas(&bench).await, ["cairn/Apply"]);
}

/// A claim that is missing is made by the set's controller, from our template: it is as good as ours, and grows.
#[tokio::test(start_paused = true)]
async fn a_claim_that_the_controller_has_made_grows_with_the_others() {
    let mut bench = changing(json!({}), json!({"replicas": 2, "disk_size": "20Gi"})).await;
    let scaled = Patch::Merge(json!({"spec": {"replicas": 2}}));
    api(&bench, Kind::StatefulSet)
        .patch_scale(names::STATEFUL_SET, &PatchParams::default(), &scaled)
        .await
        .expect("scaled");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let claims = api(&bench, Kind::PersistentVolumeClaim);
    let managed = claims.get(&names::claim(1)).await.expect("made").metadata.managed_fields;
    let manager = managed.and_then(|entries| entries.first().and_then(|entry| entry.manager.clone()));
    assert_eq!(manager.as_deref(), Some("kube-controller-manager"));
    bench.up_to("").await;
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    for ordinal in 0..2 {
        let claim = claims.get(&names::claim(ordinal)).await.expect("there");
        assert_eq!(claim.data["status"]["capacity"]["storage"], "20Gi", "{ordinal}");
    }
}

/// The template keeps the size that the first disks had: what the controller makes of it grows although `disk_size` stays.
#[tokio::test(start_paused = true)]
async fn the_disk_of_a_node_that_somebody_has_added_becomes_as_large_as_the_others() {
    let mut bench = changing(json!({}), json!({"disk_size": "20Gi"})).await;
    bench.up_to("").await;
    follow(&mut bench, &json!({"replicas": 2}));
    let scaled = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let ours = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api(&bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &ours, &scaled).await.expect("scaled");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let claims = api(&bench, Kind::PersistentVolumeClaim);
    let made = claims.get(&names::claim(1)).await.expect("made");
    assert_eq!(made.data["spec"]["resources"]["requests"]["storage"], "10Gi");
    bench.up_to("").await;
    let grown = claims.get(&names::claim(1)).await.expect("there");
    assert_eq!(grown.data["status"]["capacity"]["storage"], "20Gi");
}

/// The controller does not replace a pod that never got ready (C15): the rollback does, and ends once all are ready.
#[tokio::test(start_paused = true)]
async fn a_rollback_replaces_the_pods_that_are_stuck_and_waits_until_all_are_ready() {
    let mut bench = changing(json!({"replicas": 2}), json!({"mem_request": "8Ti", "mem_limit": "8Ti"})).await;
    bench.up_to("update_rolled_out").await;
    bench.begun("update_rolled_out");
    bench.run("update_rolled_out").await.expect_err("no node has that much");
    let said = bench.compensate("update_applied").await.expect("taken back");
    assert_eq!(said, "applied StatefulSet/elasticsearch as before, and ready");
    let status = &set(&bench).await["status"];
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(2), &json!(2)), "{status}");
    let again = bench.compensate("update_applied").await.expect("taken back");
    assert_eq!(again, "everything is as it was, and ready");
}

/// It is parked then, and a retry after the fault ends it.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_does_not_get_ready_says_what_is_missing() {
    let mut bench = changing(json!({"replicas": 2}), sizes()).await;
    bench.up_to("updated").await;
    let unready = bench.sandbox.faults().add(Fault::pods(PodTrouble::NotReady).name("elasticsearch-"));
    let error = bench.compensate("update_applied").await.expect_err("not ready");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    let words = "everything is applied as before, and not ready again: the rollout failed: not rolled out within 600 s: waiting for \
                 StatefulSet/elasticsearch: 1 of 2 pods are ready";
    assert_eq!(error.failure.message, words);
    bench.sandbox.faults().remove(unready);
    assert_eq!(bench.compensate("update_applied").await.expect("ready"), "everything is as it was, and ready");
}

/// A change of a cluster that is in trouble already goes back to that, and nobody waits for more.
#[tokio::test(start_paused = true)]
async fn a_rollback_does_not_wait_for_what_was_not_ready_before() {
    let mut bench = changing(json!({"replicas": 2}), sizes()).await;
    bench.sandbox.faults().add(Fault::pods(PodTrouble::NotReady).name("elasticsearch-1"));
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(bench.sandbox.client(), "acme--search");
    pods.delete(&names::node(1), &DeleteParams::default()).await.expect("deleted");
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    bench.up_to("update_rolled_out").await;
    let said = bench.compensate("update_applied").await.expect("taken back");
    assert_eq!(said, "applied StatefulSet/elasticsearch as before; it was not ready before either");
}
