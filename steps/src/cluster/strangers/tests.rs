//! Six kinds and Pods and Secrets were looked at, a thousand of each: a namespace with somebody's Ingress, CronJob or Role in it
//! was deleted, and that with it.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use super::*;

const OURS: &str = "0197a000-0000-7000-8000-000000000001";

/// The end of a path with its query, and the answer.
type List = (&'static str, fn() -> Value);

/// A server with one extension, that answers these lists and no others.
fn cluster(lists: &'static [List]) -> Cluster {
    let resource = |kind: &str, name: &str, verbs: &[&str]| json!({"kind": kind, "name": name, "singularName": "", "namespaced": true, "verbs": verbs});
    let of = move |path: &str| {
        match path {
        "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            resource("ConfigMap", "configmaps", &["list", "delete"]), resource("Event", "events", &["list", "delete"]),
            resource("Secret", "secrets", &["list", "delete"]), resource("Binding", "bindings", &["create"])]}),
        "/apis" => json!({"kind": "APIGroupList", "groups": [
            {"name": "example.com", "preferredVersion": {"groupVersion": "example.com/v2", "version": "v2"}, "versions": [
                {"groupVersion": "example.com/v1", "version": "v1"}, {"groupVersion": "example.com/v2", "version": "v2"}]}]}),
        "/apis/example.com/v2" => json!({"kind": "APIResourceList", "groupVersion": "example.com/v2", "resources": [
            resource("Backup", "backups", &["list", "deletecollection"]), resource("Backup", "backups/status", &["list", "delete"]),
            resource("Reading", "readings", &["list"])]}),
        "/apis/example.com/v1" => json!({"kind": "APIResourceList", "groupVersion": "example.com/v1", "resources": [
            resource("Backup", "backups", &["list", "delete"]), resource("Plan", "plans", &["list", "delete"])]}),
        path => lists.iter().find(|(known, _)| path.ends_with(known)).map_or_else(
            || json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": 403, "reason": "Forbidden", "message": format!("no right to {path}")}),
            |(_, answer)| answer(),
        ),
    }
    };
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).replace("?&", "?");
        let answer = of(path.trim_end_matches('?'));
        async move {
            let code = answer["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(200);
            let body = Full::new(Bytes::from(answer.to_string()));
            Response::builder().status(code).body(body)
        }
    });
    Cluster::new(kube::Client::new(service, "default"))
}

fn page(continued: &str, metadata: &[Value]) -> Value {
    let items: Vec<Value> = metadata
        .iter()
        .map(|metadata| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}))
        .collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {"continue": continued}, "items": items})
}

#[tokio::test]
async fn objects_of_every_kind_and_on_every_page_are_found_and_a_kind_that_is_withheld_is_named() {
    let cluster = cluster(&[
        ("/configmaps?limit=1000", || {
            page("more", &[json!({"name": "ours", "annotations": {names::WORKFLOW_ANNOTATION: OURS}})])
        }),
        ("/configmaps?limit=1000&continue=more", || {
            page("", &[json!({"name": "kube-root-ca.crt"}), json!({"name": "notes"})])
        }),
        ("/v2/namespaces/a/backups?limit=1000", || page("", &[json!({"name": "nightly"})])),
        ("/v1/namespaces/a/plans?limit=1000", || {
            page(
                "",
                &[
                    json!({"name": "weekly"}),
                    json!({"name": "followed", "ownerReferences":
            [{"apiVersion": "v1", "kind": "Plan", "name": "weekly", "uid": "1"}]}),
                ],
            )
        }),
    ]);
    let strangers = cluster.strangers("a", OURS).await.expect("an answer");
    assert_eq!(strangers.found, ["ConfigMap/notes", "Backup/nightly", "Plan/weekly"]);
    assert_eq!(strangers.unseen, ["secrets"]);
}

#[tokio::test]
async fn what_every_namespace_has_and_what_the_operator_names_is_no_stranger() {
    let cluster = cluster(&[
        ("/configmaps?limit=1000", || page("", &[json!({"name": "ca-bundle-7"}), json!({"name": "ca"})])),
        ("/secrets?limit=1000", || {
            page(
                "",
                &[
                    json!({"name": "default-token-x", "annotations": {TOKEN_OF: "default"}}),
                    json!({"name": "registry", "labels": {names::MANAGED_BY_LABEL.0: "kyverno"}}),
                    json!({"name": "ca-bundle-8"}),
                ],
            )
        }),
        ("/backups?limit=1000", || page("", &[])),
        ("/plans?limit=1000", || page("", &[])),
    ]);
    let tolerated = ["ConfigMap/ca-bundle-*", "managed-by=kyverno"].map(|text| text.parse().expect("good"));
    let strangers = cluster.tolerating(tolerated.into()).strangers("a", OURS).await.expect("an answer");
    assert_eq!(
        strangers,
        Strangers { found: vec!["ConfigMap/ca".to_owned(), "Secret/ca-bundle-8".to_owned()], unseen: vec![] }
    );
}

#[test]
fn what_would_tolerate_everything_or_nothing_is_refused() {
    for text in ["", "ConfigMap", "ConfigMap/", "ConfigMap/*", "/a", "managed-by="] {
        assert_eq!(text.parse::<Tolerated>(), Err(BadTolerated(text.to_owned())));
    }
}
