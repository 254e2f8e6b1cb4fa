//! What this process has used, as the kernel counts it.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// The most memory that was resident at once, in MiB.
pub(crate) fn peak_rss_mib() -> f64 {
    status_kib("self", "VmHWM:") / 1024.0
}

/// The same of another process.
pub(crate) fn peak_rss_mib_of(id: i32) -> f64 {
    status_kib(&id.to_string(), "VmHWM:") / 1024.0
}

/// The memory that is resident now, in bytes.
pub(crate) fn rss_bytes() -> f64 {
    status_kib("self", "VmRSS:") * 1024.0
}

/// The same of another process.
pub(crate) fn rss_bytes_of(id: i32) -> f64 {
    status_kib(&id.to_string(), "VmRSS:") * 1024.0
}

fn status_kib(process: &str, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(f64::NAN)
}

/// CPU seconds used so far, in user and kernel mode. The kernel counts hundredths.
pub(crate) fn cpu_seconds() -> f64 {
    cpu_seconds_at("self")
}

/// The same of another process.
pub(crate) fn cpu_seconds_of(id: i32) -> f64 {
    cpu_seconds_at(&id.to_string())
}

fn cpu_seconds_at(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name in parentheses, which may hold blanks: state is the first field, utime the 12th, stime the 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

/// The bytes of all files below `directory`, as they are allocated on the disk.
pub(crate) fn allocated_bytes(directory: &Path) -> u64 {
    bytes_below(directory, |file| file.blocks() * 512)
}

/// The bytes that were written into all files below `directory`.
pub(crate) fn written_bytes(directory: &Path) -> u64 {
    bytes_below(directory, Metadata::len)
}

fn bytes_below(directory: &Path, of: fn(&Metadata) -> u64) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path(), of),
            Ok(metadata) => of(&metadata),
            Err(_) => 0,
        })
        .sum()
}

/// The bytes of the log's frames: what is preallocated and not yet used does not count.
pub(crate) fn journal_bytes(log: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for segment in fs::read_dir(log)? {
        let content = fs::read(segment?.path())?;
        bytes += content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    }
    Ok(bytes)
}
