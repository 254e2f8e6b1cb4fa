//! Claims: bound when their class says so, grown in stages, never shrunk, protected while used (C5, C15).

use super::*;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::DeleteParams;

fn claim(class: Option<&str>, size: &str) -> Value {
    let mut claim = json!({"metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    if let Some(class) = class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    claim
}

fn is_bound(claim: Option<&PersistentVolumeClaim>) -> bool {
    claim.and_then(|claim| claim.status.as_ref()).is_some_and(|status| status.phase.as_deref() == Some("Bound"))
}

fn capacity(claim: &PersistentVolumeClaim) -> String {
    claim
        .status
        .as_ref()
        .and_then(|status| status.capacity.as_ref())
        .map(|capacity| capacity["storage"].0.clone())
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_class_gets_the_default_one_and_waits_for_its_first_pod() {
    let sandbox = with_namespace("a").await;
    let claims = api::<PersistentVolumeClaim>(&sandbox);
    let made = apply(&claims, claim(None, "1Gi")).await.expect("applied");
    assert_eq!(made.spec.expect("a spec").storage_class_name.as_deref(), Some("standard"));
    settle().await;
    assert!(!is_bound(Some(&claims.get("c").await.expect("there"))));
    let status = refusal(apply(&claims, claim(None, "2Gi")).await.expect_err("refused"));
    assert_eq!(status.code, 422);
    assert!(
        status.message.contains("spec is immutable after creation except resources.requests"),
        "{}",
        status.message
    );

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    apply(&api::<Pod>(&sandbox), pod).await.expect("applied");
    until(&claims, "c", is_bound).await;
}

#[tokio::test(start_paused = true)]
async fn a_bound_claim_grows_in_stages_and_its_capacity_comes_last() {
    let sandbox = with_namespace("a").await;
    let claims = api::<PersistentVolumeClaim>(&sandbox);
    apply(&claims, claim(Some("immediate"), "1024Mi")).await.expect("applied");
    until(&claims, "c", is_bound).await;
    let grown = apply(&claims, claim(Some("immediate"), "2Gi")).await.expect("applied");
    assert_eq!(capacity(&grown), "1Gi");
    for stage in ["Resizing", "FileSystemResizePending"] {
        until(&claims, "c", move |claim: Option<&PersistentVolumeClaim>| {
            let conditions =
                claim.and_then(|claim| claim.status.as_ref()).and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.type_ == stage)
        })
        .await;
        assert_eq!(capacity(&claims.get("c").await.expect("there")), "1Gi");
    }
    until(&claims, "c", |claim: Option<&PersistentVolumeClaim>| claim.is_some_and(|claim| capacity(claim) == "2Gi"))
        .await;
    let status = refusal(apply(&claims, claim(Some("immediate"), "1Gi")).await.expect_err("refused"));
    assert_eq!(status.code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_class_that_does_not_expand_is_403_when_grown_and_one_without_its_class_stays_pending() {
    let sandbox = with_namespace("a").await;
    let claims = api::<PersistentVolumeClaim>(&sandbox);
    apply(&claims, claim(Some("fixed"), "1Gi")).await.expect("applied");
    until(&claims, "c", is_bound).await;
    let status = refusal(apply(&claims, claim(Some("fixed"), "2Gi")).await.expect_err("refused"));
    assert_eq!(status.code, 403);
    assert!(status.message.contains("must support resize"), "{}", status.message);

    let mut lost = claim(Some("nothing"), "1Gi");
    lost["metadata"]["name"] = json!("lost");
    apply(&claims, lost).await.expect("applied");
    settle().await;
    assert_eq!(events(&sandbox, "ProvisioningFailed").await, ["storageclass.storage.k8s.io \"nothing\" not found"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_in_use_goes_only_with_its_pod() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let claims = api::<PersistentVolumeClaim>(&sandbox);
    apply(&sets, stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    claims.delete("data-es-0", &DeleteParams::default()).await.expect("deleted");
    settle().await;
    assert!(claims.get("data-es-0").await.expect("protected").metadata.deletion_timestamp.is_some());
    sets.delete("es", &DeleteParams::default()).await.expect("deleted");
    until(&claims, "data-es-0", |claim: Option<&PersistentVolumeClaim>| claim.is_none()).await;
}

/// Scales the set `es`, which has this retention policy, from two to one, then deletes it: the claims that are left after each.
async fn retained(policy: Value) -> [Vec<String>; 2] {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let claims = api::<PersistentVolumeClaim>(&sandbox);
    let mut set = stateful_set(2, "es:1", "Parallel");
    set["spec"]["persistentVolumeClaimRetentionPolicy"] = policy;
    apply(&sets, set.clone()).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let names = async || {
        settle().await;
        let listed = claims.list(&ListParams::default()).await.expect("listed");
        listed.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    set["spec"]["replicas"] = json!(1);
    apply(&sets, set).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    let scaled = names().await;
    sets.delete("es", &DeleteParams::default()).await.expect("deleted");
    [scaled, names().await]
}

/// C4: what a set does to its claims is its policy's to say, for each of the two by itself.
#[tokio::test(start_paused = true)]
async fn claims_go_with_the_set_and_with_its_scaling_only_where_its_policy_says_so() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (both, first, none) = (names(&["data-es-0", "data-es-1"]), names(&["data-es-0"]), names(&[]));
    for (policy, scaled, deleted) in [
        (json!({}), &both, &both),
        (json!({"whenDeleted": "Delete"}), &both, &none),
        (json!({"whenScaled": "Delete"}), &first, &first),
        (json!({"whenDeleted": "Delete", "whenScaled": "Delete"}), &first, &none),
    ] {
        let left = retained(policy.clone()).await;
        assert_eq!((&left[0], &left[1]), (scaled, deleted), "{policy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_retains_again_takes_the_owners_off_the_claims() {
    let sandbox = with_namespace("a").await;
    let sets = api::<StatefulSet>(&sandbox);
    let claims = api::<PersistentVolumeClaim>(&sandbox);
    let owners = async || {
        settle().await;
        claims.get("data-es-0").await.expect("there").metadata.owner_references.unwrap_or_default().len()
    };
    let mut set = stateful_set(1, "es:1", "Parallel");
    set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete"});
    apply(&sets, set.clone()).await.expect("applied");
    until(&sets, "es", set_is_rolled_out).await;
    assert_eq!(owners().await, 1);
    set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Retain"});
    apply(&sets, set).await.expect("applied");
    assert_eq!(owners().await, 0);
}
