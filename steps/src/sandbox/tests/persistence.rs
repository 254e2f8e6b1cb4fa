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
async fn on_a_full_disk_nothing_is_answered_that_a_kill_would_lose_and_with_room_again_all_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SandboxOptions { data: Some(directory.path().to_owned()), ..SandboxOptions::default() };
    let sandbox = Sandbox::open(options).expect("opens");
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).expect("a namespace");
    Api::all(sandbox.client()).create(&PostParams::default(), &namespace).await.expect("created");
    settle().await;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let room = sandbox.shared.lock().exchange_log_file(full);
    let maps = api::<ConfigMap>(&sandbox);
    for (name, is_there) in [("first", true), ("second", false)] {
        let refused = apply(&maps, json!({"metadata": {"name": name}})).await.expect_err("it cannot be kept");
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 500), "{refused}");
        assert_eq!(maps.get_opt(name).await.expect("reads are answered").is_some(), is_there, "{name}");
    }
    let standing = sandbox.objects();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(sandbox.objects(), standing, "nothing happens that is not kept");

    drop(sandbox.shared.lock().exchange_log_file(room));
    apply(&maps, json!({"metadata": {"name": "second"}})).await.expect("there is room again");
    apply(&api::<StatefulSet>(&sandbox), stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&api::<StatefulSet>(&sandbox), "es", set_is_rolled_out).await;
    settle().await;
    let killed = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(killed.path().join("sandbox")).expect("made");
    let kept = directory.path().join("sandbox").join("objects.jsonl");
    std::fs::copy(kept, killed.path().join("sandbox").join("objects.jsonl")).expect("copied");
    let options = SandboxOptions { data: Some(killed.path().to_owned()), ..SandboxOptions::default() };
    assert_eq!(Sandbox::open(options).expect("opens").objects(), sandbox.objects());
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
