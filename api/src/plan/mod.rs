//! What a request would do, without doing it: the objects as they would be sent, the cluster's own word on each, the quota
//! before and after, and warnings. The answer to `?dry_run=true`, and what `cairn plan` prints.
//!
//! Nothing is changed: not the journal, not the cluster.

mod command;
mod print;

use std::collections::BTreeMap;

use cairn_engine::{Amounts, ResourceName, StepError};
use cairn_steps::{
    cluster::{
        Cluster,
        doctor::{Finding, Verdict},
        rehearse::{Rehearsed, Word},
    },
    delete,
    input::{Input, Origin},
    render::Object,
    request::Request,
    update,
    vectors::VectorSizing,
};
use serde::Serialize;
use serde_json::Value;

pub(crate) use self::command::run;

/// The workflow of a plan: one that will never be.
pub(crate) const NOBODYS: &str = "00000000-0000-0000-0000-000000000000";

/// A plan.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    dry_run: bool,
    /// `create`, `update`, `delete`
    kind: &'static str,
    /// Whether nothing was found that would refuse it.
    possible: bool,
    request: Value,
    quota: Quota,
    /// The names of the steps.
    steps: Vec<&'static str>,
    /// Every object as it would be sent.
    objects: Vec<Value>,
    /// What the cluster says to each of them, in the same order.
    verdicts: Vec<Rehearsed>,
    warnings: Vec<String>,
    /// What could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    without: Option<String>,
}

/// What a tenant would hold. `used` and `after` are unknown without a journal.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Quota {
    pub(crate) asked: Amounts,
    pub(crate) used: Option<Amounts>,
    pub(crate) after: Option<Amounts>,
    pub(crate) limits: Amounts,
}

impl Quota {
    /// With this much in use, and so much more asked for.
    pub(crate) fn new(asked: Amounts, used: Option<Amounts>, limits: Amounts) -> Self {
        let after = used.as_ref().map(|used| {
            let mut sum: BTreeMap<_, _> = used.clone();
            for (resource, more) in &asked {
                let held = sum.entry(resource.clone()).or_insert(0);
                *held = held.saturating_add(*more);
            }
            sum
        });
        Self { asked, used, after, limits }
    }

    /// The same for what takes the place of something that is held already.
    pub(crate) fn replacing(held: &Amounts, asked: Amounts, used: Amounts, limits: Amounts) -> Self {
        let mut free = used.clone();
        for (resource, amount) in held {
            let left = free.entry(resource.clone()).or_insert(0);
            *left = left.saturating_sub(*amount);
        }
        Self { used: Some(used), ..Self::new(asked, Some(free), limits) }
    }

    /// The first resource of which there would be too much: its name, what is in use by others, what is asked for, the limit.
    pub(crate) fn exceeded(&self) -> Option<(&ResourceName, u64, u64, u64)> {
        let after = self.after.as_ref()?;
        self.asked.iter().find_map(|(resource, asked)| {
            let (sum, limit) = (*after.get(resource)?, *self.limits.get(resource)?);
            (sum > limit).then(|| (resource, sum.saturating_sub(*asked), *asked, limit))
        })
    }
}

/// The plan of a creation.
pub(crate) async fn of_creation(cluster: &Cluster, request: &Request, objects: Vec<Object>, quota: Quota) -> Plan {
    let (verdicts, findings) = tokio::join!(cluster.rehearse(&objects, None), cluster.examine());
    Plan {
        objects: objects.into_iter().map(|object| object.body).collect(),
        // The pull is an effect of its own, so a rehearsal does without it.
        without: request
            .gitlab_url
            .as_ref()
            .map(|url| format!("the settings at {url}, which are pulled only by a creation")),
        ..Plan::new(request, quota, verdicts, &findings)
    }
}

/// The plan of a change: the input as it would be journaled.
///
/// # Errors
/// If the input does not say what it changes.
pub(crate) async fn of_change(cluster: &Cluster, input: Input, quota: Quota) -> Result<Plan, StepError> {
    let request = input.request.clone();
    let mark = input.origin.as_ref().map(|origin| origin.mark.clone()).unwrap_or_default();
    let objects = update::rehearsal(input)?;
    let (verdicts, findings) = tokio::join!(cluster.rehearse(&objects, Some(&mark)), cluster.examine());
    let plan =
        Plan { kind: "update", steps: update::STEPS.to_vec(), ..Plan::new(&request, quota, verdicts, &findings) };
    Ok(Plan { objects: objects.into_iter().map(|object| object.body).collect(), ..plan })
}

/// The plan of a deletion.
pub(crate) async fn of_deletion(
    cluster: &Cluster,
    request: &Request,
    origin: &Origin,
    keep_data: bool,
    quota: Quota,
) -> Plan {
    let (gone, kept) = delete::rehearsal(origin, keep_data);
    let (mut verdicts, findings) = tokio::join!(cluster.rehearse_deletion(&gone, &origin.mark), cluster.examine());
    verdicts.extend(kept.iter().map(Rehearsed::kept));
    Plan { kind: "delete", steps: delete::STEPS.to_vec(), ..Plan::new(request, quota, verdicts, &findings) }
}

impl Plan {
    /// A plan of a creation, without its objects.
    fn new(request: &Request, quota: Quota, verdicts: Vec<Rehearsed>, findings: &[Finding]) -> Self {
        let mut warnings = VectorSizing::of(request).warnings(request);
        warnings.extend(findings.iter().filter(|finding| concerns(finding, request)).map(warning));
        let refused = verdicts.iter().any(|one| one.verdict == Word::Refused);
        let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
        Self {
            dry_run: true,
            kind: "create",
            possible: !refused && !missing,
            request: serde_json::to_value(request).unwrap_or_default(),
            quota,
            steps: cairn_steps::report::STATUSES.to_vec(),
            objects: Vec::new(),
            verdicts,
            warnings,
            without: None,
        }
    }
}

/// Whether what the cluster lacks is lacked by this request.
fn concerns(finding: &Finding, request: &Request) -> bool {
    finding.verdict != Verdict::Good && (finding.check != "gpu" || request.gpu_count > 0)
}

fn warning(finding: &Finding) -> String {
    let Finding { check, subject, detail, remedy, .. } = finding;
    let remedy = remedy.as_ref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
    format!("{check}: {subject}: {detail}{remedy}")
}
