//! What the journal alone tells: chains, the order of steps, probes, rollbacks, reports.

use std::collections::BTreeMap;

use cairn_engine::{
    Attempt, Commit, Effect, ErrorClass, Fact, FencingToken, Hash, Outcome, Sequence, StepName, WorkflowId, fold,
};
use cairn_steps::report::{self, DELETE_STATUSES, STATUSES, UPDATE_STATUSES};

use super::{Findings, History, Told};

/// I4, I6: commits and entries without a gap, each with the hash of the one before; tokens never go back.
pub(super) fn chain(commits: &[Commit], found: &mut Findings) {
    let mut last: BTreeMap<WorkflowId, (Sequence, Hash)> = BTreeMap::new();
    for pair in commits.windows(2) {
        if pair[1].number != pair[0].number.next() || pair[1].previous != pair[0].hash {
            found.add("I4", format!("commit {} does not follow commit {}", pair[1].number, pair[0].number));
        }
        if pair[1].token < pair[0].token {
            found.add("I6", format!("commit {} has an older token than the one before", pair[1].number));
        }
    }
    for commit in commits {
        for entry in &commit.entries {
            let (sequence, hash) = last.get(&entry.workflow).copied().unwrap_or_default();
            if entry.sequence != sequence.next() || entry.previous != hash {
                found.add("I4", format!("entry {} of {} does not follow {sequence}", entry.sequence, entry.workflow));
            }
            if entry.token != commit.token {
                found.add(
                    "I6",
                    format!("entry {} of {} has another token than its commit", entry.sequence, entry.workflow),
                );
            }
            last.insert(entry.workflow, (entry.sequence, entry.hash));
        }
    }
}

