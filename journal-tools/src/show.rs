//! What is shown, in words: facts, states, commands, durations; and the tables that they stand in.
//!
//! - Nothing that a journal holds reaches a terminal as a control character.
//! - Every fact and every phase is named here, so that the compiler asks about a new one.

use std::time::Duration;

use cairn_engine::{
    Command, ErrorClass, Fact, Failure, Outcome, ParkReason, Phase, Probe, Stage, Timestamp, WorkflowState,
};
use cairn_steps::records::{Status, kind};
use comfy_table::{Table, presets};

/// Rows under headings, without lines, two spaces between columns: for eyes, `awk` and `sort` alike.
pub(crate) struct Rows {
    table: Table,
}

impl Rows {
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(headings);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    pub(crate) fn add<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells);
    }

    /// The text, each line with its end.
    pub(crate) fn text(&self) -> String {
        self.table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// `text` on one line, with every control character shown as its escape.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

/// What turns the direction of text around, and could make a line read as another.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A duration as people say it: `740µs`, `41ms`, `1.25s`, `2m03s`, `5h00m`.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let seconds = duration.as_secs();
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{seconds}.{:02}s", duration.subsec_millis() / 10),
        60_000_000..3_600_000_000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// `1 entry`, `2 entries`: `count` of what has these names.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Which workflow, of whom, and how it stands.
pub(crate) fn title(state: &WorkflowState, now: Timestamp) -> String {
    let submitted = state.submitted();
    format!(
        "workflow {}: {} {}/{}, {}",
        state.id(),
        kind(submitted.effect),
        clean(submitted.tenant.as_str()),
        clean(submitted.service.as_str()),
        Status::of(state, now).as_str()
    )
}

/// The step that `fact` is about, and which attempt of it.
pub(crate) fn step_and_attempt(fact: &Fact) -> (String, String) {
    match fact {
        Fact::AttemptStarted { step, attempt }
        | Fact::AttemptSucceeded { step, attempt, .. }
        | Fact::AttemptFailed { step, attempt, .. }
        | Fact::Probed { step, attempt, .. }
        | Fact::ProbeFailed { step, attempt, .. }
        | Fact::CompensationStarted { step, attempt }
        | Fact::CompensationSucceeded { step, attempt, .. }
        | Fact::CompensationFailed { step, attempt, .. } => (clean(step.as_str()), attempt.to_string()),
        Fact::ResidueCheckFailed { attempt, .. } => (String::new(), attempt.to_string()),
        Fact::Submitted(_)
        | Fact::CancelRequested { .. }
        | Fact::Paused { .. }
        | Fact::Resumed { .. }
        | Fact::RetryRequested { .. }
        | Fact::Parked { .. }
        | Fact::Finished { .. } => (String::new(), String::new()),
    }
}

/// What `fact` says beyond its name, step and attempt; evidence on lines of its own.
pub(crate) fn message(fact: &Fact) -> String {
    match fact {
        Fact::Submitted(submitted) => format!(
            "{} {}/{}, definition {} version {}, by {}",
            kind(submitted.effect),
            clean(submitted.tenant.as_str()),
            clean(submitted.service.as_str()),
            clean(submitted.definition.as_str()),
            submitted.version,
            clean(submitted.who.as_str()),
        ),
        Fact::AttemptStarted { .. } | Fact::CompensationStarted { .. } => String::new(),
        Fact::AttemptSucceeded { output, .. } => clean(&output.message),
        Fact::AttemptFailed { error, retry_at, .. } => failure(error, "next attempt", *retry_at),
        Fact::Probed { answer, retry_at, .. } => probed(answer, *retry_at),
        Fact::ProbeFailed { error, retry_at, .. } => failure(error, "asked again", *retry_at),
        Fact::CompensationSucceeded { message, .. } => clean(message),
        Fact::CompensationFailed { error, retry_at, .. } => failure(error, "next attempt", *retry_at),
        Fact::ResidueCheckFailed { error, retry_at, .. } => failure(error, "looked for again", *retry_at),
        Fact::CancelRequested { who, force: false } => format!("by {}", clean(who.as_str())),
        Fact::CancelRequested { who, force: true } => format!("by {}, by force", clean(who.as_str())),
        Fact::Paused { who } | Fact::Resumed { who } | Fact::RetryRequested { who } => {
            format!("by {}", clean(who.as_str()))
        }
        Fact::Parked { reason } => park_reason(reason),
        Fact::Finished { outcome, residue } => finished(*outcome, residue),
    }
}

/// Where the workflow is.
pub(crate) fn phase(state: &WorkflowState) -> String {
    let mut text = phase_text(state, state.phase());
    if state.is_paused() {
        text.push_str("; paused");
    }
    if state.is_cancelled() && !matches!(state.phase(), Phase::Finished { .. }) {
        text.push_str("; cancelled");
    }
    text
}

fn phase_text(state: &WorkflowState, phase: &Phase) -> String {
    let name = |step: usize| step_name(state, step);
    match phase {
        Phase::Ready { step, attempt, not_before } => {
            format!("before attempt {attempt} of {}{}", name(*step), from(*not_before))
        }
        Phase::Running { step, attempt } => format!("in attempt {attempt} of {}", name(*step)),
        Phase::Unsure { step, attempt, not_before, .. } => {
            format!("unsure what attempt {attempt} of {} left{}", name(*step), from(*not_before))
        }
        Phase::Complete => "every step succeeded".to_owned(),
        Phase::Compensating { step, stage } => match stage {
            Stage::Probing { not_before, .. } => {
                format!("rolling back: unsure what {} left{}", name(*step), from(*not_before))
            }
            Stage::Ready { attempt, not_before } => {
                format!("rolling back: before attempt {attempt} to compensate {}{}", name(*step), from(*not_before))
            }
            Stage::Running { attempt } => format!("rolling back: in attempt {attempt} to compensate {}", name(*step)),
        },
        Phase::CheckingResidue { attempt, not_before } => {
            format!("rolled back: before residue check {attempt}{}", from(*not_before))
        }
        Phase::Parking { reason, .. } => format!("about to be parked: {}", park_reason(reason)),
        Phase::Parked { reason, resume } => {
            format!("parked: {}; goes on {}", park_reason(reason), phase_text(state, resume))
        }
        Phase::Forced => "about to end by force".to_owned(),
        Phase::Finished { outcome, residue } => finished(*outcome, residue),
    }
}

/// What is to be done next about the workflow in `state`.
pub(crate) fn command(state: &WorkflowState, command: &Command) -> String {
    let name = |step: usize| step_name(state, step);
    match command {
        Command::RunStep { step, attempt } => format!("run {}, attempt {attempt}", name(*step)),
        Command::Probe { step, attempt } => format!("probe {}, attempt {attempt}", name(*step)),
        Command::Compensate { step, attempt } => format!("compensate {}, attempt {attempt}", name(*step)),
        Command::CheckResidue { attempt } => format!("look for residue, check {attempt}"),
        Command::Finish { outcome } => format!("finish: {}", outcome_name(*outcome)),
        Command::Park { reason } => format!("park: {}", park_reason(reason)),
        Command::WaitUntil(time) => format!("wait until {time}"),
        Command::Nothing if state.outcome().is_some() => "do nothing: it is over".to_owned(),
        Command::Nothing => "do nothing: a person has to ask for more".to_owned(),
    }
}

/// An error's class, as JSON has it.
const fn class(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Transient => "transient",
        ErrorClass::Permanent => "permanent",
        ErrorClass::Unknown => "unknown",
    }
}

