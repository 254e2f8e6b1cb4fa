//! A server of somebody else's, which runs already: only its processes and its directory are looked at.

use std::path::PathBuf;

use clap::Args;

use crate::process;

/// What is known of it.
#[derive(Args)]
pub(crate) struct Peer {
    /// What it is called in the results.
    #[arg(long)]
    pub(crate) name: String,
    /// Where it listens: `127.0.0.1:8080`.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// The path that runs a workflow and answers 200 at its end.
    #[arg(long, value_name = "PATH")]
    pub(crate) run: String,
    /// Its processes: what they use is added up.
    #[arg(long = "process", value_name = "PID")]
    processes: Vec<i32>,
    /// Where it keeps its data.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Peer {
    /// The CPU seconds that its processes have used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(|id| process::cpu_seconds_of(*id)).sum()
    }

    /// The most memory that each of its processes had at once, added up, in MiB.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        self.processes.iter().map(|id| process::peak_rss_mib_of(*id)).sum()
    }

    /// The bytes of its files. What is only allocated for later does not count.
    pub(crate) fn disk_bytes(&self) -> u64 {
        process::written_bytes(&self.data)
    }
}