/// I1, I2: what clients were told is in the journal.
pub(super) fn told(told: &[Told], histories: &[History<'_>], found: &mut Findings) {
    let find = |workflow: &WorkflowId| histories.iter().find(|history| history.id == *workflow);
    for told in told {
        match told {
            Told::Accepted { workflow, tenant, service, input } => match find(workflow) {
                None => found.add("I1", format!("{tenant}/{service} was accepted as {workflow}, which is not there")),
                Some(history) => {
                    let submitted = history.submitted;
                    let same = submitted.tenant.as_str() == tenant
                        && submitted.service.as_str() == service
                        && input.as_ref().is_none_or(|input| *input == submitted.input);
                    if !same {
                        found.add("I1", format!("{workflow} is not what was accepted: {submitted:?}"));
                    }
                }
            },
            Told::Ended { workflow, outcome } => {
                let ended = find(workflow).and_then(History::outcome).map(|(outcome, _)| outcome);
                if ended != Some(*outcome) {
                    found.add("I2", format!("{workflow} was told to have {outcome:?}, and has {ended:?}"));
                }
            }
        }
    }
}

/// I26: one tenant and key, one workflow.
pub(super) fn keys(histories: &[History<'_>], found: &mut Findings) {
    let mut known = BTreeMap::new();
    for history in histories {
        let Some(key) = &history.submitted.key else { continue };
        if let Some(other) = known.insert((&history.submitted.tenant, key), history.id) {
            found.add("I26", format!("key {key} made {other} and {}", history.id));
        }
    }
}

/// Everything about one workflow's entries.
pub(super) fn history(history: &History<'_>, at_rest: bool, found: &mut Findings) {
    let id = history.id;
    if let Err(illegal) = fold(history.entries.iter().copied()) {
        found.add("I30", format!("{id}: {illegal}"));
    }
    steps(history, found);
    probes(history, found);
    compensations(history, found);
    reports(history, found);
    let finished = history.entries.iter().position(|entry| matches!(entry.fact, Fact::Finished { .. }));
    if finished.is_some_and(|place| place + 1 != history.entries.len()) {
        found.add("I16", format!("{id}: entries follow `finished`"));
    }
    if at_rest && finished.is_none() && !history.is_parked() {
        let last = history.entries.last().map(|entry| entry.fact.name());
        found.add("I17", format!("{id} neither ended nor waits for a person: its last entry is {last:?}"));
    }
}

/// I6, I7, I8: attempts count up; a step runs after the one before it succeeded, and never again once it has.
fn steps(history: &History<'_>, found: &mut Findings) {
    let id = history.id;
    let order = &history.submitted.steps;
    let mut succeeded: Vec<&StepName> = Vec::new();
    let mut attempts: BTreeMap<&StepName, Attempt> = BTreeMap::new();
    for entry in &history.entries {
        match &entry.fact {
            Fact::AttemptStarted { step, attempt } => {
                if succeeded.contains(&step) {
                    found.add("I7", format!("{id}: {step} has succeeded and runs again"));
                } else if order.get(succeeded.len()) != Some(step) {
                    found.add("I8", format!("{id}: {step} starts after {} steps have succeeded", succeeded.len()));
                }
                let before = attempts.insert(step, *attempt).unwrap_or_default();
                if *attempt != before.next() {
                    found.add("I6", format!("{id}: attempt {attempt} of {step} follows {before}"));
                }
            }
            Fact::AttemptSucceeded { step, .. } => {
                if succeeded.contains(&step) {
                    found.add("I7", format!("{id}: {step} succeeds twice"));
                }
                succeeded.push(step);
            }
            _ => {}
        }
    }
    let complete = succeeded.iter().copied().eq(order.iter());
    if matches!(history.outcome(), Some((Outcome::Succeeded, _))) && !complete {
        found.add("I9", format!("{id} succeeded with {succeeded:?}"));
    }
}

/// I10: what an earlier life began, or what ended in doubt, is probed before anything else is done about that step.
fn probes(history: &History<'_>, found: &mut Findings) {
    let id = history.id;
    // The step in hand, the token it was started under, and whether its outcome is in doubt.
    let mut open: Option<(&StepName, FencingToken, bool)> = None;
    for entry in &history.entries {
        match &entry.fact {
            Fact::AttemptStarted { step, .. } => {
                if let Some((other, ..)) = open {
                    found.add("I10", format!("{id}: {step} starts while nobody knows what became of {other}"));
                }
                open = Some((step, entry.token, false));
            }
            Fact::AttemptSucceeded { step, .. } => {
                if let Some((_, token, doubt)) = open.take()
                    && (token != entry.token || doubt)
                {
                    found.add("I10", format!("{id}: {step} succeeds in another life, without a probe"));
                }
            }
            Fact::AttemptFailed { step, error, .. } => match open.take() {
                Some((_, token, _)) if token != entry.token => {
                    found.add("I10", format!("{id}: {step} fails in another life, without a probe"));
                }
                Some((open_step, token, _)) if error.class == ErrorClass::Unknown => {
                    open = Some((open_step, token, true));
                }
                _ => {}
            },
            // An effect that was found is taken in by the entry that follows: `fold` allows nothing else.
            Fact::Probed { .. } => open = None,
            Fact::CompensationStarted { step, .. } => {
                let in_doubt = open.take().is_some_and(|(open_step, ..)| open_step == step);
                if in_doubt {
                    found.add("I10", format!("{id}: {step} is compensated while nobody knows what it left"));
                }
            }
            _ => {}
        }
    }
}

/// I13: newest first, for exactly the steps that were started.
fn compensations(history: &History<'_>, found: &mut Findings) {
    let id = history.id;
    let mut started: Vec<&StepName> = Vec::new();
    let mut compensated: Vec<&StepName> = Vec::new();
    for entry in &history.entries {
        match &entry.fact {
            Fact::AttemptStarted { step, .. } => {
                if !compensated.is_empty() {
                    found.add("I13", format!("{id}: {step} starts during the rollback"));
                }
                if !started.contains(&step) {
                    started.push(step);
                }
            }
            Fact::CompensationStarted { step, .. } => {
                // A compensation that is tried again is the same compensation.
                compensated.retain(|other| *other != step);
                compensated.push(step);
            }
            _ => {}
        }
    }
    let expected: Vec<&StepName> = started.iter().rev().copied().collect();
    let over = matches!(history.outcome(), Some((Outcome::Failed | Outcome::Cancelled, _))) && !history.was_forced();
    let as_far = compensated.len().min(expected.len());
    if compensated[..] != expected[..as_far] || (over && compensated.len() != expected.len()) {
        found.add("I13", format!("{id}: started {started:?}, compensated {compensated:?}"));
    }
    if matches!(history.outcome(), Some((Outcome::Succeeded, _))) && !compensated.is_empty() {
        found.add("I13", format!("{id} succeeded, and {compensated:?} were compensated"));
    }
}

/// I18: in step order, no gap, no repeat, times not going back; a success has one for each step, a creation's exactly ten.
fn reports(history: &History<'_>, found: &mut Findings) {
    let id = history.id;
    let steps_of: &[&str] = match history.submitted.effect {
        Effect::Create => &STATUSES,
        Effect::Update => &UPDATE_STATUSES,
        Effect::Delete => &DELETE_STATUSES,
    };
    if !history.submitted.steps.iter().map(StepName::as_str).eq(steps_of.iter().copied()) {
        return;
    }
    let entries: Vec<_> = history.entries.iter().copied().cloned().collect();
    let Ok(reports) = report::reports(&entries) else { return };
    let statuses: Vec<&str> = reports.iter().map(|report| report.status.as_str()).collect();
    let steps = statuses.iter().filter(|status| steps_of.contains(status)).count();
    let in_order = statuses[..steps] == steps_of[..steps];
    let ending = &statuses[steps..];
    let as_it_ended = match history.outcome() {
        Some((Outcome::Succeeded, _)) => steps == steps_of.len() && ending.is_empty(),
        Some((Outcome::Failed, _)) => ending == [report::FAILED],
        Some((Outcome::Cancelled, _)) => ending == [report::CANCELLED],
        None => ending.is_empty(),
    };
    if !in_order || !as_it_ended {
        found.add("I18", format!("{id} ended as {:?} with reports {statuses:?}", history.outcome()));
    }
    if reports.windows(2).any(|pair| pair[1].timestamp < pair[0].timestamp) {
        found.add("I18", format!("{id}: the times of its reports go back"));
    }
}
