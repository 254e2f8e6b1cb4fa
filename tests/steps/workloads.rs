//! What the controllers write that rollouts are judged by: generations, revisions, the labels and events of pods.

use std::{collections::BTreeMap, ops::ControlFlow};

use anyhow::{Context as _, ensure};
use cairn_steps::{names, render::Kind};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, ReplicaSet},
    core::v1::{Event, Pod},
};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    bench::Bench,
    conflicts::set,
    site::{Site, on_the_cluster},
};

const NODES: &str = "app.kubernetes.io/name=elasticsearch";
const KIBANAS: &str = "app.kubernetes.io/name=kibana";

async fn pods(site: &Site, namespace: &str, labels: &str) -> anyhow::Result<Vec<Pod>> {
    Ok(site.pods(namespace).list(&ListParams::default().labels(labels)).await?.items)
}

fn owner(pod: &Pod) -> (String, String) {
    let owners = pod.owner_references();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    controller.map(|owner| (owner.kind.clone(), owner.name.clone())).unwrap_or_default()
}

/// The generation counts what was asked for, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_moves_with_the_spec_and_is_observed_later() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let sets = site.objects(Kind::StatefulSet, &namespace);
        let applied = async |body| sets.patch("set", &PatchParams::apply("test"), &Patch::Apply(body)).await;
        let made = applied(set(&namespace)).await?;
        ensure!(made.metadata.generation == Some(1), "{made:?}");
        let observed = async |generation: i64| {
            site.eventually(&format!("generation {generation} is observed"), async || {
                let found = sets.get("set").await?;
                let observed = found.data["status"]["observedGeneration"].as_i64();
                Ok(match observed {
                    Some(seen) if seen >= generation => ControlFlow::Break(found),
                    _ => ControlFlow::Continue(found.data["status"].to_string()),
                })
            })
            .await
        };
        observed(1).await?;
        let mut labelled = set(&namespace);
        labelled["metadata"]["labels"] = json!({"color": "blue"});
        let answer = applied(labelled.clone()).await?;
        ensure!(answer.metadata.generation == Some(1), "a label is no change of the spec: {answer:?}");
        labelled["spec"]["minReadySeconds"] = json!(5);
        let answer = applied(labelled).await?;
        ensure!(answer.metadata.generation == Some(2), "{answer:?}");
        let found = observed(2).await?;
        ensure!(found.data["status"]["replicas"] == 0, "{found:?}");
        Ok(())
    })
    .await
}

