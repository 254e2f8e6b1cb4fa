//! So many creations that wait for their rollout at once: what the waiting costs, and how long it takes until all are created once
//! their pods get ready.
//!
//! The real program (`cairn dev`), and the sandbox cluster as another one, so that what is measured is the engine's alone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use cairn_tests::{client::Client, program::Process};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{output::Output, process};

/// Submissions at the same time.
const AT_ONCE: usize = 16;
/// How long CPU time is counted while all of them wait.
const WATCHED: Duration = Duration::from_secs(20);
/// An idle connection is kept for so long by the client's pool.
const IDLE: Duration = Duration::from_secs(95);
/// How often it is looked how far they are.
const LOOK: Duration = Duration::from_millis(500);
/// The longest that all of them may take to get anywhere.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Measures `clusters` creations with the program at `cairn`.
pub(crate) async fn measure(cairn: &Path, directory: &Path, clusters: usize, print: &Output) -> anyhow::Result<()> {
    print.title(&format!("{clusters} creations that wait for their rollout at once"));
    let data = |name: &str| directory.join(name).display().to_string();
    let mut sandbox = start(cairn, &["sandbox", "--port", "0", "--data", &data("cluster"), "--pod-ready-after", "1s"])?;
    let cluster = sandbox.said(listening).await?;
    let faults = Client::new(&cluster);
    faults.post("/sandbox/faults", &json!({"action": {"pods": {"trouble": "NotReady"}}})).await?.expect(201)?;
    let config = directory.join("cairn.toml");
    fs::write(&config, "[rollout]\ndeadline = \"2h\"\n")?;
    let config = config.display().to_string();
    let arguments = ["dev", "--port", "0", "--data", &data("engine"), "--sandbox", &cluster, "--config", &config];
    let mut engine = start(cairn, &arguments)?;
    let client = Client::new(&engine.said(listening).await?);
    client.ready(Duration::from_secs(60)).await?;
    let id = engine.id()?.as_raw_nonzero().get();
    let before = process::rss_bytes_of(id);

    let begun = Instant::now();
    let submit = |number: usize| {
        let body = json!({"user": format!("tenant{}", number % 100), "service_name": format!("s{}", number / 100)});
        let client = &client;
        async move { client.post("/clusters", &body).await?.expect(202).map(drop) }
    };
    stream::iter(0..clusters).map(submit).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    until(&client, clusters, |workflow| workflow["step"] == "rollout_completed").await?;
    let waiting = begun.elapsed().as_secs_f64();
    let at_once = connections(id, port(&cluster)?)?;
    tokio::time::sleep(IDLE).await;
    let (cpu, from) = (process::cpu_seconds_of(id), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let cpu = (process::cpu_seconds_of(id) - cpu) / from.elapsed().as_secs_f64();
    let memory = process::rss_bytes_of(id);
    print.row(
        "rollouts",
        &[
            ("all waiting after s", waiting),
            ("connections at once", at_once as f64),
            ("connections kept", connections(id, port(&cluster)?)? as f64),
            ("CPU %", cpu * 100.0),
            ("memory MiB", memory / 1_048_576.0),
            ("KiB each", (memory - before) / 1024.0 / clusters as f64),
        ],
    );

    let (released, cpu) = (Instant::now(), process::cpu_seconds_of(id));
    faults.send(reqwest::Method::DELETE, "/sandbox/faults", &[], None).await?.expect(200)?;
    until(&client, clusters, |workflow| workflow["status"] == "succeeded").await?;
    let took = released.elapsed().as_secs_f64();
    print.row(
        "rollouts",
        &[
            ("all created after s", took),
            ("created/s", clusters as f64 / took),
            ("CPU s of the engine", process::cpu_seconds_of(id) - cpu),
            ("peak MiB", process::peak_rss_mib_of(id)),
        ],
    );
    engine.kill().await?;
    sandbox.kill().await
}

fn start(cairn: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(cairn);
    command.args(arguments).env("CAIRN_LOG_FILTER", "warn");
    Process::start(command)
}

fn listening(line: &str) -> Option<String> {
    line.strip_prefix("listening on ").map(str::to_owned)
}

fn port(url: &str) -> anyhow::Result<u16> {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).with_context(|| format!("{url} has no port"))
}

/// Returns once all workflows are `there`.
async fn until(client: &Client, wanted: usize, there: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let (mut count, mut path) = (0, "/workflows?limit=500".to_owned());
        // Ends with the last page.
        loop {
            let page = client.get(&path).await?.expect(200)?.json()?;
            count += page["workflows"].as_array().into_iter().flatten().filter(|workflow| there(workflow)).count();
            match page["next"].as_str() {
                Some(next) => path = format!("/workflows?limit=500&after={next}"),
                None => break,
            }
        }
        if count == wanted {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("only {count} of {wanted} have come so far");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many connections this process has open to a port of this machine.
fn connections(id: i32, port: u16) -> anyhow::Result<usize> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{id}/fd"))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let table = fs::read_to_string(format!("/proc/{id}/net/tcp"))?;
    let theirs = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(remote), Some(state), Some(inode)) = (fields.get(2), fields.get(3), fields.get(9)) else {
            return false;
        };
        // 01: established.
        remote.ends_with(&format!(":{port:04X}")) && *state == "01" && sockets.contains(&format!("socket:[{inode}]"))
    });
    Ok(theirs.count())
}
