//! Quotas (C8): what they refuse is told in the quota's own words, and at once.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Context as _, ensure};
use cairn_engine::ErrorClass;
use cairn_steps::{cluster::rollout::RolloutRules, render::Kind};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, says},
    site::{Site, on_the_cluster},
};

fn quotas(site: &Site, namespace: &str) -> Api<ResourceQuota> {
    Api::namespaced(site.client.clone(), namespace)
}

/// Makes a quota, and waits until it counts: a fresh one allows everything until its controller has looked at it.
async fn limit(site: &Site, namespace: &str, hard: Value) -> anyhow::Result<()> {
    let quota = serde_json::from_value(json!({"metadata": {"name": "small"}, "spec": {"hard": hard}}))?;
    quotas(site, namespace).create(&PostParams::default(), &quota).await?;
    site.eventually("the quota counts", async || {
        let found = quotas(site, namespace).get("small").await?.status;
        let counts = found.as_ref().is_some_and(|status| status.hard.is_some() && status.used.is_some());
        Ok(if counts { ControlFlow::Break(()) } else { ControlFlow::Continue(format!("{found:?}")) })
    })
    .await
}

/// The rollout of a creation under this quota fails, and says this.
async fn rollout_fails(hard: Value, words: &str) -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let rules = RolloutRules {
            deadline: site.patience,
            events_every: Duration::from_millis(500),
            ..RolloutRules::default()
        };
        let mut bench = Bench::with_rules(site, &json!({}), rules)?;
        bench.up_to("rollout_completed").await?;
        limit(site, &bench.namespace, hard).await?;
        bench.begun("rollout_completed")?;
        let error = bench.run("rollout_completed").await.err().context("it was rolled out")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "cannot make its pods")?;
        says(&error, words)?;
        let nodes = ListParams::default().labels("app.kubernetes.io/name=elasticsearch");
        ensure!(site.pods(&bench.namespace).list(&nodes).await?.items.is_empty(), "pods were made");
        quotas(site, &bench.namespace).delete("small", &DeleteParams::default()).await?;
        bench.roll_back_from("rollout_completed").await?;
        ensure!(bench.residue().await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_quota_refuses_fail_the_rollout_in_the_words_of_the_event() -> anyhow::Result<()> {
    rollout_fails(json!({"pods": "0"}), "exceeded quota: small, requested: pods=1, used: pods=0, limited: pods=0").await
}

/// Kibana asks for 250m, a node for 300m: the quota has room for one of the two, so that there is a pod, and the other
/// workload never gets its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_has_room_for_one_workload_fails_the_other_at_once() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let rules = RolloutRules {
            deadline: site.patience,
            events_every: Duration::from_millis(500),
            ..RolloutRules::default()
        };
        let request = json!({"cpu_request": "300m", "cpu_limit": "300m"});
        let mut bench = Bench::with_rules(site, &request, rules)?;
        bench.up_to("rollout_completed").await?;
        limit(site, &bench.namespace, json!({"requests.cpu": "280m"})).await?;
        let error = bench.run("rollout_completed").await.err().context("it was rolled out")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "StatefulSet/elasticsearch cannot make its pods")?;
        says(&error, "exceeded quota: small, requested: requests.cpu=300m")?;
        quotas(site, &bench.namespace).delete("small", &DeleteParams::default()).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_above_the_quota_is_refused_for_good_and_what_was_made_before_it_is_taken_back() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({"replicas": 2}))?;
        bench.up_to("disk_configured").await?;
        limit(site, &bench.namespace, json!({"persistentvolumeclaims": "1"})).await?;
        bench.begun("disk_configured")?;
        let error = bench.run("disk_configured").await.err().context("both were made")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "exceeded quota: small, requested: persistentvolumeclaims=1")?;
        says(&error, "the namespace's ResourceQuota is too small")?;
        let answer = bench.probe("disk_configured").await?;
        ensure!(matches!(answer, cairn_engine::Probe::Partly { .. }), "{answer:?}");
        bench.probed("disk_configured", answer)?;
        quotas(site, &bench.namespace).delete("small", &DeleteParams::default()).await?;
        bench.roll_back_from("disk_configured").await?;
        ensure!(bench.residue().await?.is_empty());
        ensure!(site.is_gone(&bench.namespace).await?);
        Ok(())
    })
    .await
}

/// Counted by `count/…` as well, for kinds that have no name of their own in a quota.
#[tokio::test(flavor = "multi_thread")]
async fn objects_above_a_counting_quota_are_403_and_name_what_was_asked_used_and_allowed() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        limit(site, &namespace, json!({"count/statefulsets.apps": "0"})).await?;
        let body = serde_json::from_value(crate::conflicts::set(&namespace))?;
        match site.objects(Kind::StatefulSet, &namespace).create(&PostParams::default(), &body).await {
            Err(kube::Error::Api(status)) => {
                let words = "exceeded quota: small, requested: count/statefulsets.apps=1, \
                     used: count/statefulsets.apps=0, limited: count/statefulsets.apps=0";
                ensure!((status.code, status.reason.as_str()) == (403, "Forbidden"), "{status:?}");
                ensure!(status.message.contains(words), "{status:?}");
            }
            answer => anyhow::bail!("{answer:?}"),
        }
        Ok(())
    })
    .await
}
