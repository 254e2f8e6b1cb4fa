//! `stats`: how many reports of each status there are.

use std::io::{Write, stderr};

use cairn_steps::report::{Counts, Report};

use crate::{cli::SourceArguments, error::ToolError, source::Source, workflows::Workflows};

/// Counts the reports of each status: all of them, one tenant's, or one service's.
///
/// The same numbers as `GET /deployment/reports/{user}/{service}/stats`, and as counting the report files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal stats
  cairn-journal stats acme search
  cairn-journal stats acme search --json --server http://127.0.0.1:8080")]
pub(crate) struct Arguments {
    /// Only this tenant's.
    user: Option<String>,
    /// Only of this service.
    service: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

/// Runs it.
///
/// # Errors
/// [`ToolError`] if the journal cannot be read to its end.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), ToolError> {
    let mut counts = Counts::default();
    let mut known = false;
    Workflows::read(Source::of(&arguments.source)?.commits()?, |entry, state| {
        let submitted = state.submitted();
        if arguments.wants(submitted.tenant.as_str(), submitted.service.as_str()) {
            known = true;
            if let Some(report) = Report::of(entry, state) {
                counts.add(&report);
            }
        }
    })?;
    if let (false, Some(user)) = (known, &arguments.user) {
        let service = arguments.service.as_ref().map(|service| format!("/{service}")).unwrap_or_default();
        writeln!(stderr(), "note: the journal has no workflow of {user}{service}")?;
    }
    show(&counts, arguments.json, out)
}

fn show(counts: &Counts, json: bool, out: &mut dyn Write) -> Result<(), ToolError> {
    if json {
        serde_json::to_writer_pretty(&mut *out, counts).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        for (status, count) in counts.iter() {
            writeln!(out, "{status}: {count}")?;
        }
    }
    Ok(())
}

impl Arguments {
    fn wants(&self, user: &str, service: &str) -> bool {
        self.user.as_ref().is_none_or(|wanted| wanted == user)
            && self.service.as_ref().is_none_or(|wanted| wanted == service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_counts_are_those_of_the_reports_and_name_every_status() {
        let mut counts = Counts::default();
        Workflows::read(samples::journal().into_iter().map(Ok), |entry, state| {
            Report::of(entry, state).iter().for_each(|report| counts.add(report));
        })
        .expect("it folds");
        let mut text = Vec::new();
        show(&counts, false, &mut text).expect("memory takes it");
        insta::assert_snapshot!(String::from_utf8(text).expect("text"));
    }
}
