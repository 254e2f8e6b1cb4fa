//! Namespaces (C7): whose they are, what is in them that nobody put there, and what holds them.

use std::ops::ControlFlow;

use anyhow::{Context as _, ensure};
use cairn_engine::{ErrorClass, Probe};
use cairn_steps::{cluster::gone, names, render::Kind};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::{
    bench::{Bench, WORKFLOW, says, told},
    site::{FINALIZER, Site, on_the_cluster, skipped},
};

/// What of the namespace is anybody's intent.
async fn identity(site: &Site, namespace: &str) -> anyhow::Result<String> {
    let found = site.objects(Kind::Namespace, "").get(namespace).await?;
    let metadata = found.metadata;
    Ok(json!([metadata.uid, metadata.labels, metadata.annotations, metadata.deletion_timestamp]).to_string())
}

async fn delete_namespace(site: &Site, namespace: &str) -> anyhow::Result<()> {
    site.objects(Kind::Namespace, "").delete(namespace, &DeleteParams::default()).await?;
    Ok(())
}

async fn foreign(annotations: serde_json::Value) -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        let metadata = json!({"name": bench.namespace, "annotations": annotations});
        site.make_namespace(&json!({"metadata": metadata})).await?;
        bench.up_to("namespace_created").await?;
        bench.begun("namespace_created")?;
        let before = identity(site, &bench.namespace).await?;
        let error = bench.run("namespace_created").await.err().context("it was adopted")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "choose another `namespace`")?;
        let answer = bench.probe("namespace_created").await?;
        ensure!(matches!(answer, Probe::Foreign { .. }), "{answer:?}");
        bench.probed("namespace_created", answer)?;
        bench.roll_back_from("namespace_created").await?;
        ensure!(identity(site, &bench.namespace).await? == before, "it was changed");
        ensure!(bench.residue().await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_nobody_marked_is_never_adopted_changed_or_deleted() -> anyhow::Result<()> {
    foreign(json!({"example.com/purpose": "theirs"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_another_workflow_is_never_adopted_changed_or_deleted() -> anyhow::Result<()> {
    foreign(json!({WORKFLOW: "0197a000-0000-7000-8000-00000000ffff"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_exists_is_409_already_exists() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let name = site.namespace().await?;
        let again = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(site.client.clone());
        match api.create(&PostParams::default(), &again).await {
            Err(kube::Error::Api(status)) => {
                ensure!((status.code, status.reason.as_str()) == (409, "AlreadyExists"), "{status:?}");
                let details = status.details.context("no details")?;
                ensure!((details.name.as_str(), details.kind.as_str()) == (name.as_str(), "namespaces"), "{details:?}");
            }
            other => anyhow::bail!("{other:?}"),
        }
        Ok(())
    })
    .await
}

/// Held by a finalizer it stays as long as the test wants: nothing is created in it (403 with its own cause), nobody adopts
/// it, and once it is gone the name is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_going_takes_in_nothing_and_is_waited_for() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        site.make_namespace(&json!({"metadata": {"name": bench.namespace}})).await?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "held", "namespace": bench.namespace, "finalizers": [FINALIZER]}});
        site.stranger(&map).await?;
        delete_namespace(site, &bench.namespace).await?;
        bench.up_to("namespace_created").await?;
        bench.begun("namespace_created")?;
        let error = bench.run("namespace_created").await.err().context("it was adopted")?;
        ensure!(error.failure.class == ErrorClass::Transient, "{error}");
        says(&error, "is being deleted")?;

        let other = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "other", "namespace": bench.namespace}});
        let object = serde_json::from_value(other)?;
        match site.objects(Kind::ConfigMap, &bench.namespace).create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) => {
                let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
                ensure!(status.code == 403, "{status:?}");
                ensure!(causes.iter().any(|cause| cause.reason == "NamespaceTerminating"), "{status:?}");
            }
            answer => anyhow::bail!("created in a namespace that is going: {answer:?}"),
        }

        // The namespace says what holds it as soon as its controller has looked.
        site.eventually("the namespace names the finalizer that holds it", async || {
            let found = site.objects(Kind::Namespace, "").get(&bench.namespace).await?;
            let said = gone::conditions(&found).join("; ");
            Ok(if said.contains(FINALIZER) { ControlFlow::Break(()) } else { ControlFlow::Continue(said) })
        })
        .await?;
        site.release(Kind::ConfigMap, &bench.namespace, "held").await?;
        site.eventually("the name is free", async || match bench.run("namespace_created").await {
            Ok(_) => Ok(ControlFlow::Break(())),
            Err(error) if error.failure.class == ErrorClass::Transient => Ok(ControlFlow::Continue(error.to_string())),
            Err(error) => Err(told(&error)),
        })
        .await
    })
    .await
}

