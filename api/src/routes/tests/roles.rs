//! Callers × routes × own, foreign and absent: with tokens, a tenant gets its own, and what is another's looks exactly like
//! what is not there (I23).

use super::*;
use crate::auth;

/// An API with a token for acme, one for other, and one for an operator; with a cluster of acme's and one of other's.
struct Guarded {
    api: Api,
    acme: String,
    other: String,
    operator: String,
    own: String,
    foreign: String,
}

/// An id that is nobody's.
const NOBODYS: &str = "01a2091e-d128-7078-9200-6d1128ec9d8b";

impl Guarded {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens.toml");
        let issued = [("acme-ci", Some("acme")), ("other-ci", Some("other")), ("ops", None)]
            .map(|(name, user)| auth::issue(name, user).expect("good names"));
        std::fs::write(&path, issued.iter().map(|(_, entry)| entry.as_str()).collect::<String>()).expect("written");
        let flags = Flags { tokens: Some(path), ..Flags::default() };
        let rules = Settings::new(&flags).expect("right").rules;
        let options = SandboxOptions { pod_ready_after: Duration::from_secs(3600), ..Default::default() };
        let [(acme, _), (other, _), (operator, _)] = issued;
        let mut guarded = Self {
            api: Api::with(rules, options, None).await,
            acme,
            other,
            operator,
            own: String::new(),
            foreign: String::new(),
        };
        guarded.own = guarded.submitted(&guarded.acme, "acme").await;
        guarded.foreign = guarded.submitted(&guarded.other, "other").await;
        for user in ["acme", "other"] {
            // Until there is something to see of each.
            let path = format!("/deployment/reports/{user}/search");
            while guarded.ask(&guarded.operator, "GET", &path, "").await.text == "[]" {
                tokio::task::yield_now().await;
            }
        }
        guarded
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.api.ask(method, path, &[("authorization", &bearer)], body.to_owned()).await
    }

    async fn submitted(&self, token: &str, user: &str) -> String {
        let body = json!({ "user": user, "service_name": "search" }).to_string();
        let answer = self.ask(token, "POST", "/clusters", &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        answer.json()["id"].as_str().expect("an id").to_owned()
    }
}

/// The routes about one workflow.
const OF_WORKFLOW: [(&str, &str); 7] = [
    ("GET", "/workflows/ID"),
    ("GET", "/workflows/ID/journal"),
    ("GET", "/workflows/ID/events"),
    ("POST", "/workflows/ID/pause"),
    ("POST", "/workflows/ID/resume"),
    ("POST", "/workflows/ID/retry"),
    ("POST", "/workflows/ID/cancel"),
];

/// The routes about one service.
const OF_SERVICE: [&str; 5] = [
    "/deployment/reports/USER/search",
    "/deployment/reports/USER/search/stats",
    "/deployments?user=USER",
    "/tenant/containers/USER/search",
    "/workflows?user=USER",
];

#[tokio::test]
async fn without_a_token_only_the_health_is_told_and_none_of_its_reasons() {
    let guarded = Guarded::new().await;
    let every = OF_SERVICE.iter().map(|path| ("GET", *path)).chain(OF_WORKFLOW);
    let changing = [("PATCH", "/clusters/acme/search"), ("DELETE", "/clusters/acme/search")];
    for (method, path) in every.chain(changing).chain([("POST", "/clusters"), ("GET", "/journal"), ("GET", "/nowhere")])
    {
        for headers in [vec![], vec![("authorization", "Bearer cairn_wrong")], vec![("authorization", "Basic x")]] {
            let answer = guarded.api.ask(method, path, &headers, Body::empty()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert!(answer.headers[header::WWW_AUTHENTICATE].as_bytes().starts_with(b"Bearer"), "{method} {path}");
            assert!(!answer.text.contains("cairn_wrong"), "{}", answer.text);
        }
    }
    assert_eq!(guarded.api.get("/healthz").await.status, StatusCode::OK);
    let ready = guarded.api.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["workflows"].is_null()), (StatusCode::OK, true), "{}", ready.text);
    let ready = guarded.ask(&guarded.operator, "GET", "/readyz", "").await;
    assert_eq!(ready.json()["workflows"]["active"], 2, "{}", ready.text);
}

