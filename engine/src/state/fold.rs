//! What may follow what: one function a fact, each of which checks before it changes.

use super::{Phase, Stage, WorkflowState};
use crate::{
    entry::Entry,
    fact::{ErrorClass, Fact, Failure, OnFailure, Outcome, Output, ParkReason, Probe},
    ids::{Attempt, Sequence, StepName, Timestamp},
    state::IllegalFact,
};
use std::sync::Arc;

/// Folds `entries`, which begin with `Submitted`; `None` if there are none.
///
/// # Errors
/// [`IllegalFact`] for the first entry that may not stand where it stands.
pub fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Option<WorkflowState>, IllegalFact> {
    let mut entries = entries.into_iter();
    let Some(first) = entries.next() else { return Ok(None) };
    let mut state = WorkflowState::begin(first)?;
    for entry in entries {
        state.fold(entry)?;
    }
    Ok(Some(state))
}

impl WorkflowState {
    /// The state after a workflow's first entry.
    ///
    /// # Errors
    /// [`IllegalFact`] if that is not `Submitted` with sequence 1 and at least one step.
    pub fn begin(entry: &Entry) -> Result<Self, IllegalFact> {
        let Fact::Submitted(submitted) = &entry.fact else {
            return Err(illegal(&entry.fact, "a workflow begins with `submitted`"));
        };
        if entry.sequence != Sequence(1) {
            return Err(illegal(&entry.fact, "a workflow begins at sequence 1"));
        }
        if submitted.steps.is_empty() {
            return Err(illegal(&entry.fact, "a definition has at least one step"));
        }
        Ok(Self {
            id: entry.workflow,
            sequence: entry.sequence,
            hash: entry.hash,
            submitted: Arc::new(submitted.clone()),
            submitted_at: entry.time,
            updated_at: entry.time,
            // One for all: what a step has not touched yet takes no room.
            progress: std::iter::repeat_n(Arc::default(), submitted.steps.len()).collect(),
            phase: Phase::Ready { step: 0, attempt: Attempt(1), not_before: None },
            paused: false,
            cancelled: false,
            failed: None,
        })
    }

    /// The state after one more entry.
    ///
    /// # Errors
    /// [`IllegalFact`] if it may not follow; the state is then as before.
    pub fn fold(&mut self, entry: &Entry) -> Result<(), IllegalFact> {
        if entry.workflow != self.id {
            return Err(illegal(&entry.fact, "it is another workflow's"));
        }
        if entry.sequence != self.sequence.next() {
            return Err(illegal(&entry.fact, format!("its sequence is {}, after {}", entry.sequence, self.sequence)));
        }
        self.fold_fact(&entry.fact, entry.time)?;
        self.sequence = entry.sequence;
        self.hash = entry.hash;
        Ok(())
    }

    /// The state after one more fact, without its envelope: for what is about to be appended.
    ///
    /// # Errors
    /// [`IllegalFact`] if it may not follow; the state is then as before.
    pub fn fold_fact(&mut self, fact: &Fact, time: Timestamp) -> Result<(), IllegalFact> {
        if matches!(self.phase, Phase::Finished { .. }) {
            return Err(illegal(
                fact,
                "the workflow is finished, and that is final: what is wanted now is submitted anew",
            ));
        }
        match fact {
            Fact::Submitted(_) => Err(illegal(fact, "a workflow is submitted once")),
            Fact::AttemptStarted { step, attempt } => self.attempt_started(fact, step, *attempt, time),
            Fact::AttemptSucceeded { step, attempt, output } => {
                self.attempt_succeeded(fact, step, *attempt, output, time)
            }
            Fact::AttemptFailed { step, attempt, error, retry_at } => {
                self.attempt_failed(fact, step, *attempt, error, *retry_at, time)
            }
            Fact::Probed { step, attempt, answer, retry_at } => {
                self.probed(fact, step, *attempt, answer, *retry_at, time)
            }
            Fact::ProbeFailed { step, attempt, error, retry_at } => {
                self.probe_failed(fact, step, *attempt, error, *retry_at, time)
            }
            Fact::CompensationStarted { step, attempt } => self.compensation_started(fact, step, *attempt),
            Fact::CompensationSucceeded { step, attempt, message } => {
                self.compensation_succeeded(fact, step, *attempt, message)
            }
            Fact::CompensationFailed { step, attempt, error, retry_at } => {
                self.compensation_failed(fact, step, *attempt, error, *retry_at, time)
            }
            Fact::ResidueCheckFailed { attempt, retry_at, .. } => self.residue_check_failed(fact, *attempt, *retry_at),
            Fact::CancelRequested { force, .. } => self.cancel_requested(fact, *force),
            Fact::Paused { .. } => self.pause(fact),
            Fact::Resumed { .. } => self.resume(fact),
            Fact::RetryRequested { .. } => self.retry_requested(fact),
            Fact::Parked { reason } => self.park(fact, reason),
            Fact::Finished { outcome, residue } => self.finish(fact, *outcome, residue),
        }?;
        self.updated_at = time;
        Ok(())
    }

