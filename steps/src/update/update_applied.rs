//! Step 3, `update_applied`: applies what is rendered differently: the pods follow one by one. Taken back by applying it as it
//! was, unless nodes that were added have started; and by waiting until what was ready before is ready again, in which pods of
//! the revision that is taken back make way.

use async_trait::async_trait;
use cairn_engine::{ErrorClass, Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::{Beginning, Change, is_workload, update_rolled_out};
use crate::cluster::compare;
use crate::cluster::rollout::RolloutRules;
use crate::cluster::{Cluster, Found};
use crate::create::plan::{Objects, Seen};
use crate::names;
use crate::render::Object;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "update_applied";

pub(super) struct UpdateApplied {
    pub(super) cluster: Cluster,
    pub(super) rules: RolloutRules,
}

/// What was changed. Not `made`: nothing of it is this workflow's to delete.
#[derive(Serialize)]
struct Applied {
    changed: Vec<String>,
}

#[async_trait]
impl Step for UpdateApplied {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        // For the compensation, which waits for the pods.
        self.rules.policy()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let (changed, _) = change.changed();
        if changed.is_empty() {
            return Ok(skipped());
        }
        // Once more: hours may have passed since the first step looked.
        change.refuse_fewer_than(change.live_replicas(&self.cluster).await?)?;
        output(change.after.apply(cx, &self.cluster, &changed).await?)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let change = Change::of(cx)?;
        let (changed, _) = change.changed();
        if changed.is_empty() {
            return Ok(Probe::Applied { output: skipped() });
        }
        Ok(match change.after.look(&self.cluster, &changed).await? {
            Seen::All(there) => Probe::Applied { output: output(there)? },
            Seen::Some(_) | Seen::None => Probe::NotApplied,
            Seen::Foreign(detail) => Probe::Foreign { detail },
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let (change, beginning) = (Change::of(cx)?, Change::beginning(cx));
        let back = change.back(&beginning);
        if back.is_empty() {
            return Ok("nothing was changed".to_owned());
        }
        let mut said = "everything is as it was".to_owned();
        if !matches!(change.before.look(&self.cluster, &back).await?, Seen::All(_)) {
            let applied = match self.apply_back(cx, &change, &beginning, &back).await {
                // What kept the change from being applied keeps this from it as well: a field that somebody else has taken over,
                // nodes that somebody has added meanwhile.
                Err(refused)
                    if refused.failure.class == ErrorClass::Permanent && !self.is_begun(&change, &back).await? =>
                {
                    return Ok("nothing of it was applied".to_owned());
                }
                applied => applied?,
            };
            said = format!("applied {} as before", applied.objects.join(" and "));
        }
        let workloads: Vec<Object> = back.into_iter().filter(is_workload).collect();
        if workloads.is_empty() {
            return Ok(said);
        }
        if !beginning.was_ready {
            return Ok(format!("{said}; it was not ready before either"));
        }
        let ready = change.before.roll_out(cx, &self.cluster, &workloads, &self.rules).await;
        ready.map(|_| format!("{said}, and ready")).map_err(|mut error| {
            error.failure.message =
                format!("everything is applied as before, and not ready again: {}", error.failure.message);
            error
        })
    }
}

impl UpdateApplied {
    async fn apply_back(
        &self,
        cx: &StepContext,
        change: &Change,
        beginning: &Beginning,
        back: &[Object],
    ) -> Result<Objects, StepError> {
        self.refuse_taking_nodes(cx, change, beginning).await?;
        change.before.apply(cx, &self.cluster, back).await
    }

    /// Whether the cluster has any value that this change was to bring: an object takes the whole of an apply, or nothing. Where it
    /// brings none and only takes some away, nobody can tell.
    async fn is_begun(&self, change: &Change, back: &[Object]) -> Result<bool, StepError> {
        let (changed, _) = change.changed();
        for object in changed {
            let found =
                self.cluster.find(object.kind, object.namespace.as_deref(), &object.name, change.mark()).await?;
            let Found::Ours(found) = found else { continue };
            let before = back.iter().find(|one| one.kind == object.kind && one.name == object.name);
            let brought = before.map(|before| compare::places(&object.body, &before.body)).unwrap_or_default();
            let missing = compare::places(&object.body, &serde_json::to_value(&found).unwrap_or_default());
            if brought.is_empty() || brought.iter().any(|place| !missing.contains(place)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A node that has started may hold the only copy of a shard, and a vote: a rollback does not take it away. Its pod may have been
    /// replaced since, and says nothing then: so may have started what this change is not known to have brought.
    async fn refuse_taking_nodes(
        &self,
        cx: &StepContext,
        change: &Change,
        beginning: &Beginning,
    ) -> Result<(), StepError> {
        let (stay, asked) = (change.nodes_after_rollback(beginning), change.after.request.replicas);
        let live = change.live_replicas(&self.cluster).await?;
        let mut started = self.cluster.nodes_started(change.namespace(), stay).await?;
        let mut others = Vec::new();
        let were_ready = cx.output(&update_rolled_out::NAME.into()).is_some();
        for ordinal in stay..live {
            let node = names::node(ordinal);
            if started.contains(&node) {
                continue;
            }
            if ordinal >= asked || beginning.may_have_had(ordinal) {
                others.push(node);
            } else if were_ready {
                started.push(node);
            }
        }
        let mut why = Vec::new();
        if !started.is_empty() {
            why.push(format!("{} have started", started.join(" and ")));
        }
        if !others.is_empty() {
            why.push(format!("{} have disks that this change is not known to have made", others.join(" and ")));
        }
        if why.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "{}, and may hold data and votes: move both off them, scale the set back with {}, and retry; or end this change by \
             force, which leaves them, and ask for `replicas` {} again",
            why.join("; "),
            change.scaling_by_hand(stay),
            asked.max(live)
        )))
    }
}

fn skipped() -> Output {
    Output::skipped("nothing but disks changes")
}

fn output(applied: Objects) -> Result<Output, StepError> {
    let changed = applied.objects;
    Ok(Output::new(format!("applied {}", changed.join(" and ")), &Applied { changed })?)
}
