//! `replay`: one workflow's entries folded again, as the engine folds them: the state after each, and what the engine
//! would do next if it started there. Or all workflows' entries, and where each ends.

use std::{collections::BTreeMap, io::Write};

use cairn_engine::{Attempt, Clock, Entry, Fact, Outcome, Sequence, SystemClock, WorkflowState, decide};
use cairn_steps::records::Status;

use crate::{
    cli::SourceArguments,
    error::ToolError,
    select::{self, Found},
    show::{self, Rows},
    source::{Commits, Source},
    workflows::place,
};

/// Folds one workflow's entries again: the state after each, and what an engine that started there would do next.
///
/// It is the code that the engine runs, given the time of each entry; no effect is done again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal replay 0197f3a2
  cairn-journal replay 0197f3a2 --at 7            the state after entry 7, and each step's progress then
  cairn-journal replay 0197f3a2 --export journal.ndjson
  cairn-journal replay --all                      how many workflows end in which state")]
pub(crate) struct Arguments {
    /// The workflow's id, or the beginning of it.
    #[arg(required_unless_present = "all")]
    id: Option<String>,
    /// Every workflow, and no more of each than the state that it ends in.
    #[arg(long, conflicts_with_all = ["id", "at"])]
    all: bool,
    /// Stop after this entry.
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    at: Option<u64>,
    #[command(flatten)]
    source: SourceArguments,
}

/// Runs it.
///
/// # Errors
/// [`ToolError`], after what could be read is shown.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), ToolError> {
    let commits = Source::of(&arguments.source)?.commits()?;
    let Some(id) = &arguments.id else { return out.write_all(all(commits)?.as_bytes()).map_err(ToolError::from) };
    let Found { entries, broken } = select::find(commits, id)?;
    out.write_all(replay(&entries, arguments.at.map(Sequence))?.as_bytes())?;
    broken.map_or(Ok(()), Err)
}

/// The text for all workflows. They are folded as they are read.
fn all(mut commits: Commits) -> Result<String, ToolError> {
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for commit in commits.by_ref() {
        for entry in &commit?.entries {
            if let Fact::Finished { outcome, .. } = entry.fact {
                *ends.entry(ended(outcome).as_str()).or_default() += 1;
            }
        }
    }
    let now = SystemClock.now();
    for state in commits.active() {
        *ends.entry(Status::of(state, now).as_str()).or_default() += 1;
    }
    let mut rows = Rows::new(["STATUS", "WORKFLOWS"]);
    for status in Status::ALL.map(Status::as_str) {
        if let Some(workflows) = ends.get(status) {
            rows.add([status.to_owned(), workflows.to_string()]);
        }
    }
    let verified = commits.verified();
    let entries = show::count(verified.entries, "entry", "entries");
    let workflows = show::count(verified.workflows, "workflow", "workflows");
    Ok(format!("{}\nreplayed {entries} of {workflows}\n", rows.text()))
}

fn ended(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Succeeded => Status::Succeeded,
        Outcome::Failed => Status::Failed,
        Outcome::Cancelled => Status::Cancelled,
    }
}

/// The text for these entries, up to `at`.
fn replay(entries: &[Entry], at: Option<Sequence>) -> Result<String, ToolError> {
    let last = entries.last().map(|entry| entry.sequence).unwrap_or_default();
    if let Some(at) = at
        && at > last
    {
        return Err(ToolError::Use(format!(
            "the workflow has {}, no entry {at}",
            show::count(last.0, "entry", "entries")
        )));
    }
    let mut rows = Rows::new(["SEQ", "FACT", "STATE", "A START HERE WOULD"]);
    let state = fold(entries, at, |entry, state| {
        rows.add([
            entry.sequence.to_string(),
            entry.fact.name().to_owned(),
            show::phase(state),
            show::command(state, &decide(state, entry.time)),
        ]);
    })?;
    let Some(state) = state else { return Ok(String::new()) };
    Ok(format!(
        "{}\n\n{}\nafter entry {}, at {}:\n\n{}",
        show::title(&state, state.updated_at()),
        rows.text(),
        state.sequence(),
        state.updated_at(),
        steps(&state)
    ))
}

