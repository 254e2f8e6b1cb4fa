//! `load` measures what it says: every figure is there and is one, whatever it comes to.

use anyhow::ensure;
use cairn_tests::program::{path_of, program_at, run};
use serde_json::Value;

async fn load(arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let directory = tempfile::tempdir()?;
    let at = directory.path().to_str().expect("temporary directories have plain names");
    let fixed = ["--json", "--disk-rounds", "3", "--directory", at];
    let ended = run(program_at(&path_of("load"), &[arguments, &fixed].concat())).await?;
    ensure!(ended.status.success(), "it ended with {} and said:\n{}", ended.status, ended.output);
    ensure!(std::fs::read_dir(directory.path())?.next().is_none(), "it leaves something behind");
    Ok(ended.output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn all_above_zero(row: &Value, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        ensure!(row[name].as_f64().is_some_and(|figure| figure > 0.0), "{name} of {row}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_measured_over_http_beside_the_disk() -> anyhow::Result<()> {
    let rows = load(&["http", "--in-flight", "4", "--workflows", "20", "--submissions", "20"]).await?;
    let of = |measured: &str| rows.iter().filter(|row| row["measured"] == measured).collect::<Vec<_>>();
    ensure!(of("disk").len() == 4 && of("http").len() == 1 && of("http: submissions").len() == 1, "{rows:?}");
    let figures = ["workflows_per_s", "p50_ms", "p95_ms", "p99_ms", "ratio_to_disk", "journal_bytes_per_workflow"];
    all_above_zero(of("http")[0], &figures)?;
    all_above_zero(of("http")[0], &["index_bytes_per_workflow", "views_bytes_per_workflow", "peak_rss_mib"])?;
    all_above_zero(of("http: submissions")[0], &["submissions_per_s", "p50_ms", "peak_rss_mib"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_measured_in_process_beside_the_disk() -> anyhow::Result<()> {
    let rows = load(&["engine", "--in-flight", "4", "--workflows", "20"]).await?;
    let row = rows.last().expect("it says something");
    ensure!(row["measured"] == "engine" && row["workflows"] == 20.0, "{row}");
    all_above_zero(row, &["workflows_per_s", "p50_ms", "p99_ms", "ratio_to_disk", "journal_bytes_per_workflow"])
}
