//! StatefulSets: pods by ordinal with their claims, scaled and updated in order (C0, C1, C15).

use super::super::apply::{Writer, own_changes};
use super::super::delete;
use super::super::faults::PodTrouble;
use super::super::json::{entries, items, number, set, text};
use super::super::kinds::Kind;
use super::super::selectors::label_selector_matches;
use super::super::store::{Key, State, controlled_by, owner_reference};
use super::events::{Told, tell};
use super::{is_available, is_ready, is_terminating, make, put_status, retention, revisions};
use crate::names::CONTROLLER_MANAGER;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const BY: &str = "statefulset-controller";
const REVISION: &str = "/metadata/labels/controller-revision-hash";

type Pods = BTreeMap<i64, Arc<Value>>;

pub(super) fn reconcile(state: &mut State, key: &Key, set: &Arc<Value>) {
    if is_terminating(set) {
        return;
    }
    let update = revisions::ensure(state, set);
    let current = match text(set, "/status/currentRevision") {
        "" => update.clone(),
        current => current.to_owned(),
    };
    adopt(state, key, set);
    retention::own_claims(state, set);
    advance(state, key, set, &current, &update);
    let pods = pods_of(state, set);
    let min_ready = number(set, "/spec/minReadySeconds");
    let available = pods.values().filter(|pod| is_available(state, key, pod, min_ready)).count();
    let status = status(set, &pods, available, current, &update);
    let live: Vec<&str> =
        pods.values().map(|pod| text(pod, REVISION)).chain([text(&status, "/currentRevision"), &update]).collect();
    revisions::forget(state, set, &live);
    put_status(state, Kind::StatefulSet, set, status);
}

/// One step towards what the set wants, as far as its management policy allows.
fn advance(state: &mut State, key: &Key, set: &Value, current: &str, update: &str) {
    let is_parallel = text(set, "/spec/podManagementPolicy") == "Parallel";
    let start = number(set, "/spec/ordinals/start");
    let wanted = start..start + number(set, "/spec/replicas");
    for (_, pod) in pods_of(state, set) {
        // A pod that ended is replaced.
        if matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed") && !is_terminating(&pod) {
            remove(state, set, &pod);
        }
    }
    let partition = number(set, "/spec/updateStrategy/rollingUpdate/partition");
    for ordinal in wanted.clone() {
        let pods = pods_of(state, set);
        match pods.get(&ordinal) {
            None => {
                let revision = if ordinal < start + partition { current } else { update };
                create(state, key, set, ordinal, revision);
                if !is_parallel {
                    return;
                }
            }
            Some(pod) if !is_parallel && (is_terminating(pod) || !is_ready(pod)) => return,
            Some(_) => {}
        }
    }
    let pods = pods_of(state, set);
    for (ordinal, pod) in pods.iter().rev() {
        if wanted.contains(ordinal) {
            continue;
        }
        remove(state, set, pod);
        if !is_parallel {
            return;
        }
    }
    if text(set, "/spec/updateStrategy/type") != "RollingUpdate" {
        return;
    }
    let rolling =
        || pods.iter().rev().filter(|(ordinal, _)| wanted.contains(ordinal) && **ordinal >= start + partition);
    // One at a time: a pod that is not healthy holds up the rest, and is not replaced itself, whatever revision it is of (C15).
    if rolling().any(|(_, pod)| is_terminating(pod) || !is_ready(pod)) {
        return;
    }
    if let Some((_, pod)) = rolling().find(|(_, pod)| text(pod, REVISION) != update) {
        remove(state, set, pod);
    }
}

fn status(set: &Value, pods: &Pods, available: usize, mut current: String, update: &str) -> Value {
    let count = |wanted: &dyn Fn(&Value) -> bool| {
        i64::try_from(pods.values().filter(|pod| wanted(pod)).count()).unwrap_or(i64::MAX)
    };
    let at = |revision: &str| count(&|pod| !is_terminating(pod) && text(pod, REVISION) == revision);
    let (all, ready, updated) = (count(&|_| true), count(&is_ready), at(update));
    let mut at_current = at(&current);
    let replicas = number(set, "/spec/replicas");
    let rolls = text(set, "/spec/updateStrategy/type") == "RollingUpdate";
    // The update revision becomes the current one only when updated, ready and total are all as wanted (C15).
    if rolls && updated == replicas && ready == replicas && all == replicas {
        current = update.to_owned();
        at_current = updated;
    }
    let mut status = json!({
        "observedGeneration": number(set, "/metadata/generation"), "replicas": all, "availableReplicas": available,
        "currentRevision": current, "updateRevision": update, "collisionCount": 0,
    });
    // A number that is 0 is left out, as the API server's encoder does it (C15).
    for (field, value) in [("readyReplicas", ready), ("updatedReplicas", updated), ("currentReplicas", at_current)] {
        if value != 0 {
            status[field] = json!(value);
        }
    }
    status
}

pub(super) fn pods_of(state: &State, set: &Value) -> Pods {
    let uid = text(set, "/metadata/uid");
    let pods = state.owned(uid, Kind::Pod).into_iter().filter(|pod| controlled_by(pod, uid));
    pods.filter_map(|pod| Some((ordinal_of(set, text(&pod, "/metadata/name"))?, pod))).collect()
}

