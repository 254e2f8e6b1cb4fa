//! What the disk can do: append and `fdatasync` the bytes that a workflow's commits have, in a preallocated file.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use crate::output::{Output, percentile_ms};

/// About the bytes of the frame of one append of a workflow.
const FRAME_BYTES: usize = 480;
/// A ten-step workflow waits for the disk so often.
const WAITS: u32 = 12;

/// The disk's own limits.
pub(crate) struct Disk {
    /// The median of one append and sync.
    sync: Duration,
}

impl Disk {
    /// What the waits of one workflow take at the least, in milliseconds.
    pub(crate) fn waits_ms(&self) -> f64 {
        (self.sync * WAITS).as_secs_f64() * 1e3
    }
}

/// Appends and syncs so many times, alone and in groups.
pub(crate) fn measure(directory: &Path, times: usize, output: &Output) -> anyhow::Result<Disk> {
    output.title("The disk: append and fdatasync in a preallocated file");
    let path = directory.join("disk");
    let mut alone = Duration::ZERO;
    for group in [1, 8, 64, 512] {
        let times = rounds(&path, group, times)?;
        if group == 1 {
            alone = times[times.len() / 2];
        }
        let total: Duration = times.iter().sum();
        output.row(
            "disk",
            &[
                ("group", group as f64),
                ("sync_p50_ms", percentile_ms(&times, 50)),
                ("sync_p99_ms", percentile_ms(&times, 99)),
                ("records_per_s", (group * times.len()) as f64 / total.as_secs_f64()),
            ],
        );
    }
    std::fs::remove_file(&path)?;
    Ok(Disk { sync: alone })
}

/// The times of appending `group` frames and syncing once, sorted.
fn rounds(path: &Path, group: usize, count: usize) -> anyhow::Result<Vec<Duration>> {
    let bytes = vec![0xA5_u8; FRAME_BYTES * group];
    let file = preallocated(path, bytes.len() * count)?;
    let mut times = Vec::with_capacity(count);
    for round in 0..count {
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
