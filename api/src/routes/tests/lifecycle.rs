//! Deletions and changes over a real engine: what a refusal leaves as it is, and what a repetition is told.

use cairn_steps::{names, render::Kind, sandbox::Fault};
use kube::api::{Api as Objects, DynamicObject, Patch, PatchParams, PostParams};

use super::*;

const SEARCH: &str = "/clusters/acme/search";

/// An API whose pods are ready at once, and whose definitions fail at this step for good after its work.
async fn quick(fail_at: Option<&str>) -> Api {
    let options = SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() };
    Api::with(Rules::default(), options, fail_at).await
}

fn search(fields: &Value) -> Value {
    let mut body = json!({ "user": "acme", "service_name": "search" });
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

impl Api {
    /// This call, and its answer, which has this status.
    async fn call(&self, method: &str, path: &str, key: Option<&str>, body: &Value, status: u16) -> Value {
        let key = key.map(|key| ("idempotency-key", key));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(method, path, key.as_slice(), body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        answer.json()
    }

    /// Somebody puts something into the namespace, so that a deletion does not begin.
    async fn held(&self) {
        let theirs = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "theirs" } });
        let theirs = serde_json::from_value(theirs).expect("an object");
        self.objects(Kind::ConfigMap).create(&PostParams::default(), &theirs).await.expect("created");
    }

    async fn created(&self, fields: &Value) -> Value {
        self.call("POST", "/clusters?wait=60s", None, &search(fields), 201).await
    }

    async fn deleted(&self, query: &str) -> Value {
        self.call("DELETE", &format!("{SEARCH}?wait=60s{query}"), None, &Value::Null, 200).await
    }

    fn objects(&self, kind: Kind) -> Objects<DynamicObject> {
        Objects::namespaced_with(self.sandbox.client(), "acme--search", &kind.api_resource())
    }

    /// The last workflow, once `wanted` holds of it.
    async fn last_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let listed = self.get("/workflows?limit=1").await.json();
            let one = self.get(&format!("/workflows/{}", listed["workflows"][0]["id"].as_str().expect("an id"))).await;
            if wanted(&one.json()) {
                return one.json();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A refusal had ended the parked creation by force before it was refused, and with it the `retry` that it waited for.
#[tokio::test]
async fn a_deletion_that_is_refused_has_ended_nothing() {
    let api = quick(Some("disk_configured")).await;
    api.call("POST", "/clusters?wait=60s", None, &search(&json!({ "on_failure": "keep" })), 500).await;
    let refused = api.call("DELETE", &format!("{SEARCH}?keep_data=true"), None, &Value::Null, 422).await;
    assert_eq!(refused["errors"][0]["field"], "keep_data");
    let parked = api.last_when(|_| true).await;
    assert_eq!((&parked["status"], &parked["kind"]), (&json!("parked"), &json!("create")));
    assert_eq!(api.deleted("").await["status"], "deleted");
}

#[tokio::test]
async fn the_deletion_of_a_parked_creation_that_has_made_nothing_says_how_that_ended() {
    let api = quick(Some("starting")).await;
    api.call("POST", "/clusters?wait=60s", None, &search(&json!({ "on_failure": "keep" })), 500).await;
    let ended = api.call("DELETE", SEARCH, Some("k"), &Value::Null, 200).await;
    assert_eq!((&ended["status"], &ended["reports"][0]["status"]), (&json!("failed"), &json!("cancelled")), "{ended}");
    assert_eq!(api.last_when(|_| true).await["status"], "cancelled");
    // Nothing was submitted, so nothing is recorded under the key.
    api.call("DELETE", SEARCH, Some("k"), &Value::Null, 404).await;
}

/// I26: the answer to a deletion told of the cluster that was created since.
#[tokio::test]
async fn a_repetition_is_answered_with_what_it_was_whatever_was_made_since() {
    let api = quick(None).await;
    let wait = format!("{SEARCH}?wait=60s");
    let create = search(&json!({ "replicas": 1 }));
    let created = api.call("POST", "/clusters?wait=60s", Some("create"), &create, 201).await;
    let changed = api.call("PATCH", &wait, Some("change"), &json!({ "mem_limit": "3Gi" }), 200).await;
    api.call("PATCH", &wait, Some("more"), &json!({ "mem_limit": "4Gi" }), 200).await;
    let deleted = api.call("DELETE", &wait, Some("delete"), &Value::Null, 200).await;
    assert_eq!(deleted["status"], "deleted");
    let again = api.created(&json!({ "mem_limit": "5Gi" })).await;
    assert_ne!(again["workflow_id"], created["workflow_id"]);
    assert_eq!(api.call("DELETE", &wait, Some("delete"), &Value::Null, 200).await, deleted);
    assert_eq!(api.call("PATCH", &wait, Some("change"), &json!({ "mem_limit": "3Gi" }), 200).await, changed);
    assert_eq!(api.call("POST", "/clusters?wait=60s", Some("create"), &create, 200).await, created);
}

/// I26: what an operator forbids today does not change what was accepted yesterday.
#[tokio::test]
async fn a_repeated_creation_is_answered_as_before_under_settings_that_would_refuse_it() {
    let before = Api::slow().await;
    let asked = search(&json!({ "vector_count": 1_000_000, "dimension": 1024 }));
    let first = before.call("POST", "/clusters", Some("k"), &asked, 202).await;
    let app = App::new(Rules::default(), Elastic::default(), ClusterCheck::new(Cluster::new(before.sandbox.client())));
    let app = Arc::new(app.sizing_strictly(true));
    app.opened(before.engine.clone());
    let after = Api { router: router(Arc::clone(&app)), app, engine: before.engine.clone(), sandbox: before.sandbox };
    after.call("POST", "/clusters", Some("unused"), &asked, 422).await;
    assert_eq!(after.call("POST", "/clusters", Some("k"), &asked, 200).await, first);
    assert_eq!(after.call("POST", "/clusters?dry_run=true", Some("k"), &asked, 200).await, first);
    // Another body under the key is that first, and what is wrong with it after.
    let other = search(&json!({ "replicas": -1 }));
    assert_eq!(after.call("POST", "/clusters", Some("k"), &other, 409).await["type"], "urn:cairn:problem:key-reused");
    after.call("POST", "/clusters", Some("unused"), &other, 422).await;
}

/// The data could never be used again: a creation had to fit the last request, and then did not fit the disks.
#[tokio::test]
async fn kept_data_is_what_is_there_and_not_what_was_last_asked_for() {
    let api = quick(Some("update_rolled_out")).await;
    api.created(&json!({})).await;
    api.call("PATCH", &format!("{SEARCH}?wait=60s"), None, &json!({ "replicas": 2 }), 500).await;
    // Its rollback takes no node away that has started: it is parked, and the deletion ends it.
    assert_eq!(api.last_when(|_| true).await["status"], "parked");
    let deleted = api.deleted("&keep_data=true").await;
    let last = deleted["reports"].as_array().and_then(|reports| reports.last()).expect("six reports");
    assert_eq!(
        (&last["result"]["data"]["replicas"], &last["result"]["data"]["disk_size"]),
        (&json!(2), &json!("10Gi"))
    );
    let refused = api.call("POST", "/clusters", None, &search(&json!({})), 422).await;
    assert_eq!(
        (&refused["errors"][0]["field"], refused["errors"].as_array().map(Vec::len)),
        (&json!("replicas"), Some(1))
    );
    let created = api.created(&json!({ "replicas": 2 })).await;
    assert_eq!(created["status"], "created");
}

/// The data of a cluster that was completed could only be deleted, once a creation over it had been parked.
#[tokio::test]
async fn a_parked_creation_over_kept_data_is_deleted_without_it() {
    let api = quick(None).await;
    api.created(&json!({})).await;
    api.deleted("&keep_data=true").await;
    let claims = || api.sandbox.objects().iter().filter(|object| object["kind"] == "PersistentVolumeClaim").count();
    // The last is ended where it has made a Service and a ConfigMap, the first where it has made nothing.
    for resource in ["namespaces", "statefulsets"] {
        let fault = api.sandbox.faults().add(Fault::forbid().resource(resource));
        api.call("POST", "/clusters?wait=60s", None, &search(&json!({ "on_failure": "keep" })), 500).await;
        assert!(api.sandbox.faults().remove(fault), "it was there");
        api.deleted("&keep_data=true").await;
        assert_eq!(claims(), 1, "{resource}");
        assert_eq!(api.get("/tenant/containers/acme/search").await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(api.created(&json!({})).await["status"], "created");
}

#[tokio::test]
async fn a_deletion_that_has_begun_to_delete_is_not_cancelled_and_nobody_is_told_to() {
    let api = quick(None).await;
    api.created(&json!({})).await;
    let held = json!({ "metadata": { "finalizers": ["example.com/backup"] } });
    let claims = api.objects(Kind::PersistentVolumeClaim);
    claims.patch(&names::claim(0), &PatchParams::default(), &Patch::Merge(&held)).await.expect("held");
    api.call("DELETE", SEARCH, None, &Value::Null, 202).await;
    let busy = api.call("DELETE", SEARCH, None, &Value::Null, 409).await;
    assert!(!busy["detail"].to_string().contains("cancel"), "{busy}");
    let deletion = api.last_when(|workflow| workflow["step"] == "claims_deleted").await;
    let at = format!("/workflows/{}/cancel", deletion["id"].as_str().expect("an id"));
    let refused = api.call("POST", &at, None, &Value::Null, 409).await;
    assert!(refused["detail"].to_string().contains("has begun objects_deleted, which does not come back"), "{refused}");
    let free = json!({ "metadata": { "finalizers": null } });
    claims.patch(&names::claim(0), &PatchParams::default(), &Patch::Merge(&free)).await.expect("let go");
    api.last_when(|workflow| workflow["status"] == "succeeded").await;
}

#[tokio::test]
async fn a_deletion_that_is_parked_says_what_ends_it_and_can_be_cancelled_before_it_has_deleted() {
    let api = quick(None).await;
    api.created(&json!({})).await;
    api.held().await;
    api.call("DELETE", &format!("{SEARCH}?wait=60s"), None, &Value::Null, 500).await;
    let deletion = api.last_when(|workflow| workflow["status"] == "parked").await;
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({ "replicas": 2 }))] {
        let busy = api.call(method, SEARCH, None, &body, 409).await;
        let detail = busy["detail"].as_str().expect("text");
        assert!(detail.contains("remove that and retry it") && detail.contains("only cancel?force=true"), "{detail}");
    }
    let at = format!("/workflows/{}/cancel", deletion["id"].as_str().expect("an id"));
    api.call("POST", &at, None, &Value::Null, 202).await;
    api.last_when(|workflow| workflow["status"] == "cancelled").await;
    // It is there as before, and can be changed.
    api.call("PATCH", &format!("{SEARCH}?wait=60s"), None, &json!({ "mem_limit": "3Gi" }), 200).await;
}

/// A deletion does not repeat the overlay in the journal: what goes on after it was cancelled finds it where it is.
#[tokio::test]
async fn a_cluster_whose_deletion_was_cancelled_keeps_its_overlay_through_the_next_change() {
    let path = ["metadata", "annotations", "example.com/owner"].map(|field| json!({ "field": field }));
    let overlay = json!({ "sha256": "", "additions": [], "patches": [
        { "kind": "StatefulSet", "name": "elasticsearch", "edits": [{ "path": path, "value": "search team" }] }] });
    let overlay = Arc::new(serde_json::from_value(overlay).expect("an overlay"));
    let options = SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() };
    let api = Api::configured(Rules::default(), options, None, Some(overlay), false).await;
    api.created(&json!({})).await;
    api.held().await;
    // Twice, so that the second finds nothing in the journal of the first.
    for _ in 0..2 {
        api.call("DELETE", SEARCH, None, &Value::Null, 202).await;
        let deletion = api.last_when(|workflow| workflow["status"] == "parked").await;
        let at = format!("/workflows/{}/cancel", deletion["id"].as_str().expect("an id"));
        api.call("POST", &at, None, &Value::Null, 202).await;
        api.last_when(|workflow| workflow["status"] == "cancelled").await;
    }
    let journal = api.get("/workflows?kind=delete").await.json()["workflows"][0]["id"].clone();
    let journal = api.get(&format!("/workflows/{}/journal", journal.as_str().expect("an id"))).await.text;
    assert!(!journal.contains("search team"), "{journal}");
    api.call("PATCH", &format!("{SEARCH}?wait=60s"), None, &json!({ "mem_limit": "3Gi" }), 200).await;
    let sets = api.objects(Kind::StatefulSet).get(names::STATEFUL_SET).await.expect("there");
    assert_eq!(sets.metadata.annotations.expect("annotations")["example.com/owner"], "search team");
}
