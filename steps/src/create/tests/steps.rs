//! What single steps do in situations of their own.

use std::time::Duration;

use cairn_engine::{ErrorClass, Probe};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::bench::{Bench, sandbox};
use crate::gitlab::{AllowedHost, GitLabRules};
use crate::names;
use crate::render::Kind;
use crate::sandbox::{Fault, FaultAction, NodeSize, PodTrouble, Sandbox, SandboxOptions};

fn objects(bench: &Bench, kind: &str) -> Vec<Value> {
    bench.sandbox.objects().into_iter().filter(|object| object["kind"] == kind).collect()
}

pub(super) fn api(bench: &Bench, kind: Kind) -> kube::Api<kube::api::DynamicObject> {
    kube::Api::namespaced_with(bench.sandbox.client(), "acme--search", &kind.api_resource())
}

fn namespace(annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme--search", "annotations": annotations}})
}

#[tokio::test(start_paused = true)]
async fn a_namespace_of_somebody_else_is_never_adopted_changed_or_deleted() {
    for annotations in [json!({}), json!({names::WORKFLOW_ANNOTATION: "0197a000-0000-7000-8000-00000000ffff"})] {
        let mut bench = Bench::new(json!({}));
        bench.stranger(namespace(annotations)).await;
        bench.up_to("namespace_created").await;
        bench.begun("namespace_created");
        let (before, effects) = (bench.things(), bench.effects());
        let error = bench.run("namespace_created").await.expect_err("refused");
        assert_eq!(error.failure.class, ErrorClass::Permanent);
        assert!(error.failure.message.contains("choose another `namespace`"), "{error}");
        let answer = bench.probe("namespace_created").await.expect("an answer");
        assert!(matches!(answer, Probe::Foreign { .. }), "{answer:?}");
        bench.probed("namespace_created", answer);
        bench.roll_back_from("namespace_created").await;
        assert_eq!(bench.things(), before);
        assert_eq!(bench.effects(), effects);
        assert_eq!(bench.residue().await, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_just_going_is_waited_for() {
    let mut bench = Bench::new(json!({}));
    bench.stranger(namespace(json!({}))).await;
    let held =
        bench.sandbox.faults().add(Fault::new(FaultAction::HoldNamespace { finalizer: "example.com/hold".to_owned() }));
    let all: kube::Api<kube::api::DynamicObject> =
        kube::Api::all_with(bench.sandbox.client(), &Kind::Namespace.api_resource());
    all.delete("acme--search", &DeleteParams::default()).await.expect("deleted");
    bench.up_to("namespace_created").await;
    let error = bench.run("namespace_created").await.expect_err("not yet");
    assert_eq!(error.failure.class, ErrorClass::Transient, "{error}");
    bench.sandbox.faults().remove(held);
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.run("namespace_created").await.expect("now it is free");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_does_not_go_is_reported_with_what_holds_it() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("gitlab_pulled").await;
    bench.sandbox.faults().add(Fault::new(FaultAction::HoldNamespace { finalizer: "example.com/hold".to_owned() }));
    let error = bench.compensate("namespace_created").await.expect_err("held");
    assert_eq!(error.failure.class, ErrorClass::Transient);
    assert!(error.failure.message.contains("example.com/hold"), "{error} {:?}", error.failure.evidence);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_with_something_of_others_in_it_is_not_deleted() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("gitlab_pulled").await;
    let note =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "namespace": "acme--search"}});
    bench.stranger(note).await;
    let error = bench.compensate("namespace_created").await.expect_err("refused");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("ConfigMap/notes"), "{error}");
    api(&bench, Kind::ConfigMap).delete("notes", &DeleteParams::default()).await.expect("moved away");
    bench.compensate("namespace_created").await.expect("deleted");
    assert_eq!(bench.residue().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_never_applied_over() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("k8s_applied").await;
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
        "metadata": {"name": names::CONFIG_MAP, "namespace": "acme--search", "labels": {"app.kubernetes.io/managed-by": "Helm"}}});
    bench.stranger(theirs).await;
    bench.begun("k8s_applied");
    let error = bench.run("k8s_applied").await.expect_err("refused");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(
        error.failure.message.contains("ConfigMap/elasticsearch-config") && error.failure.message.contains("Helm"),
        "{error}"
    );
    // What was made before it was met is ours to take back; the foreign one is not.
    let answer = bench.probe("k8s_applied").await.expect("an answer");
    let Probe::Partly { made } = &answer else { panic!("{answer:?}") };
    assert_eq!(
        made.value()["objects"],
        json!(["Service/elasticsearch-nodes", "Service/elasticsearch", "Service/kibana"])
    );
    let map = api(&bench, Kind::ConfigMap).get(names::CONFIG_MAP).await.expect("there");
    assert_eq!(map.data["data"], json!({"a": "b"}));
}

