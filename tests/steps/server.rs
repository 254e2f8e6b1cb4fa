//! The API server, as far as the steps rest on it: what an apply, a dry run, a strict validation, a list and a watch mean.

use std::{collections::BTreeSet, ops::ControlFlow};

use anyhow::{Context as _, ensure};
use cairn_steps::{
    elastic::Elastic,
    names,
    render::{Kind, Marks, Object, Through, render},
    request::Request,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams, ValidationDirective},
    core::Status,
    runtime::watcher,
};
use serde_json::{Value, json};

use crate::{
    bench::body,
    conflicts::set,
    site::{Site, on_the_cluster},
};

fn strict() -> PatchParams {
    PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply(names::FIELD_MANAGER) }
}

/// The objects of a cluster in this namespace, at this stage of its creation.
fn rendered(namespace: &str, through: Through) -> anyhow::Result<Vec<Object>> {
    let extra = json!({"replicas": 2, "gpu_count": 1, "cpu_request": "0.25", "mem_request": "0.5Gi"});
    let service = namespace.rsplit_once("--").map(|(_, service)| service).context("a namespace of the suite")?;
    let body = body(service, &extra)?;
    let request = Request::parse(body.to_string().as_bytes()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    Ok(render(
        &request,
        &Elastic::default(),
        through,
        None,
        &Marks { workflow: "0197a000-0000-7000-8000-00000000aaaa".to_owned() },
    ))
}

async fn applied(site: &Site, object: &Object, params: &PatchParams) -> anyhow::Result<kube::api::DynamicObject> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let answer = site.objects(object.kind, namespace).patch(&object.name, params, &Patch::Apply(&object.body)).await;
    answer.with_context(|| format!("cannot apply {object}"))
}

/// I9: an apply that changes nothing is no write, whatever defaults the server has filled in and however it writes amounts.
#[tokio::test(flavor = "multi_thread")]
async fn every_rendered_object_is_strictly_valid_and_applied_again_keeps_its_version() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let (_, namespace) = site.service();
        for object in rendered(&namespace, Through::GpuConfigured)? {
            applied(site, &object, &strict()).await?;
            site.eventually(&format!("{object} applied again keeps its version"), async || {
                let objects = site.objects(object.kind, &namespace);
                let before = objects.get(&object.name).await?;
                let again = applied(site, &object, &strict()).await?;
                // A controller may have written its status in between.
                let (before, after) = (before.resource_version(), again.resource_version());
                let generations = again.metadata.generation.unwrap_or(1);
                ensure!(generations == 1, "{object} is at generation {generations}");
                Ok(if before == after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(format!("{before:?} and then {after:?}"))
                })
            })
            .await?;
        }
        Ok(())
    })
    .await
}

/// Each stage applied over the one before it, as the steps do it: nothing that an earlier one set is lost, nothing conflicts.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_every_stage_shows_what_would_be_and_leaves_nothing() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        for through in Through::ALL {
            for object in rendered(&namespace, through)?.iter().filter(|object| object.kind != Kind::Namespace) {
                let shown = applied(site, object, &strict().dry_run()).await?;
                ensure!(shown.uid().is_some(), "{object} would have a UID");
                let objects = site.objects(object.kind, &namespace);
                ensure!(objects.get_opt(&object.name).await?.is_none(), "{object} was made by a dry run");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_refuses_what_the_run_would_refuse() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let sets = site.objects(Kind::StatefulSet, &namespace);
        let made = sets.patch("set", &PatchParams::apply("test"), &Patch::Apply(set(&namespace))).await?;
        let dry = PatchParams::apply("test").dry_run();
        let mut renamed = set(&namespace);
        renamed["spec"]["serviceName"] = json!("other");
        let status = refusal(sets.patch("set", &dry, &Patch::Apply(renamed)).await)?;
        is_immutable(&status)?;
        let mut scaled = set(&namespace);
        scaled["spec"]["replicas"] = json!(7);
        let shown = sets.patch("set", &dry, &Patch::Apply(scaled)).await?;
        ensure!(shown.data["spec"]["replicas"] == 7 && shown.metadata.generation == Some(2), "{shown:?}");
        let live = sets.get("set").await?;
        ensure!(live.data["spec"]["replicas"] == 0 && live.metadata.generation == made.metadata.generation, "{live:?}");
        Ok(())
    })
    .await
}

