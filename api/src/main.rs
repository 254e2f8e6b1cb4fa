//! The program `cairn`: arguments, run, exit code.

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

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = config::Args::parse();
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
