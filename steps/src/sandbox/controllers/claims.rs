//! Claims and volumes: binding, growth in its stages (C5, C15), and protection while a pod uses them.

use super::super::defaults::class_of;
use super::super::delete;
use super::super::json::{condition, place, set, set_condition, text, unset};
use super::super::kinds::Kind;
use super::super::quantities::milli;
use super::super::store::{Key, State};
use super::events::{Told, tell};
use super::scheduler::{SELECTED_NODE, claim_names};
use super::{is_terminating, make};
use serde_json::{Value, json};
use std::sync::Arc;

const PROTECTION: &str = "kubernetes.io/pvc-protection";

pub(super) fn reconcile(state: &mut State, key: &Key, claim: &Arc<Value>) {
    if is_terminating(claim) {
        let used = state.list(Kind::Pod, Some(&key.namespace)).any(|(_, pod)| claim_names(pod).contains(&key.name));
        if !used {
            delete::without_finalizer(state, key, PROTECTION);
        }
        return;
    }
    match text(claim, "/status/phase") {
        "Bound" => grow(state, key, claim),
        _ => bind(state, key, claim),
    }
}

/// A volume goes with its claim.
pub(super) fn reconcile_volume(state: &mut State, key: &Key, volume: &Value) {
    let uid = text(volume, "/spec/claimRef/uid");
    if uid.is_empty() || state.key_of_uid(uid).is_some() {
        return;
    }
    delete::in_background(state, key);
    delete::without_finalizer(state, key, "kubernetes.io/pv-protection");
}

fn bind(state: &mut State, key: &Key, claim: &Value) {
    let class = text(claim, "/spec/storageClassName").to_owned();
    let told = |reason, message| Told {
        warning: reason == "ProvisioningFailed",
        reason,
        message,
        by: "persistentvolume-controller",
    };
    let Some((_, waits)) = class_of(state, claim) else {
        let message = match class.as_str() {
            "" => "no persistent volumes available for this claim and no storage class is set".to_owned(),
            class => format!("storageclass.storage.k8s.io \"{class}\" not found"),
        };
        let reason = if class.is_empty() { "FailedBinding" } else { "ProvisioningFailed" };
        tell(state, Kind::PersistentVolumeClaim, claim, told(reason, &message));
        return;
    };
    if waits && claim.pointer(SELECTED_NODE).is_none() {
        let message = "waiting for first consumer to be created before binding";
        tell(state, Kind::PersistentVolumeClaim, claim, told("WaitForFirstConsumer", message));
        return;
    }
    if let Some(message) = state.faults.of_claim(&key.namespace, &key.name) {
        tell(state, Kind::PersistentVolumeClaim, claim, told("ProvisioningFailed", &message));
        return;
    }
    let volume_name = format!("pvc-{}", text(claim, "/metadata/uid"));
    let size = claim.pointer("/spec/resources/requests/storage").cloned().unwrap_or_default();
    let modes = claim.pointer("/spec/accessModes").cloned().unwrap_or_default();
    let volume = json!({
        "metadata": {"name": volume_name, "annotations": {"pv.kubernetes.io/provisioned-by": "sandbox.cairn.dev/disk"}},
        "spec": {"capacity": {"storage": size}, "accessModes": modes, "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": class, "volumeMode": "Filesystem", "hostPath": {"path": format!("/sandbox/{volume_name}")},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": key.namespace, "name": key.name,
                "uid": text(claim, "/metadata/uid")}},
    });
    if let Ok(made) = make(state, Kind::PersistentVolume, volume) {
        let mut made = (*made).clone();
        set(&mut made, "/status/phase", "Bound");
        state.put(Kind::PersistentVolume, made);
    }
    let mut bound = claim.clone();
    set(&mut bound, "/spec/volumeName", volume_name.clone());
    set(&mut bound, "/metadata/annotations/pv.kubernetes.io~1bind-completed", "yes");
    set(&mut bound, "/status", json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": size}}));
    state.put(Kind::PersistentVolumeClaim, bound);
    let message = format!("Successfully provisioned volume {volume_name}");
    tell(state, Kind::PersistentVolumeClaim, claim, told("ProvisioningSucceeded", &message));
}

/// The wish is at once, the capacity later: `Resizing`, then `FileSystemResizePending`, then done.
fn grow(state: &mut State, key: &Key, claim: &Value) {
    let wish = claim.pointer("/spec/resources/requests/storage").cloned().unwrap_or_default();
    if milli(Some(&wish)) <= milli(claim.pointer("/status/capacity/storage")) {
        return;
    }
    let uid = text(claim, "/metadata/uid");
    let now = state.clock.stamp();
    let delay = state.options.claim_grow_after;
    let mut growing = claim.clone();
    if condition(claim, "FileSystemResizePending").is_some() {
        if !state.work.passed(key, uid, "resize", delay) {
            return;
        }
        unset(&mut growing, "/status/conditions");
        unset(&mut growing, "/status/allocatedResourceStatuses");
        set(&mut growing, "/status/capacity/storage", wish.clone());
        if let Some(volume) = state.get(&Key::new(Kind::PersistentVolume, "", text(claim, "/spec/volumeName"))).cloned()
        {
            let mut volume = (*volume).clone();
            set(&mut volume, "/spec/capacity/storage", wish);
            state.put(Kind::PersistentVolume, volume);
        }
    } else if condition(claim, "Resizing").is_some() {
        if !state.work.passed(key, uid, "resize", delay) {
            return;
        }
        *place(&mut growing, "/status/conditions") = json!([]);
        let message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
        set_condition(&mut growing, "FileSystemResizePending", "True", "", message, &now);
        set(&mut growing, "/status/allocatedResourceStatuses/storage", "NodeResizePending");
    } else {
        set_condition(&mut growing, "Resizing", "True", "", "", &now);
        set(&mut growing, "/status/allocatedResourceStatuses/storage", "ControllerResizeInProgress");
        set(&mut growing, "/status/allocatedResources/storage", wish);
    }
    state.put(Kind::PersistentVolumeClaim, growing);
}