#[tokio::test(start_paused = true)]
async fn fields_that_others_have_taken_over_are_not_taken_back() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("rollout_completed").await;
    let params = PatchParams { field_manager: Some("kubectl-scale".to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    api(&bench, Kind::StatefulSet).patch(names::STATEFUL_SET, &params, &patch).await.expect("scaled");
    let error = bench.run("rollout_completed").await.expect_err("a conflict");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(
        error.failure.evidence.iter().any(|line| line.contains("replicas")),
        "{error} {:?}",
        error.failure.evidence
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_recreated_under_our_mark_is_left_alone() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("resources_configured").await;
    let config = api(&bench, Kind::ConfigMap);
    let mut copy = config.get(names::CONFIG_MAP).await.expect("there");
    config.delete(names::CONFIG_MAP, &DeleteParams::default()).await.expect("deleted");
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    config.create(&kube::api::PostParams::default(), &copy).await.expect("recreated");
    // Without the namespace on record the objects are deleted one by one.
    let cluster = crate::cluster::Cluster::new(bench.sandbox.client());
    let output = bench.state.output(&"k8s_applied".into()).expect("applied").clone();
    for one in super::made(&output).iter().filter(|one| one.kind == "ConfigMap") {
        let deletion = cluster.delete_ours(one, &bench.workflow()).await.expect("an answer");
        assert_eq!(deletion, crate::cluster::gone::Deletion::NotOurs);
    }
    config.get(names::CONFIG_MAP).await.expect("still there");
}

#[tokio::test(start_paused = true)]
async fn the_claims_are_of_the_wanted_size_for_every_ordinal() {
    let mut bench = Bench::new(json!({"replicas": 3, "disk_size": "20Gi"}));
    bench.up_to("gpu_configured").await;
    let claims = objects(&bench, "PersistentVolumeClaim");
    assert_eq!(claims.len(), 3);
    assert!(claims.iter().all(|claim| claim["spec"]["resources"]["requests"]["storage"] == "20Gi"), "{claims:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_never_made_smaller() {
    let mut bench = Bench::new(json!({"disk_size": "2Gi"}));
    bench.up_to("disk_configured").await;
    let larger = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": names::claim(0), "namespace": "acme--search", "annotations": {names::WORKFLOW_ANNOTATION: bench.workflow()}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "4Gi"}}}});
    bench.stranger(larger).await;
    let error = bench.run("disk_configured").await.expect_err("refused");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("cannot be made smaller"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn steps_with_nothing_to_do_say_so() {
    let bench = Bench::new(json!({}));
    for (step, why) in [("gitlab_pulled", "no gitlab_url"), ("gpu_configured", "gpu_count is 0")] {
        let output = bench.run(step).await.expect("skipped");
        assert!(output.skipped && output.message.contains(why), "{}", output.message);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_before_the_rollout_and_everything_after_it() {
    let mut bench = Bench::new(json!({"replicas": 2}));
    bench.up_to("rollout_completed").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(objects(&bench, "Pod").len(), 0);
    let output = bench.run("rollout_completed").await.expect("rolled out");
    assert_eq!(output.message, "ready: elasticsearch 2/2, kibana 1/1");
    assert_eq!(objects(&bench, "Pod").len(), 3);
    let config = objects(&bench, "ConfigMap")
        .into_iter()
        .find(|map| map["metadata"]["name"] == names::CONFIG_MAP)
        .expect("there");
    assert!(!config["data"]["elasticsearch.yml"].to_string().contains("initial_master_nodes"));
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_start_fail_the_rollout_early_and_say_why() {
    for (trouble, words, within) in [
        (PodTrouble::InvalidImageName, "InvalidImageName", 60),
        (PodTrouble::ImagePullBackOff, "ImagePull", 200),
        (PodTrouble::CreateContainerConfigError, "CreateContainerConfigError", 60),
        (PodTrouble::CrashLoopBackOff, "CrashLoopBackOff", 300),
        (PodTrouble::OomKilled, "OOMKilled", 300),
        (PodTrouble::Unschedulable, "has no node", 330),
        (PodTrouble::FailedCreate, "cannot make its pods", 60),
        (PodTrouble::NotReady, "not rolled out within 600 s", 601),
    ] {
        let mut bench = Bench::new(json!({}));
        bench.up_to("rollout_completed").await;
        bench.sandbox.faults().add(Fault::pods(trouble));
        let started = tokio::time::Instant::now();
        let error = bench.run("rollout_completed").await.expect_err("it cannot start");
        assert_eq!(error.failure.class, ErrorClass::Permanent);
        assert!(error.failure.message.contains(words), "{trouble:?}: {error}");
        assert!(started.elapsed() <= Duration::from_secs(within), "{trouble:?} took {:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollout_survives_watches_that_break() {
    let mut bench = Bench::new(json!({"replicas": 3}));
    bench.up_to("rollout_completed").await;
    for after_events in 0..4 {
        bench.sandbox.faults().add(Fault::new(FaultAction::WatchBreak { after_events }).verb("watch").times(3));
    }
    bench.run("rollout_completed").await.expect("rolled out");
}

/// 410: the mirrors are listed anew, and nothing is missed.
#[tokio::test(start_paused = true)]
async fn a_rollout_survives_watches_whose_version_is_forgotten() {
    let mut bench = Bench::new(json!({"replicas": 3}));
    bench.up_to("rollout_completed").await;
    for resource in ["pods", "statefulsets", "deployments"] {
        bench.sandbox.faults().add(Fault::new(FaultAction::Gone).resource(resource).times(4));
    }
    bench.run("rollout_completed").await.expect("rolled out");
}

#[tokio::test(start_paused = true)]
async fn however_many_workflows_wait_the_server_sees_three_watches() {
    let first = Bench::new(json!({"user": "a0"}));
    let watches = first.sandbox.faults().add(Fault::latency(Duration::ZERO).verb("watch"));
    let others = (1..10).map(|n| first.beside(json!({"user": format!("a{n}")})));
    let waiting = std::iter::once(first.beside(json!({"user": "b"}))).chain(others).map(|mut bench| async move {
        bench.up_to("tenant_synced").await;
    });
    futures::future::join_all(waiting).await;
    let seen = first.sandbox.faults().list().into_iter().find(|fault| fault.id == watches).expect("it is there").seen;
    assert_eq!(seen, 3);
}

#[tokio::test(start_paused = true)]
async fn a_workload_deleted_during_its_rollout_is_a_failure_and_not_followed() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("rollout_completed").await;
    bench.sandbox.faults().add(Fault::pods(PodTrouble::NotReady));
    let deleting = api(&bench, Kind::StatefulSet);
    let deleted = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        deleting.delete(names::STATEFUL_SET, &DeleteParams::default()).await.expect("deleted");
    };
    let (result, ()) = tokio::join!(bench.run("rollout_completed"), deleted);
    let error = result.expect_err("deleted");
    assert!(error.failure.message.contains("deleted by somebody else"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_start_refuses_what_the_cluster_has_not_got() {
    let node = NodeSize { gpu: 0, ..NodeSize::default() };
    let no_gpus = Sandbox::open(SandboxOptions { node, ..SandboxOptions::default() }).expect("a sandbox");
    let error =
        Bench::on(no_gpus, json!({"gpu_count": 1}), GitLabRules::default()).run("starting").await.expect_err("no GPUs");
    assert!(error.failure.message.contains("set gpu_count to 0"), "{error}");
    let bench = Bench::new(json!({}));
    let classes: kube::Api<k8s_openapi::api::storage::v1::StorageClass> = kube::Api::all(bench.sandbox.client());
    for class in classes.list(&kube::api::ListParams::default()).await.expect("a list") {
        classes
            .delete(class.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default())
            .await
            .expect("deleted");
    }
    let error = bench.run("starting").await.expect_err("no class");
    assert!(error.failure.message.contains("no default StorageClass"), "{error}");
    let error = Bench::new(json!({"gitlab_url": "https://gitlab.example.com/a.yml"}))
        .run("starting")
        .await
        .expect_err("not allowed");
    assert!(error.failure.message.contains("gitlab.hosts"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_start_warns_of_vectors_that_do_not_fit() {
    let output = Bench::new(json!({"dimension": 1024, "vector_count": 1_000_000}))
        .run("starting")
        .await
        .expect("a warning only");
    assert!(output.message.contains("warning: 1000000 vectors of dimension 1024"), "{}", output.message);
    assert_eq!(output.result.value()["request"]["user"], "acme");
}

#[tokio::test]
async fn pulled_settings_reach_the_configuration_and_a_resume_uses_the_same_bytes() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut socket, _) = listener.accept().await.expect("one pull");
        let _ = socket.read(&mut [0; 4096]).await;
        let body = "search.max_buckets: 20000\n";
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(answer.as_bytes()).await.expect("answered");
    });
    let hosts = vec![AllowedHost::parse(&address.to_string()).expect("a host").private()];
    let rules = GitLabRules { hosts, allow_http: true, ..GitLabRules::default() };
    let mut bench = Bench::on(sandbox(), json!({"gitlab_url": format!("http://{address}/a.yml")}), rules);
    // The host answers once: every later step works from the journal.
    bench.up_to("resources_configured").await;
    let config = objects(&bench, "ConfigMap")
        .into_iter()
        .find(|map| map["metadata"]["name"] == names::CONFIG_MAP)
        .expect("there");
    assert!(config["data"]["elasticsearch.yml"].to_string().contains("search.max_buckets: 20000"));
}

#[tokio::test(start_paused = true)]
async fn the_end_reads_everything_back_and_names_what_somebody_changed() {
    let mut bench = Bench::new(json!({}));
    bench.up_to("completed").await;
    bench.run("completed").await.expect("as asked for");
    let params = PatchParams::default();
    let patch = Patch::Merge(json!({"data": {"elasticsearch.yml": "other"}}));
    api(&bench, Kind::ConfigMap).patch(names::CONFIG_MAP, &params, &patch).await.expect("changed");
    api(&bench, Kind::Service).delete(names::KIBANA, &DeleteParams::default()).await.expect("deleted");
    let error = bench.run("completed").await.expect_err("changed");
    assert!(error.failure.message.contains("somebody changed 2 things"), "{error}");
    assert!(error.failure.evidence.iter().any(|line| line == "Service/kibana is gone"), "{:?}", error.failure.evidence);
}

#[tokio::test(start_paused = true)]
async fn the_record_gets_endpoints_and_versions() {
    let output = Bench::new(json!({})).run("tenant_synced").await.expect("recorded");
    let record = output.record.expect("a record").value();
    assert_eq!(record["endpoints"]["elasticsearch"], "https://elasticsearch.acme--search.svc:9200");
    assert_eq!(record["versions"]["kibana"], crate::elastic::DEFAULT_VERSION);
}
