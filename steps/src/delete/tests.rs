//! Every step of a deletion on the sandbox: run twice, probed before and after, compensated twice, compensated without ever
//! having run; and what is kept, what is somebody else's, what holds on.

use cairn_engine::{ErrorClass, Outcome, Probe};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{STEPS, delete_definition};
use crate::create::create_definition;
use crate::create::tests::bench::Bench;
use crate::input::{Input, Origin};
use crate::names;
use crate::render::Kind;
use crate::request::Request;

mod kept;

/// The steps that leave something other than it was.
const EFFECTIVE: [&str; 4] = ["scaled_down", "objects_deleted", "claims_deleted", "namespace_deleted"];

/// The input of a deletion of what the last workflow on this bench has left.
fn deletion(bench: &Bench, keep_data: bool) -> Input {
    let origin = Origin::after(&bench.state).expect("readable");
    let request: Request = bench.state.submitted().input.read().expect("a request");
    Input::deletion(request, origin, bench.state.id(), keep_data)
}

/// A creation with these fields that has come this far, and a deletion of what it has made.
async fn after_creation(extra: Value, up_to: &str, keep_data: bool) -> Bench {
    let mut bench = Bench::new(extra);
    bench.up_to(up_to).await;
    let input = deletion(&bench, keep_data);
    bench.follow(delete_definition(bench.cluster()), &input);
    bench
}

async fn of_two_nodes(keep_data: bool) -> Bench {
    after_creation(json!({"replicas": 2}), "", keep_data).await
}

