//! Pods that cannot start: which sign means what, how long it is waited for it to pass, and what can be done about it (C8).
//!
//! One table ([`SIGNS`]), read by all. Pure: a pod or an event in, its trouble out. Whoever waits remembers since when.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};

use crate::names;

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

/// Where a sign shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An event of a workload that has no pod at all.
    Creation,
    /// A container that waits.
    Container,
    /// The condition `PodScheduled`.
    Schedule,
    /// An event of a claim that is not bound.
    Claim,
}

/// How long a sign may last.
#[derive(Debug, Clone, Copy)]
enum Grace {
    AtOnce,
    For(fn(&TroubleRules) -> Duration),
    /// Until the container has been restarted that often.
    Restarts,
    /// Told at the deadline, and no verdict by itself.
    Told,
}

/// A row of the table of C8.
#[derive(Debug)]
struct Sign {
    place: Place,
    reasons: &'static [&'static str],
    /// What the message must say, in lower case, any of these; none: whatever it says.
    words: &'static [&'static str],
    grace: Grace,
    /// Signs that Kubernetes goes back and forth between are one trouble, and have one clock.
    family: &'static str,
    /// Whether the container's last lines say more.
    log: bool,
    /// What can be done about it.
    way_out: &'static str,
}

const fn sign(
    place: Place,
    reasons: &'static [&'static str],
    words: &'static [&'static str],
    grace: Grace,
    family: &'static str,
    way_out: &'static str,
) -> Sign {
    Sign { place, reasons, words, grace, family, log: matches!(grace, Grace::Restarts), way_out }
}

const IMAGE: &str = "the operator sets elastic.image and elastic.kibana_image to images that the nodes can pull";
const LESS: &str = "ask for less (cpu_request, mem_request, replicas), or the operator adds nodes";
const STORAGE: &str = "the operator sees to the storage class and to what provisions its volumes";

/// C8: the first row that fits decides. What fits none is as it should be, or nobody knows; the deadline ends it.
const SIGNS: &[Sign] = {
    use Grace::{AtOnce, For, Restarts, Told};
    use Place::{Claim, Container, Creation, Schedule};
    &[
        sign(
            Creation,
            &["FailedCreate"],
            &["exceeded quota"],
            AtOnce,
            "create",
            "ask for less, or have the operator raise the namespace's ResourceQuota, and submit it again",
        ),
        sign(
            Creation,
            &["FailedCreate"],
            &["failed quota", "must specify"],
            AtOnce,
            "create",
            "the operator sets a LimitRange with defaults, or takes the resource out of the ResourceQuota",
        ),
        sign(
            Creation,
            &["FailedCreate"],
            &[],
            AtOnce,
            "create",
            "the operator sees to the rule that refuses these pods",
        ),
        sign(Container, &["InvalidImageName", "ErrImageNeverPull"], &[], AtOnce, "image", IMAGE),
        // The registry plainly says no.
        sign(
            Container,
            &["ErrImagePull", "ImagePullBackOff"],
            &["not found", "unauthorized", "denied", "manifest unknown"],
            AtOnce,
            "image",
            IMAGE,
        ),
        sign(
            Container,
            &["ErrImagePull", "ImagePullBackOff"],
            &[],
            For(|rules| rules.image_grace),
            "image",
            "see that the registry answers, and submit it again",
        ),
        sign(
            Container,
            &["CreateContainerConfigError", "CreateContainerError", "RunContainerError"],
            &[],
            For(|rules| rules.config_grace),
            "container",
            "put back what the message names, if somebody took it away, and submit it again",
        ),
        sign(Container, &["CrashLoopBackOff"], &["oomkilled"], Restarts, "crash", "ask for more memory (mem_limit)"),
        sign(
            Container,
            &["CrashLoopBackOff"],
            &[],
            Restarts,
            "crash",
            "its last lines are in the evidence; settings that were pulled are the likeliest cause",
        ),
        sign(
            Schedule,
            &["Unschedulable"],
            &[names::GPU],
            For(|rules| rules.schedule_grace),
            "schedule",
            "ask for fewer GPUs (gpu_count), or the operator adds a node that has them",
        ),
        sign(
            Schedule,
            &["Unschedulable"],
            &["persistentvolumeclaim", "volume node affinity"],
            For(|rules| rules.schedule_grace),
            "schedule",
            STORAGE,
        ),
        sign(
            Schedule,
            &["Unschedulable"],
            &["insufficient", "too many pods"],
            For(|rules| rules.schedule_grace),
            "schedule",
            LESS,
        ),
        sign(
            Schedule,
            &["Unschedulable"],
            &[],
            For(|rules| rules.schedule_grace),
            "schedule",
            "the operator lets these pods onto a node: taints, selectors and cordons keep them off",
        ),
        sign(
            Schedule,
            &["SchedulingGated", "SchedulerError"],
            &[],
            Told,
            "gate",
            "the operator sees to whatever gates the scheduling of pods",
        ),
        sign(Claim, &["ProvisioningFailed"], &[], For(|rules| rules.volume_grace), "claim", STORAGE),
        // `FailedMount` and `FailedAttachVolume` are events, which are evidence when it lasts.
        sign(Container, &["ContainerCreating", "PodInitializing"], &[], Told, "creating", ""),
    ]
};

