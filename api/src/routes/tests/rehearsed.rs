//! A dry run answers as the call itself would: 200 where that is accepted, and the very same refusal where it is not. What would be
//! accepted and then stop, a plan calls impossible; and it changes nothing.

use cairn_steps::{
    render::Kind,
    sandbox::{Fault, PodTrouble},
};
use futures::{StreamExt as _, stream};
use kube::{
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};

use super::*;

/// Rows at the same time: most of each is waiting.
const AT_ONCE: usize = 4;

/// Method, path, body, Idempotency-Key.
#[derive(Clone, Copy)]
struct Call(&'static str, &'static str, &'static str, Option<&'static str>);

/// What has happened before.
#[derive(Clone, Copy)]
enum Before {
    /// This was asked for, and has come to its end, or waits for a person.
    Ended(Call),
    /// This was asked for, and goes on.
    Begun(Call),
    /// The last workflow was ended by force.
    Forced,
    /// From here on these limits are in force.
    Limits(&'static str),
    /// Somebody has put a ConfigMap into the cluster's namespace.
    Stranger,
    /// Somebody has a namespace of this name.
    Namespace(&'static str),
    /// The storage class lets no disk grow.
    NoExpansion,
}

struct Row {
    name: &'static str,
    before: &'static [Before],
    /// Each creation fails at this step.
    fail_at: Option<&'static str>,
    strict_sizing: bool,
    call: Call,
    answer: Expected,
}

enum Expected {
    /// Accepted, and it comes to a good end.
    Possible,
    /// Accepted, and it stops.
    Impossible,
    /// A repetition: answered as before.
    Again,
    /// Refused with this status and type.
    Refused(u16, &'static str),
}

use Before::{Begun, Ended, Forced, Limits, Namespace, NoExpansion, Stranger};
use Expected::{Again, Impossible, Possible, Refused};

const AT: &str = "/clusters/acme/search";
const SEARCH: Call = Call("POST", "/clusters", r#"{"user":"acme","service_name":"search"}"#, None);
const KEPT_FOR_A_LOOK: Call =
    Call("POST", "/clusters", r#"{"user":"acme","service_name":"search","on_failure":"keep"}"#, None);
const OTHER: Call = Call("POST", "/clusters", r#"{"user":"acme","service_name":"other"}"#, None);
/// A million vectors, in the memory that nobody asked for otherwise, and in enough.
const TOO_SMALL: Call = Call(
    "POST",
    "/clusters",
    r#"{"user":"acme","service_name":"search","dimension":1024,"vector_count":1000000}"#,
    None,
);
const LARGE: Call = Call(
    "POST",
    "/clusters",
    r#"{"user":"acme","service_name":"search","dimension":1024,"vector_count":1000000,"mem_limit":"16Gi"}"#,
    None,
);
const MORE: Call = Call("PATCH", AT, r#"{"mem_limit":"4Gi"}"#, None);
const LARGER: Call = Call("PATCH", AT, r#"{"disk_size":"20Gi"}"#, None);
const DELETE: Call = Call("DELETE", AT, "", None);
const KEEP: Call = Call("DELETE", "/clusters/acme/search?keep_data=true", "", None);

/// The same calls under one key.
const KEYED_SEARCH: Call = keyed(SEARCH);
const KEYED_OTHER: Call = keyed(OTHER);
const KEYED_MORE: Call = keyed(MORE);
const KEYED_DELETE: Call = keyed(DELETE);

const fn keyed(Call(method, path, body, _): Call) -> Call {
    Call(method, path, body, Some("k"))
}

const PLAIN: Row = Row { name: "", before: &[], fail_at: None, strict_sizing: false, call: SEARCH, answer: Possible };

fn rows() -> Vec<Row> {
    let row = |name, before, call, answer| Row { name, before, call, answer, ..PLAIN };
    let mut rows = vec![
        row("a creation of something new", &[], SEARCH, Possible),
        row(
            "a creation with wrong fields",
            &[],
            Call("POST", "/clusters", "{}", None),
            Refused(422, "invalid-request"),
        ),
        row("a creation beyond the quota", &[Limits("memory = \"1Gi\"")], SEARCH, Refused(403, "quota-exceeded")),
        row("a creation of what is there", &[Ended(SEARCH)], SEARCH, Refused(409, "service-exists")),
        row("a creation in somebody's namespace", &[Namespace("acme--search")], SEARCH, Impossible),
        row("a change", &[Ended(SEARCH)], MORE, Possible),
        row("a change of nothing", &[Ended(SEARCH)], Call("PATCH", AT, "{}", None), Refused(422, "invalid-request")),
        row("a change of what is not there", &[], MORE, Refused(404, "not-found")),
        row(
            "a change beyond the quota",
            &[Ended(SEARCH), Limits("memory = \"3Gi\"")],
            MORE,
            Refused(403, "quota-exceeded"),
        ),
        row("a larger disk of a class that lets none grow", &[Ended(SEARCH), NoExpansion], LARGER, Impossible),
        row("a larger disk", &[Ended(SEARCH)], LARGER, Possible),
        row("a deletion", &[Ended(SEARCH)], DELETE, Possible),
        row("a deletion that keeps the data", &[Ended(SEARCH)], KEEP, Possible),
        row("a deletion of what is not there", &[], DELETE, Refused(404, "not-found")),
        row("a deletion with something of others in the namespace", &[Ended(SEARCH), Stranger], DELETE, Impossible),
        // A limit that was lowered below what is in use.
        row(
            "a change that shrinks, over a lowered limit",
            &[Ended(SEARCH), Limits("memory = \"1Gi\"\ncpu = \"1\"")],
            Call("PATCH", AT, r#"{"mem_limit":"1536Mi"}"#, None),
            Possible,
        ),
        row(
            "a change that shrinks in one and grows in the other, over a lowered limit",
            &[Ended(SEARCH), Limits("memory = \"1Gi\"\ncpu = \"1\"")],
            Call("PATCH", AT, r#"{"mem_limit":"1536Mi","cpu_limit":"3"}"#, None),
            Refused(403, "quota-exceeded"),
        ),
        row(
            "a creation over a lowered limit",
            &[Ended(SEARCH), Limits("clusters = 1")],
            OTHER,
            Refused(403, "quota-exceeded"),
        ),
        row("a deletion over a lowered limit", &[Ended(SEARCH), Limits("clusters = 0")], DELETE, Possible),
        // Data that a deletion has kept.
        row("a creation over kept data", &[Ended(SEARCH), Ended(KEEP)], SEARCH, Possible),
        row(
            "a creation over kept data, with its disks over a lowered limit",
            &[Ended(SEARCH), Ended(KEEP), Limits("disk = \"5Gi\"")],
            SEARCH,
            Possible,
        ),
        row(
            "a creation that does not fit the kept data",
            &[Ended(SEARCH), Ended(KEEP)],
            Call(
                "POST",
                "/clusters",
                r#"{"user":"acme","service_name":"search","replicas":2,"disk_size":"20Gi"}"#,
                None,
            ),
            Refused(422, "invalid-request"),
        ),
        row("a change of kept data", &[Ended(SEARCH), Ended(KEEP)], MORE, Refused(404, "not-found")),
        row("a deletion of kept data", &[Ended(SEARCH), Ended(KEEP)], DELETE, Possible),
        row("a deletion that keeps what is kept", &[Ended(SEARCH), Ended(KEEP)], KEEP, Refused(422, "invalid-request")),
        // What another workflow works on.
        row("a creation of what is being made", &[Begun(SEARCH)], SEARCH, Refused(409, "service-exists")),
        row("a change of what is being made", &[Begun(SEARCH)], MORE, Refused(409, "service-busy")),
        row("a deletion of what is being made", &[Begun(SEARCH)], DELETE, Refused(409, "service-busy")),
        // Repetitions.
        row("a creation once more", &[Ended(KEYED_SEARCH)], KEYED_SEARCH, Again),
        row("another creation under the same key", &[Ended(KEYED_SEARCH)], KEYED_OTHER, Refused(409, "key-reused")),
        row("a change under a creation's key", &[Ended(KEYED_SEARCH)], KEYED_MORE, Refused(409, "key-reused")),
        row("a change once more", &[Ended(SEARCH), Ended(KEYED_MORE)], KEYED_MORE, Again),
        row("a deletion once more", &[Ended(SEARCH), Ended(KEYED_DELETE)], KEYED_DELETE, Again),
    ];
    let parked =
        |name, call, answer| Row { fail_at: Some("k8s_applied"), ..row(name, &[Ended(KEPT_FOR_A_LOOK)], call, answer) };
    rows.extend([
        parked("a creation of what is parked", SEARCH, Refused(409, "service-exists")),
        parked("a change of what is parked", MORE, Refused(409, "service-busy")),
        parked("a deletion of what is parked, which it ends", DELETE, Possible),
        parked("a deletion that keeps the data of what never was", KEEP, Refused(422, "invalid-request")),
    ]);
    let half = |name, call, answer| Row { before: &[Ended(KEPT_FOR_A_LOOK), Forced], ..parked(name, call, answer) };
    rows.extend([
        half("a creation of what is there in part", SEARCH, Refused(409, "service-exists")),
        half("a change of what is there in part", MORE, Refused(409, "service-not-whole")),
        half("a deletion of what is there in part", DELETE, Possible),
    ]);
    let strict = |name, before, call, answer| Row { strict_sizing: true, ..row(name, before, call, answer) };
    rows.extend([
        strict("a creation whose vectors do not fit, strictly", &[], TOO_SMALL, Refused(422, "invalid-request")),
        strict("a creation whose vectors fit, strictly", &[], LARGE, Possible),
        strict(
            "a change to less than the vectors need, strictly",
            &[Ended(LARGE)],
            Call("PATCH", AT, r#"{"mem_limit":"2Gi"}"#, None),
            Refused(422, "invalid-request"),
        ),
    ]);
    rows
}

impl Before {
    async fn happen(self, api: &Api) {
        match self {
            Self::Ended(call) => {
                let answer = api.make(call, "").await;
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
                api.engine.settled(workflow(&answer)).await.expect("it settles");
            }
            Self::Begun(call) => {
                let hold = Fault::pods(PodTrouble::NotReady).name("elasticsearch-");
                api.sandbox.faults().add(hold);
                let answer = api.make(call, "").await;
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
            }
            Self::Forced => {
                let listed = api.get("/workflows?limit=1").await.json();
                let id = listed["workflows"][0]["id"].as_str().expect("an id").to_owned();
                let answer = api.post(&format!("/workflows/{id}/cancel?force=true"), &Value::Null).await;
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
                api.engine.settled(id.parse().expect("an id")).await.expect("it ends");
            }
            Self::Limits(limits) => api.app.set_rules(rules(&format!("[quota.default]\n{limits}\n"))),
            Self::Stranger => {
                let notes = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes"}});
                let maps =
                    kube::Api::namespaced_with(api.sandbox.client(), "acme--search", &Kind::ConfigMap.api_resource());
                create(maps, notes).await;
            }
            Self::Namespace(name) => {
                let theirs = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                create(kube::Api::all_with(api.sandbox.client(), &Kind::Namespace.api_resource()), theirs).await;
            }
            Self::NoExpansion => {
                let class = GroupVersionKind::gvk("storage.k8s.io", "v1", "StorageClass");
                let class = ApiResource::from_gvk_with_plural(&class, "storageclasses");
                let classes: kube::Api<DynamicObject> = kube::Api::all_with(api.sandbox.client(), &class);
                let rigid = Patch::Merge(json!({ "allowVolumeExpansion": false }));
                classes.patch("standard", &PatchParams::default(), &rigid).await.expect("patched");
            }
        }
    }
}

async fn create(api: kube::Api<DynamicObject>, object: Value) {
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("made");
}

fn workflow(answer: &Answer) -> cairn_engine::WorkflowId {
    answer.json()["id"].as_str().expect("an id").parse().expect("an id")
}

impl Api {
    async fn make(&self, Call(method, path, body, key): Call, query: &str) -> Answer {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}{joint}{query}") };
        let key = key.map(|key| ("idempotency-key", key));
        self.ask(method, &path, key.as_slice(), body).await
    }
}

/// Makes both calls; `Err` says what was not as it has to be.
async fn judge(row: Row) -> Result<(), String> {
    let options = SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() };
    let api = Api::configured(Rules::default(), options, row.fail_at, None, row.strict_sizing).await;
    for before in row.before {
        before.happen(&api).await;
    }
    let goes_on = row.before.iter().any(|before| matches!(before, Before::Begun(_)));
    let state = async || (api.get("/journal").await.text, api.sandbox.effects().len());
    let was = state().await;
    let dry = api.make(row.call, "dry_run=true").await;
    if !goes_on && state().await != was {
        return Err("the dry run has changed something".to_owned());
    }
    let real = api.make(row.call, "").await;
    let said = format!("the dry run said {} {}; the call itself {} {}", dry.status, dry.text, real.status, real.text);
    let possible = match row.answer {
        Expected::Refused(status, kind) => {
            let alike = dry.status == real.status && dry.text == real.text;
            let wanted = dry.status == status && dry.json()["type"] == format!("urn:cairn:problem:{kind}");
            return if alike && wanted { Ok(()) } else { Err(said) };
        }
        Expected::Again => {
            let alike = dry.status == StatusCode::OK && real.status == StatusCode::OK && dry.text == real.text;
            return if alike { Ok(()) } else { Err(said) };
        }
        Expected::Possible => true,
        Expected::Impossible => false,
    };
    if dry.status != StatusCode::OK || dry.json()["possible"] != possible || real.status != StatusCode::ACCEPTED {
        return Err(said);
    }
    let ended = api.engine.settled(workflow(&real)).await.map_err(|error| error.to_string())?;
    match (ended.outcome() == Some(cairn_engine::Outcome::Succeeded)) == possible {
        true => Ok(()),
        false => Err(format!("{said}; and it ended as {:?}", ended.phase())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_as_the_call_itself_would_and_foretells_how_that_ends() {
    let each = |row: Row| async move {
        let name = row.name;
        judge(row).await.err().map(|why| format!("{name}: {why}"))
    };
    let wrong: Vec<String> =
        stream::iter(rows()).map(each).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    assert_eq!(wrong, [""; 0], "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn a_plan_names_what_it_would_end_take_over_and_stop_at() {
    let options = || SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() };
    let api = Api::with(Rules::default(), options(), Some("k8s_applied")).await;
    Ended(KEPT_FOR_A_LOOK).happen(&api).await;
    let plan = api.make(DELETE, "dry_run=true").await.json();
    assert_eq!(plan["ends"]["kind"], "create", "{plan:#}");
    assert!(plan["ends"]["links"]["workflow"].as_str().is_some_and(|path| path.starts_with("/workflows/")), "{plan:#}");

    let api = Api::with(Rules::default(), options(), None).await;
    for before in [Ended(SEARCH), Ended(KEEP)] {
        before.happen(&api).await;
    }
    let plan = api.make(SEARCH, "dry_run=true").await.json();
    let over = plan["takes_over"].as_array().expect("a list");
    let claim = json!("PersistentVolumeClaim/elasticsearch-data-elasticsearch-0");
    assert!(over.contains(&claim) && over.contains(&json!("Namespace/acme--search")), "{plan:#}");
    assert_eq!(
        plan["quota"]["after"]["disk_bytes"],
        10_u64 << 30,
        "what is charged already is not charged twice: {plan:#}"
    );
    let claims: kube::Api<DynamicObject> =
        kube::Api::namespaced_with(api.sandbox.client(), "acme--search", &Kind::PersistentVolumeClaim.api_resource());
    claims.delete("elasticsearch-data-elasticsearch-0", &Default::default()).await.expect("deleted");
    let plan = api.make(SEARCH, "dry_run=true").await.json();
    assert!(plan["warnings"].to_string().contains("was kept by the deletion and is gone"), "{plan:#}");

    let api = Api::with(Rules::default(), options(), None).await;
    for before in [Ended(SEARCH), Stranger, Limits("clusters = 0")] {
        before.happen(&api).await;
    }
    let plan = api.make(DELETE, "dry_run=true").await.json();
    let all = plan["verdicts"].as_array().expect("a list");
    let namespace = all.iter().find(|one| one["object"] == "Namespace/acme--search").expect("it would go");
    assert!(namespace["message"].as_str().is_some_and(|said| said.contains("ConfigMap/notes")), "{namespace:#}");
    assert!(plan["warnings"].to_string().contains("holds 1 clusters and may hold 0"), "{plan:#}");
}
