//! What a pod's status looks like at each point of its life, as a kubelet writes it.

use super::super::faults::PodTrouble;
use super::super::json::{items, number, place, set, set_condition, text};
use serde_json::{Value, json};

/// A trouble as it stands now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble<'a> {
    pub(super) trouble: PodTrouble,
    pub(super) message: Option<&'a str>,
    pub(super) restarts: i64,
    /// Whether the pull has failed long enough to back off.
    pub(super) backs_off: bool,
}

pub(super) fn creating(pod: &mut Value, now: &str) {
    set(pod, "/status/phase", "Pending");
    set(pod, "/status/startTime", now);
    set(pod, "/status/hostIP", "10.0.0.1");
    let class = qos_class(pod);
    set(pod, "/status/qosClass", class);
    set_condition(pod, "Initialized", "True", "", "", now);
    unready(pod, now);
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    set_containers(pod, |_| json!({"ready": false, "started": false, "restartCount": 0, "state": waiting}));
}

pub(super) fn ready(pod: &mut Value, now: &str) {
    running(pod, now, true);
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] {
        set_condition(pod, kind, "True", "", "", now);
    }
}

pub(super) fn stopped(pod: &mut Value, now: &str) {
    unready(pod, now);
    let status = |old: &Value| {
        json!({"ready": false, "started": false, "restartCount": number(old, "/restartCount"),
            "state": {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": now}}})
    };
    set_containers(pod, status);
    set(pod, "/status/phase", "Failed");
}

/// Whether a container waits for that reason.
pub(super) fn waits_for(pod: &Value, reason: &str) -> bool {
    items(pod, "/status/containerStatuses").iter().any(|status| text(status, "/state/waiting/reason") == reason)
}

/// Writes the trouble into the status; the event that goes with it, if one does.
pub(super) fn in_trouble(pod: &mut Value, seen: &Trouble<'_>, now: &str) -> Option<(&'static str, String)> {
    let image = text(pod, "/spec/containers/0/image").to_owned();
    let waits = |pod: &mut Value, reason: &str, message: &str| {
        unready(pod, now);
        set(pod, "/status/phase", "Pending");
        set_containers(pod, |old| {
            json!({"ready": false, "started": false, "restartCount": number(old, "/restartCount"),
                "state": {"waiting": {"reason": reason, "message": message}}})
        });
    };
    let said = |default: String| seen.message.map_or(default, str::to_owned);
    match seen.trouble {
        PodTrouble::ImagePullBackOff if seen.backs_off => {
            let message = said(format!("Back-off pulling image \"{image}\""));
            waits(pod, "ImagePullBackOff", &message);
            Some(("BackOff", message))
        }
        PodTrouble::ErrImagePull | PodTrouble::ImagePullBackOff => {
            let message = said(format!("failed to pull and unpack image \"{image}\": not found"));
            waits(pod, "ErrImagePull", &message);
            Some(("Failed", format!("Failed to pull image \"{image}\": {message}")))
        }
        PodTrouble::InvalidImageName => {
            let message = said(format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name: invalid reference format"
            ));
            waits(pod, "InvalidImageName", &message);
            Some(("InspectFailed", message))
        }
        PodTrouble::CreateContainerConfigError => {
            let message = said("secret \"elasticsearch\" not found".to_owned());
            waits(pod, "CreateContainerConfigError", &message);
            Some(("Failed", format!("Error: {message}")))
        }
        PodTrouble::CrashLoopBackOff | PodTrouble::OomKilled => {
            if seen.restarts == 0 {
                return None;
            }
            crashed(pod, seen, now);
            Some(("BackOff", "Back-off restarting failed container".to_owned()))
        }
        PodTrouble::NotReady => {
            running(pod, now, false);
            unready(pod, now);
            Some((
                "Unhealthy",
                format!("Readiness probe failed: {}", said("dial tcp: connect: connection refused".to_owned())),
            ))
        }
        PodTrouble::Unschedulable | PodTrouble::FailedCreate => None,
    }
}

fn crashed(pod: &mut Value, seen: &Trouble<'_>, now: &str) {
    let (code, reason) = if seen.trouble == PodTrouble::OomKilled { (137, "OOMKilled") } else { (1, "Error") };
    unready(pod, now);
    set(pod, "/status/phase", "Running");
    set_containers(pod, |old| {
        let ended = match number(old, "/restartCount") == seen.restarts {
            true => old["lastState"].clone(),
            false => {
                let mut ended =
                    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}});
                if let Some(message) = seen.message {
                    ended["terminated"]["message"] = json!(message);
                }
                ended
            }
        };
        json!({"ready": false, "started": false, "restartCount": seen.restarts, "lastState": ended,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}})
    });
}

fn running(pod: &mut Value, now: &str, ready: bool) {
    set(pod, "/status/phase", "Running");
    set_containers(pod, |old| {
        let started = match text(old, "/state/running/startedAt") {
            "" => now,
            started => started,
        };
        json!({"ready": ready, "started": true, "restartCount": number(old, "/restartCount"), "state": {"running": {"startedAt": started}}})
    });
    let done: Vec<Value> = items(pod, "/spec/initContainers")
        .iter()
        .map(|container| {
            json!({"name": container["name"], "image": container["image"], "imageID": container["image"], "ready": true, "started": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}})
        })
        .collect();
    if !done.is_empty() && items(pod, "/status/initContainerStatuses").is_empty() {
        set(pod, "/status/initContainerStatuses", done);
    }
}

fn unready(pod: &mut Value, now: &str) {
    let names: Vec<&str> = items(pod, "/spec/containers").iter().map(|container| text(container, "/name")).collect();
    let why = format!("containers with unready status: [{}]", names.join(" "));
    for kind in ["Ready", "ContainersReady"] {
        set_condition(pod, kind, "False", "ContainersNotReady", &why, now);
    }
}

/// A status for each container, made from the one that it has.
fn set_containers(pod: &mut Value, status: impl Fn(&Value) -> Value) {
    let before = items(pod, "/status/containerStatuses").to_vec();
    let statuses: Vec<Value> = items(pod, "/spec/containers")
        .iter()
        .map(|container| {
            let old = before.iter().find(|old| old["name"] == container["name"]).cloned().unwrap_or_default();
            let mut new = status(&old);
            new["name"] = container["name"].clone();
            new["image"] = container["image"].clone();
            new["imageID"] = container["image"].clone();
            new
        })
        .collect();
    *place(pod, "/status/containerStatuses") = json!(statuses);
}

fn qos_class(pod: &Value) -> &'static str {
    let containers = items(pod, "/spec/containers");
    let has =
        |container: &Value, list: &str| container["resources"][list].as_object().is_some_and(|map| !map.is_empty());
    let fixed = |container: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = &container["resources"]["limits"][name];
            !limit.is_null() && *limit == container["resources"]["requests"][name]
        })
    };
    if containers.iter().all(fixed) {
        "Guaranteed"
    } else if containers.iter().any(|container| has(container, "requests") || has(container, "limits")) {
        "Burstable"
    } else {
        "BestEffort"
    }
}
