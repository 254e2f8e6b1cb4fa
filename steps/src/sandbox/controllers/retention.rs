//! `persistentVolumeClaimRetentionPolicy` of a StatefulSet: whose claims go with what (stable since Kubernetes 1.32, on since 1.27).
//!
//! The controller only writes owners onto claims; the collection of what has lost its owner does the rest. A claim of a pod
//! that is to be scaled away belongs to that pod with `whenScaled: Delete`; any other belongs to the set with
//! `whenDeleted: Delete`. Where the policy says `Retain`, an owner of before is taken off again.

use super::super::json::{items, number, text, unset};
use super::super::kinds::Kind;
use super::super::store::{Key, State, owner_reference};
use super::statefulset::{ordinal_of, pods_of};
use serde_json::{Value, json};

/// Sets the owners of this set's claims as its policy wants them; as the controller does, for the pods that there are.
pub(super) fn own_claims(state: &mut State, of: &Value) {
    let deletes = |when: &str| text(of, &format!("/spec/persistentVolumeClaimRetentionPolicy/{when}")) == "Delete";
    let (when_deleted, when_scaled) = (deletes("whenDeleted"), deletes("whenScaled"));
    let start = number(of, "/spec/ordinals/start");
    let wanted = start..start + number(of, "/spec/replicas");
    for pod in pods_of(state, of).into_values() {
        let name = text(&pod, "/metadata/name");
        let stays = ordinal_of(of, name).is_some_and(|ordinal| wanted.contains(&ordinal));
        let owner = match (stays, when_scaled, when_deleted) {
            (false, true, _) => Some(owner_reference(Kind::Pod, &pod)),
            (_, _, true) => Some(owner_reference(Kind::StatefulSet, of)),
            _ => None,
        };
        for template in items(of, "/spec/volumeClaimTemplates") {
            let claim = format!("{}-{name}", text(template, "/metadata/name"));
            let namespace = text(of, "/metadata/namespace");
            set_owner(state, &Key::new(Kind::PersistentVolumeClaim, namespace, &claim), of, &pod, owner.as_ref());
        }
    }
}

/// Whoever else owns the claim goes on to do so.
fn set_owner(state: &mut State, claim: &Key, set: &Value, pod: &Value, owner: Option<&Value>) {
    let Some(live) = state.get(claim).cloned() else { return };
    let ours = [text(set, "/metadata/uid"), text(pod, "/metadata/uid")];
    let before = items(&live, "/metadata/ownerReferences");
    let others = before.iter().filter(|owner| !ours.contains(&text(owner, "/uid")));
    let owners: Vec<&Value> = others.chain(owner).collect();
    if before.iter().eq(owners.iter().copied()) {
        return;
    }
    let mut owned = (*live).clone();
    if owners.is_empty() {
        unset(&mut owned, "/metadata/ownerReferences");
    } else {
        owned["metadata"]["ownerReferences"] = json!(owners);
    }
    state.put(claim.kind, owned);
}
