//! What the disk can do: append and `fdatasync` the bytes that a workflow's commits have, in a preallocated file.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use crate::Output;

/// About the bytes of the frame of one append of a workflow.
const FRAME_BYTES: usize = 480;
const ROUNDS: usize = 400;

/// The disk's own limits.
pub(crate) struct Disk {
    /// The median of one append and sync.
    pub(crate) sync: Duration,
}

pub(crate) fn measure(directory: &Path, output: &Output) -> anyhow::Result<Disk> {
    output.title("The disk: append and fdatasync in a preallocated file");
    let path = directory.join("disk");
    let mut alone = Duration::ZERO;
    for group in [1, 8, 64, 512] {
        let times = rounds(&path, group)?;
        let median = times[times.len() / 2];
        if group == 1 {
            alone = median;
        }
        let total: Duration = times.iter().sum();
        output.row(&[
            ("group", group as f64),
            ("sync_p50_ms", median.as_secs_f64() * 1e3),
            ("sync_p99_ms", times[times.len() * 99 / 100].as_secs_f64() * 1e3),
            ("records_per_s", (group * ROUNDS) as f64 / total.as_secs_f64()),
        ]);
    }
    std::fs::remove_file(&path)?;
    Ok(Disk { sync: alone })
}

/// The times of appending `group` frames and syncing once, sorted.
fn rounds(path: &Path, group: usize) -> anyhow::Result<Vec<Duration>> {
    let bytes = vec![0xA5_u8; FRAME_BYTES * group];
    let file = preallocated(path, bytes.len() * ROUNDS)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let start = Instant::now();
        file.write_all_at(&bytes, (round * bytes.len()) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times)
}

fn preallocated(path: &Path, length: usize) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let zeros = vec![0_u8; 1024 * 1024];
    let mut at = 0;
    while at < length {
        let part = zeros.len().min(length - at);
        file.write_all_at(&zeros[..part], at as u64)?;
        at += part;
    }
    file.sync_all()?;
    Ok(file)
}
