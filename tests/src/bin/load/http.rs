//! Servers over HTTP on loopback, driven from the same cores: each client submits a workflow, waits for its end, and goes on
//! with the next.

use std::{path::Path, time::Instant};

use cairn_tests::no_op::STEPS;
use http::StatusCode;

use crate::{
    clients::{Ask, Clients},
    disk::Disk,
    output::{Output, percentile_ms},
    peer::Peer,
    server::{Program, Server},
    timed::{Timed, counted},
};

/// One for so many of those that are measured goes before them, uncounted: connections, caches and a peer's leaders are warm
/// then.
const WARM_UP: usize = 10;
/// Those who submit without waiting for the end.
const SUBMITTERS: usize = 256;
/// Submits a creation and waits for its end.
const CREATE: &str = "/clusters?wait=10m";

/// Workflows a second, from submission to end, for each of these numbers in flight.
pub(crate) async fn workflows(
    program: &Program,
    directory: &Path,
    in_flight: &[usize],
    count: Option<usize>,
    disk: &Disk,
    output: &Output,
) -> anyhow::Result<()> {
    let (measured, title) = match program {
        Program::NoOp { views: true } => ("http", "ten no-op steps, with quota, keys and views"),
        Program::NoOp { views: false } => ("http, views off", "ten no-op steps, with quota and keys, without views"),
        Program::Cairn(_) => ("creations", "real creations, on a sandbox cluster in the same process"),
    };
    output.title(&format!("Over HTTP, the clients on the same cores: {title}"));
    for &in_flight in in_flight {
        let path = directory.join("server");
        let server = Server::start(program, &path, in_flight, in_flight).await?;
        let clients = Clients::connect(&server.address, in_flight).await?;
        let ask = Ask::new(CREATE, StatusCode::CREATED);
        let timed = asking(clients, ask, counted(in_flight, count), || server.cpu_seconds()).await?;
        let behind = match program {
            Program::NoOp { views: false } => None,
            Program::NoOp { views: true } | Program::Cairn(_) => Some(server.views_written(STEPS * timed.asked).await?),
        };
        let (cpu, peak) = (server.cpu_seconds(), server.peak_rss_mib());
        let caught_up = behind.as_ref().is_none_or(|behind| behind.seconds.is_some());
        let left = server.stop(caught_up).await?;
        let each = |bytes: f64| bytes / timed.asked as f64;
        let mut figures = timed.workflows(in_flight, cpu);
        figures.extend([
            ("ratio_to_disk", percentile_ms(&timed.times, 50) / disk.waits_ms()),
            ("journal_bytes_per_workflow", each(left.log)),
            ("index_bytes_per_workflow", each(left.index)),
            ("peak_rss_mib", peak),
        ]);
        if let Some(behind) = behind {
            figures.push(("views_behind", behind.reports));
            // Those that are not written yet would be missing.
            let written = behind
                .seconds
                .map(|seconds| [("views_behind_s", seconds), ("views_bytes_per_workflow", each(left.views))]);
            figures.extend(written.into_iter().flatten());
        }
        output.row(measured, &figures);
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}

/// Submissions acknowledged a second: durable, with an idempotency key, charged to a quota. `running` attempts at most are in
/// flight meanwhile.
pub(crate) async fn submissions(directory: &Path, count: usize, running: usize, output: &Output) -> anyhow::Result<()> {
    output.title(&format!("Submissions acknowledged over HTTP to {SUBMITTERS} clients, while {running} at most run"));
    let path = directory.join("http-submissions");
    let server = Server::start(&Program::NoOp { views: true }, &path, running, SUBMITTERS).await?;
    let clients = Clients::connect(&server.address, SUBMITTERS).await?;
    let ask = Ask::new("/clusters", StatusCode::ACCEPTED);
    let timed = asking(clients, ask, count, || server.cpu_seconds()).await?;
    let here = [("running", running as f64), ("peak_rss_mib", server.peak_rss_mib())];
    output.row("http: submissions", &[&timed.submissions(server.cpu_seconds())[..], &here].concat());
    // Most of them have not been run, and nobody waits for them.
    server.stop(false).await?;
    Ok(std::fs::remove_dir_all(&path)?)
}

/// Workflows a second of a server that somebody else has started.
pub(crate) async fn peer(peer: &Peer, in_flight: usize, count: Option<usize>, output: &Output) -> anyhow::Result<()> {
    output.title(&format!("{} over HTTP, the clients on the same cores", peer.name));
    let clients = Clients::connect(&peer.address, in_flight).await?;
    let ask = Ask::new(&peer.run, StatusCode::OK);
    let timed = asking(clients, ask, counted(in_flight, count), || peer.cpu_seconds()).await?;
    let here = [
        ("disk_bytes_per_workflow", peer.disk_bytes() as f64 / timed.asked as f64),
        ("peak_rss_mib", peer.peak_rss_mib()),
    ];
    output.row(&peer.name, &[&timed.workflows(in_flight, peer.cpu_seconds())[..], &here].concat());
    Ok(())
}

/// Submissions that it acknowledges a second at this path.
pub(crate) async fn peer_submissions(peer: &Peer, path: &str, count: usize, output: &Output) -> anyhow::Result<()> {
    output.title(&format!("{}: submissions acknowledged to {SUBMITTERS} clients", peer.name));
    let clients = Clients::connect(&peer.address, SUBMITTERS).await?;
    let timed = asking(clients, Ask::new(path, StatusCode::ACCEPTED), count, || peer.cpu_seconds()).await?;
    let figures = timed.submissions(peer.cpu_seconds());
    output.row(&format!("{}: submissions", peer.name), &figures);
    Ok(())
}

/// Asks so often, and once for so many of those before that.
async fn asking(mut clients: Clients, ask: Ask, count: usize, cpu: impl Fn() -> f64) -> anyhow::Result<Timed> {
    let (warm, ask) = (count.div_ceil(WARM_UP), ask.into());
    clients.ask(&ask, 0..warm).await?;
    let (cpu_before, start) = (cpu(), Instant::now());
    let times = clients.ask(&ask, warm..warm + count).await?;
    Ok(Timed { asked: warm + count, took: start.elapsed(), times, cpu_before })
}
