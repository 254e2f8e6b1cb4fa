//! The Secret of a cluster: made once, kept as it is, and its values in no output; and other choices of the operator's.

use cairn_engine::ErrorClass;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::bench::Bench;
use super::steps::api;
use crate::cluster::Cluster;
use crate::elastic::Elastic;
use crate::names;
use crate::render::{Kind, Marks, Through, render};
use crate::request::Request;

async fn secret(bench: &Bench) -> Secret {
    let secrets: Api<Secret> = Api::namespaced(bench.sandbox.client(), "acme--search");
    secrets.get(names::SECRET).await.expect("there")
}

#[tokio::test(start_paused = true)]
async fn the_secret_is_made_once_and_kept_by_every_later_run() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("resources_configured").await;
    let made = secret(&bench).await;
    assert_eq!(made.immutable, Some(true));
    bench.run("k8s_applied").await.expect("again");
    assert_eq!(secret(&bench).await, made);
}

/// I32.
#[tokio::test(start_paused = true)]
async fn no_value_of_the_secret_is_in_any_output() {
    let mut bench = Bench::new(json!({}));
    let mut outputs = String::new();
    for step in super::STEPS {
        bench.up_to_next(step).await;
        outputs.push_str(&format!("{:?}", bench.state.output(&step.into())));
    }
    outputs.push_str(&format!("{:?}", bench.probe("k8s_applied").await));
    for (key, value) in secret(&bench).await.data.expect("values") {
        let value = String::from_utf8(value.0).expect("text");
        for line in value.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!outputs.contains(line), "{key} is in an output");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_somebody_elses_stops_the_step_and_stays_as_it_is() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("k8s_applied").await;
    bench
        .stranger(json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"elastic-password": "theirs"},
            "metadata": {"name": names::SECRET, "namespace": "acme--search"}}))
        .await;
    let before = secret(&bench).await;
    bench.begun("k8s_applied");
    let error = bench.run("k8s_applied").await.expect_err("somebody else's");
    assert_eq!(error.failure.class, ErrorClass::Permanent, "{error}");
    assert!(error.failure.message.contains("Secret/elasticsearch-credentials"), "{error}");
    assert_eq!(secret(&bench).await, before);
}

/// A copy with our mark and another UID is not what was made.
#[tokio::test(start_paused = true)]
async fn a_secret_made_anew_by_somebody_else_is_not_taken_for_ours() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("resources_configured").await;
    let mut copy = secret(&bench).await;
    let secrets: Api<Secret> = Api::namespaced(bench.sandbox.client(), "acme--search");
    secrets.delete(names::SECRET, &DeleteParams::default()).await.expect("deleted");
    (copy.metadata.uid, copy.metadata.resource_version, copy.metadata.managed_fields) = (None, None, None);
    secrets.create(&kube::api::PostParams::default(), &copy).await.expect("made anew");
    let error = bench.run("k8s_applied").await.expect_err("another one");
    assert!(error.failure.message.contains("is not the one that was made"), "{error}");
}

/// I11: the settings may be others by the time of a resume.
#[tokio::test(start_paused = true)]
async fn what_is_installed_is_what_the_first_step_took_down() {
    let mut bench = Bench::changed(json!({}), |deps| {
        deps.elastic = Elastic::new("8.19.2", Some("registry.example.com/es"), None).expect("right");
    });
    bench.up_to("k8s_applied").await;
    bench.resume_with(|deps| deps.elastic = Elastic::default());
    bench.up_to_next("k8s_applied").await;
    let set = api(&bench, Kind::StatefulSet).get(names::STATEFUL_SET).await.expect("there");
    let image = set.data["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, "registry.example.com/es:8.19.2");
}

/// C6: an apply without GPUs takes the key away, and does not leave a 0.
#[tokio::test(start_paused = true)]
async fn gpus_that_are_no_longer_asked_for_leave_no_key_and_no_toleration() {
    let mut bench = Bench::new(json!({"gpu_count": 1}));
    bench.up_to("rollout_completed").await;
    let body = json!({"user": "acme", "service_name": "search", "gpu_count": 0}).to_string();
    let request = Request::parse(body.as_bytes()).expect("good");
    let marks = Marks { workflow: bench.workflow() };
    let objects = render(&request, &Elastic::default(), Through::GpuConfigured, None, &marks);
    let set = objects.iter().find(|object| object.kind == Kind::StatefulSet).expect("rendered");
    let cluster = Cluster::new(bench.sandbox.client());
    let had = api(&bench, Kind::StatefulSet).get(names::STATEFUL_SET).await.expect("there").data.to_string();
    assert!(had.contains("nvidia.com/gpu"));
    cluster.apply(set, &bench.workflow(), &[]).await.expect("applied");
    let has = api(&bench, Kind::StatefulSet).get(names::STATEFUL_SET).await.expect("there").data.to_string();
    assert!(!has.contains("nvidia"), "{has}");
}