    fn attempt_started(&mut self, fact: &Fact, name: &StepName, attempt: Attempt, time: Timestamp) -> Folded {
        match self.phase {
            Phase::Ready { step, attempt: next, .. }
                if self.is(step, name) && next == attempt && !self.paused && !self.cancelled =>
            {
                let progress = Arc::make_mut(&mut self.progress[step]);
                progress.attempt = attempt;
                progress.started = Some(time);
                progress.ended = None;
                progress.uncertain = true;
                self.phase = Phase::Running { step, attempt };
                Ok(())
            }
            _ => Err(self.misplaced(fact)),
        }
    }

    fn attempt_succeeded(
        &mut self,
        fact: &Fact,
        name: &StepName,
        attempt: Attempt,
        output: &Output,
        time: Timestamp,
    ) -> Folded {
        let step = self.in_hand(fact, name, attempt)?;
        let progress = Arc::make_mut(&mut self.progress[step]);
        progress.output = Some(output.clone());
        progress.ended = Some(time);
        progress.uncertain = false;
        progress.error = None;
        self.phase = if step + 1 == self.progress.len() {
            // There is no step left that a pause could keep from starting.
            self.paused = false;
            Phase::Complete
        } else {
            Phase::Ready { step: step + 1, attempt: Attempt(1), not_before: None }
        };
        // A cancel that came while the last step ran comes too late: the cluster is there, and may be deleted.
        if self.cancelled && self.phase != Phase::Complete {
            self.roll_back_from(step);
        }
        Ok(())
    }

    fn attempt_failed(
        &mut self,
        fact: &Fact,
        name: &StepName,
        attempt: Attempt,
        error: &Failure,
        retry_at: Option<Timestamp>,
        time: Timestamp,
    ) -> Folded {
        let Phase::Running { step, attempt: running } = self.phase else { return Err(self.misplaced(fact)) };
        if !self.is(step, name) || running != attempt {
            return Err(self.misplaced(fact));
        }
        if error.class == ErrorClass::Permanent && retry_at.is_some() {
            return Err(illegal(fact, "what can never succeed has no retry time"));
        }
        let progress = Arc::make_mut(&mut self.progress[step]);
        progress.error = Some(error.clone());
        progress.ended = Some(time);
        progress.failing_since.get_or_insert(time);
        match (error.class, retry_at) {
            // What nobody knows is asked for before anything else, also before giving up.
            (ErrorClass::Unknown, _) => {
                self.phase = Phase::Unsure { step, attempt, probes: 0, not_before: retry_at };
            }
            (ErrorClass::Transient, Some(_)) if !self.cancelled => {
                self.phase = Phase::Ready { step, attempt: attempt.next(), not_before: retry_at };
            }
            (ErrorClass::Transient | ErrorClass::Permanent, _) => self.fail(step, error),
        }
        Ok(())
    }

