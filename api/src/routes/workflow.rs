//! A workflow as clients see it: where it is, what it waits for, how far each step is, and where to go from here.

use std::collections::BTreeMap;

use cairn_engine::{
    Attempt, Effect, ErrorClass, Failure, OnFailure, Outcome, ParkReason, Phase, Progress, StepName, Timestamp,
    WorkflowId, WorkflowState,
};
use cairn_steps::{
    records::{Status, kind, retry_at},
    report::held_up,
    request::Heading,
};
use serde::Serialize;

/// A workflow as clients see it.
#[derive(Debug, Serialize)]
pub(crate) struct WorkflowView {
    id: WorkflowId,
    kind: &'static str,
    status: Status,
    user: String,
    service_name: String,
    namespace: Option<String>,
    definition: DefinitionView,
    submitted_at: Timestamp,
    updated_at: Timestamp,
    sequence: u64,
    step: Option<StepName>,
    attempt: Option<Attempt>,
    retry_at: Option<Timestamp>,
    waits: Option<Waits>,
    error: Option<ErrorView>,
    paused: bool,
    cancel_requested: bool,
    on_failure: OnFailure,
    left: Option<Vec<String>>,
    steps: Vec<StepView>,
    links: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct DefinitionView {
    name: String,
    version: u32,
}

/// What it waits for, since when, and until when if that is known.
#[derive(Debug, Serialize)]
struct Waits {
    r#for: String,
    since: Timestamp,
    until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct ErrorView {
    step: Option<StepName>,
    class: Option<ErrorClass>,
    message: String,
    evidence: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StepView {
    name: StepName,
    status: &'static str,
    attempt: Attempt,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    duration_ms: Option<u64>,
    message: Option<String>,
    skipped: bool,
    error: Option<String>,
    taken_back: Option<String>,
}

impl WorkflowView {
    /// The workflow as it is at the time `now`.
    pub(crate) fn of(state: &WorkflowState, now: Timestamp) -> Self {
        let submitted = state.submitted();
        let status = Status::of(state, now);
        let step = state.current_step();
        Self {
            id: state.id(),
            kind: kind(submitted.effect),
            status,
            user: submitted.tenant.to_string(),
            service_name: submitted.service.to_string(),
            namespace: Heading::journaled(submitted.input.as_bytes()).map(|heading| heading.namespace),
            definition: DefinitionView { name: submitted.definition.to_string(), version: submitted.version },
            submitted_at: state.submitted_at(),
            updated_at: state.updated_at(),
            sequence: state.sequence().0,
            step: step.map(|step| state.steps()[step].clone()),
            attempt: attempt(state),
            retry_at: retry_at(state),
            waits: waits(state, status, now),
            error: error(state),
            paused: state.is_paused(),
            cancel_requested: state.is_cancelled(),
            on_failure: submitted.on_failure,
            left: left(state),
            steps: state
                .steps()
                .iter()
                .zip(state.progress())
                .enumerate()
                .map(|(place, (name, progress))| StepView::of(state, place, name, progress))
                .collect(),
            links: links(state),
        }
    }
}

impl StepView {
    fn of(state: &WorkflowState, place: usize, name: &StepName, progress: &Progress) -> Self {
        let ended = progress.ended.filter(|_| progress.started.is_some());
        Self {
            name: name.clone(),
            status: step_status(state, place, progress),
            attempt: progress.attempt,
            started_at: progress.started,
            ended_at: ended,
            duration_ms: progress
                .started
                .zip(ended)
                .map(|(started, ended)| u64::try_from(ended.since(started).as_millis()).unwrap_or(u64::MAX)),
            message: progress.output.as_ref().map(|output| output.message.clone()),
            skipped: progress.output.as_ref().is_some_and(|output| output.skipped),
            error: progress.error.as_ref().map(|failure| failure.message.clone()),
            taken_back: progress.compensation.done.clone(),
        }
    }
}

/// Where one step is, in one word.
fn step_status(state: &WorkflowState, place: usize, progress: &Progress) -> &'static str {
    let here = state.current_step() == Some(place);
    match state.phase() {
        _ if progress.compensation.done.is_some() => "taken_back",
        Phase::Compensating { .. } if here => "compensating",
        _ if progress.output.is_some() => "succeeded",
        Phase::Running { .. } | Phase::Unsure { .. } if here => "running",
        Phase::Ready { not_before: Some(_), .. } if here && progress.attempt > Attempt(0) => "waiting",
        _ if progress.attempt == Attempt(0) => "pending",
        _ if here => "running",
        _ => "failed",
    }
}

/// The attempt in hand, or next.
fn attempt(state: &WorkflowState) -> Option<Attempt> {
    match state.phase() {
        Phase::Ready { attempt, .. }
        | Phase::Running { attempt, .. }
        | Phase::Unsure { attempt, .. }
        | Phase::CheckingResidue { attempt, .. } => Some(*attempt),
        Phase::Compensating { step, .. } => Some(state.progress()[*step].compensation.attempt),
        Phase::Complete | Phase::Parking { .. } | Phase::Parked { .. } | Phase::Forced | Phase::Finished { .. } => None,
    }
}

fn waits(state: &WorkflowState, status: Status, now: Timestamp) -> Option<Waits> {
    let since = state.updated_at();
    match (status, state.phase()) {
        (Status::Paused, _) => Some(Waits { r#for: "a person to resume it".to_owned(), since, until: None }),
        (Status::Parked, Phase::Parked { reason, .. } | Phase::Parking { reason, .. }) => {
            Some(Waits { r#for: parked(reason, state), since, until: None })
        }
        (_, phase) => {
            let until = retry_at(state).filter(|at| *at > now)?;
            let what = match phase {
                Phase::Compensating { .. } => format!("the next attempt to take it back{}", held(state)),
                Phase::CheckingResidue { .. } => "the next look for what is left".to_owned(),
                Phase::Unsure { .. } => "the next look at what is there".to_owned(),
                _ => "the next attempt".to_owned(),
            };
            Some(Waits { r#for: what, since, until: Some(until) })
        }
    }
}

/// What holds up the step that is to be taken back now.
fn held(state: &WorkflowState) -> String {
    let held = held_up(state).find(|(_, progress, _)| progress.compensation.done.is_none());
    held.map(|(step, _, why)| format!(": {step}: {}", why.message)).unwrap_or_default()
}

/// Why a workflow is parked, and what a person can do about it.
fn parked(reason: &ParkReason, state: &WorkflowState) -> String {
    match reason {
        ParkReason::Kept if state.submitted().effect == Effect::Delete => {
            "a person: the deletion cannot go on; retry it once nothing stands in its way".to_owned()
        }
        ParkReason::Kept => {
            "a person: a step failed and `on_failure` is `keep`; retry it, or cancel it to take everything back"
                .to_owned()
        }
        ParkReason::ProbeFailing => "a person: the cluster cannot be read; retry once it can".to_owned(),
        ParkReason::CompensationFailing => {
            format!("a person: something cannot be taken back; retry once nothing holds it{}", held(state))
        }
        ParkReason::Residue { left } if left.is_empty() => {
            "a person: it cannot be seen whether anything is left; retry once the cluster can be read".to_owned()
        }
        ParkReason::Residue { left } => {
            format!("a person: still there are {}; remove them, then retry", left.join(", "))
        }
        ParkReason::UnknownDefinition { detail } => {
            format!("a person: this build does not know the definition: {detail}")
        }
        ParkReason::Unrecoverable { detail } => format!("a person: its journal cannot be replayed: {detail}"),
    }
}

fn error(state: &WorkflowState) -> Option<ErrorView> {
    let of = |step: Option<&StepName>, failure: &Failure| ErrorView {
        step: step.cloned(),
        class: Some(failure.class),
        message: failure.message.clone(),
        evidence: failure.evidence.clone(),
    };
    if let Some((step, failure)) = state.failure() {
        return Some(of(Some(step), failure));
    }
    if state.outcome() == Some(Outcome::Succeeded) {
        return None;
    }
    let step = state.current_step()?;
    let failure = state.progress()[step].error.as_ref()?;
    Some(of(state.steps().get(step), failure))
}

/// What a rollback left behind: known once it has ended, empty for "nothing left".
fn left(state: &WorkflowState) -> Option<Vec<String>> {
    match state.phase() {
        Phase::Finished { outcome: Outcome::Failed | Outcome::Cancelled, residue } => Some(residue.clone()),
        Phase::Parked { reason: ParkReason::Residue { left }, .. } => Some(left.clone()),
        _ => None,
    }
}

fn links(state: &WorkflowState) -> BTreeMap<&'static str, String> {
    let own = format!("/workflows/{}", state.id());
    let service = format!("{}/{}", state.submitted().tenant, state.submitted().service);
    let mut links = BTreeMap::from([
        ("journal", format!("{own}/journal")),
        ("events", format!("{own}/events")),
        ("reports", format!("/deployment/reports/{service}")),
        ("tenant_container", format!("/tenant/containers/{service}")),
    ]);
    if state.outcome().is_none() {
        for action in ["cancel", "retry", "pause", "resume"] {
            links.insert(action, format!("{own}/{action}"));
        }
    }
    links.insert("self", own);
    links
}
