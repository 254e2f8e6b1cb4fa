//! The change of a cluster: six steps, of which those before `disk_grown` can be taken back.
//!
//! - A rollback ends once the cluster is ready again, if it was before; else it is parked, and says what is missing.
//! - The complete intent is rendered twice, as it was and as it shall be; what differs is applied, and in a rollback applied
//!   back. Both requests are in the journal: a resume reads nothing newer (I11).
//! - Nodes that have started may hold data and votes. They are never taken away: not by a request, and not by a rollback,
//!   which is parked instead, until a person has moved both off them. How their pods look now says nothing of that: what was
//!   there when the change began is journaled, and stays.
//! - A disk that has been asked to grow cannot be made smaller again (C5), so that comes last.

mod claims_added;
mod disk_grown;
mod update_applied;
mod update_rolled_out;
mod update_started;
mod updated;

use std::sync::Arc;

use async_trait::async_trait;
use cairn_engine::{Definition, Effect, ErrorClass, Residue, Step, StepContext, StepError, StepName};
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};

use crate::cluster::rehearse::Rehearsed;
use crate::cluster::rollout::RolloutRules;
use crate::cluster::{Cluster, Found, Made};
use crate::create::plan::{Plan, made_by_all};
use crate::input::{Input, Origin};
use crate::names;
use crate::quantity::Quantity;
use crate::render::{Kind, Object, Through};

/// The name of the definition.
pub const NAME: &str = "update";
/// Its version: another list of steps is another version.
pub const VERSION: u32 = 1;

/// The names of the six steps, in order: the statuses of their reports.
pub const STEPS: [&str; 6] = [
    update_started::NAME,
    claims_added::NAME,
    update_applied::NAME,
    update_rolled_out::NAME,
    disk_grown::NAME,
    updated::NAME,
];

/// What a change may apply, in the order in which it is needed: neither the namespace nor the data.
const KINDS: [Kind; 5] =
    [Kind::Service, Kind::ConfigMap, Kind::PodDisruptionBudget, Kind::StatefulSet, Kind::Deployment];

/// The change of a cluster.
#[must_use]
pub fn update_definition(cluster: Cluster, rollout: RolloutRules) -> Definition {
    let at = || cluster.clone();
    let steps: Vec<Arc<dyn Step>> = vec![
        Arc::new(update_started::UpdateStarted { cluster: at() }),
        Arc::new(claims_added::ClaimsAdded { cluster: at() }),
        Arc::new(update_applied::UpdateApplied { cluster: at(), rules: rollout.clone() }),
        Arc::new(update_rolled_out::UpdateRolledOut { cluster: at(), rules: rollout }),
        Arc::new(disk_grown::DiskGrown { cluster: at() }),
        Arc::new(updated::Updated { cluster: at() }),
    ];
    Definition::new(NAME, VERSION, Effect::Update, steps, Arc::new(Added { cluster }))
}

/// The cluster as it was, and as it shall be.
struct Change {
    before: Plan,
    after: Plan,
    origin: Origin,
}

/// A claim as the first step found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    claim: String,
    size: Quantity,
}

/// What the first step found, beside what else it says: what a rollback goes back to.
#[derive(Default, Serialize, Deserialize)]
struct Beginning {
    #[serde(default)]
    disks: Vec<Disk>,
    /// The claims of nodes that are only now asked for: somebody scaled the set, and what lies on them is not this change's. A
    /// journal from before this was looked at has none here: then each claim may have been there.
    #[serde(default)]
    later_claims: Option<Vec<Made>>,
    /// The nodes that the set was to have. More than were asked for, if somebody has added some; then they stay.
    #[serde(default)]
    replicas: u32,
    /// All that changes of the workloads was rolled out and ready. A journal from before this was looked at says it was not:
    /// then nothing is waited for.
    #[serde(default)]
    was_ready: bool,
}

impl Beginning {
    /// Whether this very claim of a later node was there already.
    fn had(&self, claim: &Made) -> bool {
        self.later_claims.iter().flatten().any(|there| there == claim)
    }

