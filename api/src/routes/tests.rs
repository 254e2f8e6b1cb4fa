//! The contract, route by route, over a real engine and a sandbox in memory; no socket.

use std::time::Duration;

use axum::body::Body;
use cairn_engine::{Engine, EngineOptions, Limits, Registry, SystemChance, SystemClock, store::MemoryStore};
use cairn_steps::{
    cluster::{Cluster, rollout::RolloutRules},
    create::{Deps, create_definition},
    delete::delete_definition,
    elastic::Elastic,
    overlay::Overlay,
    report::STATUSES,
    sandbox::{Sandbox, SandboxOptions},
    update::update_definition,
};
use futures::future::join_all;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;

mod lifecycle;
mod plans;
mod rehearsed;
mod roles;

use crate::{
    cluster::ClusterCheck,
    config::{Places, Rules, Settings, Shared as Flags},
    failpoint::failing_at,
};

/// An API with all that is behind it.
struct Api {
    router: Router,
    app: Arc<App>,
    engine: Engine,
    sandbox: Sandbox,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The fields that are named as wrong.
    fn fields(&self) -> Vec<String> {
        let body = self.json();
        let errors = body["errors"].as_array().expect("a list of errors");
        errors.iter().map(|error| error["field"].as_str().expect("a name").to_owned()).collect()
    }
}

fn rules(toml: &str) -> Rules {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cairn.toml");
    std::fs::write(&path, toml).expect("written");
    let places = Places { config: Some(path), ..Places::default() };
    Settings::new(&Flags { places, ..Flags::default() }).expect("right").rules
}

fn closed(rules: Rules, sandbox: &Sandbox) -> Arc<App> {
    Arc::new(App::new(rules, Elastic::default(), ClusterCheck::new(Cluster::new(sandbox.client()))))
}

