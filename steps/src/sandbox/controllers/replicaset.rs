//! ReplicaSets: as many pods as wanted, each like the other.

use super::super::delete;
use super::super::faults::PodTrouble;
use super::super::json::{number, set, set_condition, text};
use super::super::kinds::Kind;
use super::super::names::random_suffix;
use super::super::store::{Key, State, controlled_by, owner_reference};
use super::events::{Told, tell};
use super::{is_available, is_ready, is_terminating, make};
use serde_json::{Value, json};
use std::sync::Arc;

const BY: &str = "replicaset-controller";

pub(super) fn reconcile(state: &mut State, key: &Key, replica_set: &Arc<Value>) {
    if is_terminating(replica_set) {
        return;
    }
    let wanted = usize::try_from(number(replica_set, "/spec/replicas")).unwrap_or_default();
    let mut live = live_pods(state, replica_set);
    let mut failure = None;
    while live.len() < wanted && failure.is_none() {
        match create(state, key, replica_set) {
            Ok(pod) => live.push(pod),
            Err(error) => failure = Some(error),
        }
    }
    // Those that are not ready go first, then the youngest.
    live.sort_by_key(|pod| (is_ready(pod), std::cmp::Reverse(text(pod, "/metadata/uid").to_owned())));
    let excess = live.len().saturating_sub(wanted);
    for pod in &live[..excess] {
        delete::in_background(state, &Key::of(Kind::Pod, pod));
        let message = format!("Deleted pod: {}", text(pod, "/metadata/name"));
        tell(
            state,
            Kind::ReplicaSet,
            replica_set,
            Told { warning: false, reason: "SuccessfulDelete", message: &message, by: BY },
        );
    }
    write_status(state, replica_set, failure.as_deref());
}

fn live_pods(state: &State, replica_set: &Value) -> Vec<Arc<Value>> {
    let uid = text(replica_set, "/metadata/uid");
    let mut pods = state.owned(uid, Kind::Pod);
    pods.retain(|pod| {
        controlled_by(pod, uid) && !is_terminating(pod) && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
    });
    pods
}

fn create(state: &mut State, key: &Key, replica_set: &Value) -> Result<Arc<Value>, String> {
    let template = replica_set.pointer("/spec/template").cloned().unwrap_or_default();
    let name = format!("{}-{}", key.name, random_suffix());
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["name"] = json!(name);
    metadata["generateName"] = json!(format!("{}-", key.name));
    metadata["namespace"] = json!(key.namespace);
    metadata["ownerReferences"] = json!([owner_reference(Kind::ReplicaSet, replica_set)]);
    let made = match state.faults.of_pod(&key.namespace, &name) {
        Some((PodTrouble::FailedCreate, message)) => Err(message.unwrap_or_else(|| {
            format!("pods \"{name}\" is forbidden: exceeded quota: sandbox, requested: pods=1, used: pods=0, limited: pods=0")
        })),
        _ => make(state, Kind::Pod, json!({"metadata": metadata, "spec": template["spec"]})).map_err(|refusal| refusal.message),
    };
    // Without the name: it is another one each time, and event and condition must stay the same, or each would be a
    // change that is worth another look, for ever.
    let made = made.map_err(|error| error.replace(&name, &format!("{}-", key.name)));
    let (warning, reason, message) = match &made {
        Ok(_) => (false, "SuccessfulCreate", format!("Created pod: {name}")),
        Err(error) => (true, "FailedCreate", format!("Error creating: {error}")),
    };
    tell(state, Kind::ReplicaSet, replica_set, Told { warning, reason, message: &message, by: BY });
    made
}

fn write_status(state: &mut State, replica_set: &Value, failure: Option<&str>) {
    let live = live_pods(state, replica_set);
    let ready = live.iter().filter(|pod| is_ready(pod)).count();
    let (key, min_ready) = (Key::of(Kind::ReplicaSet, replica_set), number(replica_set, "/spec/minReadySeconds"));
    let available = live.iter().filter(|pod| is_available(state, &key, pod, min_ready)).count();
    let mut changed = replica_set.clone();
    set(&mut changed, "/status/observedGeneration", number(replica_set, "/metadata/generation"));
    for (field, value) in [
        ("replicas", live.len()),
        ("fullyLabeledReplicas", live.len()),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ] {
        set(&mut changed, &format!("/status/{field}"), value);
    }
    match failure {
        Some(message) => {
            let now = state.clock.stamp();
            set_condition(&mut changed, "ReplicaFailure", "True", "FailedCreate", message, &now);
        }
        None => {
            super::super::json::unset(&mut changed, "/status/conditions");
        }
    }
    state.put(Kind::ReplicaSet, changed);
}
