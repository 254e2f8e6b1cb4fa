//! Waiting for a rollout, as `kubectl rollout status` does (C1), with a deadline and with an eye on what cannot work out (C8).
//!
//! - Judged from the shared watches; only an object that they do not show is asked for directly.
//! - A watch that stalls shows what was, and for ever. So it takes a look at the server itself to fail, also at the deadline,
//!   and while a watch is broken there is one every now and then.
//! - What counts is the object that was applied: its UID, and a generation at least as new. A recreated one is another one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::{RetryPolicy, StepError};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use tokio::time::Instant;

use super::errors::{Asked, step_error};
pub use super::progress::RolledOut;
use super::progress::{self, Progress};
pub use super::trouble::TroubleRules;
use super::trouble::{self, Trouble};
use super::watched::Watched;
use super::{Cluster, Made, repair};
use crate::names;
use crate::render::Kind;

/// How long is waited, and for what.
#[derive(Debug, Clone)]
pub struct RolloutRules {
    /// The whole rollout.
    pub deadline: Duration,
    /// Workloads without any pod: how soon their events are asked for the reason. While they stay so it is asked ever more rarely.
    pub events_every: Duration,
    /// Watches that are broken: how often the server itself is asked instead.
    pub direct_every: Duration,
    /// Watches that cannot begin: how long that may last.
    pub blind_grace: Duration,
    /// A namespace that is being deleted: how long one attempt of a rollback waits until it is gone. Less than an attempt may take
    /// (60 s), so that it ends with what still holds it and not with a timeout. Real clusters take 5 to 16 s (C15).
    pub namespace_grace: Duration,
    /// Pods that cannot start.
    pub trouble: TroubleRules,
}

impl Default for RolloutRules {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10 * 60),
            events_every: Duration::from_secs(5),
            direct_every: Duration::from_secs(30),
            blind_grace: Duration::from_secs(30),
            namespace_grace: Duration::from_secs(45),
            trouble: TroubleRules::default(),
        }
    }
}

