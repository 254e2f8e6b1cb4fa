//! What a cluster does by itself: one loop that looks at every object that may be wrong, and puts it right.
//!
//! - Level-triggered: a controller sees the whole object, never the change, and writes only what differs. So it may be asked
//!   again at any time, and a restart asks it about everything.
//! - One object at a time, under the lock of the state: what a client sees is never half of a step.
//! - While changes cannot be kept, nothing is done; every second it is tried again.
//! - Between steps the loop waits for a change, for a fault, or for the next time that a controller asked for.

mod budgets;
mod claims;
mod deployment;
mod endpoints;
mod events;
mod namespaces;
mod pod_status;
mod pods;
mod replicaset;
mod retention;
mod revisions;
pub(super) mod scheduler;
mod statefulset;

use super::Shared;
use super::admission::admit_new;
use super::defaults::DEFAULT_CLASS;
use super::delete;
use super::json::{flag, has, items, text};
use super::kinds::Kind;
use super::quota;
use super::status::Refusal;
use super::store::{Key, State};
use super::work::Next;
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How many objects are looked at before others of the runtime get their turn.
const TURN: usize = 32;
/// Until it is tried again whether changes can be kept.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a fresh cluster has: two namespaces, a node, storage classes that grow and one that does not.
pub(super) fn furnish(state: &mut State) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        furnish_one(state, Kind::Namespace, json!({"metadata": {"name": name}}));
    }
    let class = |name: &str, is_default: bool, mode: &str, expands: bool| {
        json!({
            "metadata": {"name": name, "annotations": {DEFAULT_CLASS: is_default.to_string()}},
            "provisioner": claims::PROVISIONER, "volumeBindingMode": mode, "allowVolumeExpansion": expands,
        })
    };
    furnish_one(state, Kind::StorageClass, class("standard", true, "WaitForFirstConsumer", true));
    furnish_one(state, Kind::StorageClass, class("immediate", false, "Immediate", true));
    furnish_one(state, Kind::StorageClass, class("fixed", false, "Immediate", false));
    let size = state.options.node.clone();
    let mut capacity =
        json!({"cpu": size.cpu, "memory": size.memory, "pods": size.pods.to_string(), "ephemeral-storage": "1Ti"});
    if size.gpu > 0 {
        capacity["nvidia.com/gpu"] = json!(size.gpu.to_string());
    }
    let now = state.clock.stamp();
    let node = json!({
        "metadata": {"name": "sandbox", "labels": {
            "kubernetes.io/hostname": "sandbox", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {"podCIDR": "10.244.0.0/16"},
        "status": {
            "capacity": capacity, "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the sandbox stands in for a kubelet",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "sandbox"}],
            "nodeInfo": {"architecture": "amd64", "bootID": "", "containerRuntimeVersion": "sandbox://0", "kernelVersion": "0",
                "kubeProxyVersion": "", "kubeletVersion": super::discovery::VERSION, "machineID": "", "operatingSystem": "linux",
                "osImage": "sandbox", "systemUUID": ""},
        },
    });
    furnish_one(state, Kind::Node, node);
}

fn furnish_one(state: &mut State, kind: Kind, mut object: Value) {
    let key = Key::of(kind, &object);
    if state.get(&key).is_some() {
        return;
    }
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.info().kind);
    let status = object.get("status").cloned();
    let mut object = admit_new(state, kind, object).expect("what the sandbox is furnished with is valid");
    if let Some(status) = status {
        object["status"] = status;
    }
    state.put(kind, object);
}

/// Starts the loop. It holds the sandbox only while it works: with the last of its users gone it ends.
pub(super) fn start(shared: &Arc<Shared>) -> JoinHandle<()> {
    let wake = shared.wake.clone();
    let faults = shared.faults.changes();
    tokio::spawn(run(Arc::downgrade(shared), wake, faults))
}

async fn run(shared: Weak<Shared>, wake: Arc<tokio::sync::Notify>, mut faults: tokio::sync::watch::Receiver<u64>) {
    let mut turn = 0;
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            if state.keeps().is_ok() {
                step(&mut state, &mut faults)
            } else {
                Next::WaitUntil(Instant::now() + TRY_AGAIN_AFTER)
            }
        };
        match next {
            Next::Reconcile(_) => {
                turn += 1;
                if turn % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Next::WaitUntil(due) => {
                tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                }
            }
            Next::Nothing => wake.notified().await,
        }
    }
}

/// Looks at one object, if one may be wrong.
fn step(state: &mut State, faults: &mut tokio::sync::watch::Receiver<u64>) -> Next {
    if faults.has_changed().unwrap_or(false) {
        faults.mark_unchanged();
        for kind in [Kind::Pod, Kind::Namespace, Kind::StatefulSet, Kind::ReplicaSet] {
            state.touch_all(kind);
        }
    }
    let next = state.work.next(Instant::now());
    if let Next::Reconcile(key) = &next {
        reconcile(state, key);
    }
    next
}

