//! `journal-writer`: writes a small journal in a process of its own, for suites that watch or cut its storage operations.
//!
//! Each commit that the store has acknowledged is told in the file `acknowledged`, a line `NUMBER:HASH`, beside the journal's
//! own files: so whoever records what happens in the directory knows what was promised when. `at rest` is told after each
//! close.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

use cairn_engine::store::{DurableStore, Store as _};
use cairn_tests::{
    journal::{small, write},
    site::Numbers,
};
use clap::Parser;

/// Writes a small journal, or more of one.
#[derive(Parser)]
struct Arguments {
    /// The journal's directory.
    #[arg(long)]
    data: PathBuf,
    /// The file that gets what was acknowledged, if not the one in the directory.
    #[arg(long)]
    acknowledged: Option<PathBuf>,
    /// How many workflows.
    #[arg(long)]
    workflows: usize,
    /// How often it is opened; each time it writes its part.
    #[arg(long, default_value_t = 1)]
    openings: usize,
    /// What the sizes and the order are made from.
    #[arg(long)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut numbers = Numbers::of(arguments.seed);
    std::fs::create_dir_all(&arguments.data)?;
    let acknowledged = arguments.acknowledged.unwrap_or_else(|| arguments.data.join("acknowledged"));
    let mut acknowledged = OpenOptions::new().create(true).append(true).open(acknowledged)?;
    for opening in 1..=arguments.openings {
        let (store, _) = DurableStore::open(&small(&arguments.data))?;
        let workflows = arguments.workflows / arguments.openings;
        write(&store, &mut numbers, workflows, |(number, hash)| {
            // As one write: that is what a record of it holds.
            Ok(acknowledged.write_all(format!("{number}:{hash}\n").as_bytes())?)
        })?;
        // The last one is left as a kill would leave it.
        if opening < arguments.openings {
            store.close()?;
            acknowledged.write_all(b"at rest\n")?;
        }
    }
    Ok(())
}
