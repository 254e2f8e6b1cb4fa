//! The program itself: what it prints, its exit codes, and where it reads from.

mod common;
mod http;
mod exports;
mod directory;
#[path = "../../src/samples.rs"]
mod samples;
