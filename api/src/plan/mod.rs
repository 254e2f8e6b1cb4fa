//! What a request would do, without doing it: the objects as they would be sent, the cluster's own word on each, the quota
//! before and after, and warnings. The answer to `?dry_run=true`, and what `cairn plan` prints.
//!
//! Nothing is changed: not the journal, not the cluster.

mod command;
mod print;

use cairn_engine::{Amounts, Quota, StepError, WorkflowId, WorkflowState};
use cairn_steps::{
    cluster::{
        Cluster,
        doctor::{Finding, Verdict},
        rehearse::{Action, Rehearsed, Word},
    },
    create, delete,
    elastic::Elastic,
    input::Input,
    overlay::Overlay,
    records,
    render::{Kind, Object},
    request::Request,
    update,
    vectors::VectorSizing,
};
use serde::Serialize;
use serde_json::Value;

pub(crate) use self::command::run;

/// A plan.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    dry_run: bool,
    /// `create`, `update`, `delete`
    kind: &'static str,
    /// Whether nothing was found that would keep it from working out.
    possible: bool,
    request: Value,
    /// What would be ended for it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<Ends>,
    quota: QuotaView,
    /// The names of the steps.
    steps: Vec<&'static str>,
    /// Every object as it would be sent.
    objects: Vec<Value>,
    /// What the cluster says to each of them, in the same order.
    verdicts: Vec<Rehearsed>,
    /// What an earlier deletion has kept, and this creation would go on with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    takes_over: Vec<String>,
    /// What the workflow would stop at, once it was accepted.
    refusals: Vec<String>,
    warnings: Vec<String>,
    /// What could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    without: Option<String>,
}

/// A parked workflow that a deletion would end as it stands.
#[derive(Debug, Serialize)]
pub(crate) struct Ends {
    kind: &'static str,
    workflow_id: WorkflowId,
    links: Links,
}

#[derive(Debug, Serialize)]
struct Links {
    workflow: String,
}

impl Ends {
    /// This workflow.
    pub(crate) fn of(state: &WorkflowState) -> Self {
        let links = Links { workflow: format!("/workflows/{}", state.id()) };
        Self { kind: records::kind(state.submitted().effect), workflow_id: state.id(), links }
    }
}

/// What the tenant's quota would be charged.
#[derive(Debug)]
pub(crate) enum Charge {
    /// As an engine knows it, which would admit it.
    Met(Quota),
    /// Without a journal nobody knows what is in use: as if nothing were.
    Alone(Quota),
}

/// What a tenant would hold. `used` and `after` are unknown without a journal.
#[derive(Debug, Serialize)]
struct QuotaView {
    asked: Amounts,
    used: Option<Amounts>,
    after: Option<Amounts>,
    limits: Amounts,
}

impl Charge {
    fn view(&self) -> QuotaView {
        let (Self::Met(quota) | Self::Alone(quota)) = self;
        let known = matches!(self, Self::Met(_));
        QuotaView {
            asked: quota.wanted.clone(),
            used: known.then(|| quota.used.clone()),
            after: known.then(|| quota.after()),
            limits: quota.limits.clone(),
        }
    }

    /// What an engine would refuse whatever is in use. What is in use, it judges itself before it plans.
    fn refusal(&self) -> Option<String> {
        let (Self::Met(quota) | Self::Alone(quota)) = self;
        let excess = quota.exceeded()?;
        Some(format!(
            "quota: the tenant may hold {} {}, and {} are asked for",
            excess.limit, excess.resource, excess.asked
        ))
    }

    /// Limits that were lowered below what is in use already: what grows is refused, what does not is not.
    fn warnings(&self) -> impl Iterator<Item = String> + use<'_> {
        let (Self::Met(quota) | Self::Alone(quota)) = self;
        quota.limits.iter().filter_map(|(resource, limit)| {
            let used = quota.used.get(resource).copied().unwrap_or(0);
            let over = format!(
                "quota: the tenant holds {used} {resource} and may hold {limit}: nothing that needs more of it is taken until it \
                 holds less"
            );
            (used > *limit).then_some(over)
        })
    }
}

/// What a rehearsal came to, whichever kind it was of.
struct Rehearsal {
    objects: Vec<Object>,
    verdicts: Vec<Rehearsed>,
    takes_over: Vec<String>,
    refusals: Vec<String>,
    warnings: Vec<String>,
}