pub(super) fn ordinal_of(set: &Value, pod: &str) -> Option<i64> {
    pod.strip_prefix(text(set, "/metadata/name"))?.strip_prefix('-')?.parse().ok()
}

/// Pods of this set's names and labels that nobody controls are its own: so a set that was deleted without its pods
/// and made again goes on with them (C4).
fn adopt(state: &mut State, key: &Key, set: &Value) {
    let selector = set.pointer("/spec/selector").cloned().unwrap_or_default();
    let orphans: Vec<Arc<Value>> = state
        .list(Kind::Pod, Some(&key.namespace))
        .filter(|(found, pod)| {
            items(pod, "/metadata/ownerReferences").is_empty()
                && !is_terminating(pod)
                && ordinal_of(set, &found.name).is_some()
                && label_selector_matches(&selector, pod)
        })
        .map(|(_, pod)| pod.clone())
        .collect();
    for pod in orphans {
        let mut pod = (*pod).clone();
        set_owner(&mut pod, set);
        state.put(Kind::Pod, pod);
    }
}

fn set_owner(object: &mut Value, owner: &Value) {
    set(object, "/metadata/ownerReferences", json!([owner_reference(Kind::StatefulSet, owner)]));
}

fn remove(state: &mut State, set: &Value, pod: &Value) {
    if is_terminating(pod) {
        return;
    }
    delete::in_background(state, &Key::of(Kind::Pod, pod));
    let (name, of) = (text(pod, "/metadata/name"), text(set, "/metadata/name"));
    let message = format!("delete Pod {name} in StatefulSet {of} successful");
    tell(state, Kind::StatefulSet, set, Told { warning: false, reason: "SuccessfulDelete", message: &message, by: BY });
}

fn create(state: &mut State, key: &Key, set: &Value, ordinal: i64, revision: &str) {
    let name = format!("{}-{ordinal}", key.name);
    let made = match state.faults.of_pod(&key.namespace, &name) {
        Some((PodTrouble::FailedCreate, message)) => Err(message.unwrap_or_else(|| {
            format!("pods \"{name}\" is forbidden: exceeded quota: sandbox, requested: pods=1, used: pods=0, limited: pods=0")
        })),
        _ => create_claims(state, key, set, &name).and_then(|()| {
            let pod = new_pod(state, key, set, ordinal, revision);
            make(state, Kind::Pod, pod).map(|_| ()).map_err(|refusal| refusal.message)
        }),
    };
    let message = match &made {
        Ok(()) => format!("create Pod {name} in StatefulSet {} successful", key.name),
        Err(error) => format!("create Pod {name} in StatefulSet {} failed error: {error}", key.name),
    };
    let reason = if made.is_ok() { "SuccessfulCreate" } else { "FailedCreate" };
    tell(state, Kind::StatefulSet, set, Told { warning: made.is_err(), reason, message: &message, by: BY });
    retention::own_claims(state, set);
}

fn create_claims(state: &mut State, key: &Key, set: &Value, pod: &str) -> Result<(), String> {
    for template in items(set, "/spec/volumeClaimTemplates") {
        let name = format!("{}-{pod}", text(template, "/metadata/name"));
        if state.contains(Kind::PersistentVolumeClaim, &key.namespace, &name) {
            continue;
        }
        let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
        for (label, value) in entries(set, "/spec/selector/matchLabels") {
            labels[label] = value.clone();
        }
        let mut claim = json!({
            "metadata": {"name": name, "namespace": key.namespace, "labels": labels},
            "spec": template["spec"],
        });
        if let Some(annotations) = template.pointer("/metadata/annotations") {
            claim["metadata"]["annotations"] = annotations.clone();
        }
        // Who made it counts when somebody applies another size (C2).
        let now = state.clock.stamp();
        let writer = Writer { manager: CONTROLLER_MANAGER, subresource: "", now: &now };
        own_changes(Kind::PersistentVolumeClaim, None, &mut claim, writer);
        make(state, Kind::PersistentVolumeClaim, claim)
            .map_err(|refusal| format!("failed to create PVC {name}: {}", refusal.message))?;
    }
    Ok(())
}

fn new_pod(state: &State, key: &Key, owner: &Value, ordinal: i64, revision: &str) -> Value {
    let template = revisions::template(state, owner, revision);
    let name = format!("{}-{ordinal}", key.name);
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["name"] = json!(name);
    metadata["generateName"] = json!(format!("{}-", key.name));
    metadata["namespace"] = json!(key.namespace);
    metadata["ownerReferences"] = json!([owner_reference(Kind::StatefulSet, owner)]);
    for (label, value) in [
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
        ("controller-revision-hash", revision.to_owned()),
        ("statefulset.kubernetes.io/pod-name", name.clone()),
    ] {
        metadata["labels"][label] = json!(value);
    }
    let mut spec = template.get("spec").cloned().unwrap_or_default();
    spec["hostname"] = json!(name);
    if !text(owner, "/spec/serviceName").is_empty() {
        spec["subdomain"] = owner["spec"]["serviceName"].clone();
    }
    let mut volumes = items(&spec, "/volumes").to_vec();
    for template in items(owner, "/spec/volumeClaimTemplates") {
        let volume = text(template, "/metadata/name");
        volumes.retain(|found| found["name"] != volume);
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{name}")}}));
    }
    if !volumes.is_empty() {
        spec["volumes"] = json!(volumes);
    }
    json!({"metadata": metadata, "spec": spec})
}