fn fold(
    entries: &[Entry],
    at: Option<Sequence>,
    mut seen: impl FnMut(&Entry, &WorkflowState),
) -> Result<Option<WorkflowState>, ToolError> {
    let mut state: Option<WorkflowState> = None;
    for entry in entries.iter().take_while(|entry| at.is_none_or(|at| entry.sequence <= at)) {
        let bad = |detail: String| ToolError::Bad { place: place(entry), detail };
        let folded = match state.take() {
            Some(mut state) => {
                state.fold(entry).map_err(|error| bad(error.to_string()))?;
                state
            }
            None => WorkflowState::begin(entry).map_err(|error| bad(error.to_string()))?,
        };
        seen(entry, &folded);
        state = Some(folded);
    }
    Ok(state)
}

/// How far each step is.
fn steps(state: &WorkflowState) -> String {
    let mut rows = Rows::new(["STEP", "ATTEMPTS", "STARTED", "DURATION", "RESULT", "COMPENSATION"]);
    for (name, progress) in state.steps().iter().zip(state.progress()) {
        let attempts = if progress.attempt == Attempt(0) { String::new() } else { progress.attempt.to_string() };
        let taken = progress.started.zip(progress.ended).map(|(started, ended)| show::duration(ended.since(started)));
        let result = match (&progress.output, &progress.error) {
            (Some(output), _) => show::clean(&output.message),
            (None, Some(error)) => show::clean(&error.message),
            (None, None) if progress.uncertain => "not known yet".to_owned(),
            (None, None) => String::new(),
        };
        let compensation = match &progress.compensation.done {
            Some(done) => show::clean(done),
            None if progress.compensation.attempt > Attempt(0) => {
                format!("attempt {}", progress.compensation.attempt)
            }
            None => String::new(),
        };
        rows.add([
            show::clean(name.as_str()),
            attempts,
            progress.started.map(|started| started.to_string()).unwrap_or_default(),
            taken.unwrap_or_default(),
            result,
            compensation,
        ]);
    }
    rows.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lines::Lines, samples};

    fn entries(workflow: u8) -> Vec<Entry> {
        let found = select::find(samples::journal().into_iter().map(Ok), &samples::id(workflow).to_string());
        found.expect("it is there").entries
    }

    #[test]
    fn golden_replay_of_a_creation_that_succeeds_after_a_retry_and_a_probe() {
        insta::assert_snapshot!(replay(&entries(1), None).expect("it folds"));
    }

    #[test]
    fn golden_replay_of_a_creation_that_is_rolled_back() {
        insta::assert_snapshot!(replay(&entries(2), None).expect("it folds"));
    }

    #[test]
    fn golden_replay_up_to_an_entry_in_the_middle() {
        insta::assert_snapshot!(replay(&entries(1), Some(Sequence(5))).expect("it folds"));
    }

    #[test]
    fn golden_replay_of_everything() {
        let lines = samples::export(&samples::journal()).join("\n");
        let commits = Commits::new(Box::new(Lines::new(std::io::Cursor::new(lines), "x")));
        insta::assert_snapshot!(all(commits).expect("it folds"));
    }

    #[test]
    fn golden_replay_of_a_creation_that_is_parked() {
        insta::assert_snapshot!(replay(&entries(3), None).expect("it folds"));
    }

    #[test]
    fn replay_at_every_entry_is_the_state_that_the_engine_folds_there() {
        let entries = entries(2);
        for (place, entry) in entries.iter().enumerate() {
            let folded = fold(&entries, Some(entry.sequence), |_, _| {}).expect("it folds");
            assert_eq!(folded, cairn_engine::fold(&entries[..=place]).expect("it folds"));
        }
    }

    #[test]
    fn an_entry_that_is_not_there_is_wrong_use() {
        let error = replay(&entries(4), Some(Sequence(3))).expect_err("there are two");
        assert_eq!(error.to_string(), "the workflow has 2 entries, no entry 3");
        assert_eq!(error.exit_code(), 2);
    }
}
