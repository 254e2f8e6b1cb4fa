//! Pods: from the scheduler to the node, ready after a while, or not, as a fault wants it; and gone after a while.

use super::super::delete;
use super::super::faults::PodTrouble;
use super::super::json::{condition, number, set, set_condition, text};
use super::super::kinds::Kind;
use super::super::store::{Key, State};
use super::events::{Told, tell};
use super::{is_ready, is_terminating, pod_status, scheduler};
use serde_json::{Value, json};
use std::sync::Arc;

/// A crashing container is shown that many restarts, then stays as it is: a test's clock has to come to rest.
const RESTARTS_MAX: i64 = 6;

pub(super) fn reconcile(state: &mut State, key: &Key, pod: &Arc<Value>) {
    if is_terminating(pod) {
        stop(state, key, pod);
    } else if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") || is_ready(pod) {
    } else if text(pod, "/spec/nodeName").is_empty() {
        schedule(state, key, pod);
    } else {
        run(state, key, pod);
    }
}

fn stop(state: &mut State, key: &Key, pod: &Value) {
    let uid = text(pod, "/metadata/uid");
    let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
    let delay = state.options.pod_stop_after.min(std::time::Duration::from_secs(grace.unsigned_abs()));
    if grace > 0 && !state.work.passed(key, uid, "stop", delay) {
        return;
    }
    let mut stopped = pod.clone();
    set(&mut stopped, "/metadata/deletionGracePeriodSeconds", 0);
    if delete::is_finished(Kind::Pod, &stopped) {
        state.remove(key);
    } else {
        // A finalizer of somebody else's still holds it.
        pod_status::stopped(&mut stopped, &state.clock.stamp());
        state.put(Kind::Pod, stopped);
    }
}

fn schedule(state: &mut State, key: &Key, pod: &Value) {
    let trouble = state.faults.of_pod(&key.namespace, &key.name);
    let placed = match trouble {
        Some((PodTrouble::Unschedulable, message)) => {
            Err(message.unwrap_or_else(|| "0/1 nodes are available: 1 Insufficient memory.".to_owned()))
        }
        _ => scheduler::place(state, pod),
    };
    let now = state.clock.stamp();
    let mut changed = pod.clone();
    match placed {
        Ok(node) => {
            scheduler::choose_node_for_claims(state, pod, &node);
            // A pod gets its node once its disks are there: until then it has none, and nothing is said of it.
            if !volumes_are_bound(state, key, pod) {
                return;
            }
            set(&mut changed, "/spec/nodeName", node.clone());
            set(&mut changed, "/status/phase", "Pending");
            set_condition(&mut changed, "PodScheduled", "True", "", "", &now);
            state.put(Kind::Pod, changed);
            let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
            tell(
                state,
                Kind::Pod,
                pod,
                Told { warning: false, reason: "Scheduled", message: &message, by: "default-scheduler" },
            );
        }
        Err(why) => {
            state.unscheduled.insert(key.clone());
            set(&mut changed, "/status/phase", "Pending");
            set_condition(&mut changed, "PodScheduled", "False", "Unschedulable", &why, &now);
            let told = condition(pod, "PodScheduled").is_some_and(|found| found["message"] == why.as_str());
            state.put(Kind::Pod, changed);
            if !told {
                tell(
                    state,
                    Kind::Pod,
                    pod,
                    Told { warning: true, reason: "FailedScheduling", message: &why, by: "default-scheduler" },
                );
            }
        }
    }
}

/// The node's part: the container is created, then ready, or in trouble.
fn run(state: &mut State, key: &Key, pod: &Value) {
    let uid = text(pod, "/metadata/uid").to_owned();
    let now = state.clock.stamp();
    let after = state.options.pod_ready_after;
    let mut changed = pod.clone();
    if text(pod, "/status/startTime").is_empty() {
        pod_status::creating(&mut changed, &now);
        state.addresses_given += 1;
        let [_, _, high, low] = state.addresses_given.to_be_bytes();
        set(&mut changed, "/status/podIP", format!("10.244.{high}.{low}"));
        set(&mut changed, "/status/podIPs", json!([{"ip": format!("10.244.{high}.{low}")}]));
        state.put(Kind::Pod, changed);
        return;
    }
    if !volumes_are_bound(state, key, pod) {
        return;
    }
    match state.faults.of_pod(&key.namespace, &key.name) {
        None | Some((PodTrouble::Unschedulable | PodTrouble::FailedCreate, _)) => {
            if state.work.passed(key, &uid, "ready", after) {
                pod_status::ready(&mut changed, &now);
                state.put(Kind::Pod, changed);
                tell(
                    state,
                    Kind::Pod,
                    pod,
                    Told { warning: false, reason: "Started", message: "Started container", by: "kubelet" },
                );
            }
        }
        Some((trouble, message)) => {
            state.work.forget(&uid, "ready");
            let crashes = matches!(trouble, PodTrouble::CrashLoopBackOff | PodTrouble::OomKilled);
            let shown = number(pod, "/status/containerStatuses/0/restartCount");
            let mut restarts = shown;
            if crashes && shown < RESTARTS_MAX && state.work.passed(key, &uid, "crash", after) {
                restarts += 1;
            }
            let backs_off = trouble == PodTrouble::ImagePullBackOff
                && (pod_status::waits_for(pod, "ImagePullBackOff") || state.work.passed(key, &uid, "pull", after));
            let seen = pod_status::Trouble { trouble, message: message.as_deref(), restarts, backs_off };
            let Some(told) = pod_status::in_trouble(&mut changed, &seen, &now) else { return };
            let differs = changed != *pod;
            state.put(Kind::Pod, changed);
            if differs {
                tell(state, Kind::Pod, pod, Told { warning: true, reason: told.0, message: &told.1, by: "kubelet" });
            }
        }
    }
}

/// A pod on its node waits until its claims are bound: their change brings it back here.
fn volumes_are_bound(state: &mut State, key: &Key, pod: &Value) -> bool {
    let bound = scheduler::claim_names(pod).iter().all(|claim| {
        let claim = state.get(&Key::new(Kind::PersistentVolumeClaim, &key.namespace, claim));
        claim.is_some_and(|claim| text(claim, "/status/phase") == "Bound")
    });
    if bound {
        state.unscheduled.remove(key);
    } else {
        state.unscheduled.insert(key.clone());
    }
    bound
}
