//! The sandbox behind a port, and its own paths: faults and effects over HTTP.

use super::*;
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DynamicObject, LogParams, WatchParams};
use std::time::Duration;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_served_cluster_answers_on_its_port_until_it_is_told_to_stop_though_watches_are_open() {
    let sandbox = with_namespace("a").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = sandbox.clone();
    let served = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        server.serve(listener, stopped).await
    });

    let kubeconfig = kube::config::Kubeconfig::from_yaml(&Sandbox::kubeconfig(address)).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("a configuration");
    let client = kube::Client::try_from(config).expect("a client");
    let maps = Api::<ConfigMap>::namespaced(client, "a");
    let _watch = maps.watch(&WatchParams::default(), "0").await.expect("watched");
    apply(&maps, json!({"metadata": {"name": "m"}})).await.expect("applied");
    assert!(api::<ConfigMap>(&sandbox).get_opt("m").await.expect("asked").is_some());

    stop.send(()).expect("it is still there");
    let ended = tokio::time::timeout(Duration::from_secs(10), served).await.expect("it stops in time");
    ended.expect("no panic").expect("no error");
}

#[tokio::test(start_paused = true)]
async fn faults_are_switched_on_listed_and_off_over_http() {
    let sandbox = with_namespace("a").await;
    let client = sandbox.client();
    let call = |method: &str, path: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).body(body.as_bytes().to_vec()).expect("a request");
        let client = client.clone();
        async move { client.request_text(request).await }
    };
    let added =
        call("POST", "/sandbox/faults", r#"{"when": {"verb": "get"}, "action": {"status": {"code": 503}}}"#).await;
    assert_eq!(added.expect("added"), r#"{"id":1}"#);
    let status = refusal(api::<ConfigMap>(&sandbox).get("m").await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (503, "ServiceUnavailable"));
    let listed = call("GET", "/sandbox/faults", "").await.expect("listed");
    assert!(listed.contains(r#""fired":1"#), "{listed}");
    assert_eq!(call("DELETE", "/sandbox/faults/1", "").await.expect("off"), "[]");
    assert_eq!(refusal(call("DELETE", "/sandbox/faults/1", "").await.expect_err("gone")).code, 404);
    assert_eq!(refusal(call("POST", "/sandbox/faults", "{}").await.expect_err("no fault")).code, 400);
    let effects = call("GET", "/sandbox/effects", "").await.expect("listed");
    assert!(effects.contains(r#""verb":"create""#) && effects.contains(r#""resource":"namespaces""#), "{effects}");
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_is_listed_as_such_and_a_log_is_text() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    let pods = api::<Pod>(&sandbox);
    until(&pods, "es-0", |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.status.as_ref().is_some_and(|status| status.start_time.is_some()))
    })
    .await;
    let status = refusal(pods.logs("es-0", &LogParams::default()).await.expect_err("not yet"));
    assert!(status.message.ends_with("is waiting to start: ContainerCreating"), "{}", status.message);
    until(&sets, "es", set_is_rolled_out).await;
    assert!(pods.logs("es-0", &LogParams::default()).await.expect("a log").ends_with('\n'));
    let listed = pods.list_metadata(&ListParams::default()).await.expect("listed");
    assert_eq!(listed.items[0].types.as_ref().map(|types| types.kind.as_str()), Some("PartialObjectMetadata"));
    assert_eq!(listed.items[0].name_any(), "es-0");
}

#[tokio::test(start_paused = true)]
async fn a_secret_given_as_text_is_kept_encoded() {
    let sandbox = with_namespace("a").await;
    let secrets = api::<Secret>(&sandbox);
    let made = apply(&secrets, json!({"metadata": {"name": "s"}, "stringData": {"password": "changeme"}}))
        .await
        .expect("applied");
    assert_eq!(made.data.expect("data")["password"].0, b"changeme");
    assert!(made.string_data.is_none());
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_every_kind_with_its_scope_and_short_names() {
    let sandbox = open();
    let discovery = kube::discovery::Discovery::new(sandbox.client()).run().await.expect("discovered");
    let (sets, capabilities) =
        discovery.resolve_gvk(&kube::core::GroupVersionKind::gvk("apps", "v1", "StatefulSet")).expect("known");
    assert_eq!((sets.plural.as_str(), capabilities.scope), ("statefulsets", kube::discovery::Scope::Namespaced));
    let dynamic = Api::<DynamicObject>::all_with(sandbox.client(), &sets);
    assert!(dynamic.list(&ListParams::default()).await.expect("listed").items.is_empty());
}
