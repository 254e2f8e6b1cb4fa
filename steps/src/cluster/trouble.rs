//! Pods that cannot start: which sign means what, and how long it is waited for it to pass (C8).
//!
//! Pure: a pod in, its trouble out. Whoever waits remembers since when.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// How long each sign may last before it counts as failure.
#[derive(Debug, Clone)]
pub struct TroubleRules {
    /// A container that cannot be set up: a missing Secret, an unknown user.
    pub config_grace: Duration,
    /// An image that cannot be pulled, where the registry does not plainly say no.
    pub image_grace: Duration,
    /// No node that fits: an autoscaler may bring one.
    pub schedule_grace: Duration,
    /// A disk that cannot be made or attached.
    pub volume_grace: Duration,
    /// Restarts after which a crash loop is believed.
    pub restarts_max: i32,
}

impl Default for TroubleRules {
    fn default() -> Self {
        Self {
            config_grace: Duration::from_secs(30),
            image_grace: Duration::from_secs(2 * 60),
            schedule_grace: Duration::from_secs(5 * 60),
            volume_grace: Duration::from_secs(2 * 60),
            restarts_max: 3,
        }
    }
}

/// What keeps a pod from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is told apart when it is remembered since when: pod, container, family of reasons.
    pub(super) key: String,
    /// How long it may last.
    pub(super) grace: Duration,
    /// What it is, for the tenant.
    pub(super) message: String,
    /// The container whose log may say more.
    pub(super) crashed: Option<(String, String)>,
}

/// The trouble of this pod; init containers come first, as they run first.
pub(super) fn of(pod: &Pod, rules: &TroubleRules) -> Option<Trouble> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers
        .filter_map(|container| of_container(name, container, rules))
        .next()
        .or_else(|| unscheduled(name, pod, rules))
}

fn of_container(pod: &str, container: &ContainerStatus, rules: &TroubleRules) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let said = waiting.message.as_deref().unwrap_or_default();
    let (family, grace, crashed) = match reason {
        "InvalidImageName" | "ErrImageNeverPull" => ("image", Duration::ZERO, false),
        "ErrImagePull" | "ImagePullBackOff" if is_final(said) => ("image", Duration::ZERO, false),
        // Kubernetes goes back and forth between the two.
        "ErrImagePull" | "ImagePullBackOff" => ("image", rules.image_grace, false),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            ("container", rules.config_grace, false)
        }
        "CrashLoopBackOff" if container.restart_count >= rules.restarts_max => ("crash", Duration::ZERO, true),
        // `ContainerCreating`, `PodInitializing`: as it should be.
        _ => return None,
    };
    let mut message = format!("container {} of pod {pod}: {reason}", container.name);
    if !said.is_empty() {
        message.push_str(&format!(": {said}"));
    }
    if crashed {
        message.push_str(&format!(" ({} restarts{})", container.restart_count, last_end(container)));
    }
    Some(Trouble {
        key: format!("{pod}/{}/{family}", container.name),
        grace,
        message,
        crashed: crashed.then(|| (pod.to_owned(), container.name.clone())),
    })
}

/// Whether the registry plainly says no.
fn is_final(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["not found", "unauthorized", "denied", "manifest unknown"].iter().any(|word| said.contains(word))
}

fn last_end(container: &ContainerStatus) -> String {
    let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.map_or_else(String::new, |ended| {
        let reason = ended.reason.as_deref().unwrap_or("ended");
        format!(", the last time: {reason}, exit code {}", ended.exit_code)
    })
}

fn unscheduled(name: &str, pod: &Pod, rules: &TroubleRules) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let reason = condition.reason.as_deref().unwrap_or_default();
    let said = condition.message.as_deref().unwrap_or("no node fits");
    Some(Trouble {
        key: format!("{name}//schedule"),
        grace: rules.schedule_grace,
        message: format!("pod {name} has no node: {reason}: {said}"),
        crashed: None,
    })
}

/// What there is to say of a pod that is not ready, whether it is trouble or not: evidence when the time is up.
pub(super) fn describe(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let unready = conditions.filter(|condition| condition.status != "True");
    let words: Vec<String> = unready
        .map(|condition| {
            let said = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
            format!("not {}: {said}", condition.type_)
        })
        .collect();
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    (!words.is_empty()).then(|| format!("pod {name} is {phase}, {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trouble(status: serde_json::Value) -> Option<Trouble> {
        let pod =
            serde_json::from_value(json!({"metadata": {"name": "elasticsearch-0"}, "status": status})).expect("a pod");
        of(&pod, &TroubleRules::default())
    }

    fn waiting(reason: &str, message: &str, restarts: i32) -> Option<Trouble> {
        trouble(json!({"containerStatuses": [{
            "name": "elasticsearch", "image": "x", "imageID": "", "ready": false, "restartCount": restarts,
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        }]}))
    }

    #[test]
    fn each_sign_has_its_grace() {
        let rules = TroubleRules::default();
        for (reason, message, restarts, grace) in [
            ("InvalidImageName", "", 0, Some(Duration::ZERO)),
            ("ErrImageNeverPull", "", 0, Some(Duration::ZERO)),
            ("CreateContainerConfigError", "secret \"a\" not found", 0, Some(rules.config_grace)),
            ("ErrImagePull", "connection refused", 0, Some(rules.image_grace)),
            ("ImagePullBackOff", "Back-off", 0, Some(rules.image_grace)),
            ("ErrImagePull", "manifest for x not found", 0, Some(Duration::ZERO)),
            ("ErrImagePull", "pull access denied", 0, Some(Duration::ZERO)),
            ("CrashLoopBackOff", "", 2, None),
            ("CrashLoopBackOff", "", 3, Some(Duration::ZERO)),
            ("ContainerCreating", "", 0, None),
            ("PodInitializing", "", 0, None),
        ] {
            assert_eq!(waiting(reason, message, restarts).map(|trouble| trouble.grace), grace, "{reason} {message}");
        }
    }

    #[test]
    fn a_crash_loop_quotes_how_it_ended_last() {
        let trouble = waiting("CrashLoopBackOff", "back-off 5m0s", 4).expect("trouble");
        assert!(trouble.message.contains("4 restarts, the last time: OOMKilled, exit code 137"), "{}", trouble.message);
        assert_eq!(trouble.crashed, Some(("elasticsearch-0".to_owned(), "elasticsearch".to_owned())));
    }

    #[test]
    fn both_words_for_an_image_that_cannot_be_pulled_are_one_trouble() {
        let keys = ["ErrImagePull", "ImagePullBackOff"].map(|reason| waiting(reason, "", 0).expect("trouble").key);
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn a_pod_that_fits_nowhere_quotes_the_scheduler() {
        let trouble = trouble(json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"}
        ]}))
        .expect("trouble");
        assert!(trouble.message.contains("Insufficient nvidia.com/gpu"));
        assert_eq!(trouble.grace, TroubleRules::default().schedule_grace);
    }

    #[test]
    fn a_pod_that_starts_as_it_should_has_no_trouble() {
        assert_eq!(
            trouble(json!({"phase": "Running", "containerStatuses": [
                {"name": "a", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}
            ]})),
            None
        );
    }
}