impl RolloutRules {
    /// How an attempt is made that waits for a rollout: it ends by the rollout's own deadline, and says why.
    #[must_use]
    pub fn policy(&self) -> RetryPolicy {
        let attempt_timeout = self.deadline + BESIDES;
        RetryPolicy { attempt_timeout, total_max: attempt_timeout * 2, ..RetryPolicy::default() }
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

/// What one look at the cluster shows: the workloads in the order in which they are awaited, and their pods.
struct Look {
    progress: Vec<Progress>,
    /// Those that are to stay.
    pods: Vec<Arc<Pod>>,
    /// Those of an older revision of the set that are not ready.
    old: Vec<Arc<Pod>>,
}

/// The newest revision of a set: which set, and the revision's name.
type Revision = (String, String);

fn newest_revision(set: String, revision: String) -> Option<Revision> {
    (!revision.is_empty()).then_some((set, revision))
}

impl Look {
    /// The pods whose trouble counts are not those that are going, and of the set only those of its newest revision.
    fn new(progress: Vec<Progress>, mut pods: Vec<Arc<Pod>>, newest: Option<&Revision>) -> Self {
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        let is_old = |pod: &Arc<Pod>| match (repair::revision(pod), newest) {
            (Some(label), Some((_, revision))) => label != revision,
            _ => false,
        };
        let (old, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_old);
        let set = newest.map(|(set, _)| set.as_str());
        let stuck = |pod: &Arc<Pod>| set.is_some_and(|set| repair::belongs_to(pod, set)) && !repair::is_ready(pod);
        Self { progress, pods, old: old.into_iter().filter(stuck).collect() }
    }

    /// All of them, if all are rolled out.
    fn done(&self) -> Option<Vec<RolledOut>> {
        let done = self.progress.iter().map(|progress| match progress {
            Progress::Done(rolled_out) => Some(rolled_out.clone()),
            Progress::Waiting(_) | Progress::Failed(_) | Progress::Unseen => None,
        });
        done.collect()
    }

    fn failure(&self) -> Option<String> {
        self.progress.iter().find_map(|progress| match progress {
            Progress::Failed(why) => Some(why.clone()),
            Progress::Done(_) | Progress::Waiting(_) | Progress::Unseen => None,
        })
    }

    fn waits(&self, awaited: &[Awaited]) -> Vec<String> {
        let waits = awaited.iter().zip(&self.progress).filter_map(|(one, progress)| match progress {
            Progress::Waiting(what) | Progress::Failed(what) => Some(what.clone()),
            Progress::Unseen => Some(format!("{}/{} to be seen", one.made.kind, one.made.name)),
            Progress::Done(_) => None,
        });
        waits.collect()
    }
}

/// What an attempt may take beyond the deadline of the rollout, for its few requests before and after.
const BESIDES: Duration = Duration::from_secs(60);
/// The most that lies between two looks at the events. A thousand rollouts that wait for nodes ask seventeen times a second then,
/// and not two hundred times; none of what events tell passes any sooner.
const EVENTS_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How many log lines and events are quoted.
const QUOTED_LINES: i64 = 10;
/// How many of a log's last lines are searched for the reason.
const SEARCHED_LINES: i64 = 200;

impl Cluster {
    /// Waits until all of these are rolled out.
    ///
    /// # Errors
    /// [`StepError`]: permanent when the deadline is over or it cannot work out, with the evidence; transient when the
    /// cluster can neither be watched nor, at the deadline, be asked.
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
        let ends = started + rules.deadline;
        let mut since: HashMap<String, Instant> = HashMap::new();
        let mut events_pause = rules.events_every;
        let mut events_at = started + events_pause;
        let mut told: Vec<Trouble> = Vec::new();
        let mut direct_at = started + rules.direct_every;
        let mut directly = false;
        loop {
            // Before the look, so that nothing that happens after it is missed.
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            let now = Instant::now();
            let over = now >= ends;
            if now >= direct_at {
                directly |= watched.is_broken();
                direct_at = now + rules.direct_every;
            }
            directly |= over;
            let look = match self.look(watched, namespace, awaited, directly).await {
                Ok(look) => look,
                // Nobody knows: what the watch shows may be old, so that it is asked again later.
                Err(_) if directly && !over => {
                    directly = false;
                    tokio::select! {
                        () = rung => {}
                        () = tokio::time::sleep_until(direct_at.min(ends)) => {}
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(done) = look.done() {
                return Ok(done);
            }
            if let Some(why) = watched.blind().filter(|_| now >= started + rules.blind_grace) {
                return Err(StepError::transient(format!("the cluster cannot be watched: {why}")));
            }
            let mut troubles: Vec<Trouble> =
                look.pods.iter().filter_map(|pod| trouble::of(pod, &rules.trouble)).collect();
            // Only where pods are missing, or have no node, are events asked for: whoever waits for pods asks nobody.
            let lacking = lacking(watched, namespace, awaited, &look.pods);
            let asks = !lacking.is_empty() || look.pods.iter().any(|pod| trouble::has_no_node(pod));
            if asks && now >= events_at {
                told = self.told(namespace, &lacking, rules).await;
                events_at = now + events_pause;
                events_pause = (events_pause * 2).min(EVENTS_PAUSE_MAX);
            }
            if asks {
                troubles.extend(told.iter().cloned());
            }
            let stuck = self.replace_stuck(&look, &mut since, now, rules).await;
            since.retain(|key, _| stuck.contains(key) || troubles.iter().any(|trouble| trouble.key == *key));
            let mut wake = ends.min(direct_at);
            if asks {
                wake = wake.min(events_at);
            }
            for key in &stuck {
                wake = wake.min(since[key] + rules.trouble.config_grace);
            }
            // At the deadline all that is missing is told, and not just the first of it.
            let mut verdict = look.failure().filter(|_| !over).map(|why| (why, None));
            for trouble in troubles {
                let ends = *since.entry(trouble.key.clone()).or_insert(now) + trouble.grace;
                if now >= ends {
                    verdict = verdict.or(Some((trouble.message, trouble.crashed)));
                }
                wake = wake.min(ends);
            }
            match verdict {
                // A stalled watch shows trouble that has passed long ago: no verdict without a look at the server itself.
                Some(_) if !directly => {
                    directly = true;
                    continue;
                }
                Some((why, crashed)) => return Err(self.failed(namespace, why, crashed).await),
                None if over => {
                    let waits = look.waits(awaited).join(", ");
                    let why = format!("not rolled out within {} s: waiting for {waits}", rules.deadline.as_secs());
                    let unready: Vec<String> = look.pods.iter().filter_map(|pod| trouble::describe(pod)).collect();
                    let running = look.pods.iter().find_map(|pod| trouble::unready_container(pod));
                    let said = match running {
                        Some((pod, container)) => self.bootstrap_failures(namespace, &pod, &container).await,
                        None => Vec::new(),
                    };
                    return Err(self.failed(namespace, why, None).await.with_evidence(unready).with_evidence(said));
                }
                None => directly = false,
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
            match self.read_progress(namespace, made).await?.0 {
                Progress::Done(rolled_out) => done.push(rolled_out),
                Progress::Waiting(_) | Progress::Failed(_) | Progress::Unseen => return Ok(None),
            }
        }
        Ok(Some(done))
    }

    /// Deletes the pods of an older revision that have not been ready for a while; gives back the keys of those that are waited for.
    async fn replace_stuck(
        &self,
        look: &Look,
        since: &mut HashMap<String, Instant>,
        now: Instant,
        rules: &RolloutRules,
    ) -> Vec<String> {
        let mut waiting = Vec::new();
        for pod in &look.old {
            let key = format!("stuck/{}", pod.metadata.uid.as_deref().unwrap_or_default());
            let since = *since.entry(key.clone()).or_insert(now);
            if now >= since + rules.trouble.config_grace {
                self.replace(pod).await;
            } else {
                waiting.push(key);
            }
        }
        waiting
    }

    pub(super) async fn watched(&self) -> &Watched {
        self.watched.get_or_init(|| async { Watched::start(&self.watch_client) }).await
    }

    /// What the watches show, or (`directly`) what the server itself has.
    async fn look(
        &self,
        watched: &Watched,
        namespace: &str,
        awaited: &[Awaited],
        directly: bool,
    ) -> Result<Look, StepError> {
        let mut progress = Vec::new();
        if !directly {
            for one in awaited {
                progress.push(self.progress(watched, namespace, one).await?);
            }
            let set = watched.sets.get(namespace, names::STATEFUL_SET);
            let newest = set.and_then(|set| {
                newest_revision(set.metadata.uid.clone()?, set.status.as_ref()?.update_revision.clone()?)
            });
            return Ok(Look::new(progress, watched.pods.all(namespace), newest.as_ref()));
        }
        let mut newest = None;
        for one in awaited {
            let (judged, revision) = self.read_progress(namespace, &one.made).await?;
            progress.push(judged);
            newest = newest.or_else(|| newest_revision(one.made.uid.clone(), revision?));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let ours = format!("{}={}", names::MANAGED_BY_LABEL.0, names::MANAGED_BY_LABEL.1);
        let pods = api.list(&ListParams::default().labels(&ours).limit(super::LIST_MAX)).await;
        let doing = format!("list pods in namespace {namespace}");
        let pods = pods.map_err(|error| step_error(Asked::Read, &doing, &error))?;
        Ok(Look::new(progress, pods.items.into_iter().map(Arc::new).collect(), newest.as_ref()))
    }

    async fn progress(&self, watched: &Watched, namespace: &str, awaited: &Awaited) -> Result<Progress, StepError> {
        let name = &awaited.made.name;
        let (synced, seen) = match awaited.made.kind() {
            Some(Kind::StatefulSet) => {
                let seen = watched.sets.get(namespace, name);
                (watched.sets.is_synced(), seen.map(|set| (identity(&set.metadata), progress::stateful_set(&set))))
            }
            Some(Kind::Deployment) => {
                let seen = watched.deployments.get(namespace, name);
                let seen = seen.map(|found| (identity(&found.metadata), progress::deployment(&found)));
                (watched.deployments.is_synced(), seen)
            }
            _ => return Err(no_rollout(&awaited.made)),
        };
        match seen {
            None if !synced => Ok(Progress::Unseen),
            Some(((Some(uid), generation), progress)) if uid == awaited.made.uid => {
                Ok(if generation < awaited.generation { Progress::Unseen } else { progress })
            }
            // Late, or gone, or an older one that is just going, or a newer one that somebody put there: the server knows.
            None | Some(_) => Ok(self.read_progress(namespace, &awaited.made).await?.0),
        }
    }

    /// How far this very object is by the server's own word, and the newest revision of a set.
    async fn read_progress(&self, namespace: &str, made: &Made) -> Result<(Progress, Option<String>), StepError> {
        let (Some(kind), name) = (made.kind(), &made.name) else { return Err(no_rollout(made)) };
        let Some(object) = self.read(kind, Some(namespace), name).await? else {
            return Ok((Progress::Failed(format!("{kind}/{name} was deleted by somebody else")), None));
        };
        if object.metadata.uid.as_deref() != Some(&made.uid) {
            return Ok((Progress::Failed(format!("{kind}/{name} was deleted and made anew by somebody else")), None));
        }
        let revision = object.data["status"]["updateRevision"].as_str().map(str::to_owned);
        let value = serde_json::to_value(&object).unwrap_or_default();
        let progress = match kind {
            Kind::StatefulSet => serde_json::from_value(value).map(|set| progress::stateful_set(&set)),
            Kind::Deployment => serde_json::from_value(value).map(|deployment| progress::deployment(&deployment)),
            _ => return Err(no_rollout(made)),
        };
        let unreadable = |error| StepError::transient(format!("{kind}/{name} cannot be read: {error}"));
        Ok((progress.map_err(unreadable)?, revision))
    }

    /// The error of a rollout that cannot work out, with what events and log say.
    async fn failed(&self, namespace: &str, why: String, crashed: Option<(String, String)>) -> StepError {
        let mut error = StepError::permanent(format!("the rollout failed: {why}"));
        if let Some((pod, container)) = crashed {
            let lines = self.log(namespace, &pod, &container, true, QUOTED_LINES).await;
            error = error.with_evidence(lines);
        }
        error.with_evidence(self.warnings(namespace).await)
    }

    /// The trouble that events tell of: of a workload that cannot even make a pod, and of claims that get no volume.
    async fn told(&self, namespace: &str, lacking: &[&Made], rules: &RolloutRules) -> Vec<Trouble> {
        let events = self.events(namespace).await;
        let of = |kind: &str, event: &&Event| event.involved_object.kind.as_deref() == Some(kind);
        let (claims, others): (Vec<&Event>, Vec<&Event>) =
            events.iter().partition(|event| of("PersistentVolumeClaim", event));
        // Those of a workload that has its pods by now are past.
        let of_lacking = others.into_iter().filter(|event| {
            let object = &event.involved_object;
            let (kind, name) = (object.kind.as_deref().unwrap_or_default(), object.name.as_deref().unwrap_or_default());
            lacking.iter().any(|made| makes_pods_for(kind, name, made))
        });
        let mut told: Vec<Trouble> = of_lacking.filter_map(|event| trouble::of_event(event, &rules.trouble)).collect();
        let failing = claims
            .into_iter()
            .filter_map(|event| Some((trouble::of_event(event, &rules.trouble)?, event.involved_object.name.clone()?)));
        for (trouble, name) in failing.collect::<Vec<_>>() {
            // An event outlives what it tells of: a claim that is bound by now has its volume.
            let claim = self.read(Kind::PersistentVolumeClaim, Some(namespace), &name).await;
            if matches!(claim, Ok(Some(claim)) if claim.data["status"]["phase"] != "Bound") {
                told.push(trouble);
            }
        }
        told
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

    /// Why a node that runs is not ready, in its own words: the checks that it failed, or else its last lines.
    async fn bootstrap_failures(&self, namespace: &str, pod: &str, container: &str) -> Vec<String> {
        let lines = self.log(namespace, pod, container, false, SEARCHED_LINES).await;
        let failed = lines.iter().filter(|line| line.contains("bootstrap check failure"));
        let failed: Vec<String> = failed.take(QUOTED_LINES.unsigned_abs() as usize).cloned().collect();
        let last = lines.len().saturating_sub(QUOTED_LINES.unsigned_abs() as usize);
        if failed.is_empty() { lines[last..].to_vec() } else { failed }
    }

    async fn log(&self, namespace: &str, pod: &str, container: &str, previous: bool, lines: i64) -> Vec<String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(lines),
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

fn no_rollout(made: &Made) -> StepError {
    StepError::permanent(format!("{}/{} has no rollout", made.kind, made.name))
}

/// The workloads that have fewer pods than they want: those of another may well be there.
fn lacking<'a>(watched: &Watched, namespace: &str, awaited: &'a [Awaited], pods: &[Arc<Pod>]) -> Vec<&'a Made> {
    let lacks = |made: &&Made| {
        let wanted = match made.kind() {
            Some(Kind::StatefulSet) => {
                watched.sets.get(namespace, &made.name).and_then(|set| set.spec.as_ref()?.replicas)
            }
            _ => watched.deployments.get(namespace, &made.name).and_then(|found| found.spec.as_ref()?.replicas),
        };
        let owned = |pod: &&Arc<Pod>| {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            owners.any(|owner| makes_pods_for(&owner.kind, &owner.name, made))
        };
        let there = i32::try_from(pods.iter().filter(owned).count()).unwrap_or(i32::MAX);
        there < wanted.unwrap_or(1)
    };
    awaited.iter().map(|one| &one.made).filter(lacks).collect()
}

/// Whether this object makes the pods of that workload: the set itself, or a Deployment's ReplicaSet, which is called after it.
fn makes_pods_for(kind: &str, name: &str, made: &Made) -> bool {
    match made.kind() {
        Some(Kind::StatefulSet) => kind == "StatefulSet" && name == made.name,
        _ => kind == "ReplicaSet" && name.rsplit_once('-').is_some_and(|(deployment, _)| deployment == made.name),
    }
}