/// What keeps a pod from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is told apart when it is remembered since when: pod, container, family of reasons.
    pub(super) key: String,
    /// How long it may last.
    pub(super) grace: Duration,
    /// What it is and what can be done about it, for the tenant.
    pub(super) message: String,
    /// The container whose log may say more.
    pub(super) crashed: Option<(String, String)>,
}

/// The row for this reason and these words.
fn row(place: Place, reason: &str, said: &str) -> Option<&'static Sign> {
    let said = said.to_ascii_lowercase();
    let fits = |sign: &&Sign| {
        let worded = sign.words.is_empty() || sign.words.iter().any(|word| said.contains(word));
        sign.place == place && sign.reasons.contains(&reason) && worded
    };
    SIGNS.iter().find(fits)
}

impl Sign {
    /// The verdict that this row leads to, unless what it needs has not happened yet.
    fn trouble(&self, at: &str, what: &str, restarts: i32, rules: &TroubleRules) -> Option<Trouble> {
        let grace = match self.grace {
            Grace::AtOnce => Duration::ZERO,
            Grace::For(grace) => grace(rules),
            Grace::Restarts if restarts >= rules.restarts_max => Duration::ZERO,
            Grace::Restarts | Grace::Told => return None,
        };
        let mut message = what.to_owned();
        if !grace.is_zero() {
            message.push_str(&format!(" (for {} s)", grace.as_secs()));
        }
        message.push_str(&format!("; {}", self.way_out));
        Some(Trouble { key: format!("{at}/{}", self.family), grace, message, crashed: None })
    }
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

/// The trouble that an event tells of something that is not a pod: a workload that cannot make its pods, a claim that gets no volume.
pub(super) fn of_event(event: &Event, rules: &TroubleRules) -> Option<Trouble> {
    let (reason, said) = (event.reason.as_deref()?, event.message.as_deref().unwrap_or_default());
    let object = &event.involved_object;
    let at = format!("{}/{}", object.kind.as_deref().unwrap_or_default(), object.name.as_deref().unwrap_or_default());
    if object.kind.as_deref() == Some("PersistentVolumeClaim") {
        return row(Place::Claim, reason, said)?.trouble(&at, &format!("{at} gets no volume: {said}"), 0, rules);
    }
    row(Place::Creation, reason, said)?.trouble(&at, &format!("{at} cannot make its pods: {said}"), 0, rules)
}

fn of_container(pod: &str, container: &ContainerStatus, rules: &TroubleRules) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let mut what = format!("container {} of pod {pod}: {reason}", container.name);
    if let Some(said) = waiting.message.as_deref().filter(|said| !said.is_empty()) {
        what.push_str(&format!(": {said}"));
    }
    let ended = last_end(container);
    let sign = row(Place::Container, reason, &format!("{what}{ended}"))?;
    if sign.log {
        what.push_str(&format!(" ({} restarts{ended})", container.restart_count));
    }
    let at = format!("{pod}/{}", container.name);
    let trouble = sign.trouble(&at, &what, container.restart_count, rules)?;
    Some(Trouble { crashed: sign.log.then(|| (pod.to_owned(), container.name.clone())), ..trouble })
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
    let what = format!("pod {name} has no node: {reason}: {said}");
    row(Place::Schedule, reason, said)?.trouble(name, &what, 0, rules)
}