    fn probed(
        &mut self,
        fact: &Fact,
        name: &StepName,
        attempt: Attempt,
        answer: &Probe,
        retry_at: Option<Timestamp>,
        time: Timestamp,
    ) -> Folded {
        let (step, rolling_back) = self.being_probed(fact, name, attempt)?;
        let progress = Arc::make_mut(&mut self.progress[step]);
        progress.uncertain = false;
        progress.ended = Some(time);
        progress.probes_failing_since = None;
        match answer {
            Probe::Applied { output } => progress.found.push(output.result.clone()),
            Probe::Partly { made } => progress.found.push(made.clone()),
            Probe::NotApplied | Probe::Foreign { .. } => {}
        }
        if rolling_back {
            self.compensate(step);
            return Ok(());
        }
        let gave_up = |message: String| Failure { class: ErrorClass::Permanent, message, evidence: Vec::new() };
        match (answer, retry_at) {
            // The world has the effect: `AttemptSucceeded` follows, with the output that the probe has read.
            (Probe::Applied { .. }, _) => self.phase = Phase::Running { step, attempt },
            (Probe::NotApplied | Probe::Partly { .. }, Some(_)) if !self.cancelled => {
                self.phase = Phase::Ready { step, attempt: attempt.next(), not_before: retry_at };
            }
            (Probe::NotApplied | Probe::Partly { .. }, _) => {
                let error = self.progress[step].error.clone();
                self.fail(
                    step,
                    &error
                        .unwrap_or_else(|| gave_up(format!("interrupted in attempt {attempt}, the last one allowed"))),
                );
            }
            (Probe::Foreign { detail }, _) => self.fail(step, &gave_up(detail.clone())),
        }
        Ok(())
    }

    fn probe_failed(
        &mut self,
        fact: &Fact,
        name: &StepName,
        attempt: Attempt,
        error: &Failure,
        retry_at: Option<Timestamp>,
        time: Timestamp,
    ) -> Folded {
        let (step, rolling_back) = self.being_probed(fact, name, attempt)?;
        let probes = match &self.phase {
            Phase::Unsure { probes, .. } | Phase::Compensating { stage: Stage::Probing { probes, .. }, .. } => {
                probes + 1
            }
            _ => 1,
        };
        let progress = Arc::make_mut(&mut self.progress[step]);
        progress.error = Some(error.clone());
        progress.probes_failing_since.get_or_insert(time);
        let asking = |probes| {
            if rolling_back {
                Phase::Compensating { step, stage: Stage::Probing { probes, not_before: retry_at } }
            } else {
                Phase::Unsure { step, attempt, probes, not_before: retry_at }
            }
        };
        self.phase = if retry_at.is_some() {
            asking(probes)
        } else {
            Phase::Parking { reason: ParkReason::ProbeFailing, resume: Box::new(asking(0)) }
        };
        Ok(())
    }

    fn compensation_started(&mut self, fact: &Fact, name: &StepName, attempt: Attempt) -> Folded {
        match self.phase {
            // One that was interrupted is started again: compensations are safe to repeat.
            Phase::Compensating { step, stage: Stage::Ready { attempt: next, .. } }
                if self.is(step, name) && next == attempt =>
            {
                self.start_compensation(step, attempt)
            }
            Phase::Compensating { step, stage: Stage::Running { attempt: interrupted } }
                if self.is(step, name) && interrupted.next() == attempt =>
            {
                self.start_compensation(step, attempt)
            }
            _ => Err(self.misplaced(fact)),
        }
    }

    fn start_compensation(&mut self, step: usize, attempt: Attempt) -> Folded {
        Arc::make_mut(&mut self.progress[step]).compensation.attempt = attempt;
        self.phase = Phase::Compensating { step, stage: Stage::Running { attempt } };
        Ok(())
    }

    fn compensation_succeeded(&mut self, fact: &Fact, name: &StepName, attempt: Attempt, message: &str) -> Folded {
        let step = self.being_compensated(fact, name, attempt)?;
        Arc::make_mut(&mut self.progress[step]).compensation.done = Some(message.to_owned());
        match step.checked_sub(1) {
            Some(before) => self.roll_back_from(before),
            None => self.phase = Phase::CheckingResidue { attempt: Attempt(1), not_before: None },
        }
        Ok(())
    }

