//! The program `cairn-journal`: audits a journal, offline or live.
//!
//! - Every subcommand is one fold over one reader of commits, wherever these come from ([`source`]).
//! - What is read is checked as it is read: the hashes chain, and each fact may stand where it stands.
//! - Nothing that is read is changed; only [`rebuild`] writes.
//!
//! Exit codes: 0 fine, 1 the journal is bad, 2 wrong use or something could not be read.

mod cli;
mod source;
mod server;
mod lines;
mod workflows;
mod select;
mod progress;
mod verify;
mod replay;
mod history;
mod list;
mod export;
mod stats;
mod rebuild;
mod show;
mod error;
#[cfg(test)]
mod samples;

use std::{
    io::{BufWriter, Write},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    cli::{Arguments, Command},
    error::ToolError,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when this fails too.
            let _ = writeln!(std::io::stderr(), "error: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, ToolError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let code = match &arguments.command {
        Command::Verify(arguments) => return verify::run(arguments, &mut out),
        Command::Replay(arguments) => replay::run(arguments, &mut out),
        Command::History(arguments) => history::run(arguments, &mut out),
        Command::List(arguments) => list::run(arguments, &mut out),
        Command::Export(arguments) => export::run(arguments, &mut out),
        Command::Stats(arguments) => stats::run(arguments, &mut out),
        Command::Rebuild(arguments) => rebuild::run(arguments, &mut out),
    };
    // What was readable is shown, whatever came after it.
    let flushed = out.flush();
    code?;
    flushed?;
    Ok(ExitCode::SUCCESS)
}
