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

/// The same, but in the engine of `dev` or `serve` this is otherwise.
#[must_use]
pub fn run_with(arguments: impl IntoIterator<Item = OsString>, instead: Instead) -> ExitCode {
    let mut args = config::Args::parse_from(arguments);
    match &mut args.command {
        Command::Serve(serve) => serve.testing.instead = Some(instead),
        Command::Dev(dev) => dev.testing.instead = Some(instead),
        _ => {}
    }
    run_args(args)
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