fn failure(failure: &Failure, again: &str, retry_at: Option<Timestamp>) -> String {
    let mut text = format!("{}: {}", class(failure.class), clean(&failure.message));
    if let Some(at) = retry_at {
        text.push_str(&format!("; {again} at {at}"));
    }
    for line in &failure.evidence {
        text.push_str(&format!("\n- {}", clean(line)));
    }
    text
}

fn probed(answer: &Probe, retry_at: Option<Timestamp>) -> String {
    let again = retry_at.map(|at| format!("; next attempt at {at}")).unwrap_or_default();
    match answer {
        Probe::Applied { output } => format!("applied: {}", clean(&output.message)),
        Probe::NotApplied => format!("not applied{again}"),
        Probe::Partly { made } => {
            format!("partly applied: {}{again}", clean(&String::from_utf8_lossy(made.as_bytes())))
        }
        Probe::Foreign { detail } => format!("foreign: {}", clean(detail)),
    }
}

fn park_reason(reason: &ParkReason) -> String {
    match reason {
        ParkReason::Kept => "a step failed, and what was made is kept, as asked".to_owned(),
        ParkReason::ProbeFailing => "the probe keeps failing".to_owned(),
        ParkReason::CompensationFailing => "the compensation keeps failing".to_owned(),
        ParkReason::Residue { left } if left.is_empty() => "whether anything is left could not be seen".to_owned(),
        ParkReason::Residue { left } => format!("left behind: {}", list(left)),
        ParkReason::UnknownDefinition { detail } => format!("unknown definition: {}", clean(detail)),
        ParkReason::Unrecoverable { detail } => format!("cannot be replayed: {}", clean(detail)),
    }
}

fn finished(outcome: Outcome, residue: &[String]) -> String {
    match (outcome, residue) {
        (Outcome::Succeeded, []) => "succeeded".to_owned(),
        (outcome, []) => format!("{}, nothing left", outcome_name(outcome)),
        (outcome, left) => format!("{}, left behind: {}", outcome_name(outcome), list(left)),
    }
}

const fn outcome_name(outcome: Outcome) -> &'static str {
    Status::ended(outcome).as_str()
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| clean(item)).collect::<Vec<_>>().join(", ")
}

fn from(not_before: Option<Timestamp>) -> String {
    not_before.map(|at| format!(", from {at} on")).unwrap_or_default()
}

fn step_name(state: &WorkflowState, step: usize) -> String {
    state.steps().get(step).map(|name| clean(name.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_journal_reaches_the_terminal_as_a_control_character() {
        assert_eq!(clean("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(clean("safe \u{202e}txt.exe"), "safe \\u{202e}txt.exe");
        assert_eq!(clean("größer, 更大"), "größer, 更大");
    }

    #[test]
    fn durations_are_short_and_keep_their_unit() {
        let shown = [740, 41_000, 1_256_000, 123_000_000, 18_000_000_000].map(|us| duration(Duration::from_micros(us)));
        assert_eq!(shown, ["740µs", "41ms", "1.25s", "2m03s", "5h00m"]);
    }

    #[test]
    fn a_table_has_no_lines_and_no_space_at_the_end_of_a_row() {
        let mut rows = Rows::new(["A", "LONGER"]);
        rows.add(["1".to_owned(), String::new()]);
        rows.add(["22".to_owned(), "x".to_owned()]);
        assert_eq!(rows.text(), "A   LONGER\n1\n22  x\n");
    }
}
