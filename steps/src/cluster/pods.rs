//! The pods of a cluster, where they themselves matter: whether they are gone, whether they have ever started.

use std::time::Duration;

use cairn_engine::StepError;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;

use super::errors::{Asked, step_error};
use super::{Cluster, LIST_MAX};
use crate::names;

/// Pods that the watch does not show any more: how often the server itself is asked whether that is so.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Cluster {
    /// Waits until none of our pods is left in this namespace, for at most `limit`. From the shared watch; its word that they
    /// are gone is believed only once the server itself says so too.
    ///
    /// # Errors
    /// [`StepError`] (transient), naming those that are left at the end; else by the table of [`super::errors`].
    pub async fn wait_no_pods(&self, namespace: &str, limit: Duration) -> Result<(), StepError> {
        let watched = self.watched().await;
        let bell = watched.bell(namespace);
        let until = Instant::now() + limit;
        let mut look_at = Instant::now();
        loop {
            // Before the look, so that nothing that happens after it is missed.
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            let now = Instant::now();
            if now >= look_at || (watched.pods.is_synced() && watched.pods.all(namespace).is_empty()) {
                let left = self.pods(namespace).await?;
                if left.is_empty() {
                    return Ok(());
                }
                if now >= until {
                    let named: Vec<String> = left.iter().map(describe).collect();
                    let message = format!("pods in namespace {namespace} have not ended yet: {}", named.join(", "));
                    return Err(StepError::transient(message));
                }
                look_at = now + LOOK_EVERY;
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(look_at.min(until)) => {}
            }
            look_at = if Instant::now() >= until { until } else { look_at };
        }
    }

    /// Whether any of our pods is in this namespace, by the server's own word.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`].
    pub async fn has_pods(&self, namespace: &str) -> Result<bool, StepError> {
        Ok(!self.pods(namespace).await?.is_empty())
    }

    /// The nodes from this ordinal on that have ever started: each may have joined, and hold data and a vote.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`].
    pub async fn nodes_started(&self, namespace: &str, from: u32) -> Result<Vec<String>, StepError> {
        let pods = self.pods(namespace).await?;
        let is_later = |pod: &Pod| ordinal(pod).is_some_and(|ordinal| ordinal >= from);
        let started = pods.iter().filter(|pod| is_later(pod) && has_started(pod));
        Ok(started.filter_map(|pod| pod.metadata.name.clone()).collect())
    }

    /// Our pods in this namespace, by the server's own word.
    async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, StepError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let ours = format!("{}={}", names::MANAGED_BY_LABEL.0, names::MANAGED_BY_LABEL.1);
        let pods = api.list(&ListParams::default().labels(&ours).limit(LIST_MAX)).await;
        let doing = format!("list pods in namespace {namespace}");
        pods.map(|pods| pods.items).map_err(|error| step_error(Asked::Read, &doing, &error))
    }
}

/// The ordinal of a node's pod; none for a pod of Kibana.
fn ordinal(pod: &Pod) -> Option<u32> {
    let name = pod.metadata.name.as_deref()?;
    name.strip_prefix(names::STATEFUL_SET)?.strip_prefix('-')?.parse().ok()
}

fn has_started(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.into_iter().any(|container| {
        let state = container.state.as_ref();
        container.ready
            || container.restart_count > 0
            || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

fn describe(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.is_empty() { name.to_owned() } else { format!("{name} (finalizer {})", finalizers.join(", ")) }
}
