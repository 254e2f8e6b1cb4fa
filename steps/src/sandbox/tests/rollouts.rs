//! Sets and deployments: how they come to be ready, change, shrink, and get stuck as real ones do.

use super::*;
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::DeleteParams;

#[tokio::test(start_paused = true)]
async fn a_set_gets_its_pods_and_claims_and_is_rolled_out() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(3, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    assert_eq!(pod_names(&sandbox).await, ["es-0", "es-1", "es-2"]);
    let claims = api::<PersistentVolumeClaim>(&sandbox).list(&ListParams::default()).await.expect("listed");
    assert_eq!(
        claims.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["data-es-0", "data-es-1", "data-es-2"]
    );
    let bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    assert!(claims.items.iter().all(bound));
    let pod = api::<Pod>(&sandbox).get("es-1").await.expect("there");
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "es-1");
    let set = sets.get("es").await.expect("there");
    let status = set.status.expect("a status");
    assert_eq!(pod.labels()["controller-revision-hash"], status.update_revision.clone().expect("a revision"));
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(
        set.spec.expect("a spec").update_strategy.expect("defaulted").rolling_update.expect("defaulted").partition,
        Some(0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_over_to_a_new_image_and_is_available_all_the_while() {
    let sandbox = with_namespace("a").await;
    let deployments = api::<Deployment>(&sandbox);
    apply(&deployments, deployment(2, "kibana:1")).await.expect("applied");
    until(&deployments, "kibana", deployment_is_rolled_out).await;
    apply(&deployments, deployment(2, "kibana:2")).await.expect("applied");
    until(&deployments, "kibana", deployment_is_rolled_out).await;
    settle().await;
    let status = deployments.get("kibana").await.expect("there").status.expect("a status");
    let condition =
        |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind).cloned().expect(kind);
    assert_eq!(condition("Progressing").reason.as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(condition("Available").status, "True");
    let sizes: Vec<i32> = api::<ReplicaSet>(&sandbox)
        .list(&ListParams::default())
        .await
        .expect("listed")
        .items
        .into_iter()
        .map(|set| set.status.expect("a status").replicas)
        .collect();
    assert_eq!(sizes.iter().sum::<i32>(), 2);
    assert_eq!(sizes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_does_not_get_on_exceeds_its_deadline() {
    let sandbox = with_namespace("a").await;
    sandbox.faults().add(super::super::Fault::pods(super::super::PodTrouble::NotReady).namespace("a"));
    let deployments = api::<Deployment>(&sandbox);
    apply(&deployments, deployment(1, "kibana:1")).await.expect("applied");
    until(&deployments, "kibana", |found: Option<&Deployment>| {
        let conditions = found.and_then(|found| found.status.as_ref()).and_then(|status| status.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_set_scales_down_from_the_highest_ordinal_and_keeps_its_claims() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(3, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    assert_eq!(pod_names(&sandbox).await, ["es-0"]);
    let claims = api::<PersistentVolumeClaim>(&sandbox).list(&ListParams::default()).await.expect("listed");
    assert_eq!(claims.items.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_new_template_replaces_the_pods_one_by_one_and_becomes_the_current_revision() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(2, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let before = sets.get("es").await.expect("there").status.expect("a status");
    apply(&sets, stateful_set(2, "es:2", "Parallel")).await.expect("applied");
    until(&sets, "es", |set: Option<&StatefulSet>| {
        set.and_then(|set| set.status.as_ref())
            .is_some_and(|status| status.updated_replicas.is_none() && status.observed_generation == Some(2))
    })
    .await;
    until(&sets, "es", set_is_rolled_out).await;
    let after = sets.get("es").await.expect("there").status.expect("a status");
    assert_ne!(after.update_revision, before.update_revision);
    assert_eq!(after.current_revision, after.update_revision);
    let revisions = api::<ControllerRevision>(&sandbox).list(&ListParams::default()).await.expect("listed");
    assert_eq!(revisions.items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_ordered_set_waits_for_a_pod_that_never_gets_ready_even_if_its_template_is_corrected() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let fault =
        sandbox.faults().add(super::super::Fault::pods(super::super::PodTrouble::CrashLoopBackOff).namespace("a"));
    apply(&sets, stateful_set(2, "es:1", "OrderedReady")).await.expect("applied");
    settle().await;
    assert_eq!(pod_names(&sandbox).await, ["es-0"]);
    apply(&sets, stateful_set(2, "es:2", "OrderedReady")).await.expect("applied");
    settle().await;
    let stuck = api::<Pod>(&sandbox).get("es-0").await.expect("there");
    assert_eq!(stuck.spec.expect("a spec").containers[0].image.as_deref(), Some("es:1"));
    sandbox.faults().remove(fault);
    api::<Pod>(&sandbox).delete("es-0", &DeleteParams::default()).await.expect("deleted");
    until(&sets, "es", set_is_rolled_out).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_deleted_without_its_pods_and_made_again_takes_them_back() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let uid = api::<Pod>(&sandbox).get("es-0").await.expect("there").uid();
    sets.delete("es", &DeleteParams::orphan()).await.expect("deleted");
    settle().await;
    assert!(sets.get_opt("es").await.expect("asked").is_none());
    let orphan = api::<Pod>(&sandbox).get("es-0").await.expect("there");
    assert!(orphan.owner_references().is_empty());
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let adopted = api::<Pod>(&sandbox).get("es-0").await.expect("there");
    assert_eq!((adopted.uid(), adopted.owner_references().len()), (uid, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_deleted_owner_leaves_is_collected_before_it_in_the_foreground_and_after_it_in_the_background() {
    let sandbox = with_namespace("a").await;
    let deployments = api::<Deployment>(&sandbox);
    apply(&deployments, deployment(2, "kibana:1")).await.expect("applied");
    until(&deployments, "kibana", deployment_is_rolled_out).await;
    let left =
        deployments.delete("kibana", &DeleteParams::foreground()).await.expect("deleted").left().expect("it waits");
    assert!(left.metadata.deletion_timestamp.is_some());
    settle().await;
    assert!(deployments.get_opt("kibana").await.expect("asked").is_none());
    assert!(pod_names(&sandbox).await.is_empty());

    apply(&deployments, deployment(2, "kibana:1")).await.expect("applied");
    until(&deployments, "kibana", deployment_is_rolled_out).await;
    let gone = deployments.delete("kibana", &DeleteParams::background()).await.expect("deleted");
    assert!(gone.is_right());
    settle().await;
    assert!(pod_names(&sandbox).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_sets_at_once_are_all_rolled_out() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let all = (0..100).map(|index| {
        let sets = sets.clone();
        async move {
            let mut set = stateful_set(1, "es:1", "Parallel");
            set["metadata"]["name"] = json!(format!("es{index}"));
            set["spec"]["selector"]["matchLabels"]["app"] = json!(format!("es{index}"));
            set["spec"]["template"]["metadata"]["labels"]["app"] = json!(format!("es{index}"));
            apply(&sets, set).await.expect("applied");
            until(&sets, &format!("es{index}"), set_is_rolled_out).await;
        }
    });
    futures::future::join_all(all).await;
    assert_eq!(pod_names(&sandbox).await.len(), 100);
}
