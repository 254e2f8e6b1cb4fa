//! Deployments: a ReplicaSet for each template, rolled over within surge and unavailability, with a deadline (C1).

use super::super::json::{condition, entries, flag, number, set, set_condition, text};
use super::super::kinds::Kind;
use super::super::names::safe_text;
use super::super::store::{Key, State, controlled_by, owner_reference};
use super::events::{Told, fnv, tell};
use super::{is_terminating, make};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const BY: &str = "deployment-controller";
const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";

pub(super) fn reconcile(state: &mut State, key: &Key, deployment: &Arc<Value>) {
    if is_terminating(deployment) {
        return;
    }
    let sets = replica_sets(state, deployment);
    let hash = safe_text(fnv(&[&deployment["spec"]["template"].to_string()]), 10);
    let name = format!("{}-{hash}", key.name);
    let is_new = |set: &Value| text(set, "/metadata/name") == name;
    let old: Vec<Arc<Value>> = sets.iter().filter(|set| !is_new(set)).cloned().collect();
    let newest = old.iter().map(|set| revision_of(set)).max().unwrap_or_default() + 1;
    let new = match sets.iter().find(|set| is_new(set)) {
        Some(found) => keep_in_step(state, deployment, found),
        None => match create_set(state, deployment, &name, &hash, newest) {
            Some(made) => made,
            None => return,
        },
    };
    if !flag(deployment, "/spec/paused") {
        roll(state, deployment, &new, &old);
        forget(state, deployment, &old);
    }
    write_status(state, key, deployment, &name);
}

fn revision_of(object: &Value) -> i64 {
    text(object, REVISION).parse().unwrap_or_default()
}

fn replica_sets(state: &State, deployment: &Value) -> Vec<Arc<Value>> {
    let uid = text(deployment, "/metadata/uid");
    let mut sets = state.owned(uid, Kind::ReplicaSet);
    sets.retain(|set| controlled_by(set, uid) && !is_terminating(set));
    sets
}

fn create_set(state: &mut State, deployment: &Value, name: &str, hash: &str, revision: i64) -> Option<Arc<Value>> {
    let mut template = deployment["spec"]["template"].clone();
    set(&mut template, "/metadata/labels/pod-template-hash", hash);
    let mut selector = deployment["spec"]["selector"].clone();
    set(&mut selector, "/matchLabels/pod-template-hash", hash);
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": deployment["metadata"]["namespace"], "labels": template["metadata"]["labels"],
            "annotations": {}, "ownerReferences": [owner_reference(Kind::Deployment, deployment)],
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    });
    copy_from(deployment, &mut object);
    set(&mut object, REVISION, revision.to_string());
    // Refused only in a namespace that goes.
    make(state, Kind::ReplicaSet, object).ok()
}

/// What a set gets from its Deployment besides the template: the annotations, so that a mark on the one is on the other, and
/// when a pod counts as available.
fn copy_from(deployment: &Value, replica_set: &mut Value) {
    for (name, value) in entries(deployment, "/metadata/annotations") {
        if !name.starts_with("deployment.kubernetes.io/") && name != "kubectl.kubernetes.io/last-applied-configuration"
        {
            replica_set["metadata"]["annotations"][name] = value.clone();
        }
    }
    match number(deployment, "/spec/minReadySeconds") {
        0 => super::super::json::unset(replica_set, "/spec/minReadySeconds"),
        seconds => replica_set["spec"]
            .as_object_mut()
            .and_then(|spec| spec.insert("minReadySeconds".to_owned(), json!(seconds))),
    };
}

fn keep_in_step(state: &mut State, deployment: &Value, replica_set: &Arc<Value>) -> Arc<Value> {
    let mut changed = (**replica_set).clone();
    copy_from(deployment, &mut changed);
    if changed["spec"] != replica_set["spec"] {
        set(&mut changed, "/metadata/generation", number(replica_set, "/metadata/generation") + 1);
    }
    state.put(Kind::ReplicaSet, changed)
}

/// One step of the roll-over: the new set grows within the surge, the old ones shrink within what may be missing.
fn roll(state: &mut State, deployment: &Value, new: &Arc<Value>, old: &[Arc<Value>]) {
    let wanted = number(deployment, "/spec/replicas");
    let size = |set: &Value| number(set, "/spec/replicas");
    let old_size: i64 = old.iter().map(|set| size(set)).sum();
    if text(deployment, "/spec/strategy/type") == "Recreate" {
        old.iter().for_each(|set| scale(state, deployment, set, 0));
        let left: i64 = old.iter().map(|set| number(set, "/status/replicas")).sum();
        if left == 0 {
            scale(state, deployment, new, wanted);
        }
        return;
    }
    let strategy = "/spec/strategy/rollingUpdate";
    let surge = share(deployment.pointer(&format!("{strategy}/maxSurge")), wanted, true);
    let mut missing = share(deployment.pointer(&format!("{strategy}/maxUnavailable")), wanted, false);
    if surge == 0 && missing == 0 {
        missing = 1;
    }
    let target =
        if old_size == 0 { wanted } else { wanted.min(size(new) + (wanted + surge - old_size - size(new)).max(0)) };
    scale(state, deployment, new, target);

    let unready_new = target - number(new, "/status/availableReplicas").min(target);
    let mut room = (target + old_size - (wanted - missing) - unready_new).max(0);
    for old_set in old {
        // What never became ready is in nobody's way.
        let unready = (size(old_set) - number(old_set, "/status/availableReplicas")).max(0).min(size(old_set));
        let taken = room.min(size(old_set)).max(unready.min(room));
        scale(state, deployment, old_set, size(old_set) - taken);
        room -= taken;
    }
}

