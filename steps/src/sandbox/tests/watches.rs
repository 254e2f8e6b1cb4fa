//! Watches: in step with what changes, broken or expired where they would be on a real cluster.

use super::super::{Fault, FaultAction};
use super::*;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{self, Event as Seen, watcher};

fn map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"value": value}}, "data": {"value": value}})
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_version_sees_every_change_after_it_once_and_in_order() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    apply(&maps, map("before", "0")).await.expect("applied");
    let version =
        maps.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    for value in ["1", "2"] {
        apply(&maps, map("m", value)).await.expect("applied");
    }
    maps.delete("m", &DeleteParams::default()).await.expect("deleted");
    let events = maps.watch(&WatchParams::default().timeout(5), &version).await.expect("watched");
    let seen: Vec<String> = events
        .map_ok(|event| match event {
            WatchEvent::Added(map) => format!("added {}", map.data.expect("data")["value"]),
            WatchEvent::Modified(map) => format!("modified {}", map.data.expect("data")["value"]),
            WatchEvent::Deleted(map) => format!("deleted {}", map.data.expect("data")["value"]),
            other => format!("{other:?}"),
        })
        .try_collect()
        .await
        .expect("read");
    assert_eq!(seen, ["added 1", "modified 2", "deleted 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_stops_matching_a_watchs_labels_is_deleted_for_it() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    apply(&maps, map("m", "1")).await.expect("applied");
    let params = WatchParams::default().labels("value=1").timeout(5);
    let events = maps.watch(&params, "0").await.expect("watched");
    apply(&maps, map("m", "2")).await.expect("applied");
    let kinds: Vec<&str> = events
        .map_ok(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Deleted(_) => "deleted",
            _ => "other",
        })
        .try_collect()
        .await
        .expect("read");
    assert_eq!(kinds, ["added", "deleted"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_forgotten_version_is_410() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    let version =
        maps.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    for value in 0..9000 {
        apply(&maps, map("m", &value.to_string())).await.expect("applied");
    }
    let mut events = maps.watch(&WatchParams::default(), &version).await.expect("watched").boxed();
    let Some(Ok(WatchEvent::Error(status))) = events.next().await else { panic!("not expired") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}

#[tokio::test(start_paused = true)]
async fn kubes_watcher_goes_on_over_broken_and_expired_watches_and_misses_nothing() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = watcher(maps.clone(), config).boxed();
        for (fault, name) in [
            (None, "one"),
            (Some(FaultAction::WatchBreak { after_events: 0 }), "two"),
            (Some(FaultAction::Gone), "three"),
        ] {
            if let Some(action) = fault {
                sandbox.faults().add(Fault::new(action).resource("configmaps").verb("watch").times(1));
            }
            apply(&maps, map(name, "1")).await.expect("applied");
            // The watcher's errors are what it tells of; it goes on by itself, after its back-off.
            loop {
                match stream.next().await.expect("a watcher never ends") {
                    Ok(Seen::Apply(found) | Seen::InitApply(found)) if found.name_any() == name => break,
                    _ => {}
                }
            }
        }
        maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_asks_for_bookmarks_learns_how_far_the_cluster_is_though_nothing_concerns_it() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    let version =
        maps.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    let mut events = api::<Pod>(&sandbox).watch(&WatchParams::default(), &version).await.expect("watched").boxed();
    apply(&maps, map("m", "1")).await.expect("applied");
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.next().await else { panic!("no bookmark") };
    let now = maps.list(&ListParams::default()).await.expect("listed").metadata.resource_version.expect("a version");
    assert_eq!(bookmark.metadata.resource_version, now);
}

/// Whatever happens between two pages, they are parts of one snapshot; and one that is forgotten is said to be.
#[tokio::test(start_paused = true)]
async fn the_pages_of_a_list_are_of_one_moment_and_expire_with_it() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    for name in ["a", "b", "c", "d"] {
        apply(&maps, map(name, "1")).await.expect("applied");
    }
    let first = ListParams::default().labels("value=1").limit(2);
    let page = maps.list(&first).await.expect("listed");
    let token = page.metadata.continue_.clone().expect("more");
    apply(&maps, map("c", "2")).await.expect("changed");
    apply(&maps, map("bb", "1")).await.expect("made");
    maps.delete("d", &DeleteParams::default()).await.expect("deleted");
    let next = maps.list(&first.clone().continue_token(&token)).await.expect("listed");
    let names =
        |list: &kube::core::ObjectList<ConfigMap>| -> Vec<String> { list.iter().map(ResourceExt::name_any).collect() };
    assert_eq!(
        (names(&page), names(&next)),
        (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned(), "d".to_owned()])
    );
    assert_eq!(next.metadata.resource_version, page.metadata.resource_version);
    assert_eq!(next.metadata.continue_, None);

    for turn in 0..9000 {
        apply(&maps, map("a", &turn.to_string())).await.expect("changed");
    }
    let status = refusal(maps.list(&first.continue_token(&token)).await.expect_err("forgotten"));
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
}
