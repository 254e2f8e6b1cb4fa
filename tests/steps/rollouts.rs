//! Rollouts (C1, C8): done when they are, and failed with a reason when they cannot be.
//!
//! What a kubelet would report is written by the test itself, to the status of a pod that no node has: nobody else writes
//! there, whatever stands in for kubelets.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Context as _, ensure};
use cairn_engine::ErrorClass;
use cairn_steps::{
    cluster::rollout::{RolloutRules, TroubleRules},
    names,
    render::Kind,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, made, says, told},
    site::{Site, on_the_cluster, skipped},
};

const NODES: &str = "app.kubernetes.io/name=elasticsearch";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_before_the_rollout_and_everything_after_it() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"replicas": 2}))?;
        bench.up_to("rollout_completed").await?;
        // The controllers have seen both, and have had their chance.
        for (kind, name) in [(Kind::StatefulSet, names::STATEFUL_SET), (Kind::Deployment, names::KIBANA)] {
            site.eventually(&format!("{kind}/{name} is taken note of"), async || {
                let found = site.objects(kind, &bench.namespace).get(name).await?;
                let observed = found.data["status"]["observedGeneration"].as_i64();
                Ok(if observed.is_some() && observed == found.metadata.generation {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(found.data["status"].to_string())
                })
            })
            .await?;
        }
        let pods = site.pods(&bench.namespace);
        ensure!(pods.list(&ListParams::default()).await?.items.is_empty(), "pods before the rollout");
        let output = bench.done("rollout_completed").await?;
        ensure!(output.message == "ready: elasticsearch 2/2, kibana 1/1", "{}", output.message);
        let found = pods.list(&ListParams::default()).await?;
        ensure!(found.items.len() == 3 && found.iter().all(is_ready), "{:?}", found.items);
        let config = site.objects(Kind::ConfigMap, &bench.namespace).get(names::CONFIG_MAP).await?;
        ensure!(!config.data["data"].to_string().contains("initial_master_nodes"), "the bootstrap list is left");
        Ok(())
    })
    .await
}

/// C15: just after a change the status says "ready" of the revision before. Whenever the rollout is called done, every pod
/// there is of the newest revision, and ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_never_called_done_for_the_revision_before() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"replicas": 2}))?;
        bench.up_to("tenant_synced").await?;
        let output = bench.state.output(&"rollout_completed".into()).context("rolled out")?.clone();
        let sets: Vec<_> = made(&output).into_iter().filter(|one| one.kind == "StatefulSet").collect();
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/turn": "2"}}}}});
        let api = site.objects(Kind::StatefulSet, &bench.namespace);
        let changed = api.patch(names::STATEFUL_SET, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let mut early = 0;
        site.eventually("the changed set is rolled out", async || {
            let done = site.cluster.is_rolled_out(&bench.namespace, &sets).await.map_err(|error| told(&error))?;
            if done.is_none() {
                early += 1;
                return Ok(ControlFlow::Continue(api.get(names::STATEFUL_SET).await?.data["status"].to_string()));
            }
            Ok(ControlFlow::Break(()))
        })
        .await?;
        ensure!(early > 0, "the very first look after the change called it done");
        let set = api.get(names::STATEFUL_SET).await?;
        ensure!(set.metadata.generation == changed.metadata.generation, "somebody else changed it");
        let revision = set.data["status"]["updateRevision"].as_str().context("a revision")?.to_owned();
        let pods = site.pods(&bench.namespace).list(&ListParams::default().labels(NODES)).await?;
        let newest = |pod: &Pod| pod.labels().get("controller-revision-hash") == Some(&revision) && is_ready(pod);
        ensure!(pods.items.len() == 2 && pods.iter().all(newest), "{:?}", pods.items);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_deleted_during_its_rollout_is_a_failure_and_its_successor_is_not_followed() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = stuck(site).await?;
        bench.begun("rollout_completed")?;
        let deleting = async {
            first_pod(site, &bench).await?;
            let sets = site.objects(Kind::StatefulSet, &bench.namespace);
            anyhow::Ok(sets.delete(names::STATEFUL_SET, &DeleteParams::background()).await.map(|_| ())?)
        };
        let (result, deleted) = tokio::join!(bench.run("rollout_completed"), deleting);
        deleted?;
        let error = result.err().context("it was called rolled out")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "deleted by somebody else")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_no_node_takes_fail_the_rollout_in_the_words_of_the_scheduler() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = stuck(site).await?;
        let Some(pod) = unscheduled(site, &mut bench).await? else { return Ok(()) };
        bench.begun("rollout_completed")?;
        let error = bench.run("rollout_completed").await.err().context("it was called rolled out")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, &format!("pod {pod} has no node: Unschedulable: 0/"))?;
        says(&error, "Insufficient cpu")
    })
    .await
}

