//! Kept data that no creation could go on with: the record of it came from the last request, and a change that was ended by
//! force had left more and larger claims than that says. And data that was to be kept and was lost without a word.

use cairn_engine::Output;
use kube::api::DynamicObject;

use super::*;
use crate::cluster::rollout::RolloutRules;
use crate::elastic::Elastic;
use crate::kept::Kept;
use crate::update::update_definition;

fn objects(bench: &Bench, kind: Kind) -> kube::Api<DynamicObject> {
    kube::Api::namespaced_with(bench.sandbox.client(), "acme--search", &kind.api_resource())
}

async fn patch(bench: &Bench, kind: Kind, name: &str, body: &Value) {
    objects(bench, kind).patch(name, &PatchParams::default(), &Patch::Merge(body)).await.expect("patched");
}

/// A cluster of two nodes, and a deletion of it with `keep_data` that is through.
async fn kept_data() -> (Bench, Origin) {
    let mut bench = of_two_nodes(true).await;
    bench.up_to("").await;
    bench.finished(Outcome::Succeeded);
    let origin = Origin::after(&bench.state).expect("readable");
    (bench, origin)
}

fn request(bench: &Bench, replicas: u32, disk_size: &str) -> Request {
    let request: Request = bench.state.submitted().input.read().expect("a request");
    Request { replicas, disk_size: disk_size.parse().expect("a size"), ..request }
}

#[tokio::test(start_paused = true)]
async fn what_a_change_ended_by_force_has_left_is_what_is_kept_and_a_creation_goes_on_with_it() {
    let mut bench = of_two_nodes(false).await;
    let before = request(&bench, 2, "10Gi");
    let after = request(&bench, 3, "20Gi");
    let origin = bench.state.submitted().input.read::<Input>().expect("a deletion").origin.expect("an origin");
    let change = Input::change(before.clone(), after, origin);
    bench.follow(update_definition(bench.cluster(), RolloutRules::default()), &change);
    bench.up_to("updated").await;
    bench.ended_by_force();

    // By the request in force there are two nodes with 10Gi.
    let left = Origin::after(&bench.state).expect("readable");
    let template = left.template_disk.clone();
    let input = Input::deletion(before, left, bench.state.id(), true);
    bench.follow(delete_definition(bench.cluster()), &input);
    bench.up_to("").await;
    bench.finished(Outcome::Succeeded);
    let kept = Origin::after(&bench.state).expect("readable");
    let Kept { replicas, disk_size, claims } = kept.kept.clone().expect("three claims");
    assert_eq!((replicas, disk_size.as_str(), claims.len()), (3, "20Gi", 3));
    let uids = claim_uids(&bench);

    let input = Input::over_kept_data(request(&bench, replicas, "20Gi"), kept);
    bench.follow(create_definition(bench.deps()), &input);
    bench.up_to("").await;
    bench.finished(Outcome::Succeeded);
    assert_eq!(claim_uids(&bench), uids);
    // The set is a new one: what the journal says of its claim template is what the cluster has, and a change can go on from it.
    let there = Origin::after(&bench.state).expect("readable");
    assert_eq!((template.as_str(), there.template_disk.as_str(), &there.kept), ("10Gi", "20Gi", &None));
    let set = bench.things().into_iter().find(|object| object["kind"] == "StatefulSet").expect("a set");
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "20Gi");
    let mut larger = request(&bench, 3, "20Gi");
    larger.mem_limit = "4Gi".parse().expect("a size");
    let change = Input::change(request(&bench, 3, "20Gi"), larger, there);
    bench.follow(update_definition(bench.cluster(), RolloutRules::default()), &change);
    bench.up_to("").await;
}

/// A change that was ended by force while the disks grew leaves some of each size; none becomes smaller, so all become larger.
#[tokio::test(start_paused = true)]
async fn claims_of_two_sizes_are_of_one_once_a_creation_has_taken_them_over() {
    let mut bench = of_two_nodes(true).await;
    let larger = json!({"spec": {"resources": {"requests": {"storage": "20Gi"}}}});
    patch(&bench, Kind::PersistentVolumeClaim, &names::claim(1), &larger).await;
    bench.up_to("").await;
    bench.finished(Outcome::Succeeded);
    let kept = Origin::after(&bench.state).expect("readable");
    let sizes: Vec<String> =
        kept.kept.iter().flat_map(|kept| &kept.claims).map(|claim| claim.disk_size.to_string()).collect();
    assert_eq!(sizes, ["10Gi", "20Gi"]);
    let input = Input::over_kept_data(request(&bench, 2, "20Gi"), kept);
    bench.follow(create_definition(bench.deps()), &input);
    bench.up_to("").await;
    let claims = bench.things().into_iter().filter(|object| object["kind"] == "PersistentVolumeClaim");
    let sizes: Vec<Value> = claims.map(|claim| claim["spec"]["resources"]["requests"]["storage"].clone()).collect();
    assert_eq!(sizes, ["20Gi", "20Gi"]);
}

