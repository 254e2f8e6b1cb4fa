//! `replay`: one workflow's entries folded again, as the engine folds them: the state after each, and what the engine
//! would do next if it started there.

use std::io::Write;

use cairn_engine::{Attempt, Entry, Sequence, WorkflowState, decide};

use crate::{
    cli::SourceArguments,
    error::ToolError,
    select::{self, Found},
    show::{self, Rows},
    source::Source,
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
  cairn-journal replay 0197f3a2 --export journal.ndjson")]
pub(crate) struct Arguments {
    /// The workflow's id, or the beginning of it.
    id: String,
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
    let Found { entries, broken } = select::find(Source::of(&arguments.source)?.commits()?, &arguments.id)?;
    out.write_all(replay(&entries, arguments.at.map(Sequence))?.as_bytes())?;
    broken.map_or(Ok(()), Err)
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
    use crate::samples;

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