fn share(value: Option<&Value>, of: i64, up: bool) -> i64 {
    let Some(value) = value else { return 0 };
    match value.as_str().and_then(|text| text.strip_suffix('%')) {
        Some(percent) => (percent.parse::<i64>().unwrap_or_default() * of + if up { 99 } else { 0 }) / 100,
        None => value.as_i64().unwrap_or_default(),
    }
}

fn scale(state: &mut State, deployment: &Value, replica_set: &Arc<Value>, to: i64) {
    let from = number(replica_set, "/spec/replicas");
    if from == to {
        return;
    }
    let mut changed = (**replica_set).clone();
    set(&mut changed, "/spec/replicas", to);
    set(&mut changed, "/metadata/generation", number(replica_set, "/metadata/generation") + 1);
    state.put(Kind::ReplicaSet, changed);
    let direction = if to > from { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {} from {from} to {to}", text(replica_set, "/metadata/name"));
    tell(
        state,
        Kind::Deployment,
        deployment,
        Told { warning: false, reason: "ScalingReplicaSet", message: &message, by: BY },
    );
}

fn forget(state: &mut State, deployment: &Value, old: &[Arc<Value>]) {
    let limit = usize::try_from(number(deployment, "/spec/revisionHistoryLimit")).unwrap_or_default();
    let mut idle: Vec<&Arc<Value>> =
        old.iter().filter(|set| number(set, "/spec/replicas") == 0 && number(set, "/status/replicas") == 0).collect();
    idle.sort_by_key(|set| revision_of(set));
    let excess = idle.len().saturating_sub(limit);
    for set in &idle[..excess] {
        super::delete::in_background(state, &Key::of(Kind::ReplicaSet, set));
    }
}

fn write_status(state: &mut State, key: &Key, deployment: &Value, new_name: &str) {
    let sets = replica_sets(state, deployment);
    let sum = |pointer: &str| sets.iter().map(|set| number(set, pointer)).sum::<i64>();
    let Some(new) = sets.iter().find(|set| text(set, "/metadata/name") == new_name).cloned() else { return };
    let wanted = number(deployment, "/spec/replicas");
    let (all, ready, available) =
        (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
    let updated = number(&new, "/status/replicas");
    let mut changed = deployment.clone();
    set(&mut changed, REVISION, revision_of(&new).to_string());
    let conditions = deployment.pointer("/status/conditions").cloned();
    let mut status = json!({"observedGeneration": number(deployment, "/metadata/generation")});
    let missing = (wanted - available).max(0);
    for (field, value) in [
        ("replicas", all),
        ("updatedReplicas", updated),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("unavailableReplicas", missing),
    ] {
        // A number that is 0 is left out, as the API server's encoder does it (C15).
        if value != 0 {
            status[field] = json!(value);
        }
    }
    if let Some(conditions) = conditions {
        status["conditions"] = conditions;
    }
    set(&mut changed, "/status", status);
    write_conditions(state, key, deployment, &mut changed, &new);
    state.put(Kind::Deployment, changed);
}

fn write_conditions(state: &mut State, key: &Key, deployment: &Value, changed: &mut Value, new: &Value) {
    let now = state.clock.stamp();
    let uid = text(deployment, "/metadata/uid").to_owned();
    let wanted = number(deployment, "/spec/replicas");
    let count = |field: &str| number(changed, &format!("/status/{field}"));
    let may_miss = share(deployment.pointer("/spec/strategy/rollingUpdate/maxUnavailable"), wanted, false);
    let is_available = count("availableReplicas") >= wanted - may_miss;
    let is_complete =
        count("updatedReplicas") == wanted && count("replicas") == wanted && count("availableReplicas") == wanted;
    let name = text(new, "/metadata/name").to_owned();
    if is_available {
        set_condition(
            changed,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            &now,
        );
    } else {
        set_condition(
            changed,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            &now,
        );
    }
    match condition(new, "ReplicaFailure").map(|failure| text(failure, "/message").to_owned()) {
        Some(message) => set_condition(changed, "ReplicaFailure", "True", "FailedCreate", &message, &now),
        None => {
            if let Some(list) = changed.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
                list.retain(|found| found["type"] != "ReplicaFailure");
            }
        }
    }
    let was = condition(deployment, "Progressing").map(|found| text(found, "/reason").to_owned()).unwrap_or_default();
    let moved = deployment.get("status").map(without_conditions) != changed.get("status").map(without_conditions);
    let (status, reason, message) = if is_complete {
        state.work.forget(&uid, "progress");
        ("True", "NewReplicaSetAvailable", format!("ReplicaSet \"{name}\" has successfully progressed."))
    } else if flag(deployment, "/spec/paused") {
        state.work.forget(&uid, "progress");
        ("Unknown", "DeploymentPaused", "Deployment is paused".to_owned())
    } else {
        if moved {
            state.work.forget(&uid, "progress");
        }
        let seconds = number(deployment, "/spec/progressDeadlineSeconds").unsigned_abs();
        let exceeded = !moved && was == "ProgressDeadlineExceeded"
            || state.work.passed(key, &uid, "progress", Duration::from_secs(seconds.max(1)));
        if exceeded {
            ("False", "ProgressDeadlineExceeded", format!("ReplicaSet \"{name}\" has timed out progressing."))
        } else if was.is_empty() {
            ("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""))
        } else {
            ("True", "ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."))
        }
    };
    set_condition(changed, "Progressing", status, reason, &message, &now);
}

fn without_conditions(status: &Value) -> Value {
    let mut status = status.clone();
    super::super::json::unset(&mut status, "/conditions");
    status
}
