//! `history`: all that happened to one workflow, an entry a row.

use std::{io::Write, time::Duration};

use cairn_engine::{Clock, Entry, Fact, SystemClock, Timestamp, WorkflowState};

use crate::{
    cli::SourceArguments,
    error::ToolError,
    select::{self, Found},
    show::{self, Rows},
    source::Source,
    workflows::place,
};

/// Shows all that happened to one workflow: sequence, time, fact, step, attempt, duration, message.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal history 0197f3a2-7c1e-7bd0-a5f3-2a4c9e6d1b70
  cairn-journal history 0197f3a2 --server http://127.0.0.1:8080
  cairn-journal history 0197f3a2 --json | jq 'select(.fact.fact == \"attempt_failed\")'")]
pub(crate) struct Arguments {
    /// The workflow's id, or the beginning of it.
    id: String,
    /// The entries as they are stored, one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

/// Runs it.
///
/// # Errors
/// [`ToolError`], after what could be read is shown.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), ToolError> {
    let Found { entries, broken } = select::find(Source::of(&arguments.source)?.commits()?, &arguments.id)?;
    if arguments.json {
        for entry in &entries {
            serde_json::to_writer(&mut *out, entry).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    } else {
        out.write_all(history(&entries, SystemClock.now())?.as_bytes())?;
    }
    broken.map_or(Ok(()), Err)
}

/// The text for these entries, as it is at the time `now`.
fn history(entries: &[Entry], now: Timestamp) -> Result<String, ToolError> {
    let mut rows = Rows::new(["SEQ", "TIME", "FACT", "STEP", "ATTEMPT", "DURATION", "MESSAGE"]);
    let mut state: Option<WorkflowState> = None;
    // One thing of a workflow is in hand at a time: the last start is that of whatever ends next.
    let mut started = None;
    for entry in entries {
        let folded = match &mut state {
            Some(state) => state.fold(entry),
            None => WorkflowState::begin(entry).map(|begun| state = Some(begun)),
        };
        folded.map_err(|error| ToolError::Bad { place: place(entry), detail: error.to_string() })?;
        let taken = match &entry.fact {
            Fact::AttemptStarted { .. } | Fact::CompensationStarted { .. } => {
                started = Some(entry.time);
                None
            }
            Fact::AttemptSucceeded { .. }
            | Fact::AttemptFailed { .. }
            | Fact::CompensationSucceeded { .. }
            | Fact::CompensationFailed { .. } => started.take().map(|started| entry.time.since(started)),
            Fact::Finished { .. } => Some(lifetime(entries, entry)),
            Fact::Submitted(_)
            | Fact::Probed { .. }
            | Fact::ProbeFailed { .. }
            | Fact::ResidueCheckFailed { .. }
            | Fact::CancelRequested { .. }
            | Fact::Paused { .. }
            | Fact::Resumed { .. }
            | Fact::RetryRequested { .. }
            | Fact::Parked { .. } => None,
        };
        let (step, attempt) = show::step_and_attempt(&entry.fact);
        rows.add([
            entry.sequence.to_string(),
            entry.time.to_string(),
            entry.fact.name().to_owned(),
            step,
            attempt,
            taken.map(show::duration).unwrap_or_default(),
            show::message(&entry.fact),
        ]);
    }
    let title = state.map(|state| show::title(&state, now)).unwrap_or_default();
    Ok(format!("{title}\n\n{}", rows.text()))
}

fn lifetime(entries: &[Entry], last: &Entry) -> Duration {
    entries.first().map(|first| last.time.since(first.time)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn shown(workflow: u8) -> String {
        let found = select::find(samples::journal().into_iter().map(Ok), &samples::id(workflow).to_string());
        history(&found.expect("it is there").entries, samples::at(60_000)).expect("it folds")
    }

    #[test]
    fn golden_history_of_a_creation_that_succeeds_after_a_retry_and_a_probe() {
        insta::assert_snapshot!(shown(1));
    }

    #[test]
    fn golden_history_of_a_creation_that_is_rolled_back() {
        insta::assert_snapshot!(shown(2));
    }

    #[test]
    fn golden_history_of_a_creation_that_is_parked() {
        insta::assert_snapshot!(shown(3));
    }
}