/// C4, C15: what of a set can change, and what cannot.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_is_422_and_what_can_is_taken() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let sets = site.objects(Kind::StatefulSet, &namespace);
        sets.patch("set", &PatchParams::apply("test"), &Patch::Apply(set(&namespace))).await?;
        for (pointer, value) in [
            ("/spec/serviceName", json!("other")),
            ("/spec/podManagementPolicy", json!("Parallel")),
            ("/spec/volumeClaimTemplates/0/spec/resources/requests/storage", json!("2Gi")),
        ] {
            let mut body = set(&namespace);
            body["spec"]["podManagementPolicy"] = json!("OrderedReady");
            *body.pointer_mut(pointer).context("a field")? = value;
            let status = refusal(sets.patch("set", &PatchParams::apply("test"), &Patch::Apply(body)).await)?;
            is_immutable(&status).with_context(|| pointer.to_owned())?;
        }
        for spec in [
            json!({"replicas": 0}),
            json!({"minReadySeconds": 7}),
            json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}),
            json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}),
            json!({"template": {"metadata": {"annotations": {"a": "b"}}}}),
        ] {
            let patch = Patch::Merge(json!({"spec": spec}));
            sets.patch("set", &PatchParams::default(), &patch).await.with_context(|| spec.to_string())?;
        }
        let deployments = site.objects(Kind::Deployment, &namespace);
        let mut body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": namespace},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": set(&namespace)["spec"]["template"]}});
        body["spec"]["template"]["metadata"]["labels"] = json!({"app": "d", "other": "x"});
        body["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([]);
        deployments.patch("d", &PatchParams::apply("test"), &Patch::Apply(&body)).await?;
        body["spec"]["selector"]["matchLabels"] = json!({"other": "x"});
        let status = refusal(deployments.patch("d", &PatchParams::apply("test"), &Patch::Apply(&body)).await)?;
        ensure!(status.code == 422 && status.message.contains("field is immutable"), "{status:?}");
        Ok(())
    })
    .await
}

/// C15: an apply says so with 500, a create with 400. The steps call both final.
#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_the_server_does_not_know_is_refused_by_its_name() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let sets = site.objects(Kind::StatefulSet, &namespace);
        let mut body = set(&namespace);
        body["spec"]["replicaz"] = json!(1);
        let status = refusal(sets.patch("set", &strict(), &Patch::Apply(&body)).await)?;
        ensure!(matches!(status.code, 400 | 422 | 500) && status.message.contains("spec.replicaz"), "{status:?}");

        let object = Object {
            kind: Kind::StatefulSet,
            name: "set".to_owned(),
            namespace: Some(namespace.clone()),
            body: body.clone(),
        };
        let error = site.cluster.apply(&object, "nobody", &[]).await.err().context("it was applied")?;
        ensure!(error.failure.class == cairn_engine::ErrorClass::Permanent, "{error}");

        let url = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets?fieldValidation=Strict");
        let create =
            http::Request::post(url).header("content-type", "application/json").body(body.to_string().into_bytes())?;
        let answer: kube::Result<Value> = site.client.request(create).await;
        match answer {
            Err(kube::Error::Api(status)) => {
                ensure!(status.code == 400 && status.message.contains("unknown field \"spec.replicaz\""), "{status:?}");
            }
            other => anyhow::bail!("{other:?}"),
        }
        ensure!(sets.get_opt("set").await?.is_none());
        Ok(())
    })
    .await
}

