//! Step 4, `update_rolled_out`: waits until what was applied is rolled out (C1), with an eye on what cannot work out (C8).

use std::time::Duration;

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::Change;
use crate::cluster::rollout::{Awaited, RolledOut, RolloutRules};
use crate::cluster::{Cluster, made};
use crate::create::plan::Seen;
use crate::render::{Kind, Object, Through};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "update_rolled_out";

/// What an attempt may take beyond the deadline of the rollout, for its few requests before and after.
const BESIDES: Duration = Duration::from_secs(60);

pub(super) struct UpdateRolledOut {
    pub(super) cluster: Cluster,
    pub(super) rules: RolloutRules,
}

/// The ready status.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    workloads: Vec<RolledOut>,
}

#[async_trait]
impl Step for UpdateRolledOut {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        let attempt_timeout = self.rules.deadline + BESIDES;
        RetryPolicy { attempt_timeout, total_max: attempt_timeout * 2, ..RetryPolicy::default() }
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let workloads = workloads(&change);
        if workloads.is_empty() {
            return Ok(skipped());
        }
        let journaled = change.after.journaled(cx);
        let mut awaited = Vec::new();
        for object in &workloads {
            let answer = self.cluster.apply(object, change.mark(), &journaled).await?;
            awaited.push(Awaited { made: made(object, &answer)?, generation: answer.metadata.generation.unwrap_or(0) });
        }
        output(cx.wait(self.cluster.rolled_out(change.namespace(), &awaited, &self.rules)).await??)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let change = Change::of(cx)?;
        let workloads = workloads(&change);
        if workloads.is_empty() {
            return Ok(Probe::Applied { output: skipped() });
        }
        let there = match change.after.look(&self.cluster, &workloads).await? {
            Seen::All(there) => there,
            Seen::Some(_) | Seen::None => return Ok(Probe::NotApplied),
            Seen::Foreign(detail) => return Ok(Probe::Foreign { detail }),
        };
        Ok(match self.cluster.is_rolled_out(change.namespace(), &there.made).await? {
            Some(workloads) => Probe::Applied { output: output(workloads)? },
            None => Probe::NotApplied,
        })
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("goes back with what update_applied changed".to_owned())
    }
}

/// The workloads that change.
fn workloads(change: &Change) -> Vec<Object> {
    let (changed, _) = change.changed();
    let changed: Vec<Kind> = changed.iter().map(|object| object.kind).collect();
    let kinds = [Kind::StatefulSet, Kind::Deployment].into_iter().filter(|kind| changed.contains(kind));
    change.after.objects(Through::Formed, &kinds.collect::<Vec<_>>())
}

fn skipped() -> Output {
    Output::skipped("no pod changes")
}

fn output(workloads: Vec<RolledOut>) -> Result<Output, StepError> {
    let ready: Vec<String> =
        workloads.iter().map(|one| format!("{} {}/{}", one.workload, one.ready, one.replicas)).collect();
    Ok(Output::new(format!("ready: {}", ready.join(", ")), &Ready { ready: true, workloads })?)
}