/// Whatever is written while ours is going fails for now, and not for good.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_not_applied_in_a_namespace_that_is_going() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("k8s_applied").await?;
        site.hold(Kind::Namespace, "", &bench.namespace).await?;
        delete_namespace(site, &bench.namespace).await?;
        let error = bench.run("k8s_applied").await.err().context("it was applied")?;
        ensure!(error.failure.class == ErrorClass::Transient, "{error}");
        says(&error, "its namespace is being deleted")?;
        let error = bench.run("namespace_created").await.err().context("somebody is deleting it")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_does_not_go_is_reported_with_the_finalizer_that_holds_it() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("resources_configured").await?;
        site.hold(Kind::ConfigMap, &bench.namespace, names::CONFIG_MAP).await?;
        // An attempt may end before the namespace's controller has said anything.
        site.eventually("the compensation names the finalizer", async || {
            match bench.compensate("namespace_created").await {
                Ok(said) => anyhow::bail!("it is held, and yet: {said}"),
                Err(error) => {
                    ensure!(error.failure.class == ErrorClass::Transient, "{error}");
                    let said = told(&error).to_string();
                    Ok(if said.contains(FINALIZER) { ControlFlow::Break(()) } else { ControlFlow::Continue(said) })
                }
            }
        })
        .await?;
        let found = site.objects(Kind::ConfigMap, &bench.namespace).get(names::CONFIG_MAP).await?;
        let finalizers = found.metadata.finalizers.unwrap_or_default();
        ensure!(finalizers == [FINALIZER], "nobody takes it away: {finalizers:?}");
        site.release(Kind::ConfigMap, &bench.namespace, names::CONFIG_MAP).await?;
        bench.take_back("namespace_created").await?;
        ensure!(site.is_gone(&bench.namespace).await?);
        Ok(())
    })
    .await
}

/// The cluster itself puts objects into every namespace: they are nobody's, and keep nothing. What somebody put there does.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_something_of_others_in_it_is_not_deleted_and_what_the_cluster_put_there_is_no_others()
-> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("disk_configured").await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(site.client.clone(), &bench.namespace);
        site.eventually("the ServiceAccount default is there", async || {
            let found = accounts.get_opt("default").await?;
            Ok(found.map_or(ControlFlow::Continue("none".to_owned()), |_| ControlFlow::Break(())))
        })
        .await?;
        let maps: Api<ConfigMap> = Api::namespaced(site.client.clone(), &bench.namespace);
        if maps.get_opt("kube-root-ca.crt").await?.is_none() {
            skipped("the ConfigMap kube-root-ca.crt: nobody publishes it here");
        }
        let note = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "notes", "namespace": bench.namespace}});
        site.stranger(&note).await?;
        let error = bench.compensate("namespace_created").await.err().context("it went, with what others had there")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "others have put ConfigMap/notes there")?;
        maps.delete("notes", &DeleteParams::default()).await?;
        bench.roll_back_from("resources_configured").await?;
        ensure!(site.is_gone(&bench.namespace).await?);
        ensure!(bench.residue().await?.is_empty());
        Ok(())
    })
    .await
}