    fn compensation_failed(
        &mut self,
        fact: &Fact,
        name: &StepName,
        attempt: Attempt,
        error: &Failure,
        retry_at: Option<Timestamp>,
        time: Timestamp,
    ) -> Folded {
        let step = self.being_compensated(fact, name, attempt)?;
        let progress = Arc::make_mut(&mut self.progress[step]);
        progress.error = Some(error.clone());
        progress.compensation.failing_since.get_or_insert(time);
        let again = Phase::Compensating { step, stage: Stage::Ready { attempt: attempt.next(), not_before: retry_at } };
        self.phase = if retry_at.is_some() {
            again
        } else {
            Phase::Parking { reason: ParkReason::CompensationFailing, resume: Box::new(again) }
        };
        Ok(())
    }

    fn residue_check_failed(&mut self, fact: &Fact, attempt: Attempt, retry_at: Option<Timestamp>) -> Folded {
        match self.phase {
            Phase::CheckingResidue { attempt: next, .. } if next == attempt => {
                self.phase = if retry_at.is_some() {
                    Phase::CheckingResidue { attempt: attempt.next(), not_before: retry_at }
                } else {
                    let resume = Phase::CheckingResidue { attempt: Attempt(1), not_before: None };
                    Phase::Parking { reason: ParkReason::Residue { left: Vec::new() }, resume: Box::new(resume) }
                };
                Ok(())
            }
            _ => Err(self.misplaced(fact)),
        }
    }

    fn cancel_requested(&mut self, fact: &Fact, force: bool) -> Folded {
        if force {
            self.cancelled = true;
            self.paused = false;
            self.phase = Phase::Forced;
            return Ok(());
        }
        if self.cancelled {
            return Err(illegal(fact, "it is being cancelled already: retry it if it waits, or cancel it by force"));
        }
        match self.phase.clone() {
            Phase::Compensating { .. } | Phase::CheckingResidue { .. } => {
                return Err(illegal(fact, "it is being rolled back already"));
            }
            Phase::Complete | Phase::Forced => return Err(illegal(fact, "it is about to finish")),
            Phase::Ready { step, .. } => self.cancel_before(step),
            Phase::Parked { resume, .. } | Phase::Parking { resume, .. } => match *resume {
                Phase::Ready { step, .. } => self.cancel_before(step),
                other => self.phase = self.forgiven(other),
            },
            // The attempt in hand ends first.
            Phase::Running { .. } | Phase::Finished { .. } => {}
            // The sooner it is known what is there, the sooner it is gone.
            unsure @ Phase::Unsure { .. } => self.phase = self.forgiven(unsure),
        }
        self.cancelled = true;
        self.paused = false;
        Ok(())
    }

    fn pause(&mut self, fact: &Fact) -> Folded {
        match self.phase {
            _ if self.paused => Err(illegal(fact, "it is paused already")),
            _ if self.cancelled => Err(illegal(fact, "it is being cancelled")),
            Phase::Ready { .. } | Phase::Running { .. } | Phase::Unsure { .. } => {
                self.paused = true;
                Ok(())
            }
            _ => Err(self.misplaced(fact)),
        }
    }

    fn resume(&mut self, fact: &Fact) -> Folded {
        if !self.paused {
            return Err(illegal(fact, "it is not paused"));
        }
        self.paused = false;
        if let Phase::Ready { step, .. } = self.phase {
            // A pause is not time in which anything was tried.
            Arc::make_mut(&mut self.progress[step]).failing_since = None;
        }
        Ok(())
    }

    fn retry_requested(&mut self, fact: &Fact) -> Folded {
        let next = match self.phase.clone() {
            Phase::Parked { resume, .. } | Phase::Parking { resume, .. } => *resume,
            waiting @ (Phase::Ready { not_before: Some(_), .. }
            | Phase::Unsure { not_before: Some(_), .. }
            | Phase::CheckingResidue { not_before: Some(_), .. }
            | Phase::Compensating {
                stage: Stage::Ready { not_before: Some(_), .. } | Stage::Probing { not_before: Some(_), .. },
                ..
            }) => waiting,
            _ => return Err(illegal(fact, "it neither is parked nor waits for a retry time")),
        };
        self.phase = self.forgiven(next);
        Ok(())
    }

