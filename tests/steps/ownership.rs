//! Whose an object is (C3): somebody else's is never applied over, changed or deleted, whatever it looks like.

use anyhow::{Context as _, ensure};
use cairn_engine::{ErrorClass, Probe};
use cairn_steps::{cluster::gone::Deletion, names, render::Kind};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, made, says, told},
    site::{Site, on_the_cluster},
};

/// Of an object: all that is anybody's intent.
fn intent(object: &DynamicObject) -> Value {
    let metadata = &object.metadata;
    json!([metadata.uid, metadata.labels, metadata.annotations, object.data["data"], object.data["spec"]])
}

/// Deletes an object, and makes it again as it was: its marks are ours, its UID is not.
async fn recreate(objects: &Api<DynamicObject>, name: &str) -> anyhow::Result<DynamicObject> {
    let mut copy = objects.get(name).await?;
    let deleted = objects.delete(name, &DeleteParams::background()).await;
    deleted.with_context(|| format!("cannot delete {name}"))?;
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    copy.metadata.managed_fields = None;
    copy.metadata.creation_timestamp = None;
    copy.metadata.generation = None;
    if let Some(fields) = copy.data.as_object_mut() {
        fields.remove("status");
    }
    Ok(objects.create(&PostParams::default(), &copy).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_somebody_else_is_never_applied_over_and_its_owner_is_named() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("k8s_applied").await?;
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "metadata": {
            "name": names::CONFIG_MAP, "namespace": bench.namespace, "labels": {"app.kubernetes.io/managed-by": "Helm"}}});
        let before = intent(&site.stranger(&theirs).await?);
        bench.begun("k8s_applied")?;
        let error = bench.run("k8s_applied").await.err().context("it was applied over")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, &format!("ConfigMap/{}", names::CONFIG_MAP))?;
        says(&error, "is managed by Helm")?;
        // What was made before it was met is ours to take back; the foreign one is not.
        let answer = bench.probe("k8s_applied").await?;
        let Probe::Partly { made } = &answer else { anyhow::bail!("{answer:?}") };
        let listed = made.value()["objects"].to_string();
        ensure!(listed.contains("Service/kibana") && !listed.contains("ConfigMap"), "{listed}");
        let after = site.objects(Kind::ConfigMap, &bench.namespace).get(names::CONFIG_MAP).await?;
        ensure!(intent(&after) == before, "it was changed: {after:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_made_anew_under_our_mark_is_neither_applied_scaled_nor_deleted() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("resources_configured").await?;
        let sets = site.objects(Kind::StatefulSet, &bench.namespace);
        let before = recreate(&sets, names::STATEFUL_SET).await?;
        bench.begun("resources_configured")?;
        let error = bench.run("resources_configured").await.err().context("it was applied over")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "somebody made it anew")?;

        let output = bench.state.output(&"k8s_applied".into()).context("applied")?.clone();
        let set = made(&output).into_iter().find(|one| one.kind == "StatefulSet").context("made")?;
        let workflow = bench.workflow();
        let deletion = site.cluster.delete_ours(&set, &workflow).await.map_err(|error| told(&error))?;
        ensure!(deletion == Deletion::NotOurs, "{deletion:?}");
        let scaled = site.cluster.scale_to_none(&set, &workflow).await.map_err(|error| told(&error))?;
        ensure!(!scaled);
        let after = sets.get(names::STATEFUL_SET).await?;
        ensure!(intent(&after) == intent(&before), "it was changed: {after:?}");
        Ok(())
    })
    .await
}

/// What every conditional write of the steps rests on: the server itself refuses what is meant for another UID.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_a_write_that_is_meant_for_another_uid() -> anyhow::Result<()> {
    const OTHER: &str = "0197a000-0000-7000-8000-00000000eeee";
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": "map", "namespace": namespace}});
        let made = site.stranger(&map).await?;
        let maps = site.objects(Kind::ConfigMap, &namespace);
        let condition = Preconditions { uid: Some(OTHER.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(condition), ..DeleteParams::default() };
        refused(maps.delete("map", &params).await.map(|_| ()), "a deletion", &[409])?;
        let spaces = site.objects(Kind::Namespace, "");
        refused(spaces.delete(&namespace, &params).await.map(|_| ()), "the deletion of a namespace", &[409])?;

        let apply = PatchParams::apply(names::FIELD_MANAGER);
        let aimed = |name: &str| {
            Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "uid": OTHER},
                "data": {"c": "d"}}))
        };
        // Servers call it a conflict, or an immutable field: both mean that nothing was done.
        refused(maps.patch("map", &apply, &aimed("map")).await.map(|_| ()), "an apply", &[409, 422])?;
        refused(maps.patch("none", &apply, &aimed("none")).await.map(|_| ()), "an apply to nothing", &[409])?;
        let merge = Patch::Merge(json!({"metadata": {"uid": OTHER}, "data": {"c": "d"}}));
        let answer = maps.patch("map", &PatchParams::default(), &merge).await;
        refused(answer.map(|_| ()), "a merge patch", &[409, 422])?;
        let after = maps.get("map").await?;
        ensure!(after.metadata.resource_version == made.metadata.resource_version, "something was done: {after:?}");
        ensure!(maps.get_opt("none").await?.is_none());
        Ok(())
    })
    .await
}

fn refused(answer: kube::Result<()>, what: &str, codes: &[u16]) -> anyhow::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => anyhow::bail!("{what} under another UID: {other:?}"),
    }
}

/// An object that is deleted and made by somebody else in the middle of a workflow is not ours to take back, and the
/// rollback ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_alone_what_somebody_has_put_in_the_place_of_ours() -> anyhow::Result<()> {
    on_the_cluster(async |site: &Site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("resources_configured").await?;
        // Without our mark on the namespace the objects go one by one.
        let disown = Patch::Merge(json!({"metadata": {"annotations": {crate::bench::WORKFLOW: null}}}));
        site.objects(Kind::Namespace, "").patch(&bench.namespace, &PatchParams::default(), &disown).await?;
        let maps = site.objects(Kind::ConfigMap, &bench.namespace);
        maps.delete(names::CONFIG_MAP, &DeleteParams::default()).await?;
        let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": names::CONFIG_MAP, "namespace": bench.namespace}});
        let before = intent(&site.stranger(&theirs).await?);
        let said = bench.take_back("k8s_applied").await?;
        ensure!(
            said.contains(&format!("left alone what somebody else has put there: ConfigMap/{}", names::CONFIG_MAP)),
            "{said}"
        );
        ensure!(intent(&maps.get(names::CONFIG_MAP).await?) == before);
        site.eventually("nothing of the workflow is left", async || match bench.residue().await {
            Ok(left) if left.is_empty() => Ok(std::ops::ControlFlow::Break(())),
            Ok(left) => anyhow::bail!("left: {left:?}"),
            Err(error) => Ok(std::ops::ControlFlow::Continue(error.to_string())),
        })
        .await
    })
    .await
}
