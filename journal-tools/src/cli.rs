//! The command line: its subcommands, where each reads from, and the help with its examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{export, history, list, rebuild, replay, stats, verify};

/// Audits a cairn journal: in place while its engine runs, from an export alone, or from a server.
///
/// Nothing is ever changed, and no lock is taken; only `rebuild` writes, and needs the engine stopped.
#[derive(Debug, Parser)]
#[command(name = "cairn-journal", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Every subcommand but `rebuild` reads from one of:
  --data DIR      an engine's data directory, also while it runs (default: $CAIRN_DATA, then ./cairn-data)
  --export FILE   an export, one JSON commit a line; `-` is standard input
  --server URL    a running engine, over HTTP

Workflows may be named by the beginning of their id, as long as it fits one only.

Examples:
  cairn-journal verify --data ./cairn-data
  cairn-journal list --user acme --status parked
  cairn-journal history 0197f3
  cairn-journal export --output journal.ndjson && cairn-journal verify --export journal.ndjson

Exit codes: 0 fine, 1 the journal is bad, 2 wrong use or something could not be read.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Verify(verify::Arguments),
    Replay(replay::Arguments),
    History(history::Arguments),
    List(list::Arguments),
    Export(export::Arguments),
    Stats(stats::Arguments),
    Rebuild(rebuild::Arguments),
}

/// Where the journal is. None given: `$CAIRN_DATA`, then `./cairn-data`.
#[derive(Clone, Debug, Default, Args)]
#[group(required = false, multiple = false)]
pub(crate) struct SourceArguments {
    /// An engine's data directory; read in place, without a lock, also while the engine runs.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// An export: one JSON commit a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// A running engine's address, such as http://127.0.0.1:8080.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON commit a line.
    #[default]
    Ndjson,
    /// One JSON array, with a commit a line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_subcommand_has_examples() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands_mut() {
            let help = subcommand.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{} has no examples", subcommand.get_name());
        }
    }

    #[test]
    fn a_journal_is_read_from_one_place_only() {
        let two = ["cairn-journal", "list", "--data", "a", "--export", "b"];
        assert_eq!(Arguments::try_parse_from(two).expect_err("two sources").exit_code(), 2);
    }
}
