//! Reports: what a user sees of each step, projected from the journal.
//!
//! - A step that succeeds makes one report, also when it had nothing to do; so a creation that succeeds makes ten, and a change
//!   or a deletion six of their own.
//! - One that is rolled back makes a last one, `failed` or `cancelled`, that says why and what was taken back.
//! - The order of the fields is the contract's; `details` are always the nine fields of the request.
//!
//! Pure: the same entries give the same reports, at any time and in any process.

use cairn_engine::{
    Attempt, Compensation, Entry, Fact, Failure, IllegalFact, Outcome, Progress, Sequence, StepName, Timestamp,
    WorkflowId, WorkflowState, fold,
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use crate::request::{Details, Heading};

/// The ten statuses of a creation, in order.
pub const STATUSES: [&str; 10] = [
    "starting",
    "namespace_created",
    "gitlab_pulled",
    "k8s_applied",
    "resources_configured",
    "disk_configured",
    "gpu_configured",
    "rollout_completed",
    "tenant_synced",
    "completed",
];

/// The statuses of a change, in order.
pub const UPDATE_STATUSES: [&str; 6] =
    ["update_started", "claims_added", "update_applied", "update_rolled_out", "disk_grown", "updated"];

/// The statuses of a deletion, in order.
pub const DELETE_STATUSES: [&str; 6] =
    ["delete_started", "scaled_down", "objects_deleted", "claims_deleted", "namespace_deleted", "deleted"];

/// The status of the last report of a workflow that failed and was rolled back.
pub const FAILED: &str = "failed";
/// The status of the last report of a workflow that a person cancelled.
pub const CANCELLED: &str = "cancelled";

/// What a user sees of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The tenant.
    pub user: String,
    /// The service.
    pub service_name: String,
    /// Where the cluster is.
    pub namespace: String,
    /// The step's name, or how the workflow ended without success.
    pub status: String,
    /// One line for people.
    pub message: String,
    /// When its entry was appended.
    pub timestamp: Timestamp,
    /// The nine fields of the request, as they are in force.
    pub details: Details,
    /// The workflow that made it.
    pub workflow_id: WorkflowId,
    /// The entry that it was made from.
    pub sequence: Sequence,
    /// Which attempt of the step.
    pub attempt: Attempt,
    /// From the start of that attempt to its end, in milliseconds.
    pub duration_ms: u64,
    /// There was nothing to do.
    pub skipped: bool,
    /// What the step found out.
    pub result: Value,
}

impl Report {
    /// The report that `entry` makes, if it makes one; `state` is the state after it.
    #[must_use]
    pub fn of(entry: &Entry, state: &WorkflowState) -> Option<Self> {
        Self::under(entry, state, || heading(state))
    }

    fn under(entry: &Entry, state: &WorkflowState, heading: impl FnOnce() -> Option<Heading>) -> Option<Self> {
        match &entry.fact {
            Fact::AttemptSucceeded { step, attempt, output } => {
                let started = state.place(step).and_then(|place| state.progress()[place].started);
                Some(Self {
                    status: step.to_string(),
                    message: output.message.clone(),
                    attempt: *attempt,
                    duration_ms: millis(started, entry.time),
                    skipped: output.skipped,
                    result: output.result.value(),
                    ..Self::blank(heading()?, state, entry.sequence, entry.time)
                })
            }
            Fact::Finished { outcome: Outcome::Succeeded, .. } => None,
            Fact::Finished { outcome: Outcome::Failed | Outcome::Cancelled, .. } => Self::of_failure(state),
            Fact::Submitted(_)
            | Fact::AttemptStarted { .. }
            | Fact::AttemptFailed { .. }
            | Fact::Probed { .. }
            | Fact::ProbeFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationSucceeded { .. }
            | Fact::CompensationFailed { .. }
            | Fact::ResidueCheckFailed { .. }
            | Fact::CancelRequested { .. }
            | Fact::Paused { .. }
            | Fact::Resumed { .. }
            | Fact::RetryRequested { .. }
            | Fact::Parked { .. } => None,
        }
    }

