//! `load`: how fast the engine is, in process and over HTTP, beside how fast the disk is, in one run.
//!
//! Ten no-op steps a workflow with about 300 bytes of output each, every append synced, both copies of the journal.
//! The figures are printed; nothing here passes or fails by them: machines are shared and noisy.

mod burst;
mod charts;
mod clients;
mod disk;
mod engine;
mod http;
mod journal;
mod output;
mod peer;
mod process;
mod results;
mod rollouts;
mod server;
mod timed;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use self::{output::Output, peer::Peer, server::Program};

/// Measures the engine in process and over HTTP, beside the disk that it writes to.
///
/// Examples:
///
///   cargo run --release -p cairn-tests --bin load
///
///   cargo run --release -p cairn-tests --bin load -- engine --in-flight 256 --workflows 20000 --json
///
///   cargo run --release -p cairn-tests --bin load -- http --in-flight 1,256
///
///   cargo run --release -p cairn-tests --bin load -- http --in-flight 16 --workflows 200 --cairn target/release/cairn
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Where journals are written, and removed afterwards: on the disk that is to be measured.
    #[arg(long, default_value = ".", global = true)]
    directory: PathBuf,
    /// One JSON object a line instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// How often the disk is asked for each of its figures.
    #[arg(long, default_value_t = 400, global = true)]
    disk_rounds: usize,
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
    /// Workflows a second over HTTP: submitted with a key, charged to a quota, waited for.
    ///
    /// The server is `cairn` itself, in a process of its own, its ten steps replaced by ones that do nothing.
    Http {
        /// In flight at once; several are measured one after the other.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1024")]
        in_flight: Vec<usize>,
        /// How many each measurement runs; by default what takes a few seconds.
        #[arg(long)]
        workflows: Option<usize>,
        /// How many are submitted without waiting for them, in a measurement of their own; 0 for none.
        #[arg(long, default_value_t = 20_000)]
        submissions: usize,
        /// How many of these may be in flight meanwhile.
        #[arg(long, default_value_t = 64)]
        running: usize,
        /// Without report files, log and records: what they cost is the difference.
        #[arg(long, conflicts_with = "cairn")]
        without_views: bool,
        /// Measure the creations of this program instead: their steps work on a sandbox cluster in the same process.
        #[arg(long, value_name = "PATH")]
        cairn: Option<PathBuf>,
    },
    /// Many more submissions at once than the server takes: what it refuses is asked again when it says so.
    Burst {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        submissions: usize,
        /// How many clients submit them, each on its own connection.
        #[arg(long, default_value_t = 2_000)]
        clients: usize,
        /// How many connections the server takes.
        #[arg(long, default_value_t = 1_024)]
        connections: usize,
        /// Without report files, log and records.
        #[arg(long)]
        without_views: bool,
    },
    /// The same for a server of somebody else's, which runs already.
    Peer {
        #[command(flatten)]
        peer: Peer,
        /// In flight at once.
        #[arg(long, default_value_t = 64)]
        in_flight: usize,
        /// How many are run; by default what takes a few seconds.
        #[arg(long)]
        workflows: Option<usize>,
        /// The path that submits a workflow and answers 202: that is measured instead.
        #[arg(long, value_name = "PATH")]
        submit: Option<String>,
    },
    /// The server that `http` measures: `cairn`, whose arguments follow, with steps that do nothing.
    Server {
        /// Write no report files, log and records.
        #[arg(long)]
        without_views: bool,
        /// What `cairn` is started with.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
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
    /// A journal of millions of entries: start, reads, appends, memory, and how fast the tools are.
    Journal {
        /// How many workflows of ten steps it holds: 22 entries each.
        #[arg(long, default_value_t = 450_000)]
        workflows: usize,
        /// The program `cairn-journal`, whose `verify`, `replay` and `rebuild` are measured as well.
        #[arg(long, value_name = "PATH")]
        tools: Option<PathBuf>,
    },
    /// One opening that `journal` measures, in a process of its own.
    #[command(hide = true)]
    Opened {
        /// The data directory.
        data: PathBuf,
        /// What is measured.
        #[arg(long)]
        measured: String,
        /// It ends by SIGKILL.
        #[arg(long)]
        killed: bool,
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
    /// One table of results that `--json` has printed.
    Table {
        /// The files with them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Charts of such results: throughput.svg and p99.svg.
    Charts {
        /// The files with them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where the charts are written.
        #[arg(long, value_name = "DIR", default_value = "docs/performance")]
        into: PathBuf,
    },
    /// What the disk can do: append and sync the same bytes, alone and grouped.
    Disk,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Server { without_views, arguments }) => {
            return Ok(server::no_op_cairn(arguments, !without_views));
        }
        Some(Command::Table { files }) => results::print(&results::read(&files)?),
        Some(Command::Charts { files, into }) => charts::write(&results::read(&files)?, &into)?,
        Some(Command::Opened { data, measured, killed }) => {
            journal::opened(&runtime()?, &data, &measured, killed, &Output { json: arguments.json })?;
        }
        command => measure(command, &arguments.directory, arguments.disk_rounds, &Output { json: arguments.json })?,
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn measure(command: Option<Command>, directory: &Path, disk_rounds: usize, output: &Output) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new()
        .prefix("cairn-load-")
        .tempdir_in(directory)
        .with_context(|| format!("cannot write below {}", directory.display()))?;
    let at = directory.path();
    let runtime = runtime()?;
    let disk = || disk::measure(at, disk_rounds, output);
    match command {
        Some(Command::Engine { in_flight, workflows }) => {
            engine::workflows(&runtime, at, &in_flight, workflows, &disk()?, output)
        }
        Some(Command::Http { in_flight, workflows, submissions, running, without_views, cairn }) => {
            let disk = disk()?;
            let program = cairn.map_or(Program::NoOp { views: !without_views }, Program::Cairn);
            runtime.block_on(async {
                http::workflows(&program, at, &in_flight, workflows, &disk, output).await?;
                if submissions > 0 && matches!(program, Program::NoOp { views: true }) {
                    http::submissions(at, submissions, running, output).await?;
                }
                Ok(())
            })
        }
        Some(Command::Burst { submissions, clients, connections, without_views }) => {
            let burst = burst::Burst { submissions, clients, connections, views: !without_views };
            runtime.block_on(burst.measure(at, output))
        }
        Some(Command::Peer { peer, in_flight, workflows, submit }) => runtime.block_on(async {
            match submit {
                Some(path) => http::peer_submissions(&peer, &path, workflows.unwrap_or(20_000), output).await,
                None => http::peer(&peer, in_flight, workflows, output).await,
            }
        }),
        Some(Command::Server { .. } | Command::Opened { .. } | Command::Table { .. } | Command::Charts { .. }) => {
            unreachable!("they measure nothing")
        }
        Some(Command::Submit { workflows }) => engine::submissions(&runtime, at, workflows, output),
        Some(Command::Waiting { workflows }) => engine::waiting(&runtime, at, workflows, output),
        Some(Command::Rollouts { clusters, cairn }) => {
            runtime.block_on(rollouts::measure(&cairn, at, clusters, output))
        }
        Some(Command::Journal { workflows, tools }) => journal::measure(at, workflows, tools.as_deref(), output),
        Some(Command::Disk) => disk().map(drop),
        None => {
            let all = [1, 16, 64, 256, 1_024];
            engine::workflows(&runtime, at, &all, None, &disk()?, output)?;
            engine::submissions(&runtime, at, 20_000, output)?;
            engine::waiting(&runtime, at, 10_000, output)
        }
    }
}
