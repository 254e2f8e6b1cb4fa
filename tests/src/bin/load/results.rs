//! Results of earlier measurements: the JSON lines that `--json` prints, read again, and as one table.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use serde_json::Value;

/// The measurements of `cairn` that others are compared with.
const OURS: [&str; 2] = ["http", "http, views off"];

/// One line.
pub(crate) struct Row(Value);

impl Row {
    /// What was measured.
    pub(crate) fn measured(&self) -> &str {
        self.0["measured"].as_str().unwrap_or_default()
    }

    /// A figure of it, if it has that one.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.0[name].as_f64()
    }

    /// All that one workflow leaves on the disk.
    fn bytes(&self) -> Option<f64> {
        let parts =
            ["journal", "index", "views", "disk"].map(|part| self.figure(&format!("{part}_bytes_per_workflow")));
        parts.iter().flatten().copied().reduce(|all, part| all + part)
    }
}

/// The rows of these files, in order.
///
/// # Errors
/// If one of them cannot be read, with the line.
pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            let row = serde_json::from_str(line).with_context(|| {
                format!("{}, line {}: it is none that --json has printed", file.display(), number + 1)
            })?;
            rows.push(Row(row));
        }
    }
    Ok(rows)
}

/// Prints them as tables in Markdown, for each peer with how many times its rate `cairn` has over HTTP, with views and without.
pub(crate) fn print(rows: &[Row]) {
    let of_disk = |row: &&Row| row.measured() == "disk";
    for row in rows.iter().filter(of_disk) {
        let [group, sync, records] = ["group", "sync_p50_ms", "records_per_s"].map(|name| shown(row.figure(name)));
        println!("The disk, {group} frames a sync: {sync} ms, {records} records/s  ");
    }
    println!();
    println!(
        "| | in flight | workflows/s | Cairn has | p50 ms | p95 ms | p99 ms | CPU s a thousand | peak MiB | bytes on disk each |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in rows.iter().filter(|row| row.figure("workflows_per_s").is_some()) {
        let faster: Vec<_> = OURS.iter().filter_map(|ours| faster(rows, ours, row)).collect();
        let faster = faster.join(", ");
        let [in_flight, rate] = ["in_flight", "workflows_per_s"].map(|name| shown(row.figure(name)));
        let times =
            ["p50_ms", "p95_ms", "p99_ms", "cpu_s_per_1000", "peak_rss_mib"].map(|name| shown(row.figure(name)));
        let bytes = shown(row.bytes());
        println!("| {} | {in_flight} | {rate} | {faster} | {} | {bytes} |", row.measured(), times.join(" | "));
    }
    println!();
    println!("| | submissions acknowledged/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|");
    for row in rows.iter().filter(|row| row.figure("submissions_per_s").is_some()) {
        let figures = ["submissions_per_s", "p50_ms", "p99_ms"].map(|name| shown(row.figure(name)));
        println!("| {} | {} |", row.measured(), figures.join(" | "));
    }
}

/// How many times the rate of a peer this measurement of `cairn` has, with as many in flight.
fn faster(rows: &[Row], ours: &str, peer: &Row) -> Option<String> {
    // Only a peer's directory is counted as one.
    peer.figure("disk_bytes_per_workflow")?;
    let in_flight = peer.figure("in_flight");
    let ours = rows.iter().find(|row| row.measured() == ours && row.figure("in_flight") == in_flight)?;
    Some(format!("{:.1} ×", ours.figure("workflows_per_s")? / peer.figure("workflows_per_s")?))
}

fn shown(figure: Option<f64>) -> String {
    match figure {
        None => "–".to_owned(),
        Some(figure) if figure >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure.fract() == 0.0 => format!("{figure:.0}"),
        Some(figure) => format!("{figure:.2}"),
    }
}
