//! Step 5, `disk_grown`: makes the disks larger that are smaller than is asked for, and waits until they are (C5).
//!
//! Also where `disk_size` does not change: the claim of a node that somebody has added by hand was made from the template, which
//! keeps the size that the first disks had (C4).
//!
//! A size that was asked for can not be taken back: a rollback that comes this far is parked, with what is larger now.

use std::time::Duration;

use async_trait::async_trait;
use cairn_engine::{Output, Probe, RetryPolicy, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::Change;
use crate::cluster::claims::{capacity, wish};
use crate::cluster::{Cluster, Found, Made, made};
use crate::create::plan::{Objects, Seen};
use crate::quantity::Quantity;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "disk_grown";

/// How long one attempt waits for the disks.
const GROWN_WITHIN: Duration = Duration::from_secs(10 * 60);
/// What an attempt may take beyond that, for its requests.
const BESIDES: Duration = Duration::from_secs(2 * 60);

pub(super) struct DiskGrown {
    pub(super) cluster: Cluster,
}

/// The size, and the claims that have it.
#[derive(Serialize)]
struct Grown {
    disk_size: Quantity,
    claims: Vec<String>,
}

#[async_trait]
impl Step for DiskGrown {
    fn name(&self) -> StepName {
        NAME.into()
    }

    fn policy(&self) -> RetryPolicy {
        let attempt_timeout = GROWN_WITHIN + BESIDES;
        RetryPolicy { attempt_timeout, total_max: attempt_timeout * 5, ..RetryPolicy::default() }
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let change = Change::of(cx)?;
        let sized = change.sized_claims();
        if sized.is_empty() {
            return Ok(skipped());
        }
        let wanted = &change.after.request.disk_size;
        let mut known = change.after.journaled(cx);
        let mut claims: Vec<Made> = Vec::new();
        for claim in sized {
            let found = self.cluster.find(claim.kind, claim.namespace.as_deref(), &claim.name, change.mark()).await?;
            let Found::Ours(found) = found else {
                return Err(StepError::permanent(format!("{claim} was deleted by somebody else")));
            };
            let one = made(&claim, &found)?;
            // A claim that was deleted comes back from the template, with our mark and a UID of its own.
            known.retain(|other| other.name != one.name || other.kind != one.kind);
            known.push(one.clone());
            if wish(&found).is_some_and(|wish| wish < *wanted) {
                self.cluster.apply(&claim, change.mark(), &known).await?;
            }
            claims.push(one);
        }
        // The nodes are rolled out, so each of them has its volume.
        cx.wait(self.cluster.wait_grown(&claims, wanted, GROWN_WITHIN)).await??;
        let mut all = Objects::default();
        claims.into_iter().for_each(|claim| all.push(claim));
        output(&change, &all)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let change = Change::of(cx)?;
        let claims = change.sized_claims();
        if claims.is_empty() {
            return Ok(Probe::Applied { output: skipped() });
        }
        let there = match change.after.look(&self.cluster, &claims).await? {
            Seen::All(there) => there,
            Seen::Some(_) | Seen::None => return Ok(Probe::NotApplied),
            Seen::Foreign(detail) => return Ok(Probe::Foreign { detail }),
        };
        Ok(match self.cluster.wait_grown(&there.made, &change.after.request.disk_size, Duration::ZERO).await {
            Ok(()) => Probe::Applied { output: output(&change, &there)? },
            Err(_) => Probe::NotApplied,
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let change = Change::of(cx)?;
        let mut larger = Vec::new();
        for disk in Change::beginning(cx).disks {
            let claims = change.claims(|_| true);
            let Some(claim) = claims.iter().find(|claim| claim.name == disk.claim) else { continue };
            let found = self.cluster.find(claim.kind, claim.namespace.as_deref(), &claim.name, change.mark()).await?;
            let Found::Ours(found) = found else { continue };
            let sizes = [wish(&found), capacity(&found)];
            if let Some(size) = sizes.into_iter().flatten().max().filter(|size| *size > disk.size) {
                larger.push(format!("{claim} from {} to {size}", disk.size));
            }
        }
        if larger.is_empty() {
            return Ok("no disk has grown".to_owned());
        }
        Err(StepError::permanent(format!(
            "{} have grown, and a disk cannot be made smaller: end this change by force, which leaves them so, and ask for \
             `disk_size` {} again",
            larger.join(", "),
            change.after.request.disk_size
        )))
    }
}

fn skipped() -> Output {
    Output::skipped("disk_size does not change, and no node is added")
}

fn output(change: &Change, there: &Objects) -> Result<Output, StepError> {
    let disk_size = change.after.request.disk_size.clone();
    let claims: Vec<String> = there.made.iter().map(|claim| claim.name.clone()).collect();
    let message = format!("{} claims have {disk_size}", claims.len());
    Ok(Output::new(message, &Grown { disk_size, claims })?)
}