    /// Whether this node had a disk already, or may have had one.
    fn may_have_had(&self, ordinal: u32) -> bool {
        let claim = names::claim(ordinal);
        self.later_claims.as_ref().is_none_or(|claims| claims.iter().any(|there| there.name == claim))
    }
}

/// What a change would do.
#[derive(Debug)]
pub struct Rehearsal {
    /// What it would send: the namespace that it lies in, what is rendered otherwise than before, and the claims that are made
    /// or grown.
    pub objects: Vec<Object>,
    /// What the cluster says to each of them, in the same order.
    pub verdicts: Vec<Rehearsed>,
    /// What its first step would stop at, with the way out.
    pub refusals: Vec<String>,
    /// What its first step would warn of.
    pub warnings: Vec<String>,
}

/// What a change would do, for whoever wants to know beforehand. Looks as its first step looks, and changes nothing.
///
/// # Errors
/// [`StepError`] if the input does not say what it changes.
pub async fn rehearse(cluster: &Cluster, input: Input) -> Result<Rehearsal, StepError> {
    let change = Change::from(input)?;
    let mut objects = change.after.objects(Through::Formed, &[Kind::Namespace]);
    objects.extend(change.changed().0);
    objects.extend(change.sized_claims());
    let verdicts = cluster.rehearse(&objects, Some(change.mark())).await;
    let (refusals, mut warnings) = match update_started::look(cluster, &change).await {
        Ok((_, warnings)) => (Vec::new(), warnings),
        Err(error) if error.failure.class == ErrorClass::Permanent => (vec![error.failure.message], Vec::new()),
        Err(error) => (Vec::new(), vec![error.failure.message]),
    };
    let (before, after) = (&change.before.request, &change.after.request);
    if (after.gpu_count, after.replicas) != (before.gpu_count, before.replicas) {
        // Its own nodes are replaced one by one, so what they hold is theirs to have again.
        warnings.extend(cluster.too_few_gpus(after, Some(change.namespace())).await);
    }
    Ok(Rehearsal { objects, verdicts, refusals, warnings })
}

impl Change {
    fn of(cx: &StepContext) -> Result<Self, StepError> {
        Self::from(cx.input()?)
    }

    fn from(input: Input) -> Result<Self, StepError> {
        let (Some(before), Some(origin)) = (input.before, input.origin) else {
            return Err(StepError::permanent("the journaled change does not say what it changes"));
        };
        let before = Plan::of_living(before, &origin)?;
        let after = Plan::of_living(input.request, &origin)?;
        Ok(Self { before, after, origin })
    }

    fn namespace(&self) -> &str {
        self.after.namespace()
    }

    fn mark(&self) -> &str {
        &self.after.workflow
    }

    /// What is rendered differently, as it shall be, and as it was.
    fn changed(&self) -> (Vec<Object>, Vec<Object>) {
        let (before, after) =
            (self.before.objects(Through::Formed, &KINDS), self.after.objects(Through::Formed, &KINDS));
        let differs = |one: &Object, others: &[Object]| !others.contains(one);
        let changed = after.iter().filter(|one| differs(one, &before)).cloned().collect();
        let back = before.iter().filter(|one| differs(one, &after)).cloned().collect();
        (changed, back)
    }

    /// What a rollback applies: what was rendered differently, as it was. The set keeps the nodes that somebody had added.
    fn back(&self, beginning: &Beginning) -> Vec<Object> {
        let (_, mut back) = self.changed();
        for set in back.iter_mut().filter(|object| object.kind == Kind::StatefulSet) {
            set.body["spec"]["replicas"] = self.nodes_after_rollback(beginning).into();
        }
        back
    }

    fn nodes_after_rollback(&self, beginning: &Beginning) -> u32 {
        self.before.request.replicas.max(beginning.replicas)
    }

    /// Whether a rollback deletes this claim, which a step says it has made.
    fn takes_back(&self, beginning: &Beginning, claim: &Made) -> bool {
        !self.origin.knows(claim) && !beginning.had(claim)
    }

    /// The nodes that the live set is to have; none if there is no set of ours.
    async fn live_replicas(&self, cluster: &Cluster) -> Result<u32, StepError> {
        let set = cluster.find(Kind::StatefulSet, Some(self.namespace()), names::STATEFUL_SET, self.mark()).await?;
        let Found::Ours(set) = set else { return Ok(0) };
        Ok(replicas_of(&set))
    }

