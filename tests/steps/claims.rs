//! Claims (C5): one for each node, of the wanted size; what of them may change, and when.

use std::ops::ControlFlow;

use anyhow::{Context as _, ensure};
use cairn_engine::ErrorClass;
use cairn_steps::{names, render::Kind};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{
    bench::{Bench, WORKFLOW, says},
    site::{Site, on_the_cluster},
};

fn claims(site: &Site, namespace: &str) -> Api<PersistentVolumeClaim> {
    Api::namespaced(site.client.clone(), namespace)
}

async fn resized(site: &Site, namespace: &str, size: &str) -> kube::Result<PersistentVolumeClaim> {
    let patch = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": size}}}}));
    claims(site, namespace).patch("claim", &PatchParams::default(), &patch).await
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_claim_of_the_wanted_size_for_every_ordinal() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"replicas": 3, "disk_size": "2Gi"}))?;
        bench.up_to("gpu_configured").await?;
        let all = claims(site, &bench.namespace).list(&ListParams::default()).await?;
        let mut found: Vec<(String, String)> = all
            .iter()
            .map(|claim| {
                let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.clone());
                (claim.name_any(), requests.map(|requests| requests["storage"].0.clone()).unwrap_or_default())
            })
            .collect();
        found.sort();
        let wanted: Vec<(String, String)> = (0..3).map(|ordinal| (names::claim(ordinal), "2Gi".to_owned())).collect();
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_never_made_smaller() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"disk_size": "2Gi"}))?;
        bench.up_to("disk_configured").await?;
        let larger = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {
            "name": names::claim(0), "namespace": bench.namespace, "annotations": {WORKFLOW: bench.workflow()}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "4Gi"}}}});
        site.stranger(&larger).await?;
        let error = bench.run("disk_configured").await.err().context("it was made smaller")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "cannot be made smaller")
    })
    .await
}

/// A claim of a class that nobody provisions: unbound for as long as the test wants, and then bound to a volume by hand.
#[tokio::test(flavor = "multi_thread")]
async fn an_unbound_claim_cannot_be_resized_and_a_bound_one_only_where_its_class_grows() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let class = site.storage_class(false).await?;
        let body: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": "claim"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "2Gi"}}}}))?;
        let claim = claims(site, &namespace).create(&PostParams::default(), &body).await?;
        match resized(site, &namespace, "3Gi").await {
            Err(kube::Error::Api(status)) => {
                ensure!((status.code, status.reason.as_str()) == (422, "Invalid"), "{status:?}");
                ensure!(
                    status.message.contains("spec is immutable after creation except resources.requests"),
                    "{status:?}"
                );
            }
            answer => anyhow::bail!("an unbound claim was resized: {answer:?}"),
        }

        let volume = site.make_volume(&claim).await?;
        site.eventually("the claim is bound to the volume that was made for it", async || {
            let found = claims(site, &namespace).get("claim").await?;
            let bound = found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
            let name = found.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            Ok(if bound && name.as_ref() == Some(&volume) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(format!("{:?}", found.status))
            })
        })
        .await?;
        // A class that does not say so does not grow: forbidden, and not invalid.
        match resized(site, &namespace, "3Gi").await {
            Err(kube::Error::Api(status)) => {
                ensure!((status.code, status.reason.as_str()) == (403, "Forbidden"), "{status:?}");
                ensure!(status.message.contains("must support resize"), "{status:?}");
            }
            answer => anyhow::bail!("a claim grew whose class does not: {answer:?}"),
        }
        // The same amount in other letters is no change; less than there is is never.
        resized(site, &namespace, "2048Mi").await?;
        match resized(site, &namespace, "1Gi").await {
            Err(kube::Error::Api(status)) => {
                ensure!(status.code == 422, "{status:?}");
                ensure!(status.message.contains("can not be less than"), "{status:?}");
            }
            answer => anyhow::bail!("a claim was made smaller: {answer:?}"),
        }
        Ok(())
    })
    .await
}

/// Deleted while nothing uses it a claim goes at once; its objects are found by the mark that its template carries.
#[tokio::test(flavor = "multi_thread")]
async fn claims_go_with_the_compensation_of_their_step_where_the_namespace_is_not_ours() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"replicas": 2}))?;
        bench.up_to("gpu_configured").await?;
        let disown = Patch::Merge(json!({"metadata": {"annotations": {WORKFLOW: null}}}));
        site.objects(Kind::Namespace, "").patch(&bench.namespace, &PatchParams::default(), &disown).await?;
        let said = bench.take_back("disk_configured").await?;
        ensure!(said == "deleted 2 objects", "{said}");
        site.eventually("the claims are gone", async || {
            let left = claims(site, &bench.namespace).list(&ListParams::default()).await?.items.len();
            Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(format!("{left} claims")) })
        })
        .await
    })
    .await
}