fn kinds(bench: &Bench) -> Vec<String> {
    let mut things = bench.things();
    // What a cluster puts into each of its namespaces.
    things.retain(|object| object["metadata"]["name"] != "kube-root-ca.crt");
    things.retain(|object| !["ServiceAccount", "Event"].iter().any(|kind| object["kind"] == *kind));
    let mut kinds: Vec<String> =
        things.iter().map(|object| object["kind"].as_str().unwrap_or_default().to_owned()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_deletion_runs_through_and_leaves_nothing() {
    let mut bench = of_two_nodes(false).await;
    bench.up_to("").await;
    assert_eq!(bench.things(), Vec::<Value>::new());
    let message = |step: &str| bench.state.output(&step.into()).expect("succeeded").message.clone();
    assert_eq!(message("delete_started"), "11 objects are to go");
    assert_eq!(
        message("scaled_down"),
        "scaled StatefulSet/elasticsearch and Deployment/kibana to 0, and no pod is left"
    );
    assert_eq!(message("objects_deleted"), "deleted 8 objects");
    assert_eq!(message("claims_deleted"), "deleted 2 objects");
    assert_eq!(message("deleted"), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_deletion_run_twice_has_one_effect() {
    for step in STEPS {
        let mut bench = of_two_nodes(false).await;
        bench.up_to(step).await;
        bench.begun(step);
        bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        let effects = bench.effects();
        bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_deletion_sees_everything_before_and_nothing_after() {
    for step in EFFECTIVE {
        let mut bench = of_two_nodes(false).await;
        bench.up_to(step).await;
        bench.begun(step);
        assert_eq!(bench.probe(step).await.expect("an answer"), Probe::NotApplied, "{step}");
        bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        let after = bench.probe(step).await.expect("an answer");
        assert!(matches!(after, Probe::Applied { .. }), "{step}: {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_a_deletion_compensated_without_ever_having_run_changes_nothing() {
    for step in STEPS {
        let mut bench = of_two_nodes(false).await;
        bench.up_to(step).await;
        let effects = bench.effects();
        bench.compensate(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_cancelled_before_anything_is_deleted_scales_back() {
    let mut bench = of_two_nodes(false).await;
    bench.up_to("scaled_down").await;
    bench.begun("scaled_down");
    let output = bench.run("scaled_down").await.expect("scaled down");
    bench.succeeded("scaled_down", output);
    let said = bench.compensate("scaled_down").await.expect("scaled back");
    assert_eq!(said, "scaled StatefulSet/elasticsearch to 2 and Deployment/kibana to 1");
    let effects = bench.effects();
    assert_eq!(bench.compensate("scaled_down").await.expect("done already"), "nothing was scaled down");
    assert_eq!(bench.effects(), effects);
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

/// What is gone does not come back: the compensation says so each time, and the residue is all that is still there.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_cannot_be_taken_back_and_says_so() {
    for step in ["objects_deleted", "claims_deleted", "namespace_deleted"] {
        let mut bench = of_two_nodes(false).await;
        bench.up_to(step).await;
        bench.begun(step);
        let output = bench.run(step).await.expect("deleted");
        bench.succeeded(step, output);
        for _ in 0..2 {
            let error = bench.compensate(step).await.expect_err("it does not come back");
            assert_eq!(error.failure.class, ErrorClass::Permanent, "{step}");
            assert!(error.failure.message.contains("does not come back"), "{step}: {error}");
        }
        assert!(!bench.residue().await.is_empty(), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_stopped_anywhere_can_be_deleted() {
    for step in crate::create::STEPS {
        let mut bench = after_creation(json!({"gpu_count": 1}), step, false).await;
        bench.up_to("").await;
        assert_eq!(bench.things(), Vec::<Value>::new(), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn kept_data_is_all_that_stays_and_a_later_creation_goes_on_with_it() {
    let mut bench = of_two_nodes(true).await;
    bench.up_to("").await;
    assert_eq!(
        kinds(&bench),
        ["Namespace", "PersistentVolumeClaim", "Secret"],
        "its own ConfigMap is in each namespace"
    );
    let uids = claim_uids(&bench);
    // A creation over it that fails takes back what it made, and leaves what was there.
    bench.finished(Outcome::Succeeded);
    let kept = Origin::after(&bench.state).expect("readable");
    let mark = kept.mark.clone();
    let request: Request = bench.state.submitted().input.read().expect("a request");
    let input = Input::over_kept_data(request, kept);
    for step in crate::create::STEPS {
        bench.follow(create_definition(bench.deps()), &input);
        bench.up_to(step).await;
        bench.begun(step);
        let output = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        bench.succeeded(step, output);
        bench.roll_back_from(step).await;
        // Its pods take a moment to end.
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
        assert_eq!(bench.residue().await, Vec::<String>::new(), "{step}");
        assert_eq!(claim_uids(&bench), uids, "{step}");
        assert_eq!(kinds(&bench), ["Namespace", "PersistentVolumeClaim", "Secret"], "{step}");
    }
    bench.follow(create_definition(bench.deps()), &input);
    bench.up_to("").await;
    assert_eq!(claim_uids(&bench), uids);
    let config = bench.things().into_iter().find(|object| object["metadata"]["name"] == names::CONFIG_MAP);
    let config = config.expect("applied")["data"]["elasticsearch.yml"].to_string();
    assert!(!config.contains("initial_master_nodes"), "the disks know their cluster: {config}");
    // And all of it goes in the end.
    let input = deletion(&bench, false);
    assert_eq!(input.origin.as_ref().map(|origin| origin.mark.clone()), Some(mark));
    bench.follow(delete_definition(bench.cluster()), &input);
    bench.up_to("").await;
    assert_eq!(bench.things(), Vec::<Value>::new());
}

fn claim_uids(bench: &Bench) -> Vec<String> {
    let claims = bench.things().into_iter().filter(|object| object["kind"] == "PersistentVolumeClaim");
    claims.map(|claim| claim["metadata"]["uid"].as_str().unwrap_or_default().to_owned()).collect()
}

/// I15: said before anything is deleted, and not once half of it is gone.
#[tokio::test(start_paused = true)]
async fn what_others_have_put_into_the_namespace_stops_a_deletion_before_it_begins() {
    let bench = of_two_nodes(false).await;
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": "acme--search"}});
    bench.stranger(theirs).await;
    let effects = bench.effects();
    let error = bench.run("delete_started").await.expect_err("refused");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("ConfigMap/theirs"), "{error}");
    assert_eq!(bench.effects(), effects);
    let mut keeping = of_two_nodes(true).await;
    keeping
        .stranger(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "theirs", "namespace": "acme--search"}}))
        .await;
    keeping.up_to("").await;
    assert!(keeping.things().iter().any(|object| object["metadata"]["name"] == "theirs"));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_somebody_made_anew_under_our_mark_is_left_alone() {
    let mut bench = of_two_nodes(false).await;
    let all: kube::Api<kube::api::DynamicObject> =
        kube::Api::all_with(bench.sandbox.client(), &Kind::Namespace.api_resource());
    let mark = bench.state.submitted().input.value()["origin"]["mark"].clone();
    all.delete("acme--search", &DeleteParams::default()).await.expect("deleted");
    while all.get_opt("acme--search").await.expect("an answer").is_some() {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    let again = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "acme--search", "annotations": {names::WORKFLOW_ANNOTATION: mark}}});
    bench.stranger(again).await;
    bench.up_to("deleted").await;
    assert!(all.get_opt("acme--search").await.expect("an answer").is_some());
    let started = bench.state.output(&"delete_started".into()).expect("succeeded");
    assert!(started.message.contains("made anew by somebody else"), "{}", started.message);
}

/// C7: named, and never taken away.
#[tokio::test(start_paused = true)]
async fn a_finalizer_that_holds_the_namespace_is_named_and_waited_for() {
    let mut bench = of_two_nodes(false).await;
    let claims: kube::Api<kube::api::DynamicObject> =
        kube::Api::namespaced_with(bench.sandbox.client(), "acme--search", &Kind::PersistentVolumeClaim.api_resource());
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let params = PatchParams::default();
    claims.patch(&names::claim(1), &params, &hold(json!(["example.com/backup"]))).await.expect("held");
    bench.up_to("claims_deleted").await;
    bench.begun("claims_deleted");
    let error = bench.run("claims_deleted").await.expect_err("held");
    assert_eq!(error.failure.class, ErrorClass::Transient);
    assert!(error.failure.message.contains("finalizer example.com/backup"), "{error}");
    claims.patch(&names::claim(1), &params, &hold(Value::Null)).await.expect("let go");
    bench.run("claims_deleted").await.expect("gone");
}

#[tokio::test(start_paused = true)]
async fn the_end_names_what_came_after_the_list_was_made() {
    let mut bench = of_two_nodes(true).await;
    bench.up_to("deleted").await;
    let mark = bench.state.submitted().input.value()["origin"]["mark"].clone();
    bench
        .stranger(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late",
        "namespace": "acme--search", "annotations": {names::WORKFLOW_ANNOTATION: mark}}}))
        .await;
    let error = bench.run("deleted").await.expect_err("it is still there");
    assert!(error.failure.message.contains("ConfigMap/late in namespace acme--search; delete it"), "{error}");
}

#[test]
fn the_steps_are_the_statuses_of_the_reports() {
    assert_eq!(STEPS, crate::report::DELETE_STATUSES);
}
