//! Waiting for a rollout, as `kubectl rollout status` does (C1), with a deadline and with an eye on what cannot work out (C8).
//!
//! - Judged from the shared watches; only an object that they do not show is asked for directly.
//! - What counts is the object that was applied: its UID, and a generation at least as new. A recreated one is another one.
//! - "Ready" alone is not "done": an absent number is 0, and an old revision may still be the ready one (C15).

use std::collections::HashMap;
use std::time::Duration;

use cairn_engine::StepError;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde::Serialize;
use tokio::time::Instant;

pub use super::trouble::TroubleRules;
use super::trouble::{self, Trouble};
use super::watched::Watched;
use super::{Cluster, Made};
use crate::names;
use crate::render::Kind;

/// How long is waited, and for what.
#[derive(Debug, Clone)]
pub struct RolloutRules {
    /// The whole rollout.
    pub deadline: Duration,
    /// Workloads without any pod: how often their events are asked for the reason.
    pub events_every: Duration,
    /// Watches that cannot begin: how long that may last.
    pub blind_grace: Duration,
    /// Pods that cannot start.
    pub trouble: TroubleRules,
}

impl Default for RolloutRules {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10 * 60),
            events_every: Duration::from_secs(5),
            blind_grace: Duration::from_secs(30),
            trouble: TroubleRules::default(),
        }
    }
}

/// A workload whose rollout is waited for: the object that was applied.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// Which.
    pub made: Made,
    /// The generation that the apply made: what is older says nothing.
    pub generation: i64,
}

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
enum Progress {
    Done(RolledOut),
    Waiting(String),
    /// It will never be done.
    Failed(String),
    /// The watch does not show it (yet, or any more).
    Unseen,
}

/// How many log lines and events are quoted.
const QUOTED_LINES: i64 = 10;

