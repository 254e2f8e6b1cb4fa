//! `?dry_run=true`: the cluster's own word on each object, the quota before and after, warnings; and nothing is changed.

use cairn_steps::sandbox::Fault;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};

use super::*;

const SEARCH: &str = r#"{"user": "acme", "service_name": "search", "gpu_count": 1}"#;

impl Api {
    async fn plan(&self, body: &str) -> Value {
        let answer = self.ask("POST", "/clusters?dry_run=true", &[], body.to_owned()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }
}

fn verdicts(plan: &Value, wanted: &str) -> Vec<String> {
    let all = plan["verdicts"].as_array().expect("a list").iter();
    all.filter(|one| one["verdict"] == wanted).map(|one| one["object"].as_str().expect("a name").to_owned()).collect()
}

fn warned(plan: &Value, words: &str) -> bool {
    plan["warnings"].as_array().expect("a list").iter().any(|one| one.as_str().is_some_and(|one| one.contains(words)))
}

#[tokio::test]
async fn a_plan_has_the_clusters_word_on_each_object_and_changes_neither_cluster_nor_journal() {
    let api = Api::new().await;
    let journal = api.get("/journal").await.text;
    let plan = api.plan(SEARCH).await;
    assert_eq!((&plan["possible"], &plan["warnings"]), (&json!(true), &json!([])));
    let (sent, said) = (plan["objects"].as_array().expect("a list"), plan["verdicts"].as_array().expect("a list"));
    assert_eq!((sent.len(), verdicts(&plan, "accepted").len()), (said.len(), said.len()), "{plan:#}");
    for (sent, said) in sent.iter().zip(said) {
        let name =
            format!("{}/{}", sent["kind"].as_str().unwrap_or("?"), sent["metadata"]["name"].as_str().unwrap_or("?"));
        assert_eq!((said["object"].as_str(), &said["action"]), (Some(name.as_str()), &json!("create")));
        // What could not be checked where it would lie says so.
        assert_eq!(said["tried_in"].is_null(), sent["kind"] == "Namespace", "{said}");
    }
    assert!(sent.iter().filter(|one| one["kind"] == "Secret").all(|one| one["data"].is_null()), "{plan:#}");
    assert_eq!(api.sandbox.effects(), []);
    assert_eq!(api.get("/journal").await.text, journal);
}

#[tokio::test]
async fn a_plan_tells_the_quota_before_and_after() {
    let options = SandboxOptions { pod_ready_after: Duration::from_secs(3600), ..Default::default() };
    let api = Api::with(rules("[quota.default]\nclusters = 3\ngpus = 4"), options, None).await;
    api.accepted("acme", "first").await;
    let quota = api.plan(SEARCH).await["quota"].clone();
    let of = |resource: &str| ["used", "after", "limits"].map(|when| quota[when][resource].clone());
    assert_eq!(of("clusters"), [json!(1), json!(2), json!(3)]);
    assert_eq!(quota["after"]["gpus"], 1);
}

#[tokio::test]
async fn what_would_be_refused_is_named_and_so_is_what_is_missing() {
    let api = Api::new().await;
    let right = api.sandbox.faults().add(Fault::forbid().verb("create").resource("statefulsets"));
    let plan = api.plan(SEARCH).await;
    assert_eq!(plan["possible"], false);
    assert_eq!(verdicts(&plan, "refused"), ["StatefulSet/elasticsearch"]);
    assert!(warned(&plan, "right: create statefulsets.apps"), "{plan:#}");
    api.sandbox.faults().remove(right);

    // Another's namespace: refused, and not looked into.
    let body = json!({ "user": "globex", "service_name": "search", "namespace": "shared" });
    let made = api.post("/clusters", &body).await.json()["id"].as_str().expect("an id").to_owned();
    api.engine.settled(made.parse().expect("an id")).await.expect("ends");
    let plan = api.plan(r#"{"user": "acme", "service_name": "search", "namespace": "shared"}"#).await;
    assert_eq!((&plan["possible"], verdicts(&plan, "refused")), (&json!(false), vec!["Namespace/shared".to_owned()]));
    assert!(!plan["verdicts"].to_string().contains("globex"), "whose it is, is nobody else's business: {plan:#}");
}

#[tokio::test]
async fn of_a_cluster_that_does_not_answer_nothing_is_known_and_that_is_said() {
    let api = Api::new().await;
    api.sandbox.faults().add(Fault::status(503));
    let plan = api.plan(SEARCH).await;
    assert_eq!(plan["possible"], false);
    assert_eq!(verdicts(&plan, "unchecked").len(), plan["objects"].as_array().expect("a list").len(), "{plan:#}");
    assert!(warned(&plan, "server: reachable"), "{plan:#}");
}

/// A change that adds nodes was planned as possible where their disks would never be made.
#[tokio::test]
async fn without_a_default_class_nodes_cannot_be_added_and_everything_else_can_be_changed() {
    let api = Api::new().await;
    let made = api.accepted("acme", "search").await;
    api.engine.settled(made.parse().expect("an id")).await.expect("ends");
    let class = GroupVersionKind::gvk("storage.k8s.io", "v1", "StorageClass");
    let class = ApiResource::from_gvk_with_plural(&class, "storageclasses");
    let classes: kube::Api<DynamicObject> = kube::Api::all_with(api.sandbox.client(), &class);
    let annotations = json!({ "storageclass.kubernetes.io/is-default-class": "false" });
    let no_default = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    classes.patch("standard", &PatchParams::default(), &no_default).await.expect("patched");
    for (change, possible) in [(r#"{"replicas": 2}"#, false), (r#"{"mem_limit": "4Gi"}"#, true)] {
        let plan = api.ask("PATCH", "/clusters/acme/search?dry_run=true", &[], change.to_owned()).await.json();
        assert_eq!(plan["possible"], possible, "{plan:#}");
        assert_eq!(warned(&plan, "kubectl annotate storageclass"), !possible, "{plan:#}");
    }
}

#[tokio::test]
async fn a_plan_of_a_change_tells_each_change_and_one_of_a_deletion_what_goes_and_nothing_is_done() {
    let api = Api::with(
        rules("[quota.default]\nmemory = \"10Gi\""),
        SandboxOptions { pod_ready_after: Duration::ZERO, ..Default::default() },
        None,
    )
    .await;
    let made = api.accepted("acme", "search").await;
    api.engine.settled(made.parse().expect("an id")).await.expect("ends");
    let (journal, effects) = (api.get("/journal").await.text, api.sandbox.effects());
    let at = |query: &str| format!("/clusters/acme/search?dry_run=true{query}");

    let change = api.ask("PATCH", &at(""), &[], r#"{"mem_limit": "4Gi", "disk_size": "20Gi"}"#.to_owned()).await;
    assert_eq!(change.status, StatusCode::OK, "{}", change.text);
    let change = change.json();
    assert_eq!((&change["kind"], &change["possible"]), (&json!("update"), &json!(true)), "{change:#}");
    let changed = |object: &str, path: &str| {
        let mut all = change["verdicts"].as_array().expect("a list").iter();
        let one = all.find(|one| one["object"] == object).expect(object);
        one["changes"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|one| one["path"].as_str().is_some_and(|at| at.ends_with(path)))
    };
    assert!(changed("StatefulSet/elasticsearch", "resources.limits.memory"), "{change:#}");
    assert!(changed("PersistentVolumeClaim/elasticsearch-data-elasticsearch-0", "requests.storage"), "{change:#}");
    assert_eq!(change["quota"]["after"]["memory_bytes"], 4_u64 << 30);
    let too_much = api.ask("PATCH", &at(""), &[], r#"{"mem_limit": "11Gi"}"#.to_owned()).await;
    assert_eq!(too_much.status, StatusCode::FORBIDDEN, "{}", too_much.text);

    let actions = |plan: &Value, wanted: &str| -> Vec<String> {
        let all = plan["verdicts"].as_array().expect("a list").iter();
        all.filter(|one| one["action"] == wanted)
            .map(|one| one["object"].as_str().expect("a name").to_owned())
            .collect()
    };
    let deletion = api.ask("DELETE", &at(""), &[], Body::empty()).await.json();
    assert_eq!((&deletion["kind"], &deletion["possible"]), (&json!("delete"), &json!(true)), "{deletion:#}");
    assert_eq!(actions(&deletion, "delete").last().map(String::as_str), Some("Namespace/acme--search"), "{deletion:#}");
    assert_eq!(deletion["quota"]["after"]["memory_bytes"], 0);
    let keeping = api.ask("DELETE", &at("&keep_data=true"), &[], Body::empty()).await.json();
    assert!(actions(&keeping, "keep").iter().any(|one| one.starts_with("PersistentVolumeClaim/")), "{keeping:#}");

    assert_eq!(api.sandbox.effects(), effects);
    assert_eq!(api.get("/journal").await.text, journal);
}
