//! Step 2, `claims_added`: the claims of the nodes that are to come, of the size that is asked for now: the claim template keeps
//! the size that it was made with (C4).
//!
//! A claim that is there already is used as it is, and never taken back: it bears our mark from the template, whoever has scaled
//! the set, and may have data on it.

use async_trait::async_trait;
use cairn_engine::{Json, Output, Probe, Step, StepContext, StepError, StepName};
use kube::api::DynamicObject;

use super::{Beginning, Change};
use crate::cluster::{Cluster, Found, Made, is_applied_by_us, made};
use crate::create::disk_configured;
use crate::create::plan::{Objects, made_by_this_step, not_as_rendered};
use crate::names;
use crate::render::Object;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "claims_added";

pub(super) struct ClaimsAdded {
    pub(super) cluster: Cluster,
}

/// The claims of the nodes that are to come.
#[derive(Default)]
struct Claims {
    /// Those that this step has made.
    made: Objects,
    /// Those that were there already, by name.
    there: Vec<String>,
}

#[async_trait]
impl Step for ClaimsAdded {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let (change, beginning) = (Change::of(cx)?, Change::beginning(cx));
        let claims = change.new_claims();
        if claims.is_empty() {
            return Ok(skipped());
        }
        let mut all = Claims::default();
        for claim in &claims {
            // One that is there already is as it is; what it lacks in size it gets once its node has started.
            match self.find(&change, claim).await? {
                Found::Ours(found) if found.metadata.deletion_timestamp.is_none() => {
                    all.push(&beginning, claim, &found)?;
                }
                _ => {
                    let applied = change.after.apply(cx, &self.cluster, std::slice::from_ref(claim)).await?;
                    applied.made.into_iter().for_each(|one| all.made.push(one));
                }
            }
        }
        all.output(&change)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let (change, beginning) = (Change::of(cx)?, Change::beginning(cx));
        let claims = change.new_claims();
        if claims.is_empty() {
            return Ok(Probe::Applied { output: skipped() });
        }
        let (mut all, mut is_whole, mut foreign) = (Claims::default(), true, None);
        for claim in &claims {
            match self.find(&change, claim).await? {
                Found::Nothing => is_whole = false,
                Found::Foreign(whose) => {
                    is_whole = false;
                    foreign.get_or_insert(format!("{claim} {whose}"));
                }
                Found::Ours(found) => {
                    let is_made = all.push(&beginning, claim, &found)?;
                    let is_as_rendered = !is_made || not_as_rendered(claim, &found).is_empty();
                    is_whole &= is_as_rendered && found.metadata.deletion_timestamp.is_none();
                }
            }
        }
        Ok(match foreign {
            _ if is_whole => Probe::Applied { output: all.output(&change)? },
            _ if !all.made.made.is_empty() => Probe::Partly { made: Json::of(&all.made)? },
            Some(detail) => Probe::Foreign { detail },
            None => Probe::NotApplied,
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let (change, beginning) = (Change::of(cx)?, Change::beginning(cx));
        let mut made = made_by_this_step(cx);
        made.retain(|one| change.takes_back(&beginning, one));
        if !made.is_empty() {
            self.refuse_unless_unused(&change, &beginning, &made).await?;
        }
        change.after.take_back(cx, &self.cluster, &made).await
    }
}

impl ClaimsAdded {
    async fn find(&self, change: &Change, claim: &Object) -> Result<Found, StepError> {
        self.cluster.find(claim.kind, claim.namespace.as_deref(), &claim.name, change.mark()).await
    }

    /// The nodes of this change are gone by now, or have never started: else the compensation before this one would not have ended.
    /// Somebody else may have scaled the set meanwhile: such nodes use these claims.
    async fn refuse_unless_unused(
        &self,
        change: &Change,
        beginning: &Beginning,
        made: &[Made],
    ) -> Result<(), StepError> {
        let live = change.live_replicas(&self.cluster).await?;
        let is_used = |one: &&Made| names::claim_ordinal(&one.name).is_none_or(|ordinal| ordinal < live);
        let used: Vec<&str> = made.iter().filter(is_used).map(|one| one.name.as_str()).collect();
        if !used.is_empty() {
            return Err(StepError::permanent(format!(
                "the set has {live} nodes, and {} are their disks: move data and votes off them, scale the set back with {}, and \
                 retry; or end this change by force, which leaves them, and ask for `replicas` {live}",
                used.join(" and "),
                change.scaling_by_hand(change.nodes_after_rollback(beginning))
            )));
        }
        if beginning.later_claims.is_some() {
            return Ok(());
        }
        let mut left = Vec::new();
        for one in made {
            let claims = change.new_claims();
            let Some(claim) = claims.iter().find(|claim| claim.name == one.name) else { continue };
            let Found::Ours(found) = self.find(change, claim).await? else { continue };
            if found.metadata.uid.as_deref() == Some(&one.uid) {
                left.push(one.name.as_str());
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "{} may have been there before this change, whose journal is of an older build and does not say: delete those that \
             hold nothing, and retry; or end this change by force, which leaves them",
            left.join(" and ")
        )))
    }
}

impl Claims {
    /// Sorts in a claim that was found; whether it is one that this step has made.
    fn push(&mut self, beginning: &Beginning, claim: &Object, found: &DynamicObject) -> Result<bool, StepError> {
        let one = made(claim, found)?;
        let is_made = !beginning.had(&one) && is_applied_by_us(found);
        if is_made {
            self.made.push(one);
        } else {
            self.there.push(one.name);
        }
        Ok(is_made)
    }

    fn output(self, change: &Change) -> Result<Output, StepError> {
        let mut output = disk_configured::output(&change.after, self.made, "more claims")?;
        if !self.there.is_empty() {
            output.message.push_str(&format!("; there already: {}", self.there.join(", ")));
        }
        Ok(output)
    }
}

fn skipped() -> Output {
    Output::skipped("no node is added")
}
