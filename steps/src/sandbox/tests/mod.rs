//! The sandbox as its clients see it: everything here goes through the real `kube::Client`, on a clock that stands still
//! unless nothing else is left to do.

mod claims;
mod faults;
mod namespaces;
mod persistence;
mod rollouts;
mod served;
mod watches;
mod writes;

use super::{Sandbox, SandboxOptions};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::wait::{Condition, await_condition};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) fn open() -> Sandbox {
    Sandbox::open(SandboxOptions::default()).expect("a sandbox in memory always opens")
}

pub(super) async fn with_namespace(name: &str) -> Sandbox {
    let sandbox = open();
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    Api::all(sandbox.client()).create(&PostParams::default(), &namespace).await.expect("created");
    sandbox
}

pub(super) fn api<K>(sandbox: &Sandbox) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(sandbox.client(), "a")
}

/// Server-side apply as `cairn` does it.
pub(super) async fn apply<K>(api: &Api<K>, object: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    apply_as(api, "cairn", object).await
}

pub(super) async fn apply_as<K>(api: &Api<K>, manager: &str, mut object: Value) -> kube::Result<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    object["apiVersion"] = json!(K::api_version(&kind));
    object["kind"] = json!(K::kind(&kind));
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    api.patch(&name, &PatchParams::apply(manager), &Patch::Apply(object)).await
}

/// A StatefulSet `es` with a claim a pod.
pub(super) fn stateful_set(replicas: i32, image: &str, policy: &str) -> Value {
    json!({
        "metadata": {"name": "es", "annotations": {"cairn.dev/workflow": "w1"}},
        "spec": {
            "replicas": replicas, "serviceName": "es", "podManagementPolicy": policy,
            "selector": {"matchLabels": {"app": "es"}},
            "template": {"metadata": {"labels": {"app": "es"}}, "spec": {"containers": [{
                "name": "es", "image": image,
                "resources": {"requests": {"cpu": "0.5", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    })
}

pub(super) fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": "kibana"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "kibana"}},
            "template": {"metadata": {"labels": {"app": "kibana"}}, "spec": {"containers": [{"name": "kibana", "image": image}]}},
        },
    })
}

/// Waits, on tokio's clock, until the object is as wanted.
pub(super) async fn until<K>(api: &Api<K>, name: &str, condition: impl Condition<K>)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K::DynamicType: Default,
{
    let waited =
        tokio::time::timeout(std::time::Duration::from_secs(3600), await_condition(api.clone(), name, condition));
    waited.await.expect("it happens within an hour").expect("the watch holds");
}

/// `kubectl rollout status` of a set (C1).
pub(super) fn set_is_rolled_out(set: Option<&StatefulSet>) -> bool {
    let Some(set) = set else { return false };
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    set.status.as_ref().is_some_and(|status| {
        status.observed_generation >= set.metadata.generation
            && status.ready_replicas.unwrap_or_default() >= wanted
            && status.updated_replicas.unwrap_or_default() >= wanted
            && status.replicas == wanted
    })
}

pub(super) fn deployment_is_rolled_out(deployment: Option<&Deployment>) -> bool {
    let Some(deployment) = deployment else { return false };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or_default() >= wanted
            && status.replicas.unwrap_or_default() <= status.updated_replicas.unwrap_or_default()
            && status.available_replicas.unwrap_or_default() >= wanted
    })
}

pub(super) fn refusal(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not a refusal: {other:?}"),
    }
}

pub(super) async fn pod_names(sandbox: &Sandbox) -> Vec<String> {
    let pods = api::<Pod>(sandbox).list(&ListParams::default()).await.expect("listed");
    pods.items.iter().map(ResourceExt::name_any).collect()
}

/// Lets the controllers finish what they can do at once.
pub(super) async fn settle() {
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
}

pub(super) async fn events(sandbox: &Sandbox, reason: &str) -> Vec<String> {
    let all = api::<Event>(sandbox).list(&ListParams::default()).await.expect("listed");
    let told = all.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    told.filter_map(|event| event.message).collect()
}