    /// `phase` without its wait, and with what was attempted so far not counting any more.
    fn forgiven(&mut self, phase: Phase) -> Phase {
        match phase {
            Phase::Ready { step, attempt, .. } => {
                let progress = Arc::make_mut(&mut self.progress[step]);
                progress.forgiven = progress.attempt;
                progress.failing_since = None;
                self.failed = None;
                Phase::Ready { step, attempt, not_before: None }
            }
            Phase::Unsure { step, attempt, .. } => {
                let progress = Arc::make_mut(&mut self.progress[step]);
                progress.forgiven = progress.attempt;
                progress.failing_since = None;
                progress.probes_failing_since = None;
                Phase::Unsure { step, attempt, probes: 0, not_before: None }
            }
            Phase::Compensating { step, stage } => {
                let progress = Arc::make_mut(&mut self.progress[step]);
                progress.probes_failing_since = None;
                let compensation = &mut progress.compensation;
                compensation.forgiven = compensation.attempt;
                compensation.failing_since = None;
                let stage = match stage {
                    Stage::Probing { .. } => Stage::Probing { probes: 0, not_before: None },
                    Stage::Ready { attempt, .. } => Stage::Ready { attempt, not_before: None },
                    Stage::Running { attempt } => Stage::Running { attempt },
                };
                Phase::Compensating { step, stage }
            }
            Phase::CheckingResidue { .. } => Phase::CheckingResidue { attempt: Attempt(1), not_before: None },
            Phase::Running { .. }
            | Phase::Complete
            | Phase::Parking { .. }
            | Phase::Parked { .. }
            | Phase::Forced
            | Phase::Finished { .. } => phase,
        }
    }

    fn park(&mut self, fact: &Fact, reason: &ParkReason) -> Folded {
        let resume = match (&self.phase, reason) {
            (Phase::Parking { reason: due, resume }, _) if due == reason => resume.clone(),
            // What was found, where nothing should have been.
            (Phase::CheckingResidue { .. }, ParkReason::Residue { left }) if !left.is_empty() => {
                Box::new(Phase::CheckingResidue { attempt: Attempt(1), not_before: None })
            }
            // Crashes took the last compensation that the policy allows.
            (Phase::Compensating { step, stage: Stage::Running { attempt } }, ParkReason::CompensationFailing) => {
                Box::new(Phase::Compensating {
                    step: *step,
                    stage: Stage::Ready { attempt: attempt.next(), not_before: None },
                })
            }
            (ready @ Phase::Compensating { stage: Stage::Ready { .. }, .. }, ParkReason::CompensationFailing) => {
                Box::new(ready.clone())
            }
            (Phase::Parked { .. } | Phase::Parking { .. } | Phase::Finished { .. }, _) => {
                return Err(self.misplaced(fact));
            }
            // At any point a build may find that it does not know the definition.
            (phase, ParkReason::UnknownDefinition { .. } | ParkReason::Unrecoverable { .. }) => Box::new(phase.clone()),
            _ => return Err(self.misplaced(fact)),
        };
        self.phase = Phase::Parked { reason: reason.clone(), resume };
        Ok(())
    }

    fn finish(&mut self, fact: &Fact, outcome: Outcome, residue: &[String]) -> Folded {
        let allowed = match self.phase {
            Phase::Complete => outcome == Outcome::Succeeded && residue.is_empty(),
            Phase::CheckingResidue { .. } => outcome == self.rolled_back_outcome() && residue.is_empty(),
            Phase::Forced => outcome == Outcome::Cancelled,
            _ => false,
        };
        if !allowed {
            return Err(self.misplaced(fact));
        }
        self.phase = Phase::Finished { outcome, residue: residue.to_vec() };
        Ok(())
    }