/// Each sign that a kubelet gives of a pod that cannot start, written as it writes it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_kubelet_says_of_a_container_that_cannot_start_fails_the_rollout() -> anyhow::Result<()> {
    let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let signs = [
        ("InvalidImageName", waiting("InvalidImageName", "couldn't parse image name"), json!({}), 0),
        ("ErrImagePull", waiting("ErrImagePull", "manifest for x:9 not found"), json!({}), 0),
        ("ImagePullBackOff", waiting("ImagePullBackOff", "Back-off pulling image"), json!({}), 0),
        ("CreateContainerConfigError", waiting("CreateContainerConfigError", "secret \"s\" not found"), json!({}), 0),
        ("OOMKilled, exit code 137", waiting("CrashLoopBackOff", "back-off 40s"), ended, 3),
    ];
    on_the_cluster(async |site| {
        let mut bench = stuck(site).await?;
        let Some(pod) = unscheduled(site, &mut bench).await? else { return Ok(()) };
        bench.begun("rollout_completed")?;
        for (words, state, last, restarts) in &signs {
            write_status(site, &bench.namespace, &pod, state, last, *restarts).await?;
            let error = bench.run("rollout_completed").await.err().context("it was called rolled out")?;
            ensure!(error.failure.class == ErrorClass::Permanent, "{words}: {error}");
            says(&error, &format!("container {} of pod {pod}", names::ELASTICSEARCH_CONTAINER))?;
            says(&error, words)?;
        }
        Ok(())
    })
    .await
}

/// A creation before its rollout whose nodes ask for more than any machine has, and which believes a sign at once.
async fn stuck(site: &Site) -> anyhow::Result<Bench<'_>> {
    let soon = Duration::from_secs(3);
    let trouble = TroubleRules {
        config_grace: soon,
        image_grace: soon,
        schedule_grace: soon,
        restarts_max: 3,
        ..TroubleRules::default()
    };
    let rules = RolloutRules { deadline: site.patience, trouble, ..RolloutRules::default() };
    let mut bench = Bench::with_rules(site, &json!({"cpu_request": "900000", "cpu_limit": "900000"}), rules)?;
    bench.up_to("rollout_completed").await?;
    Ok(bench)
}

async fn first_pod(site: &Site, bench: &Bench<'_>) -> anyhow::Result<Pod> {
    site.eventually("the first node's pod is there", async || {
        let found = site.pods(&bench.namespace).list(&ListParams::default().labels(NODES)).await?;
        Ok(match found.items.into_iter().next() {
            Some(pod) => ControlFlow::Break(pod),
            None => ControlFlow::Continue("none".to_owned()),
        })
    })
    .await
}

/// Scales the set up, and waits until the scheduler has said that its pod fits nowhere; nothing where no scheduler says so.
async fn unscheduled(site: &Site, bench: &mut Bench<'_>) -> anyhow::Result<Option<String>> {
    let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
    // As the steps' own manager: nobody takes the field from them.
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let sets = site.objects(Kind::StatefulSet, &bench.namespace);
    sets.patch(names::STATEFUL_SET, &params, &patch).await?;
    let name = first_pod(site, bench).await?.name_any();
    let seen = site
        .eventually("the scheduler has looked at the pod", async || {
            let pod = site.pods(&bench.namespace).get(&name).await?;
            let placed = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            // That its claims are not bound yet is another reason, and passes.
            let of_size = |message: &String| !message.contains("unbound");
            let refused = conditions.iter().any(|condition| {
                condition.type_ == "PodScheduled"
                    && condition.reason.as_deref() == Some("Unschedulable")
                    && condition.message.as_ref().is_some_and(of_size)
            });
            Ok(match placed {
                Some(node) => ControlFlow::Break(Some(node)),
                None if is_ready(&pod) => ControlFlow::Break(Some("no node at all".to_owned())),
                None if refused => ControlFlow::Break(None),
                None => ControlFlow::Continue(format!("{conditions:?}")),
            })
        })
        .await?;
    if let Some(node) = seen {
        skipped(&format!("a pod that asks for 900000 CPUs runs on {node}: nobody here refuses to schedule it"));
        return Ok(None);
    }
    Ok(Some(name))
}

async fn write_status(
    site: &Site,
    namespace: &str,
    pod: &str,
    state: &Value,
    last: &Value,
    restarts: i32,
) -> anyhow::Result<()> {
    let status = json!({"status": {"containerStatuses": [{
        "name": names::ELASTICSEARCH_CONTAINER, "image": "x", "imageID": "", "ready": false, "started": false,
        "restartCount": restarts, "state": state, "lastState": last,
    }]}});
    let written = site.pods(namespace).patch_status(pod, &PatchParams::default(), &Patch::Merge(status)).await;
    written.with_context(|| format!("cannot write the status of pod {pod}")).map(|_| ())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