/// C1, C8: the pods that count are found by the hash of the set's newest revision.
#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_set_bear_its_revision_and_a_change_of_the_template_makes_another() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"replicas": 2}))?;
        bench.up_to("tenant_synced").await?;
        let sets = site.objects(Kind::StatefulSet, &bench.namespace);
        let revision_of =
            |set: &DynamicObject| set.data["status"]["updateRevision"].as_str().unwrap_or_default().to_owned();
        let first = revision_of(&sets.get(names::STATEFUL_SET).await?);
        ensure!(first.starts_with(&format!("{}-", names::STATEFUL_SET)), "{first}");
        let found = pods(site, &bench.namespace, NODES).await?;
        for pod in &found {
            let labels = pod.labels();
            let name = pod.name_any();
            ensure!(labels.get("controller-revision-hash") == Some(&first), "{name}: {labels:?}, {first}");
            ensure!(labels.get("statefulset.kubernetes.io/pod-name") == Some(&name), "{name}: {labels:?}");
            ensure!(owner(pod) == ("StatefulSet".to_owned(), names::STATEFUL_SET.to_owned()), "{name}");
        }
        let mut known: Vec<String> = found.iter().map(kube::ResourceExt::name_any).collect();
        known.sort();
        ensure!(known == [names::node(0), names::node(1)], "{known:?}");
        let revisions: Api<ControllerRevision> = Api::namespaced(site.client.clone(), &bench.namespace);
        revisions.get(&first).await.context("the revision is an object of that name")?;

        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/turn": "2"}}}}});
        sets.patch(names::STATEFUL_SET, &PatchParams::default(), &Patch::Merge(patch)).await?;
        site.eventually("the newest revision is the current one, everywhere", async || {
            let set = sets.get(names::STATEFUL_SET).await?;
            let status = &set.data["status"];
            let newest = revision_of(&set);
            let everywhere = status["currentRevision"] == status["updateRevision"] && newest != first;
            if everywhere {
                // Only when updated, ready and total are all as wanted (C15).
                for count in ["updatedReplicas", "readyReplicas", "replicas"] {
                    ensure!(status[count] == 2, "{count} of {status}");
                }
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(status.to_string()))
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_its_pods_through_a_set_named_by_the_hash_of_its_template() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("tenant_synced").await?;
        let sets: Api<ReplicaSet> = Api::namespaced(site.client.clone(), &bench.namespace);
        let found = pods(site, &bench.namespace, KIBANAS).await?;
        ensure!(found.len() == 1, "{found:?}");
        let hash = found[0].labels().get("pod-template-hash").context("a hash")?.clone();
        let name = format!("{}-{hash}", names::KIBANA);
        ensure!(owner(&found[0]) == ("ReplicaSet".to_owned(), name.clone()), "{:?}", owner(&found[0]));
        ensure!(found[0].name_any().starts_with(&format!("{name}-")), "{}", found[0].name_any());
        let set = sets.get(&name).await?;
        ensure!(set.labels().get("pod-template-hash") == Some(&hash), "{:?}", set.labels());
        // The controller copies the Deployment's annotations, our marks among them: what it makes is ours to find.
        ensure!(set.annotations().get(crate::bench::WORKFLOW) == Some(&bench.workflow()), "{:?}", set.annotations());
        let deployment = site.objects(Kind::Deployment, &bench.namespace).get(names::KIBANA).await?;
        let revision = deployment.annotations().get("deployment.kubernetes.io/revision");
        ensure!(revision.map(String::as_str) == Some("1"), "{revision:?}");
        Ok(())
    })
    .await
}

/// A pod counts as available only after it was ready for so long: `availableReplicas` lags, `readyReplicas` does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_available_only_after_min_ready_seconds() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("rollout_completed").await?;
        for (kind, name) in [(Kind::StatefulSet, names::STATEFUL_SET), (Kind::Deployment, names::KIBANA)] {
            let objects = site.objects(kind, &bench.namespace);
            let patch = json!({"spec": {"minReadySeconds": 36000, "progressDeadlineSeconds": 72000, "replicas": 1}});
            let patch = match kind {
                Kind::StatefulSet => json!({"spec": {"minReadySeconds": 36000, "replicas": 1}}),
                _ => patch,
            };
            objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            site.eventually(&format!("the pod of {kind}/{name} is ready"), async || {
                let status = objects.get(name).await?.data["status"].clone();
                if status["readyReplicas"] == 1 {
                    let available = status["availableReplicas"].as_i64().unwrap_or(0);
                    ensure!(available == 0, "available at once: {status}");
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(status.to_string()))
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_controllers_do_is_told_in_events_about_their_object() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("tenant_synced").await?;
        let events: Api<Event> = Api::namespaced(site.client.clone(), &bench.namespace);
        let wanted: BTreeMap<&str, &str> = [
            ("StatefulSet", "SuccessfulCreate"),
            ("ReplicaSet", "SuccessfulCreate"),
            ("Deployment", "ScalingReplicaSet"),
        ]
        .into();
        site.eventually("the controllers have told what they did", async || {
            let all = events.list(&ListParams::default()).await?;
            let told = |kind: &str, reason: &str| {
                all.iter().any(|event| {
                    event.involved_object.kind.as_deref() == Some(kind)
                        && event.reason.as_deref() == Some(reason)
                        && event.involved_object.uid.is_some()
                        && event.type_.as_deref() == Some("Normal")
                })
            };
            let missing: Vec<_> = wanted.iter().filter(|(kind, reason)| !told(kind, reason)).collect();
            Ok(if missing.is_empty() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(format!("not yet {missing:?}"))
            })
        })
        .await
    })
    .await
}