/// C15: also said with 500, and also final: tried again it would be for as long as a server that is ill.
#[tokio::test(flavor = "multi_thread")]
async fn an_amount_that_is_none_and_a_value_of_another_type_are_final() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        for (pointer, value) in [
            ("/spec/template/spec/containers/0/resources/limits/memory", json!("1GB")),
            ("/spec/replicas", json!("three")),
            ("/spec/template/spec/containers", json!([{"name": "main", "image": "a"}, {"name": "main", "image": "b"}])),
        ] {
            let mut body = set(&namespace);
            *body.pointer_mut(pointer).context("a field")? = value;
            let object =
                Object { kind: Kind::StatefulSet, name: "set".to_owned(), namespace: Some(namespace.clone()), body };
            let error = site.cluster.apply(&object, "nobody", &[]).await.err().context(pointer)?;
            ensure!(error.failure.class == cairn_engine::ErrorClass::Permanent, "{pointer}: {error}");
        }
        let sets = site.objects(Kind::StatefulSet, &namespace);
        ensure!(sets.get_opt("set").await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_pages_that_hold_each_object_once() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let maps = some_maps(site, &namespace, 5).await?;
        let mut params = ListParams::default().labels("suite=cairn").limit(2);
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        // Ends with the last page.
        loop {
            let page = maps.list(&params).await?;
            sizes.push(page.items.len());
            seen.extend(page.items.iter().map(kube::ResourceExt::name_any));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        ensure!(sizes == [2, 2, 1], "{sizes:?}");
        seen.sort();
        ensure!(seen == ["map-0", "map-1", "map-2", "map-3", "map-4"], "{seen:?}");
        Ok(())
    })
    .await
}

/// The kind of watch that rollouts are followed by: a list in pages, then whatever happens, deletions included.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_is_there_and_then_what_changes() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let maps = some_maps(site, &namespace, 3).await?;
        let config = watcher::Config::default().labels("suite=cairn").page_size(2);
        let mut events = std::pin::pin!(watcher::watcher(maps.clone(), config));
        let mut known = BTreeSet::new();
        let watching = async {
            // Ends when the last change has been seen.
            loop {
                match events.next().await.context("the watch ended")?? {
                    watcher::Event::Init => {}
                    watcher::Event::InitApply(map) | watcher::Event::Apply(map) => {
                        known.insert(map.name_any());
                    }
                    watcher::Event::InitDone => {
                        ensure!(known.len() == 3, "{known:?}");
                        make_map(&maps, "map-3").await?;
                        maps.delete("map-0", &kube::api::DeleteParams::default()).await?;
                    }
                    watcher::Event::Delete(map) => {
                        known.remove(&map.name_any());
                        return Ok(());
                    }
                }
            }
        };
        tokio::time::timeout(site.patience, watching).await.context("the changes are not seen")??;
        ensure!(known.iter().eq(["map-1", "map-2", "map-3"]), "{known:?}");
        Ok(())
    })
    .await
}

async fn some_maps(site: &Site, namespace: &str, count: usize) -> anyhow::Result<Api<ConfigMap>> {
    let maps: Api<ConfigMap> = Api::namespaced(site.client.clone(), namespace);
    for index in 0..count {
        make_map(&maps, &format!("map-{index}")).await?;
    }
    Ok(maps)
}

async fn make_map(maps: &Api<ConfigMap>, name: &str) -> anyhow::Result<()> {
    let map = serde_json::from_value(json!({"metadata": {"name": name, "labels": {"suite": "cairn"}}}))?;
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> anyhow::Result<Status> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(*status),
        other => anyhow::bail!("it was taken: {other:?}"),
    }
}

fn is_immutable(status: &Status) -> anyhow::Result<()> {
    ensure!((status.code, status.reason.as_str()) == (422, "Invalid"), "{status:?}");
    ensure!(status.message.contains("updates to statefulset spec for fields other than"), "{status:?}");
    let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
    ensure!(causes.iter().any(|cause| cause.field == "spec"), "{status:?}");
    Ok(())
}