impl Cluster {
    /// Waits until all of these are rolled out.
    ///
    /// # Errors
    /// [`StepError`]: permanent when the deadline is over or it cannot work out, with the evidence; transient when the
    /// cluster cannot be watched.
    ///
    /// # Cancel safety
    /// Nothing is changed: waiting again begins anew.
    pub async fn rolled_out(
        &self,
        namespace: &str,
        awaited: &[Awaited],
        rules: &RolloutRules,
    ) -> Result<Vec<RolledOut>, StepError> {
        let watched = self.watched().await;
        let bell = watched.bell(namespace);
        let started = Instant::now();
        let mut since: HashMap<String, Instant> = HashMap::new();
        let mut events_at = started + rules.events_every;
        loop {
            // Before the look, so that nothing that happens after it is missed.
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            let now = Instant::now();
            let mut waits = Vec::new();
            let mut done = Vec::new();
            for one in awaited {
                match self.progress(watched, namespace, one).await? {
                    Progress::Done(rolled_out) => done.push(rolled_out),
                    Progress::Failed(why) => return Err(self.failed(namespace, why, None).await),
                    Progress::Waiting(what) => waits.push(what),
                    Progress::Unseen => waits.push(format!("{}/{} to be seen", one.made.kind, one.made.name)),
                }
            }
            if waits.is_empty() {
                return Ok(done);
            }
            if let Some(why) = watched.blind().filter(|_| now >= started + rules.blind_grace) {
                return Err(StepError::transient(format!("the cluster cannot be watched: {why}")));
            }
            let mut wake = started + rules.deadline;
            let pods = pods_of_interest(watched, namespace);
            if pods.is_empty() {
                wake = wake.min(events_at);
            }
            let troubles: Vec<Trouble> = pods.iter().filter_map(|pod| trouble::of(pod, &rules.trouble)).collect();
            since.retain(|key, _| troubles.iter().any(|trouble| trouble.key == *key));
            for trouble in troubles {
                let ends = *since.entry(trouble.key.clone()).or_insert(now) + trouble.grace;
                if now >= ends {
                    return Err(self.failed(namespace, trouble.message, trouble.crashed).await);
                }
                wake = wake.min(ends);
            }
            if now >= started + rules.deadline {
                let why =
                    format!("not rolled out within {} s: waiting for {}", rules.deadline.as_secs(), waits.join(", "));
                let unready = pods.iter().filter_map(|pod| trouble::describe(pod));
                return Err(self.failed(namespace, why, None).await.with_evidence(unready));
            }
            if pods.is_empty() && now >= events_at {
                if let Some(why) = self.creation_failed(namespace).await {
                    return Err(self.failed(namespace, why, None).await);
                }
                events_at = now + rules.events_every;
                continue;
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Whether all of these are rolled out right now, read directly.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`].
    pub async fn is_rolled_out(&self, namespace: &str, awaited: &[Made]) -> Result<Option<Vec<RolledOut>>, StepError> {
        let mut done = Vec::new();
        for made in awaited {
            let Some(kind) = made.kind() else { return Ok(None) };
            let Some(object) = self.read(kind, Some(namespace), &made.name).await? else { return Ok(None) };
            let value = serde_json::to_value(&object).unwrap_or_default();
            let progress = match kind {
                Kind::StatefulSet => serde_json::from_value(value).map(|set| stateful_set(&set)),
                Kind::Deployment => serde_json::from_value(value).map(|deployment| self::deployment(&deployment)),
                _ => return Ok(None),
            };
            match progress {
                Ok(Progress::Done(rolled_out)) => done.push(rolled_out),
                Ok(_) => return Ok(None),
                Err(error) => {
                    return Err(StepError::transient(format!("{}/{} cannot be read: {error}", made.kind, made.name)));
                }
            }
        }
        Ok(Some(done))
    }

    async fn watched(&self) -> &Watched {
        self.watched.get_or_init(|| async { Watched::start(&self.watch_client) }).await
    }

    async fn progress(&self, watched: &Watched, namespace: &str, awaited: &Awaited) -> Result<Progress, StepError> {
        let name = &awaited.made.name;
        let (seen, progress) = match awaited.made.kind() {
            Some(Kind::StatefulSet) => {
                let Some(set) = watched.sets.get(namespace, name) else {
                    return self.unseen(watched.sets.is_synced(), namespace, awaited).await;
                };
                (identity(&set.metadata), stateful_set(&set))
            }
            Some(Kind::Deployment) => {
                let Some(found) = watched.deployments.get(namespace, name) else {
                    return self.unseen(watched.deployments.is_synced(), namespace, awaited).await;
                };
                (identity(&found.metadata), deployment(&found))
            }
            _ => return Err(StepError::permanent(format!("{}/{name} has no rollout", awaited.made.kind))),
        };
        let (uid, generation) = seen;
        if uid.as_deref() != Some(&awaited.made.uid) {
            // An older one that is just going, or a newer one that somebody put there: the server knows.
            return self.unseen(true, namespace, awaited).await;
        }
        if generation < awaited.generation {
            return Ok(Progress::Unseen);
        }
        Ok(progress)
    }

    /// The watch shows nothing: it may be late, or the object is gone.
    async fn unseen(&self, synced: bool, namespace: &str, awaited: &Awaited) -> Result<Progress, StepError> {
        if !synced {
            return Ok(Progress::Unseen);
        }
        let Some(kind) = awaited.made.kind() else { return Ok(Progress::Unseen) };
        let found = self.read(kind, Some(namespace), &awaited.made.name).await?;
        Ok(match found {
            Some(object) if object.metadata.uid.as_deref() == Some(&awaited.made.uid) => Progress::Unseen,
            Some(_) => {
                Progress::Failed(format!("{kind}/{} was deleted and made anew by somebody else", awaited.made.name))
            }
            None => Progress::Failed(format!("{kind}/{} was deleted by somebody else", awaited.made.name)),
        })
    }

    /// The error of a rollout that cannot work out, with what events and log say.
    async fn failed(&self, namespace: &str, why: String, crashed: Option<(String, String)>) -> StepError {
        let mut error = StepError::permanent(format!("the rollout failed: {why}"));
        if let Some((pod, container)) = crashed {
            error = error.with_evidence(self.log(namespace, &pod, &container).await);
        }
        error.with_evidence(self.warnings(namespace).await)
    }

    /// A workload that cannot even make a pod says so in an event: a quota, an admission rule.
    async fn creation_failed(&self, namespace: &str) -> Option<String> {
        let events = self.events(namespace).await;
        let event = events.into_iter().find(|event| event.reason.as_deref() == Some("FailedCreate"))?;
        let object = event.involved_object;
        let (kind, name) = (object.kind.unwrap_or_default(), object.name.unwrap_or_default());
        Some(format!("{kind}/{name} cannot make its pods: {}", event.message.unwrap_or_default()))
    }

    async fn warnings(&self, namespace: &str) -> Vec<String> {
        let events = self.events(namespace).await;
        let warnings = events.into_iter().filter(|event| event.type_.as_deref() == Some("Warning"));
        let mut lines: Vec<String> = warnings
            .map(|event| {
                let (kind, name) =
                    (event.involved_object.kind.unwrap_or_default(), event.involved_object.name.unwrap_or_default());
                format!(
                    "event {} of {kind}/{name}: {}",
                    event.reason.unwrap_or_default(),
                    event.message.unwrap_or_default()
                )
            })
            .collect();
        lines.dedup();
        lines.truncate(usize::try_from(QUOTED_LINES).unwrap_or(0));
        lines
    }

    /// Events are evidence: where they cannot be had, there is less of it, and the verdict stands all the same.
    async fn events(&self, namespace: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        api.list(&ListParams::default().limit(super::LIST_MAX)).await.map(|list| list.items).unwrap_or_default()
    }

    async fn log(&self, namespace: &str, pod: &str, container: &str) -> Vec<String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            previous: true,
            tail_lines: Some(QUOTED_LINES),
            limit_bytes: Some(8 * 1024),
            ..LogParams::default()
        };
        let text = api.logs(pod, &params).await.unwrap_or_default();
        text.lines().map(|line| format!("log of {pod}: {line}")).collect()
    }
}

fn identity(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (Option<String>, i64) {
    (metadata.uid.clone(), metadata.generation.unwrap_or(0))
}

/// The pods whose trouble counts: not those that are going, and of the set only those of its newest revision.
fn pods_of_interest(watched: &Watched, namespace: &str) -> Vec<std::sync::Arc<Pod>> {
    let set = watched.sets.get(namespace, names::STATEFUL_SET);
    let revision = set.and_then(|set| set.status.as_ref()?.update_revision.clone());
    let mut pods = watched.pods.all(namespace);
    pods.retain(|pod| {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("controller-revision-hash"));
        let newest = match (label, &revision) {
            (Some(label), Some(revision)) => label == revision,
            _ => true,
        };
        newest && pod.metadata.deletion_timestamp.is_none()
    });
    pods
}

/// C1, in its order.
fn stateful_set(set: &StatefulSet) -> Progress {
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
fn deployment(deployment: &Deployment) -> Progress {
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