/// What a build journaled that did not look at the claims still reads: then the last request says what there is.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_journaled_no_claims_has_kept_what_its_request_says() {
    let mut bench = of_two_nodes(true).await;
    bench.up_to("deleted").await;
    bench.begun("deleted");
    let old = Output::new(
        "kept 4 objects; nothing else is left",
        &json!({"status": "deleted", "kept": ["Namespace/acme--search"]}),
    );
    bench.succeeded("deleted", old.expect("small"));
    bench.finished(Outcome::Succeeded);
    let origin = Origin::after(&bench.state).expect("readable");
    assert_eq!(origin.kept, None);
    let uids = claim_uids(&bench);
    bench.follow(create_definition(bench.deps()), &Input::over_kept_data(request(&bench, 2, "10Gi"), origin));
    bench.up_to("").await;
    assert_eq!(claim_uids(&bench), uids);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_to_be_kept_and_is_gone_stops_the_deletion_by_name() {
    let mut bench = of_two_nodes(true).await;
    bench.up_to("deleted").await;
    let claims = objects(&bench, Kind::PersistentVolumeClaim);
    claims.delete(&names::claim(1), &DeleteParams::default()).await.expect("deleted");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let error = bench.run("deleted").await.expect_err("the data of a node is lost");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    let lost =
        "deleted by somebody else: PersistentVolumeClaim/elasticsearch-data-elasticsearch-1 is gone; end this deletion";
    assert!(error.failure.message.contains(lost), "{error}");

    // Another one in its place has nothing on it.
    let mark = bench.state.submitted().input.value()["origin"]["mark"].clone();
    let again = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": names::claim(1),
        "namespace": "acme--search", "annotations": {names::WORKFLOW_ANNOTATION: mark}}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}});
    bench.stranger(again).await;
    let error = bench.run("deleted").await.expect_err("the data of a node is lost");
    assert!(error.failure.message.contains("elasticsearch-1 is another one by now"), "{error}");

    // The way out: what is there is kept by another deletion, and it says what that is.
    bench.begun("deleted");
    bench.ended_by_force();
    let input = deletion(&bench, true);
    bench.follow(delete_definition(bench.cluster()), &input);
    bench.up_to("").await;
    bench.finished(Outcome::Succeeded);
    let kept = Origin::after(&bench.state).expect("readable").kept.expect("two claims");
    assert_eq!((kept.replicas, kept.claims.len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_set_that_deletes_its_own_claims_stops_a_deletion_that_keeps_them_before_it_begins() {
    let set = names::STATEFUL_SET;
    for (when, words) in
        [("whenScaled", "(whenScaled: Delete)"), ("whenDeleted", "elasticsearch-0 goes with StatefulSet/elasticsearch")]
    {
        let mut bench = of_two_nodes(true).await;
        let policy = |says: &str| json!({"spec": {"persistentVolumeClaimRetentionPolicy": {when: says}}});
        patch(&bench, Kind::StatefulSet, set, &policy("Delete")).await;
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let effects = bench.effects();
        let error = bench.run("delete_started").await.expect_err("it would not keep them");
        assert_eq!(error.failure.class, ErrorClass::Permanent);
        assert!(error.failure.message.contains(words), "{error}");
        assert_eq!(bench.effects(), effects);
        patch(&bench, Kind::StatefulSet, set, &policy("Retain")).await;
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        bench.up_to("").await;
        assert_eq!(claim_uids(&bench).len(), 2, "{when}");
    }
    // Nobody minds where the data is to go anyway.
    let mut bench = of_two_nodes(false).await;
    patch(
        &bench,
        Kind::StatefulSet,
        set,
        &json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}}),
    )
    .await;
    bench.up_to("").await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_to_keep_data_where_there_is_none_stops_before_it_begins() {
    let bench = after_creation(json!({}), "disk_configured", true).await;
    let error = bench.run("delete_started").await.expect_err("nothing to keep");
    assert!(error.failure.message.contains("there is no data to keep"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_creation_over_data_that_somebody_has_deleted_is_refused_before_it_makes_an_empty_cluster() {
    let (mut bench, origin) = kept_data().await;
    let input = Input::over_kept_data(request(&bench, 2, "10Gi"), origin);
    let claims = objects(&bench, Kind::PersistentVolumeClaim);
    claims.delete(&names::claim(0), &DeleteParams::default()).await.expect("deleted");
    bench.follow(create_definition(bench.deps()), &input);
    let error = bench.run("starting").await.expect_err("it would be an empty one");
    assert_eq!(error.failure.class, ErrorClass::Permanent);
    assert!(error.failure.message.contains("has deleted elasticsearch-data-elasticsearch-0 in namespace"), "{error}");
}

/// A creation that failed in its first step forgot which version the data is of.
#[tokio::test(start_paused = true)]
async fn the_version_of_kept_data_is_that_of_the_last_nodes_that_opened_it() {
    let old = Elastic::new("9.1.0", None, None).expect("a version");
    let (mut bench, mut origin) = kept_data().await;
    origin.elastic = old.clone();
    let input = Input::over_kept_data(request(&bench, 2, "10Gi"), origin);
    let version = |bench: &Bench| Origin::after(&bench.state).expect("readable").elastic.version().to_owned();
    let installs = Elastic::default().version().to_owned();
    for (step, wanted) in [("starting", old.version()), ("k8s_applied", old.version()), ("tenant_synced", &installs)] {
        bench.follow(create_definition(bench.deps()), &input);
        bench.up_to(step).await;
        bench.begun(step);
        assert_eq!(version(&bench), wanted, "failed in {step}");
        bench.roll_back_from(step).await;
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    }
}
