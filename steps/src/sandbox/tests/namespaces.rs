//! Namespaces: made once, gone with all they hold, or held.

use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Preconditions};
use std::time::Duration;

fn named(name: &str) -> Namespace {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace")
}

async fn gone(sandbox: &Sandbox) {
    until(&Api::<Namespace>::all(sandbox.client()), "a", |found: Option<&Namespace>| found.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_exists_is_409_and_one_that_does_not_is_404() {
    let sandbox = with_namespace("a").await;
    let namespaces = Api::<Namespace>::all(sandbox.client());
    let status = refusal(namespaces.create(&PostParams::default(), &named("a")).await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (409, "AlreadyExists"));
    let status = refusal(namespaces.get("b").await.expect_err("refused"));
    assert_eq!((status.code, status.message.as_str()), (404, "namespaces \"b\" not found"));
    let map = json!({"metadata": {"name": "m"}});
    let status = refusal(apply(&Api::<ConfigMap>::namespaced(sandbox.client(), "b"), map).await.expect_err("refused"));
    assert_eq!((status.code, status.message.as_str()), (404, "namespaces \"b\" not found"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_takes_in_nothing_new_and_goes_with_all_it_holds() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(2, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let namespaces = Api::<Namespace>::all(sandbox.client());
    let deleted =
        namespaces.delete("a", &DeleteParams::default()).await.expect("deleted").left().expect("it takes a while");
    assert_eq!(deleted.status.expect("a status").phase.as_deref(), Some("Terminating"));

    let map = json!({"metadata": {"name": "m"}});
    let status = refusal(apply(&api::<ConfigMap>(&sandbox), map).await.expect_err("refused"));
    let causes = status.details.expect("details").causes;
    assert_eq!((status.code, causes[0].reason.as_str()), (403, "NamespaceTerminating"));
    let status = refusal(namespaces.create(&PostParams::default(), &named("a")).await.expect_err("refused"));
    assert_eq!(status.code, 409);
    assert!(status.message.starts_with("object is being deleted"), "{}", status.message);
    namespaces.delete("a", &DeleteParams::default()).await.expect("deleted again");

    gone(&sandbox).await;
    let left: Vec<Value> =
        sandbox.objects().into_iter().filter(|object| object["metadata"]["namespace"] == "a").collect();
    assert!(left.is_empty(), "{left:?}");
    let volumes = sandbox.objects().into_iter().filter(|object| object["kind"] == "PersistentVolume").count();
    settle().await;
    assert_eq!(volumes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_within_holds_the_namespace_and_its_conditions_name_it() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    apply(&maps, json!({"metadata": {"name": "m", "finalizers": ["example.com/hold"]}})).await.expect("applied");
    let namespaces = Api::<Namespace>::all(sandbox.client());
    namespaces.delete("a", &DeleteParams::default()).await.expect("deleted");
    settle().await;
    let held = namespaces.get("a").await.expect("still there");
    let conditions = held.status.expect("a status").conditions.expect("conditions");
    let told = conditions.iter().find(|condition| condition.type_ == "NamespaceFinalizersRemaining").expect("told");
    assert!(told.message.as_deref().expect("words").contains("example.com/hold in 1 resource instances"));

    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("m", &PatchParams::default(), &patch).await.expect("let go");
    gone(&sandbox).await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_holds_a_namespace_until_it_is_switched_off() {
    let sandbox = with_namespace("a").await;
    let hold = super::super::FaultAction::HoldNamespace { finalizer: "example.com/never".into() };
    let fault = sandbox.faults().add(super::super::Fault::new(hold).namespace("a"));
    let namespaces = Api::<Namespace>::all(sandbox.client());
    namespaces.delete("a", &DeleteParams::default()).await.expect("deleted");
    settle().await;
    let conditions = namespaces.get("a").await.expect("held").status.expect("a status").conditions.expect("conditions");
    assert!(
        conditions.iter().any(|condition| condition
            .message
            .as_deref()
            .unwrap_or_default()
            .contains("example.com/never"))
    );
    sandbox.faults().remove(fault);
    gone(&sandbox).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_on_condition_of_another_uid_is_409_and_changes_nothing() {
    let sandbox = with_namespace("a").await;
    let namespaces = Api::<Namespace>::all(sandbox.client());
    let params =
        DeleteParams::default().preconditions(Preconditions { uid: Some("other".into()), ..Preconditions::default() });
    let status = refusal(namespaces.delete("a", &params).await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(namespaces.get("a").await.expect("there").metadata.deletion_timestamp.is_none());
}

/// C15: 5 s until the controller looks, 5 s more whenever it had something new to say, else half of the grace that it found.
#[tokio::test(start_paused = true)]
async fn a_slow_namespace_goes_when_a_real_one_does() {
    for (pods, within) in [(0, 5..12), (2, 90..120)] {
        let options = SandboxOptions { pod_stop_after: Duration::from_secs(40), ..SandboxOptions::as_slow_as_real() };
        let sandbox = Sandbox::open(options).expect("opens");
        let namespaces = Api::<Namespace>::all(sandbox.client());
        namespaces.create(&PostParams::default(), &named("a")).await.expect("created");
        let mut set = stateful_set(pods, "es:1", "Parallel");
        set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(180);
        let sets = api::<StatefulSet>(&sandbox);
        apply(&sets, set).await.expect("applied");
        until(&sets, "es", set_is_rolled_out).await;
        let started = tokio::time::Instant::now();
        namespaces.delete("a", &DeleteParams::default()).await.expect("deleted");
        gone(&sandbox).await;
        let took = started.elapsed().as_secs();
        assert!(within.contains(&took), "{pods} pods: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_namespace_is_given_what_every_namespace_has_and_the_clusters_own_cannot_be_deleted() {
    let sandbox = with_namespace("a").await;
    settle().await;
    api::<k8s_openapi::api::core::v1::ServiceAccount>(&sandbox).get("default").await.expect("an account");
    api::<ConfigMap>(&sandbox).get("kube-root-ca.crt").await.expect("a certificate");
    let namespaces = Api::<Namespace>::all(sandbox.client());
    let status = refusal(namespaces.delete("kube-system", &DeleteParams::default()).await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
}
