//! `load` measures what it says: every figure is there and is one, whatever it comes to.

use anyhow::ensure;
use cairn_tests::program::{path_of, program_at, run};
use serde_json::Value;

/// What it says with these arguments.
async fn said(arguments: &[&str]) -> anyhow::Result<String> {
    let ended = run(program_at(&path_of("load"), arguments)).await?;
    ensure!(ended.status.success(), "{arguments:?} ended with {} and said:\n{}", ended.status, ended.output);
    Ok(ended.output)
}

async fn measured(arguments: &[&str]) -> anyhow::Result<(String, Vec<Value>)> {
    let directory = tempfile::tempdir()?;
    let at = directory.path().to_str().expect("temporary directories have plain names");
    let said = said(&[arguments, &["--json", "--disk-rounds", "3", "--directory", at]].concat()).await?;
    ensure!(std::fs::read_dir(directory.path())?.next().is_none(), "it leaves something behind");
    let rows = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((said, rows))
}

fn all_above_zero(row: &Value, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        ensure!(row[name].as_f64().is_some_and(|figure| figure > 0.0), "{name} of {row}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_measured_over_http_beside_the_disk_and_shown_as_table_and_charts() -> anyhow::Result<()> {
    let (said_in_json, rows) =
        measured(&["http", "--in-flight", "1,4", "--workflows", "8", "--submissions", "8"]).await?;
    let of = |measured: &str| rows.iter().filter(|row| row["measured"] == measured).collect::<Vec<_>>();
    ensure!(of("disk").len() == 4 && of("http").len() == 2 && of("http: submissions").len() == 1, "{rows:?}");
    for row in of("http") {
        all_above_zero(row, &["workflows_per_s", "p50_ms", "p95_ms", "p99_ms", "ratio_to_disk", "peak_rss_mib"])?;
        all_above_zero(row, &["journal_bytes_per_workflow", "index_bytes_per_workflow", "views_bytes_per_workflow"])?;
    }
    all_above_zero(of("http: submissions")[0], &["submissions_per_s", "p50_ms", "peak_rss_mib"])?;

    let directory = tempfile::tempdir()?;
    let at = directory.path().to_str().expect("temporary directories have plain names");
    let results = format!("{at}/results.json");
    std::fs::write(&results, said_in_json)?;
    let table = said(&["table", &results]).await?;
    ensure!(table.contains("| http | 1 |") && table.contains("| http | 4 |"), "{table}");
    said(&["charts", &results, "--into", at]).await?;
    for chart in ["throughput.svg", "p99.svg"] {
        let svg = std::fs::read_to_string(directory.path().join(chart))?;
        ensure!(svg.contains("<polyline points=") && svg.contains(">http</text>") && !svg.contains("NaN"), "{svg}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_measured_in_process_beside_the_disk() -> anyhow::Result<()> {
    let (_, rows) = measured(&["engine", "--in-flight", "4", "--workflows", "20"]).await?;
    let row = rows.last().expect("it says something");
    ensure!(row["measured"] == "engine" && row["workflows"] == 20.0, "{row}");
    all_above_zero(row, &["workflows_per_s", "p50_ms", "p99_ms", "ratio_to_disk", "journal_bytes_per_workflow"])
}