impl Api {
    async fn new() -> Self {
        Self::with(Rules::default(), SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() }, None)
            .await
    }

    /// One whose pods take longer than any test: a creation stays in its rollout.
    async fn slow() -> Self {
        let options = SandboxOptions { pod_ready_after: Duration::from_secs(3600), ..Default::default() };
        Self::with(Rules::default(), options, None).await
    }

    async fn with(rules: Rules, sandbox: SandboxOptions, fail_at: Option<&str>) -> Self {
        Self::configured(rules, sandbox, fail_at, None, false).await
    }

    /// One with an overlay, or one that refuses vectors that do not fit.
    async fn configured(
        rules: Rules,
        sandbox: SandboxOptions,
        fail_at: Option<&str>,
        overlay: Option<Arc<Overlay>>,
        strict_sizing: bool,
    ) -> Self {
        let sandbox = Sandbox::open(sandbox).expect("in memory");
        let cluster = Cluster::new(sandbox.client());
        let app = App::new(rules, Elastic::default(), ClusterCheck::new(cluster.clone()));
        let app = Arc::new(app.with_overlay(overlay.clone()).sizing_strictly(strict_sizing));
        let create = create_definition(Deps { overlay, ..Deps::new(cluster.clone(), app.gitlab.clone()) });
        let update = update_definition(cluster.clone(), RolloutRules::default());
        let definitions = [create, update, delete_definition(cluster)];
        let definitions =
            definitions.map(|definition| fail_at.map_or(definition.clone(), |step| failing_at(&definition, step)));
        let engine = Engine::open(EngineOptions {
            store: Arc::new(MemoryStore::new()),
            definitions: Registry::new(definitions),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            limits: Limits::default(),
        })
        .await
        .expect("in memory");
        app.opened(engine.clone());
        Self { router: router(Arc::clone(&app)), app, engine, sandbox }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            self.router.clone().oneshot(request.body(body.into()).expect("a request")).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("in memory").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], Body::empty()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[], body.to_string()).await
    }

    async fn create(&self, user: &str, service: &str) -> Answer {
        self.post("/clusters", &json!({ "user": user, "service_name": service })).await
    }

    /// Submits one and returns its id.
    async fn accepted(&self, user: &str, service: &str) -> String {
        let answer = self.create(user, service).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.json()["id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn only_names_of_this_machine_are_local() {
    for local in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "[::1]", "LOCALHOST:80"] {
        assert!(is_loopback(local), "{local}");
    }
    for foreign in ["example.com", "localhost.example.com", "127.0.0.1.example.com:8080", "10.0.0.1", "", "null"] {
        assert!(!is_loopback(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn until_recovery_is_done_everything_but_health_answers_503() {
    let api = Api::new().await;
    let before = Api { router: router(closed(Rules::default(), &api.sandbox)), ..api };
    for path in ["/workflows", "/deployments", "/deployment/reports/a/b", "/tenant/containers/a/b", "/journal"] {
        let answer = before.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
    assert_eq!(before.create("acme", "search").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(before.get("/healthz").await.status, StatusCode::OK);
    let ready = before.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["checks"]["recovery"]["ok"], false);
    assert_eq!(ready.json()["checks"]["cluster"]["ok"], true);
}

#[tokio::test]
async fn a_creation_that_is_waited_for_answers_with_its_record_and_ten_reports() {
    let api = Api::new().await;
    assert_eq!(api.get("/readyz").await.status, StatusCode::OK);
    let answer = api.post("/clusters?wait=60s", &json!({ "user": "acme", "service_name": "search" })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    assert_eq!(answer.headers[header::LOCATION], "/tenant/containers/acme/search");
    let body = answer.json();
    assert_eq!(body["status"], "created");
    let statuses: Vec<&str> =
        body["reports"].as_array().expect("a list").iter().filter_map(|report| report["status"].as_str()).collect();
    assert_eq!(statuses, STATUSES);
    assert_eq!(api.get("/deployment/reports/acme/search").await.json(), body["reports"]);
    let stats = api.get("/deployment/reports/acme/search/stats").await;
    assert!(stats.text.starts_with(r#"{"starting":1,"namespace_created":1,"#), "{}", stats.text);
    let deployments = api.get("/deployments?user=acme&service_name=search").await.json();
    assert_eq!(deployments[0]["status"], "created");
    assert_eq!(api.get("/deployments?user=other").await.json(), json!([]));
    let container = api.get("/tenant/containers/acme/search").await.json();
    assert!(container["endpoints"]["elasticsearch"].is_string(), "{container}");
}

#[tokio::test]
async fn a_creation_that_fails_answers_500_with_its_failed_report_and_leaves_no_tenant_container() {
    let options = SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() };
    let api = Api::with(Rules::default(), options, Some("k8s_applied")).await;
    let answer = api.post("/clusters?wait=60s", &json!({ "user": "acme", "service_name": "search" })).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.text);
    let report = &answer.json()["report"];
    assert_eq!(report["status"], "failed");
    assert_eq!(report["result"]["step"], "k8s_applied");
    assert_eq!(report["result"]["left"], json!([]));
    assert_eq!(api.get("/tenant/containers/acme/search").await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.get("/deployments?user=acme").await.json()[0]["status"], "failed");
    // The name is free again.
    api.accepted("acme", "search").await;
}

#[tokio::test]
async fn what_is_kept_for_a_look_can_be_retried_or_taken_back() {
    let options = SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() };
    let api = Api::with(Rules::default(), options, Some("k8s_applied")).await;
    let body = json!({ "user": "acme", "service_name": "search", "on_failure": "keep" });
    let answer = api.post("/clusters?wait=60s", &body).await;
    assert_eq!(
        (answer.status, &answer.json()["report"]["status"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("failed"))
    );
    let workflow = api.get("/workflows?status=parked").await.json()["workflows"][0].clone();
    assert!(workflow["waits"]["for"].as_str().expect("text").contains("keep"), "{workflow}");
    assert_eq!(api.get("/tenant/containers/acme/search").await.status, StatusCode::OK);
    let id = workflow["id"].as_str().expect("an id");
    assert_eq!(api.post(&format!("/workflows/{id}/retry"), &Value::Null).await.status, StatusCode::ACCEPTED);
    api.engine.settled(id.parse().expect("an id")).await.expect("it parks again");
    assert_eq!(api.post(&format!("/workflows/{id}/cancel"), &Value::Null).await.status, StatusCode::ACCEPTED);
    // It is parked until the rollback has begun.
    while api.get(&format!("/workflows/{id}")).await.json()["status"] != "cancelled" {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.get("/tenant/containers/acme/search").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_wait_that_is_too_short_answers_202() {
    let api = Api::slow().await;
    let answer = api.post("/clusters?wait=10ms", &json!({ "user": "acme", "service_name": "search" })).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.headers[header::LOCATION], format!("/workflows/{id}").as_str());
}

/// I26
#[tokio::test]
async fn the_same_key_and_body_get_the_same_answer_and_another_body_is_refused() {
    let api = Api::slow().await;
    let ask = |service: &'static str, key: &'static str| {
        let body = json!({ "user": "acme", "service_name": service }).to_string();
        let api = &api;
        async move { api.ask("POST", "/clusters", &[("idempotency-key", key)], body).await }
    };
    let first = ask("search", "k").await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let again = ask("search", "k").await;
    assert_eq!((again.status, again.text), (StatusCode::OK, first.text));
    assert_eq!(ask("other", "k").await.status, StatusCode::CONFLICT);
    for key in ["", "\u{e4}"] {
        let answer = ask("another", key).await;
        assert_eq!(answer.fields(), ["Idempotency-Key"], "{key:?}");
    }
    // Twenty at once, under a key of their own.
    let twenty = join_all((0..20).map(|_| ask("twenty", "t"))).await;
    let accepted = twenty.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    assert_eq!(accepted, 1);
    assert!(twenty.iter().all(|answer| answer.text == twenty[0].text));
}

#[tokio::test]
async fn of_twenty_for_the_same_service_exactly_one_wins_and_the_others_are_told_of_it() {
    let api = Api::slow().await;
    let twenty = join_all((0..20).map(|_| api.create("acme", "search"))).await;
    let (won, lost): (Vec<_>, Vec<_>) = twenty.iter().partition(|answer| answer.status == StatusCode::ACCEPTED);
    assert_eq!(won.len(), 1);
    let id = won[0].json()["id"].as_str().expect("an id").to_owned();
    for answer in lost {
        assert_eq!(answer.status, StatusCode::CONFLICT);
        assert!(answer.json()["detail"].as_str().expect("text").contains(&format!("/workflows/{id}")));
    }
}

/// I22
#[tokio::test]
async fn a_quota_is_never_exceeded_and_its_figures_are_told() {
    let options = SandboxOptions { pod_ready_after: Duration::from_secs(3600), ..Default::default() };
    let api =
        Api::with(rules("[quota.default]\nclusters = 2\n[quota.tenants.small]\ncpu = \"1\""), options, None).await;
    let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let ten = join_all(names.iter().map(|name| api.create("acme", name))).await;
    let count = |status| ten.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(StatusCode::ACCEPTED), count(StatusCode::FORBIDDEN)), (2, 8));
    let refused = ten.iter().find(|answer| answer.status == StatusCode::FORBIDDEN).expect("eight of them").json();
    assert_eq!(refused["quota"], json!({ "user": "acme", "resource": "clusters", "used": 2, "asked": 1, "limit": 2 }));
    let small = api.create("small", "search").await;
    assert_eq!(small.json()["quota"]["resource"], "cpu_millis");
    assert_eq!(api.get("/workflows?user=small").await.json()["workflows"], json!([]));
    // Rules that are read again count for the next one.
    api.app.set_rules(rules("[quota.default]\nclusters = 3"));
    assert_eq!(api.create("acme", "third").await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_rehearsal_renders_everything_and_changes_nothing() {
    let api = Api::new().await;
    // What the sandbox gives its own namespaces comes when it comes: none of it names the tenant.
    let ours = || api.sandbox.objects().iter().filter(|object| object.to_string().contains("acme")).count();
    let answer = api.post("/clusters?dry_run=true", &json!({ "user": "acme", "service_name": "search" })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let body = answer.json();
    let kinds: Vec<&str> =
        body["objects"].as_array().expect("a list").iter().filter_map(|object| object["kind"].as_str()).collect();
    for kind in ["Namespace", "StatefulSet", "Deployment", "PersistentVolumeClaim"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!(ours(), 0);
    assert_eq!(api.get("/workflows").await.json()["workflows"], json!([]));
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let api = Api::new().await;
    let body = json!({
        "user": "..", "service_name": "a--b", "replicas": -1, "cpu_request": "1GB", "mem_limit": "9223372036854775807Gi",
        "gitlab_url": "http://127.0.0.1/x", "colour": "red",
    });
    let answer = api.post("/clusters", &body).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields = answer.fields();
    for field in ["user", "service_name", "replicas", "cpu_request", "mem_limit", "gitlab_url", "colour"] {
        assert!(fields.iter().any(|named| named == field), "{field} in {fields:?}");
    }
    // A host that nobody has allowed is named among the others.
    let foreign = json!({ "user": "A", "service_name": "search", "gitlab_url": "https://evil.example.com/x.yml" });
    assert_eq!(api.post("/clusters", &foreign).await.fields(), ["user", "gitlab_url"]);
    assert_eq!(api.get("/workflows").await.json()["workflows"], json!([]));
}

#[tokio::test]
async fn bodies_that_are_no_requests_are_refused() {
    let api = Api::new().await;
    let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    for body in ["", "no", "[]", "null", "\u{0}", deep.as_str()] {
        let answer = api.ask("POST", "/clusters", &[], body.to_owned()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer.text);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    }
    let large = api.ask("POST", "/clusters", &[], vec![b' '; 2 << 20]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let api = Api::new().await;
    let absent = [
        "/nope",
        "/workflows/nope",
        "/workflows/0197f3a2-0000-7000-8000-000000000000",
        "/workflows/0197f3a2-0000-7000-8000-000000000000/journal",
        "/workflows/0197f3a2-0000-7000-8000-000000000000/events",
        "/tenant/containers/acme/search",
        "/tenant/containers/%2e%2e/search",
        "/tenant/containers/a%00/search",
        "/tenant/containers/%ff/search",
        "/deployment/reports/A/search",
    ];
    for path in absent {
        let answer = api.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{path}");
    }
    let wrong = api.ask("DELETE", "/clusters", &[], Body::empty()).await;
    assert_eq!((wrong.status, wrong.headers[header::ALLOW].as_bytes()), (StatusCode::METHOD_NOT_ALLOWED, &b"POST"[..]));
    assert_eq!(api.get("/workflows?limit=501&status=odd&kind=x&after=y&z=1").await.fields().len(), 5);
}

#[tokio::test]
async fn a_page_of_another_site_gets_nothing() {
    let api = Api::new().await;
    for (name, value) in [("host", "evil.example.com"), ("origin", "https://evil.example.com"), ("origin", "null")] {
        let answer = api.ask("GET", "/deployments", &[(name, value)], Body::empty()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    let own = [("host", "localhost:8080"), ("origin", "http://127.0.0.1:8080")];
    assert_eq!(api.ask("GET", "/deployments", &own, Body::empty()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_request_keeps_its_id_or_gets_one() {
    let api = Api::new().await;
    let own = api.ask("GET", "/healthz", &[("x-request-id", "mine")], Body::empty()).await;
    assert_eq!(own.headers["x-request-id"], "mine");
    let long = "x".repeat(1000);
    let given = api.ask("GET", "/healthz", &[("x-request-id", &long)], Body::empty()).await;
    assert_eq!(given.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn workflows_are_listed_newest_first_in_pages() {
    let api = Api::slow().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(api.accepted("acme", &format!("s{number}")).await);
    }
    api.accepted("other", "search").await;
    ids.reverse();
    let mut seen: Vec<String> = Vec::new();
    let mut path = "/workflows?user=acme&limit=2".to_owned();
    for page in 0.. {
        assert!(page < 3, "three pages are enough");
        let body = api.get(&path).await.json();
        let listed = body["workflows"].as_array().expect("a list");
        seen.extend(listed.iter().filter_map(|workflow| workflow["id"].as_str()).map(ToOwned::to_owned));
        let Some(next) = body["next"].as_str() else { break };
        path = format!("/workflows?user=acme&limit=2&after={next}");
    }
    assert_eq!(seen, ids);
    let one = api.get("/workflows?service_name=s3&kind=create").await.json();
    assert_eq!(one["workflows"].as_array().map(Vec::len), Some(1));
    assert_eq!(api.get("/workflows?status=succeeded").await.json()["workflows"], json!([]));
}

/// I21
#[tokio::test]
async fn events_are_the_entries_and_a_client_that_comes_back_misses_none() {
    let api = Api::new().await;
    let id = api.accepted("acme", "search").await;
    let path = format!("/workflows/{id}/events");
    let all = api.get(&path).await;
    assert_eq!(all.headers[header::CONTENT_TYPE], "text/event-stream");
    let ids = |text: &str| -> Vec<u64> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")).filter_map(|id| id.parse().ok()).collect()
    };
    let last = u64::try_from(ids(&all.text).len()).expect("few");
    assert_eq!(ids(&all.text), (1..=last).collect::<Vec<_>>());
    assert!(all.text.contains("event: finished"), "{}", all.text);
    let rest = api.ask("GET", &path, &[("last-event-id", "7")], Body::empty()).await;
    assert_eq!(ids(&rest.text), (8..=last).collect::<Vec<_>>());
    let over = api.ask("GET", &path, &[("last-event-id", &last.to_string())], Body::empty()).await;
    assert_eq!(over.status, StatusCode::NO_CONTENT);
    for wrong in ["x", "-1", "9999"] {
        let answer = api.ask("GET", &path, &[("last-event-id", wrong)], Body::empty()).await;
        assert_eq!(answer.fields(), ["Last-Event-ID"], "{wrong}");
    }
    let journal = api.get(&format!("/workflows/{id}/journal")).await.json();
    let lines = api.get(&format!("/workflows/{id}/journal?format=ndjson")).await;
    let lines: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(journal.as_array(), Some(&lines));
    let data: Vec<Value> = all
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    assert_eq!(data, lines);
}

#[tokio::test]
async fn a_person_can_pause_resume_and_cancel() {
    let api = Api::slow().await;
    let id = api.accepted("acme", "search").await;
    let ask = |action: &'static str| {
        let path = format!("/workflows/{id}/{action}");
        let api = &api;
        async move { api.post(&path, &Value::Null).await }
    };
    assert_eq!(ask("pause").await.status, StatusCode::ACCEPTED);
    assert_eq!(ask("pause").await.status, StatusCode::CONFLICT);
    assert_eq!(ask("resume").await.status, StatusCode::ACCEPTED);
    assert_eq!(ask("retry").await.status, StatusCode::CONFLICT);
    assert_eq!(ask("cancel?colour=red").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ask("cancel").await.status, StatusCode::ACCEPTED);
    api.engine.settled(id.parse().expect("an id")).await.expect("it ends");
    let workflow = api.get(&format!("/workflows/{id}")).await.json();
    assert_eq!((&workflow["status"], &workflow["left"]), (&json!("cancelled"), &json!([])));
    assert_eq!(ask("cancel").await.status, StatusCode::CONFLICT);
    let reports = api.get("/deployment/reports/acme/search").await.json();
    assert_eq!(reports.as_array().and_then(|all| all.last()).map(|last| &last["status"]), Some(&json!("cancelled")));
}

#[tokio::test]
async fn the_whole_journal_is_streamed_commit_by_commit() {
    let api = Api::new().await;
    let answer = api.post("/clusters?wait=60s", &json!({ "user": "acme", "service_name": "search" })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let all = api.get("/journal").await;
    let commits: Vec<cairn_engine::Commit> =
        all.text.lines().map(|line| serde_json::from_str(line).expect("a commit")).collect();
    assert!(commits.windows(2).all(|pair| pair[1].previous == pair[0].hash));
    let last = commits.last().expect("some").number.0;
    assert_eq!(api.get(&format!("/journal?after={}", last - 1)).await.text.lines().count(), 1);
    assert_eq!(api.get(&format!("/journal?after={last}")).await.text, "");
}

#[tokio::test]
async fn once_it_ends_nothing_is_accepted_and_those_who_wait_are_answered() {
    let api = Api::slow().await;
    let id = api.accepted("acme", "search").await;
    let path = format!("/workflows/{id}/events");
    let other = json!({ "user": "acme", "service_name": "other" });
    let waiting = api.post("/clusters?wait=10m", &other);
    let (events, waited, ()) = tokio::join!(api.get(&path), waiting, async {
        // Once the submission that is waited for is there, both are under way, and both have to end.
        while api.get("/workflows?service_name=other").await.json()["workflows"] == json!([]) {
            tokio::task::yield_now().await;
        }
        api.app.stopping.cancel();
    });
    assert_eq!(events.status, StatusCode::OK);
    assert_eq!(waited.status, StatusCode::ACCEPTED);
    api.engine.shutdown(Duration::ZERO).await.expect("in memory");
    let refused = api.create("acme", "third").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(api.get("/readyz").await.json()["checks"]["journal"]["ok"], false);
}
