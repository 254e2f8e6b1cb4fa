//! `list`: the workflows of a journal, newest first.

use std::io::{Write, stderr};

use cairn_engine::{Clock, SystemClock};
use cairn_steps::records::Status;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::{
    cli::SourceArguments,
    error::ToolError,
    show::{self, Rows},
    source::Source,
    workflows::{Row, Workflows},
};

/// Lists the workflows, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal list
  cairn-journal list --user acme --service search
  cairn-journal list --status parked --server http://127.0.0.1:8080
  cairn-journal list --json | jq -r '.[] | select(.entries > 30) | .id'")]
pub(crate) struct Arguments {
    /// Only this tenant's.
    #[arg(long)]
    user: Option<String>,
    /// Only of this service.
    #[arg(long)]
    service: Option<String>,
    /// Only those with this status.
    #[arg(long, value_parser = statuses())]
    status: Option<Status>,
    /// One JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).map(|text| {
        Status::ALL.into_iter().find(|status| status.as_str() == text).expect("only these texts are let through")
    })
}

/// Runs it.
///
/// # Errors
/// [`ToolError`] if the journal cannot be read to its end.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), ToolError> {
    let workflows = Workflows::read(Source::of(&arguments.source)?.commits()?, |_, _| {})?;
    let mut rows = workflows.rows(SystemClock.now());
    rows.retain(|row| arguments.wants(row));
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &rows).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else if rows.is_empty() {
        writeln!(stderr(), "note: no workflow is there, or none that fits")?;
    } else {
        out.write_all(table(&rows).as_bytes())?;
    }
    Ok(())
}

impl Arguments {
    fn wants(&self, row: &Row) -> bool {
        let fits = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        fits(&self.user, &row.user)
            && fits(&self.service, &row.service_name)
            && self.status.is_none_or(|status| status == row.status)
    }
}

fn table(rows: &[Row]) -> String {
    let mut shown = Rows::new(["ID", "KIND", "USER", "SERVICE", "STATUS", "STEP", "SUBMITTED", "LASTED", "ENTRIES"]);
    for row in rows {
        shown.add([
            row.id.to_string(),
            row.kind.to_owned(),
            show::clean(&row.user),
            show::clean(&row.service_name),
            row.status.as_str().to_owned(),
            row.step.as_deref().map(show::clean).unwrap_or_default(),
            row.submitted_at.to_string(),
            show::duration(row.updated_at.since(row.submitted_at)),
            row.entries.to_string(),
        ]);
    }
    shown.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn golden_list_newest_first() {
        let workflows = Workflows::read(samples::journal().into_iter().map(Ok), |_, _| {}).expect("it folds");
        insta::assert_snapshot!(table(&workflows.rows(samples::at(60_000))));
    }

    #[test]
    fn rows_are_picked_by_user_service_and_status() {
        let workflows = Workflows::read(samples::journal().into_iter().map(Ok), |_, _| {}).expect("it folds");
        let picked = |user: Option<&str>, service: Option<&str>, status| {
            let arguments = Arguments {
                user: user.map(Into::into),
                service: service.map(Into::into),
                status,
                json: false,
                source: SourceArguments::default(),
            };
            let rows = workflows.rows(samples::at(60_000));
            rows.iter().filter(|row| arguments.wants(row)).map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(picked(None, None, Some(Status::Parked)), [samples::id(3)]);
        assert_eq!(picked(Some("acme"), Some("logs"), None), [samples::id(2)]);
        assert_eq!(picked(Some("acme"), None, Some(Status::Running)), [samples::id(4)]);
        assert!(picked(Some("other"), None, None).is_empty());
    }
}
