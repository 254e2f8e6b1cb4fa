//! `load`: how fast the engine is, beside how fast the disk is, in one run.
//!
//! Ten no-op steps a workflow with about 300 bytes of output each, every append synced, both copies of the journal.
//! The figures are printed; nothing here passes or fails by them: machines are shared and noisy.

mod disk;
mod engine;
mod process;
mod rollouts;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Measures the engine in process, beside the disk that it writes to.
///
/// Examples:
///
///   cargo run --release -p cairn-tests --bin load
///
///   cargo run --release -p cairn-tests --bin load -- engine --in-flight 256 --workflows 20000 --json
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Where journals are written, and removed afterwards: on the disk that is to be measured.
    #[arg(long, default_value = ".", global = true)]
    directory: PathBuf,
    /// One JSON object a line instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Workflows a second, with so many in flight.
    Engine {
        /// In flight at once; several are measured one after the other.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1024")]
        in_flight: Vec<usize>,
        /// How many each measurement runs; by default what takes a few seconds.
        #[arg(long)]
        workflows: Option<usize>,
    },
    /// Submissions acknowledged a second.
    Submit {
        /// How many.
        #[arg(long, default_value_t = 20_000)]
        workflows: usize,
    },
    /// Memory a workflow that waits for a retry time.
    Waiting {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        workflows: usize,
    },
    /// Creations that wait for their rollout at once, with the real program and a sandbox cluster beside it.
    Rollouts {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        clusters: usize,
        /// The program that is measured.
        #[arg(long, default_value = "target/release/cairn")]
        cairn: PathBuf,
    },
    /// What the disk can do: append and sync the same bytes, alone and grouped.
    Disk,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let directory = tempfile::Builder::new()
        .prefix("cairn-load-")
        .tempdir_in(&arguments.directory)
        .with_context(|| format!("cannot write below {}", arguments.directory.display()))?;
    let output = Output { json: arguments.json };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let all = [1, 16, 64, 256, 1_024];
    match arguments.command {
        Some(Command::Engine { in_flight, workflows }) => {
            let disk = disk::measure(directory.path(), &output)?;
            engine::workflows(&runtime, directory.path(), &in_flight, workflows, &disk, &output)
        }
        Some(Command::Submit { workflows }) => engine::submissions(&runtime, directory.path(), workflows, &output),
        Some(Command::Waiting { workflows }) => engine::waiting(&runtime, directory.path(), workflows, &output),
        Some(Command::Rollouts { clusters, cairn }) => {
            runtime.block_on(rollouts::measure(&cairn, directory.path(), clusters, &output))
        }
        Some(Command::Disk) => disk::measure(directory.path(), &output).map(drop),
        None => {
            let disk = disk::measure(directory.path(), &output)?;
            engine::workflows(&runtime, directory.path(), &all, None, &disk, &output)?;
            engine::submissions(&runtime, directory.path(), 20_000, &output)?;
            engine::waiting(&runtime, directory.path(), 10_000, &output)
        }
    }
}

/// Prints rows of named figures: a table for people, or JSON lines.
struct Output {
    json: bool,
}

impl Output {
    fn title(&self, title: &str) {
        if !self.json {
            println!("\n{title}");
        }
    }

    fn row(&self, figures: &[(&str, f64)]) {
        if self.json {
            let object: serde_json::Map<_, _> =
                figures.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            println!("{}", serde_json::Value::Object(object));
        } else {
            let cells: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {}", shown(*value))).collect();
            println!("  {}", cells.join("  "));
        }
    }
}

fn shown(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
