//! Writes as the API server takes and refuses them: apply, conflicts, validation, dry runs, quotas.

use super::*;
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota, Service};
use kube::api::{DeleteParams, ValidationDirective};

#[tokio::test(start_paused = true)]
async fn the_same_apply_again_leaves_the_version_as_it_was_and_takes_no_effect() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let before = sets.get("es").await.expect("there");
    let effects = sandbox.effects();
    let after = apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    assert_eq!(after.resource_version(), before.resource_version());
    assert_eq!(sandbox.effects(), effects);
    let last = effects.last().expect("an effect");
    assert_eq!((last.verb.as_str(), last.resource.as_str(), last.manager.as_str()), ("apply", "statefulsets", "cairn"));
    assert_eq!((last.workflow.as_deref(), last.version_before), (Some("w1"), None));
}

#[tokio::test(start_paused = true)]
async fn another_manager_with_the_same_manifest_conflicts_on_the_claim_templates_and_force_keeps_the_generation() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let mut set = stateful_set(1, "es:1", "Parallel");
    set["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("500m");
    apply(&sets, set.clone()).await.expect("applied");
    let status = refusal(apply_as(&sets, "other", set.clone()).await.expect_err("refused"));
    let causes = status.details.expect("details").causes;
    assert_eq!((status.code, causes.len()), (409, 1));
    assert_eq!(
        (causes[0].reason.as_str(), causes[0].field.as_str()),
        ("FieldManagerConflict", ".spec.volumeClaimTemplates")
    );
    assert_eq!(causes[0].message, "conflict with \"cairn\"");
    set["apiVersion"] = json!("apps/v1");
    set["kind"] = json!("StatefulSet");
    let forced = sets.patch("es", &PatchParams::apply("other").force(), &Patch::Apply(set)).await.expect("forced");
    assert_eq!(forced.metadata.generation, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_field_left_out_of_the_next_apply_goes_with_its_defaults() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let mut set = stateful_set(0, "es:1", "Parallel");
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    set["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 8080}});
    set["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = json!(1);
    let made = apply(&sets, set).await.expect("applied");
    let container = |set: &StatefulSet| {
        set.spec.as_ref().expect("a spec").template.spec.as_ref().expect("a pod").containers[0].clone()
    };
    assert_eq!(container(&made).readiness_probe.expect("a probe").period_seconds, Some(10));
    let changed = apply(&sets, stateful_set(0, "es:1", "Parallel")).await.expect("applied");
    assert!(container(&changed).readiness_probe.is_none());
    assert!(!container(&changed).resources.expect("resources").limits.expect("limits").contains_key("nvidia.com/gpu"));
    assert!(changed.spec.expect("a spec").template.spec.expect("a pod").node_selector.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_change_is_422_and_names_what_can() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    for (pointer, value) in [
        ("/spec/serviceName", json!("other")),
        ("/spec/podManagementPolicy", json!("OrderedReady")),
        ("/spec/volumeClaimTemplates/0/spec/resources/requests/storage", json!("2Gi")),
    ] {
        let mut set = stateful_set(1, "es:1", "Parallel");
        *set.pointer_mut(pointer).expect(pointer) = value;
        let status = refusal(apply(&sets, set).await.expect_err(pointer));
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{pointer}");
        assert!(status.message.contains("updates to statefulset spec for fields other than"), "{}", status.message);
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_objects_are_422_with_a_cause_for_each_field() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let cases: [(&str, Value, &str); 7] = [
        ("/metadata/name", json!("Es"), "metadata.name"),
        ("/spec/replicas", json!(-1), "spec.replicas"),
        ("/spec/template/metadata/labels/app", json!("other"), "spec.template.metadata.labels"),
        (
            "/spec/template/spec/containers/0/resources/requests/memory",
            json!("2Gi"),
            "spec.template.spec.containers[0].resources.requests",
        ),
        (
            "/spec/template/spec/containers/0/resources/limits",
            json!({"nvidia.com/gpu": "0.5"}),
            "spec.template.spec.containers[0].resources.limits.nvidia.com/gpu",
        ),
        (
            "/spec/template/spec/containers/0/resources",
            json!({"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}),
            "spec.template.spec.containers[0].resources.requests",
        ),
        (
            "/spec/template/spec/containers/0/volumeMounts/0/name",
            json!("nothing"),
            "spec.template.spec.containers[0].volumeMounts[0].name",
        ),
    ];
    for (pointer, value, field) in cases {
        let mut set = stateful_set(1, "es:1", "Parallel");
        *set.pointer_mut(pointer).expect(pointer) = value;
        let status = refusal(apply(&sets, set).await.expect_err(pointer));
        let causes = status.details.expect("details").causes;
        assert_eq!((status.code, causes[0].field.as_str()), (422, field), "{}", status.message);
    }
    let service = json!({"metadata": {"name": "1es"}, "spec": {"ports": [{"port": 1}, {"port": 2}]}});
    let status = refusal(apply(&api::<Service>(&sandbox), service).await.expect_err("refused"));
    assert_eq!(status.details.expect("details").causes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_field_is_500_in_an_apply_strict_or_not_and_in_a_strict_patch_422_and_in_a_strict_create_400() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let mut set = stateful_set(1, "es:1", "Parallel");
    set["spec"]["replica"] = json!(1);
    let status = refusal(apply(&sets, set.clone()).await.expect_err("refused"));
    assert_eq!(status.code, 500);
    assert!(status.message.ends_with(".spec.replica: field not declared in schema"), "{}", status.message);
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("cairn") };
    set["apiVersion"] = json!("apps/v1");
    set["kind"] = json!("StatefulSet");
    let status = refusal(sets.patch("es", &strict, &Patch::Apply(&set)).await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (500, ""));
    let create = http::Request::post("/apis/apps/v1/namespaces/a/statefulsets?fieldValidation=Strict");
    let create =
        create.header("content-type", "application/json").body(set.to_string().into_bytes()).expect("a request");
    let status = refusal(sandbox.client().request::<Value>(create).await.expect_err("refused"));
    assert_eq!((status.code, status.message.as_str()), (400, "strict decoding error: unknown field \"spec.replica\""));
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replica": 1}}));
    let status = refusal(sets.patch("es", &strict, &patch).await.expect_err("refused"));
    assert!(status.code == 422 && status.message.contains("unknown field \"spec.replica\""), "{}", status.message);
}

/// C15: seen on a real server. None of it is the server's fault, though it says so.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_the_schema_is_500_in_an_apply_and_400_in_a_create() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let container = "/spec/template/spec/containers/0";
    for (pointer, value, words) in [
        (
            "/spec/replicas".to_owned(),
            json!("three"),
            "failed to create typed patch object (a/es; apps/v1, Kind=StatefulSet): ",
        ),
        (format!("{container}/resources/limits/memory"), json!("1GB"), "failed to convert new object (a/es; "),
        (
            format!("{container}/volumeMounts"),
            json!([{"name": "data", "mountPath": "/x"}, {"name": "data", "mountPath": "/x"}]),
            ".spec.template.spec.containers[name=\"es\"].volumeMounts: duplicate entries for key [mountPath=\"/x\"]",
        ),
    ] {
        let mut set = stateful_set(1, "es:1", "Parallel");
        *set.pointer_mut(&pointer).expect("a field") = value;
        let status = refusal(apply(&sets, set.clone()).await.expect_err(words));
        assert_eq!((status.code, status.reason.as_str()), (500, ""), "{}", status.message);
        assert!(status.message.contains(words), "{}", status.message);
        if !pointer.ends_with("Mounts") {
            let create = http::Request::post("/apis/apps/v1/namespaces/a/statefulsets");
            let create = create.header("content-type", "application/json").body(set.to_string().into_bytes());
            let answer = sandbox.client().request::<Value>(create.expect("a request")).await;
            assert_eq!(refusal(answer.expect_err("refused")).code, 400);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_patch_keeps_the_name_and_what_is_going_takes_no_new_finalizer() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    apply(&maps, json!({"metadata": {"name": "m", "finalizers": ["example.com/one"]}})).await.expect("applied");
    let patch = async |metadata: Value| {
        maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await
    };
    let status = refusal(patch(json!({"name": "other"})).await.expect_err("refused"));
    assert_eq!(
        (status.code, status.message.as_str()),
        (400, "the name of the object (other) does not match the name on the URL (m)")
    );
    let status = refusal(patch(json!({"finalizers": ["plain"]})).await.expect_err("refused"));
    assert_eq!(
        (status.code, status.details.expect("details").causes[0].field.as_str()),
        (422, "metadata.finalizers[0]")
    );
    let wrong = kube::api::Preconditions { uid: Some("another".to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
    let status = refusal(maps.delete("m", &params).await.expect_err("refused"));
    assert!(
        status.message.starts_with("Operation cannot be fulfilled on ConfigMap \"m\": the UID"),
        "{}",
        status.message
    );
    maps.delete("m", &DeleteParams::default()).await.expect("begun");
    let status =
        refusal(patch(json!({"finalizers": ["example.com/one", "example.com/two"]})).await.expect_err("refused"));
    assert!(status.code == 422 && status.message.contains("no new finalizers can be added"), "{}", status.message);
    let last = patch(json!({"finalizers": null})).await.expect("released");
    assert!(last.metadata.finalizers.is_none(), "{last:?}");
    assert!(maps.get_opt("m").await.expect("asked").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_shows_what_would_be_and_leaves_everything_as_it_is() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let mut set = stateful_set(1, "es:1", "Parallel");
    set["apiVersion"] = json!("apps/v1");
    set["kind"] = json!("StatefulSet");
    settle().await;
    let before = sandbox.objects();
    let shown = sets.patch("es", &PatchParams::apply("cairn").dry_run(), &Patch::Apply(set)).await.expect("shown");
    assert_eq!(shown.spec.expect("a spec").revision_history_limit, Some(10));
    assert_eq!(sandbox.objects(), before);
    assert!(sandbox.effects().iter().all(|effect| effect.resource != "statefulsets"));
}

#[tokio::test(start_paused = true)]
async fn a_replace_on_a_stale_version_is_409_and_without_one_it_passes() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    let made = apply(&maps, json!({"metadata": {"name": "m"}, "data": {"k": "1"}})).await.expect("applied");
    let mut stale = made.clone();
    apply(&maps, json!({"metadata": {"name": "m"}, "data": {"k": "2"}})).await.expect("applied");
    stale.data = Some([("k".to_owned(), "3".to_owned())].into());
    let status = refusal(maps.replace("m", &PostParams::default(), &stale).await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(status.details.expect("details").causes.is_empty());
    stale.metadata.resource_version = None;
    let replaced = maps.replace("m", &PostParams::default(), &stale).await.expect("replaced");
    assert_eq!(replaced.data.expect("data")["k"], "3");
}

#[tokio::test(start_paused = true)]
async fn a_quota_refuses_a_pod_with_403_and_a_set_only_tells_it_in_an_event_until_there_is_room() {
    let sandbox = with_namespace("a").await;
    let quotas = api::<ResourceQuota>(&sandbox);
    apply(
        &quotas,
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "700m", "requests.storage": "10Gi"}}}),
    )
    .await
    .expect("applied");
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(2, "es:1", "Parallel")).await.expect("applied");
    settle().await;
    assert_eq!(pod_names(&sandbox).await.len(), 1);
    let told = events(&sandbox, "FailedCreate").await;
    assert!(
        told[0].contains(
            "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=500m, limited: requests.cpu=700m"
        ),
        "{told:?}"
    );
    let used = quotas.get("q").await.expect("there").status.expect("a status").used.expect("used");
    assert_eq!((used["requests.cpu"].0.as_str(), used["requests.storage"].0.as_str()), ("500m", "2Gi"));

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}]}});
    let status = refusal(apply(&api::<Pod>(&sandbox), pod).await.expect_err("refused"));
    assert_eq!(status.code, 403);
    assert!(status.message.contains("exceeded quota"), "{}", status.message);
    let silent = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let status = refusal(apply(&api::<Pod>(&sandbox), silent).await.expect_err("refused"));
    assert!(status.message.contains("must specify requests.cpu for: c"), "{}", status.message);

    apply(&quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1"}}})).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_its_labels() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    for (name, app) in [("one", "x"), ("two", "x"), ("three", "y")] {
        apply(&maps, json!({"metadata": {"name": name, "labels": {"app": app}}})).await.expect("applied");
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=x")).await.expect("deleted");
    let left = maps.list(&ListParams::default().labels("app")).await.expect("listed");
    assert_eq!(left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["three"]);
    assert_eq!(sandbox.effects().iter().filter(|effect| effect.verb == "delete").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_scale_of_a_set_is_read_and_written_apart_and_its_writer_owns_the_replicas() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    sets.patch_scale("es", &PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() }, &patch)
        .await
        .expect("scaled");
    until(&sets, "es", set_is_rolled_out).await;
    let scale = sets.get_scale("es").await.expect("shown");
    assert_eq!((scale.spec.expect("a spec").replicas, scale.status.expect("a status").replicas), (Some(2), 2));
    let status = refusal(apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect_err("refused"));
    assert!(status.message.contains("conflict with \"somebody\" with subresource \"scale\""), "{}", status.message);
}
