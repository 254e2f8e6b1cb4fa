//! The program `cairn`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn_api::run(std::env::args_os())
}
