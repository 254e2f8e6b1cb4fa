//! Events: what the controllers tell of an object. The same event again is counted, not repeated.

use super::super::json::{number, set, text};
use super::super::kinds::Kind;
use super::super::store::{Key, State};
use super::make;
use serde_json::{Value, json};

/// What is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) warning: bool,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
    /// Who tells it: `statefulset-controller`, `kubelet`.
    pub(super) by: &'a str,
}

pub(super) fn tell(state: &mut State, kind: Kind, object: &Value, told: Told<'_>) {
    let namespace = match text(object, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    let uid = text(object, "/metadata/uid");
    let name = format!("{}.{:016x}", text(object, "/metadata/name"), fnv(&[uid, told.reason, told.message]));
    let now = state.clock.stamp();
    let key = Key::new(Kind::Event, namespace, &name);
    if let Some(event) = state.get(&key).cloned() {
        let mut event = (*event).clone();
        let count = number(&event, "/count") + 1;
        set(&mut event, "/count", count);
        set(&mut event, "/lastTimestamp", now);
        state.put(Kind::Event, event);
        return;
    }
    let event = json!({
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": kind.info().kind, "apiVersion": kind.api_version(), "namespace": text(object, "/metadata/namespace"),
            "name": text(object, "/metadata/name"), "uid": uid,
            "resourceVersion": text(object, "/metadata/resourceVersion")},
        "reason": told.reason, "message": told.message, "type": if told.warning { "Warning" } else { "Normal" },
        "source": {"component": told.by}, "reportingComponent": told.by, "reportingInstance": "",
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    });
    // In a namespace that goes, nothing is told any more.
    let _ = make(state, Kind::Event, event);
}

/// FNV-1a: the same text has the same name, now and after a restart.
pub(super) fn fnv(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}