    /// What there is to say of a workflow that did not succeed: its last report, and, for one that is parked, the
    /// answer to a client that waits for it. `None` if its request is none of a cluster.
    #[must_use]
    pub fn of_failure(state: &WorkflowState) -> Option<Self> {
        let failure = state.failure();
        // A cancelled workflow has no failed step; the newest that was started is where it stood.
        let newest = state.progress().iter().rposition(|progress| progress.attempt > Attempt(0));
        let place = failure.and_then(|(step, _)| state.place(step)).or(newest);
        let progress = place.map(|place| &state.progress()[place]);
        let status = match state.outcome() {
            Some(Outcome::Cancelled) => CANCELLED,
            Some(Outcome::Failed | Outcome::Succeeded) | None => FAILED,
        };
        let mut message = match (failure, state.outcome()) {
            (Some((step, failure)), _) => format!("{step}: {}", failure.message),
            (None, Some(Outcome::Cancelled)) => match place {
                Some(place) => format!("cancelled after {}", state.steps()[place]),
                None => "cancelled before its first step".to_owned(),
            },
            (None, _) => "failed".to_owned(),
        };
        if state.outcome().is_none() {
            // As long as it is held up, that is what a person has to know.
            let held = held_up(state).filter(|(_, progress, _)| progress.compensation.done.is_none());
            held.for_each(|(step, _, why)| {
                message.push_str(&format!("; {step} is not taken back yet: {}", why.message))
            });
        }
        Some(Self {
            status: status.to_owned(),
            message,
            attempt: progress.map(|progress| progress.attempt).unwrap_or_default(),
            duration_ms: progress.and_then(|progress| Some(millis(progress.started, progress.ended?))).unwrap_or(0),
            skipped: false,
            result: failure_result(state, place),
            ..Self::blank(heading(state)?, state, state.sequence(), state.updated_at())
        })
    }

    fn blank(heading: Heading, state: &WorkflowState, sequence: Sequence, timestamp: Timestamp) -> Self {
        let submitted = state.submitted();
        let Heading { namespace, details } = heading;
        Self {
            user: submitted.tenant.to_string(),
            service_name: submitted.service.to_string(),
            namespace,
            status: String::new(),
            message: String::new(),
            timestamp,
            details,
            workflow_id: state.id(),
            sequence,
            attempt: Attempt::default(),
            duration_ms: 0,
            skipped: false,
            result: Value::Null,
        }
    }
}

fn heading(state: &WorkflowState) -> Option<Heading> {
    Heading::journaled(state.submitted().input.as_bytes())
}

/// All reports of one workflow, in order.
///
/// # Errors
/// [`IllegalFact`] if its journal cannot be folded.
pub fn reports(entries: &[Entry]) -> Result<Vec<Report>, IllegalFact> {
    let Some((first, rest)) = entries.split_first() else { return Ok(Vec::new()) };
    let mut state = WorkflowState::begin(first)?;
    // All reports of a workflow have the same one.
    let heading = heading(&state);
    let mut reports = Vec::with_capacity(STATUSES.len());
    for entry in rest {
        state.fold(entry)?;
        reports.extend(Report::under(entry, &state, || heading.clone()));
    }
    Ok(reports)
}

/// The last report of a workflow that has not succeeded; `None` if there are no entries.
///
/// # Errors
/// [`IllegalFact`] if its journal cannot be folded.
pub fn failure_report(entries: &[Entry]) -> Result<Option<Report>, IllegalFact> {
    Ok(fold(entries)?.and_then(|state| Report::of_failure(&state)))
}

/// How many reports there are of each status: the ten in their order, then how it ended otherwise, then those of changes and
/// deletions that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    steps: [u64; STATUSES.len()],
    failed: u64,
    cancelled: u64,
    others: std::collections::BTreeMap<String, u64>,
}

impl Counts {
    /// Counts these.
    #[must_use]
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut counts = Self::default();
        for report in reports {
            counts.add(report);
        }
        counts
    }

    /// Counts one more.
    pub fn add(&mut self, report: &Report) {
        let count = match report.status.as_str() {
            FAILED => &mut self.failed,
            CANCELLED => &mut self.cancelled,
            status => match STATUSES.iter().position(|known| *known == status) {
                Some(place) => &mut self.steps[place],
                None => self.others.entry(status.to_owned()).or_default(),
            },
        };
        *count += 1;
    }

    /// Each status with its count, in order; the ten are there even where they count nothing.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let ends = [(FAILED, self.failed), (CANCELLED, self.cancelled)];
        let later = || UPDATE_STATUSES.into_iter().chain(DELETE_STATUSES);
        let in_order = later().filter_map(|status| Some((status, *self.others.get(status)?)));
        let unknown = self.others.iter().filter(move |(status, _)| !later().any(|known| known == status.as_str()));
        STATUSES
            .iter()
            .copied()
            .zip(self.steps)
            .chain(ends)
            .chain(in_order)
            .chain(unknown.map(|(status, count)| (status.as_str(), *count)))
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (status, count) in self.iter() {
            map.serialize_entry(status, &count)?;
        }
        map.end()
    }
}