    /// Refuses to go on where somebody has given the set more nodes than are asked for.
    fn refuse_fewer_than(&self, live: u32) -> Result<(), StepError> {
        let wanted = self.after.request.replicas;
        if live <= wanted {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "StatefulSet/{} was scaled to {live} by somebody, and this change would take {} nodes away with what they hold: \
             ask for `replicas` {live}, or scale it back once nothing is on them: {}",
            names::STATEFUL_SET,
            live - wanted,
            self.scaling_by_hand(self.before.request.replicas)
        )))
    }

    /// The claims of the nodes that are there.
    fn old_claims(&self) -> Vec<Object> {
        self.claims(|ordinal| ordinal < self.before.request.replicas)
    }

    /// The claims of the nodes that this change adds.
    fn new_claims(&self) -> Vec<Object> {
        self.claims(|ordinal| ordinal >= self.before.request.replicas)
    }

    /// The claims that are to have the size that is asked for: all if that grows, else those of the nodes that are added.
    fn sized_claims(&self) -> Vec<Object> {
        if self.grows_disks() { self.claims(|_| true) } else { self.new_claims() }
    }

    fn claims(&self, of: impl Fn(u32) -> bool) -> Vec<Object> {
        let wanted: Vec<String> =
            (0..self.after.request.replicas).filter(|ordinal| of(*ordinal)).map(names::claim).collect();
        let mut claims = self.after.objects(Through::Formed, &[Kind::PersistentVolumeClaim]);
        claims.retain(|claim| wanted.contains(&claim.name));
        claims
    }

    /// The workloads that change, as they shall be, and as they were.
    fn workloads(&self) -> (Vec<Object>, Vec<Object>) {
        let (mut changed, mut back) = self.changed();
        changed.retain(is_workload);
        back.retain(is_workload);
        (changed, back)
    }

    /// What the first step found.
    fn beginning(cx: &StepContext) -> Beginning {
        let started = cx.output(&StepName::from(update_started::NAME));
        started.and_then(|output| output.result.read().ok()).unwrap_or_default()
    }

    /// How a person scales the set so that a later change still can: what `kubectl scale` sets is no longer this program's.
    fn scaling_by_hand(&self, replicas: u32) -> String {
        format!(
            "`kubectl patch statefulset {} -n {} --field-manager={} --type=merge -p '{{\"spec\":{{\"replicas\":{replicas}}}}}'`",
            names::STATEFUL_SET,
            self.namespace(),
            names::FIELD_MANAGER
        )
    }

    fn grows_disks(&self) -> bool {
        self.after.request.disk_size > self.before.request.disk_size
    }
}

fn is_workload(object: &Object) -> bool {
    matches!(object.kind, Kind::StatefulSet | Kind::Deployment)
}

/// The nodes that a set is to have: one, where it does not say.
fn replicas_of(set: &DynamicObject) -> u32 {
    set.data["spec"]["replicas"].as_u64().and_then(|replicas| replicas.try_into().ok()).unwrap_or(1)
}

/// What a rollback of a change has left: the claims that it made and that are there. What it changed is changed back, or its
/// compensation says why not.
struct Added {
    cluster: Cluster,
}

#[async_trait]
impl Residue for Added {
    async fn look(&self, cx: &StepContext) -> Result<Vec<String>, StepError> {
        let change = Change::of(cx)?;
        let (beginning, mut made) = (Change::beginning(cx), made_by_all(cx));
        made.retain(|one| one.kind() == Some(Kind::PersistentVolumeClaim) && change.takes_back(&beginning, one));
        let mut there = self.cluster.marked(change.namespace(), change.mark()).await?;
        there.retain(|marked| made.contains(&marked.made));
        let objects: Vec<String> = there.iter().map(|marked| marked.text.clone()).collect();
        if !there.is_empty() && there.iter().all(|marked| marked.leaves) {
            return Err(StepError::transient(format!("not gone yet: {}", objects.join(", "))));
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests;
