//! What a sandbox keeps over a restart: objects, versions, UIDs, effects, and what was still going on.

use super::*;
use k8s_openapi::api::core::v1::ConfigMap;

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_killed_in_the_middle_of_a_rollout_goes_on_where_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = |data: &std::path::Path| SandboxOptions { data: Some(data.to_owned()), ..SandboxOptions::default() };
    let sandbox = Sandbox::open(options(directory.path())).expect("opens");
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a namespace");
    Api::all(sandbox.client()).create(&PostParams::default(), &namespace).await.expect("created");
    apply(&api::<StatefulSet>(&sandbox), stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&api::<Pod>(&sandbox), "es-0", |pod: Option<&Pod>| pod.is_some()).await;
    let before = (sandbox.objects(), sandbox.effects());
    // What a kill leaves: the files as they are, with the last line cut.
    let killed = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(killed.path().join("sandbox")).expect("made");
    for name in ["objects.jsonl", "effects.jsonl"] {
        let mut text = std::fs::read(directory.path().join("sandbox").join(name)).expect("read");
        text.extend_from_slice(b"{\"put\":{\"vers");
        std::fs::write(killed.path().join("sandbox").join(name), text).expect("written");
    }

    let again = Sandbox::open(options(killed.path())).expect("opens");
    assert_eq!((again.objects(), again.effects()), before);
    let sets = api::<StatefulSet>(&again);
    until(&sets, "es", set_is_rolled_out).await;
    let version: u64 = before
        .0
        .iter()
        .filter_map(|object| object["metadata"]["resourceVersion"].as_str()?.parse().ok())
        .max()
        .expect("a version");
    let map = apply(&api::<ConfigMap>(&again), json!({"metadata": {"name": "m"}})).await.expect("applied");
    assert!(map.resource_version().expect("a version").parse::<u64>().expect("a number") > version);
}

#[tokio::test(start_paused = true)]
async fn a_closed_cluster_is_opened_again_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SandboxOptions { data: Some(directory.path().to_owned()), ..SandboxOptions::default() };
    let sandbox = Sandbox::open(options.clone()).expect("opens");
    sandbox.client().apiserver_version().await.expect("answers");
    settle().await;
    let before = sandbox.objects();
    sandbox.close().await;
    let again = Sandbox::open(options).expect("the lock is free");
    assert_eq!(again.objects(), before);
}