fn failure_result(state: &WorkflowState, place: Option<usize>) -> Value {
    let failure = state.failure().map(|(_, failure)| failure);
    // Compensations run newest first, and so does this list.
    let rolled_back: Vec<Value> = state
        .steps()
        .iter()
        .zip(state.progress())
        .rev()
        .filter_map(|(step, progress)| {
            let done = progress.compensation.done.as_ref()?;
            Some(json!({ "step": step, "message": done }))
        })
        .collect();
    let left = match state.phase() {
        cairn_engine::Phase::Finished { residue, .. } => Some(residue.clone()),
        cairn_engine::Phase::Parked { reason: cairn_engine::ParkReason::Residue { left }, .. } => Some(left.clone()),
        _ => None,
    };
    let mut result = json!({
        "step": place.map(|place| state.steps()[place].to_string()),
        "class": failure.map(|failure| failure.class),
        "error": failure.map(|failure| &failure.message),
        "evidence": failure.map(|failure| failure.evidence.as_slice()).unwrap_or_default(),
        "rolled_back": rolled_back,
        "left": left,
    });
    let held_up: Vec<Value> = held_up(state)
        .map(|(step, _, why)| json!({ "step": step, "error": why.message, "evidence": why.evidence }))
        .collect();
    if !held_up.is_empty() {
        result["held_up"] = held_up.into();
    }
    result
}

/// The steps that could not be taken back at once, newest first, and why: also those that are by now.
pub fn held_up(state: &WorkflowState) -> impl Iterator<Item = (&StepName, &Progress, &Failure)> {
    let all = state.steps().iter().zip(state.progress()).rev();
    all.filter_map(|(step, progress)| {
        let Compensation { failing_since, forgiven, .. } = progress.compensation;
        let failed = failing_since.is_some() || forgiven > Attempt(0);
        let why = progress.error.as_ref().filter(|_| failed)?;
        Some((step, progress.as_ref(), why))
    })
}

