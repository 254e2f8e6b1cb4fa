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

/// Who makes the volumes of the sandbox's own classes. For another's the claim waits: for a volume by hand.
pub(super) const PROVISIONER: &str = "sandbox.cairn.dev/disk";
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

/// A volume goes with its claim, unless it is to be kept; one that is meant for a claim lets it look again.
pub(super) fn reconcile_volume(state: &mut State, key: &Key, volume: &Value) {
    let uid = text(volume, "/spec/claimRef/uid");
    if is_terminating(volume) && (uid.is_empty() || state.key_of_uid(uid).is_none()) {
        delete::without_finalizer(state, key, "kubernetes.io/pv-protection");
        return;
    }
    let claim = Key::new(
        Kind::PersistentVolumeClaim,
        text(volume, "/spec/claimRef/namespace"),
        text(volume, "/spec/claimRef/name"),
    );
    if uid.is_empty() || state.key_of_uid(uid).is_some() {
        if text(volume, "/status/phase") != "Bound" && state.get(&claim).is_some() {
            state.touch(claim);
        }
        return;
    }
    if text(volume, "/spec/persistentVolumeReclaimPolicy") != "Delete" {
        let mut released = volume.clone();
        set(&mut released, "/status/phase", "Released");
        state.put(Kind::PersistentVolume, released);
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
    if let Some(volume) = volume_for(state, key, claim) {
        bind_to(state, key, claim, &volume);
        return;
    }
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
    let provisioner =
        state.get(&Key::new(Kind::StorageClass, "", &class)).map(|class| text(class, "/provisioner").to_owned());
    if let Some(other) = provisioner.filter(|provisioner| provisioner != PROVISIONER) {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{other}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        tell(state, Kind::PersistentVolumeClaim, claim, told("ExternalProvisioning", &message));
        return;
    }
    let volume_name = format!("pvc-{}", text(claim, "/metadata/uid"));
    let size = claim.pointer("/spec/resources/requests/storage").cloned().unwrap_or_default();
    let modes = claim.pointer("/spec/accessModes").cloned().unwrap_or_default();
    let volume = json!({
        "metadata": {"name": volume_name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
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

/// A volume that somebody made for this very claim.
fn volume_for(state: &State, key: &Key, claim: &Value) -> Option<Arc<Value>> {
    let is_meant = |volume: &Value| {
        let uid = text(volume, "/spec/claimRef/uid");
        text(volume, "/spec/claimRef/namespace") == key.namespace
            && text(volume, "/spec/claimRef/name") == key.name
            && (uid.is_empty() || uid == text(claim, "/metadata/uid"))
            && text(volume, "/spec/storageClassName") == text(claim, "/spec/storageClassName")
            && milli(volume.pointer("/spec/capacity/storage"))
                >= milli(claim.pointer("/spec/resources/requests/storage"))
            && !is_terminating(volume)
    };
    state.list(Kind::PersistentVolume, None).map(|(_, volume)| volume).find(|volume| is_meant(volume)).cloned()
}

fn bind_to(state: &mut State, key: &Key, claim: &Value, volume: &Value) {
    let mut taken = volume.clone();
    set(&mut taken, "/spec/claimRef/uid", text(claim, "/metadata/uid"));
    set(&mut taken, "/status/phase", "Bound");
    let mut bound = claim.clone();
    set(&mut bound, "/spec/volumeName", text(volume, "/metadata/name"));
    set(&mut bound, "/metadata/annotations/pv.kubernetes.io~1bind-completed", "yes");
    let status = json!({"phase": "Bound", "accessModes": volume["spec"]["accessModes"],
        "capacity": {"storage": volume["spec"]["capacity"]["storage"]}});
    set(&mut bound, "/status", status);
    state.put(Kind::PersistentVolume, taken);
    state.put(key.kind, bound);
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
