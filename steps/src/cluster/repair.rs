//! Pods that stand in the way of a newer revision of their set (C0, C15).
//!
//! A template that was corrected, or set back, does not always replace a pod that never became ready: the controller may wait for it.
//! Such a pod is deleted by its UID, and the controller makes it anew from the newest template. Only pods that the awaited set itself
//! owns.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::Cluster;
use crate::names;
use crate::render::Kind;

/// The label by which the controller tells revisions apart.
const REVISION: &str = "controller-revision-hash";

/// The revision that a pod was made from, if a set made it.
pub(super) fn revision(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get(REVISION)
}

/// Whether this very set made the pod.
pub(super) fn belongs_to(pod: &Pod, set: &str) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == set)
}

/// Whether the pod is ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Cluster {
    /// Deletes this very pod, so that its set makes it anew, if the server itself says that the set has a newer revision: what a
    /// watch shows may be old. A failure is no failure of the rollout: it is tried again.
    pub(super) async fn replace(&self, pod: &Pod) {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else { return };
        let set = self.read(Kind::StatefulSet, Some(namespace), names::STATEFUL_SET).await;
        let is_newer = matches!(set, Ok(Some(set))
            if set.metadata.uid.as_deref().is_some_and(|uid| belongs_to(pod, uid))
                && set.data["status"]["observedGeneration"].as_i64() == set.metadata.generation
                && set.data["status"]["updateRevision"].as_str() != revision(pod).map(String::as_str));
        if !is_newer {
            return;
        }
        let params = DeleteParams {
            // Of the version that was looked at, too: one that has become ready since stays.
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: pod.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match api.delete(name, &params).await {
            Ok(_) => tracing::info!(namespace, pod = name, "a pod of an older revision that was not ready is replaced"),
            Err(error) => {
                tracing::warn!(namespace, pod = name, %error, "a pod of an older revision could not be replaced")
            }
        }
    }
}
