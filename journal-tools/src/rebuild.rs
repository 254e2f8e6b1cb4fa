//! `rebuild`: makes the index again from the log. The one subcommand that writes.

use std::{
    io::{Write, stderr},
    path::PathBuf,
};

use cairn_engine::store::{DurableOptions, DurableStore, OpenReport, Store, StoreError};

use crate::{
    error::ToolError,
    source::{check_directory, data_directory},
};

/// Makes the index (all that is derived from the entries) again from the log. Needs the engine stopped.
///
/// The old index is kept beside. A damaged place of the log is healed from it first, as at every start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal verify --data ./cairn-data     says whether it is needed
  cairn-journal rebuild --data ./cairn-data")]
pub(crate) struct Arguments {
    /// The data directory of an engine that is stopped (default: $CAIRN_DATA, then ./cairn-data).
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// [`ToolError`] if an engine has the journal open, or the disk or the log do not do what they should.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), ToolError> {
    let directory = data_directory(arguments.data.as_deref())?;
    check_directory(&directory)?;
    // Nobody has to see it: what comes of it is told below.
    let _ = writeln!(stderr(), "rebuilding the index in {}", directory.display());
    let (store, report) = DurableStore::rebuild(&DurableOptions::new(&directory)).map_err(|error| match error {
        StoreError::Locked { holder, .. } => ToolError::Use(format!(
            "rebuild needs the engine stopped, and one{} has {} open: stop it, then run this again",
            holder.map(|holder| format!(" ({holder})")).unwrap_or_default(),
            directory.display()
        )),
        other => other.into(),
    })?;
    let (number, hash) = store.head();
    store.close()?;
    tell(&report, out)?;
    writeln!(out, "rebuilt from the log, head {number}:{hash}")?;
    Ok(())
}

fn tell(report: &OpenReport, out: &mut dyn Write) -> Result<(), ToolError> {
    let OpenReport { caught_up: _, rebuilt: _, set_aside, healed, cut } = report;
    for place in healed {
        writeln!(out, "healed: {place}")?;
    }
    if let Some(cut) = cut {
        writeln!(
            out,
            "cut: {} bytes of {} from byte {} on, a write that was never finished and never acknowledged",
            cut.bytes, cut.file, cut.offset
        )?;
    }
    if let Some(old) = set_aside {
        writeln!(out, "the old index lies in {}: remove it once nobody wants to look at it", old.display())?;
    }
    Ok(())
}