#[tokio::test]
async fn a_foreign_workflow_looks_like_one_that_is_not_there_and_an_own_one_is_there() {
    let guarded = Guarded::new().await;
    for (method, path) in OF_WORKFLOW {
        let at = |id: &str| path.replace("ID", id);
        let foreign = guarded.ask(&guarded.acme, method, &at(&guarded.foreign), "").await;
        let absent = guarded.ask(&guarded.acme, method, &at(NOBODYS), "").await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(foreign.text.replace(&guarded.foreign, "ID"), absent.text.replace(NOBODYS, "ID"), "{method} {path}");
    }
    // What a stranger asked for did not happen.
    let state = guarded.ask(&guarded.other, "GET", &format!("/workflows/{}", guarded.foreign), "").await.json();
    assert_eq!((&state["paused"], &state["cancel_requested"]), (&json!(false), &json!(false)));
    for (method, path) in OF_WORKFLOW {
        // A stream of events does not end, and would be waited for.
        if path.ends_with("/events") {
            continue;
        }
        for token in [&guarded.acme, &guarded.operator] {
            let answer = guarded.ask(token, method, &path.replace("ID", &guarded.own), "").await;
            assert_ne!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_foreign_service_looks_like_one_that_is_not_there_and_lists_show_the_own() {
    let guarded = Guarded::new().await;
    for path in OF_SERVICE {
        let foreign = guarded.ask(&guarded.acme, "GET", &path.replace("USER", "other"), "").await;
        let absent = guarded.ask(&guarded.acme, "GET", &path.replace("USER", "nobody"), "").await;
        assert_eq!(foreign.status, absent.status, "{path}");
        assert_eq!(foreign.text.replace("other", "nobody"), absent.text, "{path}");
        let own = guarded.ask(&guarded.acme, "GET", &path.replace("USER", "acme"), "").await;
        assert!(own.status == StatusCode::OK && own.text != absent.text, "{path}: {}", own.text);
        let seen = guarded.ask(&guarded.operator, "GET", &path.replace("USER", "other"), "").await;
        assert!(seen.status == StatusCode::OK && seen.text != absent.text, "{path}: {}", seen.text);
    }
    for (path, list) in [("/deployments", ""), ("/workflows", "/workflows")] {
        let users = |answer: &Answer| -> Vec<Value> {
            let all = answer.json();
            let all = all.pointer(list).and_then(Value::as_array).expect("a list").clone();
            all.iter().map(|one| one["user"].clone()).collect()
        };
        assert_eq!(users(&guarded.ask(&guarded.acme, "GET", path, "").await), ["acme"]);
        assert_eq!(users(&guarded.ask(&guarded.operator, "GET", path, "").await).len(), 2);
    }
}

#[tokio::test]
async fn nobody_creates_for_another_tenant_and_only_an_operator_reads_the_whole_journal() {
    let guarded = Guarded::new().await;
    for service in ["search", "new"] {
        let body = json!({ "user": "other", "service_name": service }).to_string();
        for path in ["/clusters", "/clusters?dry_run=true"] {
            let answer = guarded.ask(&guarded.acme, "POST", path, &body).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN);
            assert!(answer.text.contains("this token is for acme"), "{}", answer.text);
        }
    }
    assert_eq!(guarded.ask(&guarded.acme, "GET", "/journal", "").await.status, StatusCode::FORBIDDEN);
    let journal = guarded.ask(&guarded.operator, "GET", "/journal", "").await;
    assert_eq!(journal.status, StatusCode::OK);
    for token in [&guarded.acme, &guarded.other, &guarded.operator] {
        assert!(!journal.text.contains(token.as_str()), "a token is in the journal");
    }
    assert!(journal.text.contains("acme-ci"), "who asked is in the journal");
}

/// What a tenant may not see it can neither change nor delete, and learns nothing of by trying (I23).
#[tokio::test]
async fn a_foreign_service_is_neither_changed_nor_deleted_and_looks_like_one_that_is_not_there() {
    let guarded = Guarded::new().await;
    for (method, body) in [("PATCH", r#"{"replicas":3}"#), ("PATCH", "no JSON"), ("DELETE", "")] {
        for query in ["", "?wait=1s"] {
            let at = |user: &str| format!("/clusters/{user}/search{query}");
            let foreign = guarded.ask(&guarded.acme, method, &at("other"), body).await;
            let absent = guarded.ask(&guarded.acme, method, &at("nobody"), body).await;
            assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{method} {body}");
            assert_eq!(foreign.text.replace("other", "USER"), absent.text.replace("nobody", "USER"), "{method} {body}");
            // Its own is there: its creation has not ended.
            let own = guarded.ask(&guarded.acme, method, &at("acme"), body).await;
            assert_eq!(own.status, StatusCode::CONFLICT, "{method} {body}: {}", own.text);
        }
    }
    let listed = guarded.ask(&guarded.operator, "GET", "/workflows", "").await.json();
    assert_eq!(listed["workflows"].as_array().map(Vec::len), Some(2), "{listed}");
}