/// The plan of a creation: of its input as it would be journaled.
pub(crate) async fn of_creation(
    cluster: &Cluster,
    input: Input,
    elastic: Elastic,
    overlay: Option<Overlay>,
    charge: Charge,
) -> Plan {
    let (cluster, request) = (&cluster.rehearsing(), input.request.clone());
    let (rehearsal, findings) =
        tokio::join!(create::rehearse(cluster, input, elastic, overlay), cluster.examine_but_gpus());
    let create::Rehearsal { objects, verdicts, takes_over, refusals, warnings } = rehearsal;
    let rehearsal = Rehearsal { objects, verdicts, takes_over, refusals, warnings };
    let sizing = VectorSizing::of(&request).warnings(&request);
    Plan {
        steps: create::STEPS.to_vec(),
        // The pull is an effect of its own, so a rehearsal does without it.
        without: request
            .gitlab_url
            .as_ref()
            .map(|url| format!("the settings at {url}, which are pulled only by a creation")),
        ..Plan::new(create::NAME, &request, &charge, rehearsal, sizing, &findings)
    }
}

/// The plan of a change: of its input as it would be journaled.
///
/// # Errors
/// If the input does not say what it changes.
pub(crate) async fn of_change(cluster: &Cluster, input: Input, charge: Charge) -> Result<Plan, StepError> {
    let (cluster, request) = (&cluster.rehearsing(), input.request.clone());
    let (rehearsal, findings) = tokio::join!(update::rehearse(cluster, input), cluster.examine_but_gpus());
    let update::Rehearsal { objects, verdicts, refusals, warnings } = rehearsal?;
    let rehearsal = Rehearsal { objects, verdicts, takes_over: Vec::new(), refusals, warnings };
    Ok(Plan {
        steps: update::STEPS.to_vec(),
        ..Plan::new(update::NAME, &request, &charge, rehearsal, Vec::new(), &findings)
    })
}

/// The plan of a deletion: of its input as it would be journaled, and of the workflow that would be ended for it.
///
/// # Errors
/// If the input does not say what it deletes.
pub(crate) async fn of_deletion(
    cluster: &Cluster,
    input: &Input,
    ends: Option<Ends>,
    charge: Charge,
) -> Result<Plan, StepError> {
    let cluster = &cluster.rehearsing();
    let (rehearsal, findings) = tokio::join!(delete::rehearse(cluster, input), cluster.examine_but_gpus());
    let delete::Rehearsal { verdicts, refusals, warnings } = rehearsal?;
    let rehearsal = Rehearsal { objects: Vec::new(), verdicts, takes_over: Vec::new(), refusals, warnings };
    Ok(Plan {
        ends,
        steps: delete::STEPS.to_vec(),
        ..Plan::new(delete::NAME, &input.request, &charge, rehearsal, Vec::new(), &findings)
    })
}

impl Plan {
    /// A plan without its steps, and what only some plans have.
    fn new(
        kind: &'static str,
        request: &Request,
        charge: &Charge,
        rehearsal: Rehearsal,
        mut warnings: Vec<String>,
        findings: &[Finding],
    ) -> Self {
        let Rehearsal { objects, verdicts, takes_over, mut refusals, warnings: found } = rehearsal;
        refusals.extend(charge.refusal());
        warnings.extend(found);
        warnings.extend(charge.warnings());
        let makes_disks = kind == create::NAME || makes_claims(&objects, &verdicts);
        let findings = findings.iter().filter(|finding| concerns(finding, makes_disks));
        let missing = findings.clone().any(|finding| finding.verdict == Verdict::Missing);
        warnings.extend(findings.filter(|finding| finding.verdict != Verdict::Good).map(warning));
        let refused = verdicts.iter().any(|one| one.verdict == Word::Refused);
        Self {
            dry_run: true,
            kind,
            possible: !refused && !missing && refusals.is_empty(),
            request: serde_json::to_value(request).unwrap_or_default(),
            ends: None,
            quota: charge.view(),
            steps: Vec::new(),
            objects: objects.into_iter().map(|object| object.body).collect(),
            verdicts,
            takes_over,
            refusals,
            warnings,
            without: None,
        }
    }
}

/// Whether disks would be made that are not there: for nodes that a change adds, say.
fn makes_claims(objects: &[Object], verdicts: &[Rehearsed]) -> bool {
    let mut all = objects.iter().zip(verdicts);
    all.any(|(object, one)| object.kind == Kind::PersistentVolumeClaim && one.action == Action::Create)
}

/// Whether what the cluster lacks is lacked by this workflow. Of disks that grow, the rehearsal knows more.
fn concerns(finding: &Finding, makes_disks: bool) -> bool {
    finding.check != "storage" || makes_disks
}

fn warning(finding: &Finding) -> String {
    let Finding { check, subject, detail, remedy, .. } = finding;
    let remedy = remedy.as_ref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
    format!("{check}: {subject}: {detail}{remedy}")
}
