//! The program `cairn`: arguments, run, exit code.
//!
//! It is a library with one door, so that what is measured over HTTP is this very program, command line, routes, journal and
//! views, with steps that do nothing.

mod admission;
mod app;
mod auth;
mod cluster;
mod command;
mod config;
mod demo;
mod doctor;
mod driven;
mod engine;
mod extract;
mod failpoint;
mod killpoint;
mod out;
mod plan;
mod problem;
mod prove;
mod routes;
mod server;
mod shutdown;
mod telemetry;
mod views;

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use cairn_engine::Step;
use clap::Parser as _;

use self::config::Command;

/// A fifth of the processor time went into the system's allocator: what one thread makes, another one frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is otherwise in an engine that is only measured.
#[derive(Clone, Copy, Debug)]
pub struct Instead {
    /// Puts another step of the same name in the place of each step of a creation.
    pub steps: fn(&Arc<dyn Step>) -> Arc<dyn Step>,
    /// Whether the views are written: without them is seen what they cost.
    pub views: bool,
}

/// Runs the program with these arguments, of which the first is its name.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_args(config::Args::parse_from(arguments))
}

/// The same for `dev` alone, in whose engine this is otherwise.
///
/// Any other command is refused: creations that do nothing have no place beside a real cluster.
#[must_use]
pub fn run_with(arguments: impl IntoIterator<Item = OsString>, instead: Instead) -> ExitCode {
    let Some(args) = otherwise(config::Args::parse_from(arguments), instead) else {
        eprintln!("cairn: only `dev` runs with other steps than its own: what is measured needs no real cluster");
        return ExitCode::from(2);
    };
    run_args(args)
}

/// These arguments with this otherwise; none if they are not `dev`'s.
fn otherwise(mut args: config::Args, instead: Instead) -> Option<config::Args> {
    let Command::Dev(dev) = &mut args.command else { return None };
    dev.testing.instead = Some(instead);
    Some(args)
}

fn run_args(args: config::Args) -> ExitCode {
    // One TLS provider for the process; an error would mean that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command::run(args.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cairn: {}", telemetry::chain(error.as_ref()));
            // Wrong settings are wrong use, as wrong arguments are; everything else is a failure.
            if error.is::<config::ConfigError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_dev_runs_with_other_steps_than_its_own() {
        let instead = Instead { steps: Arc::clone, views: true };
        let runs = |command: &[&str]| otherwise(config::Args::parse_from([&["cairn"], command].concat()), instead);
        let dev = runs(&["dev", "--port", "0"]).expect("it is what is measured");
        assert!(matches!(dev.command, Command::Dev(dev) if dev.testing.instead.is_some()));
        for other in [&["serve", "--kubeconfig", "kubeconfig"][..], &["demo"], &["sandbox"], &["prove"]] {
            assert!(runs(other).is_none(), "{other:?}");
        }
    }
}
