//! How far the rollout of one workload is, judged as `kubectl rollout status` judges it (C1).
//!
//! Pure: a workload in, its progress out. "Ready" alone is not "done": an absent number is 0, and an old revision may still be
//! the ready one (C15).

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use serde::Serialize;

/// A workload that is rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolledOut {
    /// `StatefulSet/elasticsearch`
    pub workload: String,
    /// Wanted replicas.
    pub replicas: i32,
    /// Those that are ready.
    pub ready: i32,
    /// Those of the newest revision.
    pub updated: i32,
}

/// How far one workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Done(RolledOut),
    Waiting(String),
    /// It will never be done.
    Failed(String),
    /// The watch does not show it (yet, or any more).
    Unseen,
}

/// C1, in its order.
pub(super) fn stateful_set(set: &StatefulSet) -> Progress {
    let Some(spec) = &set.spec else { return Progress::Unseen };
    let status = set.status.clone().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()).is_some_and(|kind| kind != "RollingUpdate") {
        return Progress::Failed(format!("StatefulSet/{name} does not update its pods by itself (OnDelete)"));
    }
    let observed = status.observed_generation.unwrap_or(0);
    if observed == 0 || observed < set.metadata.generation.unwrap_or(0) {
        return Progress::Waiting(format!("StatefulSet/{name} to be taken note of"));
    }
    let wanted = spec.replicas.unwrap_or(1);
    let ready = status.ready_replicas.unwrap_or(0);
    if ready < wanted {
        return Progress::Waiting(format!("StatefulSet/{name}: {ready} of {wanted} pods are ready"));
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let done = Progress::Done(RolledOut { workload: format!("StatefulSet/{name}"), replicas: wanted, ready, updated });
    // The server fills in the strategy; where it has not, the rule is the one without.
    match strategy.and_then(|strategy| strategy.rolling_update.as_ref()) {
        Some(rolling) if updated < wanted - rolling.partition.unwrap_or(0) => {
            Progress::Waiting(format!("StatefulSet/{name}: {updated} of {wanted} pods are of the newest revision"))
        }
        None if status.update_revision != status.current_revision => {
            Progress::Waiting(format!("StatefulSet/{name}: its newest revision is not everywhere"))
        }
        Some(_) | None => done,
    }
}

/// C1, in its order.
pub(super) fn deployment(deployment: &Deployment) -> Progress {
    let Some(spec) = &deployment.spec else { return Progress::Unseen };
    let status = deployment.status.clone().unwrap_or_default();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    if deployment.metadata.generation.unwrap_or(0) > status.observed_generation.unwrap_or(0) {
        return Progress::Waiting(format!("Deployment/{name} to be taken note of"));
    }
    let late = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    if let Some(late) = late {
        let said = late.message.as_deref().unwrap_or_default();
        return Progress::Failed(format!("Deployment/{name} exceeded its progress deadline: {said}"));
    }
    let wanted = spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let all = status.replicas.unwrap_or(0);
    if updated < wanted {
        return Progress::Waiting(format!("Deployment/{name}: {updated} of {wanted} pods are updated"));
    }
    if all > updated {
        return Progress::Waiting(format!("Deployment/{name}: {} old pods are to go", all - updated));
    }
    if available < updated {
        return Progress::Waiting(format!("Deployment/{name}: {available} of {updated} pods are available"));
    }
    let ready = status.ready_replicas.unwrap_or(0);
    Progress::Done(RolledOut { workload: format!("Deployment/{name}"), replicas: wanted, ready, updated })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(spec: Value, status: Value) -> Progress {
        let mut whole = json!({"replicas": 3, "selector": {}, "template": {}, "serviceName": "a",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
        whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        let set = json!({"metadata": {"name": "elasticsearch", "generation": 2}, "spec": whole, "status": status});
        stateful_set(&serde_json::from_value(set).expect("a set"))
    }

    fn deploy(status: Value) -> Progress {
        let value = json!({"metadata": {"name": "kibana", "generation": 2}, "status": status,
            "spec": {"replicas": 1, "selector": {}, "template": {}}});
        deployment(&serde_json::from_value(value).expect("a deployment"))
    }

    fn waits(progress: &Progress) -> bool {
        matches!(progress, Progress::Waiting(_))
    }

    #[test]
    fn a_stateful_set_is_judged_as_kubectl_judges_it() {
        let full = json!({"replicas": 3, "observedGeneration": 2, "readyReplicas": 3, "updatedReplicas": 3});
        assert!(matches!(set(json!({}), full.clone()), Progress::Done(_)));
        for (field, value) in [
            ("observedGeneration", json!(1)),
            ("observedGeneration", json!(0)),
            ("readyReplicas", json!(2)),
            ("updatedReplicas", json!(2)),
        ] {
            let mut status = full.clone();
            status[field] = value;
            assert!(waits(&set(json!({}), status)), "{field}");
        }
        assert!(matches!(set(json!({"updateStrategy": {"type": "OnDelete"}}), full), Progress::Failed(_)));
    }

    /// C15: generation and ready alone said done, and the old revision was the ready one.
    #[test]
    fn an_absent_number_of_updated_pods_is_none() {
        let status = json!({"replicas": 3, "observedGeneration": 2, "readyReplicas": 3, "currentRevision": "a", "updateRevision": "b"});
        assert!(waits(&set(json!({}), status.clone())));
        assert!(waits(&set(json!({"updateStrategy": {"type": "RollingUpdate"}}), status)));
    }

    #[test]
    fn a_set_of_none_is_done_once_it_is_taken_note_of() {
        assert!(waits(&set(json!({"replicas": 0}), json!({"replicas": 0}))));
        assert!(matches!(
            set(json!({"replicas": 0}), json!({"replicas": 0, "observedGeneration": 2})),
            Progress::Done(_)
        ));
    }

    #[test]
    fn a_deployment_is_judged_as_kubectl_judges_it() {
        let full = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1});
        assert!(matches!(deploy(full.clone()), Progress::Done(_)));
        for (field, value) in [
            ("observedGeneration", json!(1)),
            ("updatedReplicas", json!(0)),
            ("replicas", json!(2)),
            ("availableReplicas", json!(0)),
        ] {
            let mut status = full.clone();
            status[field] = value;
            assert!(waits(&deploy(status)), "{field}");
        }
        let mut late = full;
        late["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        assert!(matches!(deploy(late), Progress::Failed(_)));
    }
}