fn millis(from: Option<Timestamp>, to: Timestamp) -> u64 {
    from.map_or(0, |from| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use cairn_engine::{ErrorClass, Failure, Output};

    use super::*;
    use crate::records::tests::{creation, entries};

    fn succeeded(step: &str) -> Vec<Fact> {
        let output = Output::new(format!("did {step}"), &json!({ "step": step })).expect("small");
        vec![
            Fact::AttemptStarted { step: step.into(), attempt: Attempt(1) },
            Fact::AttemptSucceeded { step: step.into(), attempt: Attempt(1), output },
        ]
    }

    fn all_ten() -> Vec<Fact> {
        let mut facts = vec![creation()];
        facts.extend(STATUSES.iter().flat_map(|step| succeeded(step)));
        facts.push(Fact::Finished { outcome: Outcome::Succeeded, residue: Vec::new() });
        facts
    }

    #[test]
    fn a_creation_that_succeeds_has_exactly_ten_reports_in_order() {
        let reports = reports(&entries(all_ten())).expect("legal");
        let statuses: Vec<&str> = reports.iter().map(|report| report.status.as_str()).collect();
        assert_eq!(statuses, STATUSES);
        assert!(reports.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
    }

    #[test]
    fn a_report_has_the_fields_of_the_contract_in_their_order() {
        let reports = reports(&entries(all_ten())).expect("legal");
        let text = serde_json::to_string_pretty(&reports[3]).expect("plain");
        let fields: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("  \"").and_then(|rest| rest.split_once('"')).map(|(name, _)| name))
            .collect();
        assert_eq!(
            fields,
            [
                "user",
                "service_name",
                "namespace",
                "status",
                "message",
                "timestamp",
                "details",
                "workflow_id",
                "sequence",
                "attempt",
                "duration_ms",
                "skipped",
                "result"
            ]
        );
        assert!(text.contains("\"status\": \"k8s_applied\""), "one space after the colon: {text}");
        let details = serde_json::to_string(&reports[0].details).expect("plain");
        assert_eq!(
            details,
            r#"{"replicas":1,"cpu_request":"500m","cpu_limit":"2","mem_request":"1Gi","mem_limit":"2Gi","disk_size":"10Gi","gpu_count":0,"dimension":128,"vector_count":10000}"#
        );
    }

    #[test]
    fn a_creation_that_fails_ends_with_one_failed_report_that_says_what_was_rolled_back() {
        let error = Failure { class: ErrorClass::Permanent, message: "no".to_owned(), evidence: Vec::new() };
        let mut facts = vec![creation()];
        facts.extend(succeeded("starting"));
        facts.extend([
            Fact::AttemptStarted { step: "namespace_created".into(), attempt: Attempt(1) },
            Fact::AttemptFailed {
                step: "namespace_created".into(),
                attempt: Attempt(1),
                error: error.clone(),
                retry_at: None,
            },
        ]);
        // A permanent failure leaves nothing to ask for, but what began is uncertain until it is probed.
        facts.push(Fact::Probed {
            step: "namespace_created".into(),
            attempt: Attempt(1),
            answer: cairn_engine::Probe::NotApplied,
            retry_at: None,
        });
        for step in ["namespace_created", "starting"] {
            facts.push(Fact::CompensationStarted { step: step.into(), attempt: Attempt(1) });
            facts.push(Fact::CompensationSucceeded {
                step: step.into(),
                attempt: Attempt(1),
                message: format!("{step} taken back"),
            });
        }
        facts.push(Fact::Finished { outcome: Outcome::Failed, residue: Vec::new() });
        let reports = reports(&entries(facts)).expect("legal");
        let statuses: Vec<&str> = reports.iter().map(|report| report.status.as_str()).collect();
        assert_eq!(statuses, ["starting", FAILED]);
        assert_eq!(reports[1].message, "namespace_created: no");
        assert_eq!(reports[1].result["step"], "namespace_created");
        assert_eq!(reports[1].result["rolled_back"][0]["step"], "namespace_created");
        assert_eq!(reports[1].result["left"], json!([]));
    }

    /// C7: who waits for a finalizer has to hear which.
    #[test]
    fn what_holds_a_rollback_up_is_named_while_it_does_and_in_the_report_at_the_end() {
        let failure = |class, message: &str, evidence: &[&str]| Failure {
            class,
            message: message.to_owned(),
            evidence: evidence.iter().map(|line| (*line).to_owned()).collect(),
        };
        let (step, attempt) = (cairn_engine::StepName::from("starting"), Attempt(1));
        let mut facts = vec![creation(), Fact::AttemptStarted { step: step.clone(), attempt }];
        let error = failure(ErrorClass::Permanent, "no", &[]);
        facts.push(Fact::AttemptFailed { step: step.clone(), attempt, error, retry_at: None });
        let answer = cairn_engine::Probe::NotApplied;
        facts.push(Fact::Probed { step: step.clone(), attempt, answer, retry_at: None });
        facts.push(Fact::CompensationStarted { step: step.clone(), attempt });
        let error =
            failure(ErrorClass::Transient, "not gone yet: finalizer example.com/hold", &["finalizer example.com/hold"]);
        facts.push(Fact::CompensationFailed { step: step.clone(), attempt, error, retry_at: None });
        facts.push(Fact::Parked { reason: cairn_engine::ParkReason::CompensationFailing });
        let parked = failure_report(&entries(facts.clone())).expect("legal").expect("it has failed");
        assert_eq!(
            parked.message,
            "starting: no; starting is not taken back yet: not gone yet: finalizer example.com/hold"
        );

        facts.push(Fact::RetryRequested { who: "alice".into() });
        facts.push(Fact::CompensationStarted { step: step.clone(), attempt: Attempt(2) });
        let message = "gone".to_owned();
        facts.push(Fact::CompensationSucceeded { step, attempt: Attempt(2), message });
        facts.push(Fact::Finished { outcome: Outcome::Failed, residue: Vec::new() });
        let reports = reports(&entries(facts)).expect("legal");
        assert_eq!(reports[0].message, "starting: no");
        assert_eq!(reports[0].result["held_up"][0]["evidence"], json!(["finalizer example.com/hold"]));
    }

    #[test]
    fn counts_name_all_ten_statuses_in_order_even_without_a_report() {
        let text = serde_json::to_string(&Counts::of(&[])).expect("plain");
        assert!(text.starts_with(r#"{"starting":0,"namespace_created":0,"#), "{text}");
        let counted = Counts::of(&reports(&entries(all_ten())).expect("legal"));
        assert!(counted.iter().take(10).all(|(_, count)| count == 1));
    }
}