    /// The step failed for good: roll back, or park if the request says so.
    fn fail(&mut self, step: usize, error: &Failure) {
        self.paused = false;
        if self.cancelled {
            return self.roll_back_from(step);
        }
        self.failed = Some((step, error.clone()));
        if self.submitted.on_failure == OnFailure::Keep {
            let attempt = self.progress[step].attempt.next();
            let resume = Box::new(Phase::Ready { step, attempt, not_before: None });
            self.phase = Phase::Parking { reason: ParkReason::Kept, resume };
        } else {
            self.roll_back_from(step);
        }
    }

    /// Nothing of the attempt before `step` is in hand: what is there is taken back.
    fn cancel_before(&mut self, step: usize) {
        // The step itself may have had attempts that failed.
        let newest = if self.progress[step].attempt == Attempt(0) { step.checked_sub(1) } else { Some(step) };
        match newest {
            Some(step) => self.roll_back_from(step),
            None => self.phase = Phase::CheckingResidue { attempt: Attempt(1), not_before: None },
        }
    }

    fn roll_back_from(&mut self, step: usize) {
        if self.progress[step].uncertain {
            self.phase = Phase::Compensating { step, stage: Stage::Probing { probes: 0, not_before: None } };
        } else {
            self.compensate(step);
        }
    }

    fn compensate(&mut self, step: usize) {
        let attempt = self.progress[step].compensation.attempt.next();
        self.phase = Phase::Compensating { step, stage: Stage::Ready { attempt, not_before: None } };
    }

    fn in_hand(&self, fact: &Fact, name: &StepName, attempt: Attempt) -> Result<usize, IllegalFact> {
        match self.phase {
            Phase::Running { step, attempt: running } if self.is(step, name) && running == attempt => Ok(step),
            _ => Err(self.misplaced(fact)),
        }
    }

    fn being_probed(&self, fact: &Fact, name: &StepName, attempt: Attempt) -> Result<(usize, bool), IllegalFact> {
        match self.phase {
            Phase::Running { step, attempt: last } | Phase::Unsure { step, attempt: last, .. }
                if self.is(step, name) && last == attempt =>
            {
                Ok((step, false))
            }
            Phase::Compensating { step, stage: Stage::Probing { .. } }
                if self.is(step, name) && self.progress[step].attempt == attempt =>
            {
                Ok((step, true))
            }
            _ => Err(self.misplaced(fact)),
        }
    }

    fn being_compensated(&self, fact: &Fact, name: &StepName, attempt: Attempt) -> Result<usize, IllegalFact> {
        match self.phase {
            Phase::Compensating { step, stage: Stage::Running { attempt: running } }
                if self.is(step, name) && running == attempt =>
            {
                Ok(step)
            }
            _ => Err(self.misplaced(fact)),
        }
    }

    fn is(&self, step: usize, name: &StepName) -> bool {
        self.submitted.steps.get(step) == Some(name)
    }

    fn misplaced(&self, fact: &Fact) -> IllegalFact {
        illegal(fact, format!("the workflow is {}", self.describe()))
    }

    fn describe(&self) -> String {
        let name = |step: usize| self.submitted.steps[step].as_str();
        match &self.phase {
            Phase::Ready { step, attempt, .. } => format!("before attempt {attempt} of {}", name(*step)),
            Phase::Running { step, attempt } => format!("in attempt {attempt} of {}", name(*step)),
            Phase::Unsure { step, .. } => format!("unsure of {}", name(*step)),
            Phase::Complete => "complete".to_owned(),
            Phase::Compensating { step, .. } => format!("taking back {}", name(*step)),
            Phase::CheckingResidue { .. } => "looking for residue".to_owned(),
            Phase::Parking { .. } | Phase::Parked { .. } => "parked".to_owned(),
            Phase::Forced => "being ended by force".to_owned(),
            Phase::Finished { .. } => "finished".to_owned(),
        }
    }
}

type Folded = Result<(), IllegalFact>;

fn illegal(fact: &Fact, why: impl Into<String>) -> IllegalFact {
    IllegalFact { fact: fact.name(), why: why.into() }
}