fn reconcile(state: &mut State, key: &Key) {
    let Some(object) = state.get(key).cloned() else { return };
    if collect(state, key, &object) {
        return;
    }
    match key.kind {
        Kind::Namespace => namespaces::reconcile(state, key, &object),
        Kind::Pod => pods::reconcile(state, key, &object),
        Kind::PersistentVolumeClaim => claims::reconcile(state, key, &object),
        Kind::PersistentVolume => claims::reconcile_volume(state, key, &object),
        Kind::ResourceQuota => quota::reconcile(state, key),
        Kind::PodDisruptionBudget => budgets::reconcile(state, key),
        Kind::Service => endpoints::reconcile(state, key, &object),
        Kind::Endpoints => endpoints::forget(state, key, &object),
        Kind::StatefulSet => statefulset::reconcile(state, key, &object),
        Kind::Deployment => deployment::reconcile(state, key, &object),
        Kind::ReplicaSet => replicaset::reconcile(state, key, &object),
        _ => {}
    }
}

/// The garbage collector's part: what has lost its owners goes, and an owner that is deleted in the foreground, or that
/// leaves orphans, waits for its dependents. True if there is nothing left to look at.
fn collect(state: &mut State, key: &Key, object: &Value) -> bool {
    let owners = items(object, "/metadata/ownerReferences");
    let deleting = has(object, "/metadata/deletionTimestamp");
    let lost = !owners.is_empty() && owners.iter().all(|owner| state.key_of_uid(text(owner, "/uid")).is_none());
    let swept =
        owners.iter().any(|owner| flag(owner, "/blockOwnerDeletion") && is_foreground(state, text(owner, "/uid")));
    if (lost || swept) && !deleting {
        delete::in_background(state, key);
        return true;
    }
    if !deleting {
        return false;
    }
    let uid = text(object, "/metadata/uid");
    let holds = |finalizer: &str| items(object, "/metadata/finalizers").iter().any(|found| found == finalizer);
    if holds("orphan") {
        for dependent in state.dependents(uid) {
            set_free(state, &dependent, uid);
        }
        delete::without_finalizer(state, key, "orphan");
        return true;
    }
    if holds("foregroundDeletion") {
        let dependents = state.dependents(uid);
        if dependents.is_empty() {
            delete::without_finalizer(state, key, "foregroundDeletion");
            return true;
        }
        for dependent in dependents {
            let begun = state.get(&dependent).is_none_or(|found| has(found, "/metadata/deletionTimestamp"));
            if !begun {
                delete::in_background(state, &dependent);
            }
        }
    }
    false
}

fn is_foreground(state: &State, uid: &str) -> bool {
    let owner = state.key_of_uid(uid).and_then(|key| state.get(key));
    owner.is_some_and(|owner| {
        has(owner, "/metadata/deletionTimestamp")
            && items(owner, "/metadata/finalizers").iter().any(|found| found == "foregroundDeletion")
    })
}

fn set_free(state: &mut State, key: &Key, owner: &str) {
    let Some(object) = state.get(key).cloned() else { return };
    let mut object = (*object).clone();
    if let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
        owners.retain(|found| text(found, "/uid") != owner);
        if owners.is_empty() {
            super::json::unset(&mut object, "/metadata/ownerReferences");
        }
    }
    state.put(key.kind, object);
}

/// Makes an object for a controller, through the same admission as a client's.
fn make(state: &mut State, kind: Kind, mut object: Value) -> Result<Arc<Value>, Refusal> {
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.info().kind);
    let object = admit_new(state, kind, object)?;
    Ok(state.put(kind, object))
}

/// The object with another status, if it is another.
fn put_status(state: &mut State, kind: Kind, object: &Value, status: Value) {
    let mut object = object.clone();
    object["status"] = status;
    state.put(kind, object);
}

fn is_ready(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running"
        && super::json::condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// Whether the pod has been ready for as long as its owner wants; if not yet, the owner is looked at again when it has.
fn is_available(state: &mut State, owner: &Key, pod: &Value, min_ready_seconds: i64) -> bool {
    if !is_ready(pod) {
        return false;
    }
    let ready = super::json::condition(pod, "Ready");
    let since: Option<jiff::Timestamp> = ready.and_then(|ready| text(ready, "/lastTransitionTime").parse().ok());
    let Some(since) = since.filter(|_| min_ready_seconds > 0) else { return true };
    let due = since + jiff::SignedDuration::from_secs(min_ready_seconds);
    let left = due.duration_since(state.clock.now());
    let Ok(left) = Duration::try_from(left) else { return true };
    if left.is_zero() {
        return true;
    }
    // Only asked for so that the owner is looked at again.
    let _ = state.work.passed(owner, text(pod, "/metadata/uid"), "available", left);
    false
}

fn is_terminating(object: &Value) -> bool {
    has(object, "/metadata/deletionTimestamp")
}