/// Whether a pod has no node yet: then its claims may be why.
pub(super) fn has_no_node(pod: &Pod) -> bool {
    pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none())
}

/// The container of a pod that runs and is not ready: its log may say why.
pub(super) fn unready_container(pod: &Pod) -> Option<(String, String)> {
    let unready =
        pod.status.as_ref()?.container_statuses.iter().flatten().find(|container| {
            !container.ready && container.state.as_ref().is_some_and(|state| state.running.is_some())
        })?;
    Some((pod.metadata.name.clone()?, unready.name.clone()))
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
            ("SomethingNew", "", 0, None),
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

    fn unscheduled_for(reason: &str, message: &str) -> Option<Trouble> {
        trouble(
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}]}),
        )
    }

    #[test]
    fn what_can_be_done_about_it_is_said() {
        for (message, way_out) in [
            ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "gpu_count"),
            ("0/3 nodes are available: 3 Insufficient memory.", "mem_request"),
            ("pod has unbound immediate PersistentVolumeClaims", "storage class"),
            ("3 node(s) had untolerated taint {a: b}", "taints"),
        ] {
            let trouble = unscheduled_for("Unschedulable", message).expect("trouble");
            assert!(trouble.message.contains(message) && trouble.message.contains(way_out), "{}", trouble.message);
        }
        assert!(
            waiting("CrashLoopBackOff", "", 3).expect("trouble").message.ends_with("ask for more memory (mem_limit)")
        );
        assert!(SIGNS.iter().all(|sign| matches!(sign.grace, Grace::Told) || !sign.way_out.is_empty()));
    }

    #[test]
    fn what_a_gate_holds_back_is_told_and_no_verdict() {
        assert_eq!(unscheduled_for("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"), None);
        assert_eq!(unscheduled_for("SchedulerError", "x"), None);
    }

    #[test]
    fn events_tell_of_sets_that_make_no_pods_and_of_claims_that_get_no_volume() {
        let rules = TroubleRules::default();
        let event = |kind: &str, reason: &str, message: &str| {
            let event = json!({"metadata": {}, "involvedObject": {"kind": kind, "name": "a"}, "reason": reason, "message": message});
            of_event(&serde_json::from_value(event).expect("an event"), &rules)
        };
        let quota = event("StatefulSet", "FailedCreate", "forbidden: exceeded quota: small").expect("trouble");
        assert_eq!(quota.grace, Duration::ZERO);
        assert!(quota.message.contains("ResourceQuota"), "{}", quota.message);
        assert!(
            event("ReplicaSet", "FailedCreate", "failed quota: x: must specify limits.cpu")
                .expect("trouble")
                .message
                .contains("LimitRange")
        );
        assert!(
            event("StatefulSet", "FailedCreate", "admission webhook denied")
                .expect("trouble")
                .message
                .contains("rule that refuses")
        );
        let claim = event("PersistentVolumeClaim", "ProvisioningFailed", "no such class").expect("trouble");
        assert_eq!(claim.grace, rules.volume_grace);
        assert_eq!(event("PersistentVolumeClaim", "WaitForFirstConsumer", "x"), None);
        assert_eq!(event("StatefulSet", "SuccessfulCreate", "x"), None);
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
