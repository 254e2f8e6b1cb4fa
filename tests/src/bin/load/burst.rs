//! A burst: far more submissions at once than the server takes, and how it comes back from that.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;

use crate::{
    clients::{Ask, Client},
    output::{Output, percentile_ms},
    server::{Program, Server},
};

/// How often it is looked how far the server is.
const LOOK: Duration = Duration::from_millis(100);
/// The longest that all of it may take.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Submissions after the burst, one after the other: nothing of it is left by then.
const AFTERWARDS: usize = 100;
/// In flight at most, as the program has it if nobody says otherwise.
const RUNNING: usize = 64;

/// A burst of submissions.
pub(crate) struct Burst {
    pub(crate) submissions: usize,
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    pub(crate) views: bool,
}

/// What the clients have met.
#[derive(Default)]
struct Met {
    next: AtomicUsize,
    too_many: AtomicUsize,
    unavailable: AtomicUsize,
}

impl Burst {
    /// Submits them all, whatever is refused in between, and waits until all of them are done.
    pub(crate) async fn measure(self, directory: &Path, output: &Output) -> anyhow::Result<()> {
        let Self { submissions, clients, connections, views } = self;
        output.title(&format!(
            "A burst of {submissions} submissions by {clients} clients, of which {connections} connect"
        ));
        let server = Server::start(&Program::NoOp { views }, &directory.join("server"), RUNNING, connections).await?;
        let ask = Arc::new(Ask::new("/clusters", StatusCode::ACCEPTED));
        let (met, address) = (Arc::new(Met::default()), Arc::<str>::from(server.address.as_str()));
        let (start, idle_mib) = (Instant::now(), server.rss_mib());
        let mut submitting = JoinSet::new();
        for _ in 0..clients {
            submitting.spawn(submit(Arc::clone(&address), Arc::clone(&ask), Arc::clone(&met), submissions));
        }
        while let Some(client) = submitting.join_next().await {
            client??;
        }
        let submitted = start.elapsed();
        until(&server, |health| health["workflows"]["active"] == 0).await?;
        let done = start.elapsed();
        until(&server, |health| health["views"]["commits_behind"].as_u64().is_none_or(|behind| behind == 0)).await?;
        let shown = start.elapsed();
        let mut afterwards = Vec::new();
        let mut client = Client::connect(&address).await?;
        for number in submissions..submissions + AFTERWARDS {
            let began = Instant::now();
            client.ask(ask.request(&address, number)?, StatusCode::ACCEPTED).await?;
            afterwards.push(began.elapsed());
        }
        afterwards.sort();
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed) as f64;
        output.row(
            "burst",
            &[
                ("submissions", submissions as f64),
                ("submissions_per_s", submissions as f64 / submitted.as_secs_f64()),
                ("answered_429", count(&met.too_many)),
                ("answered_503", count(&met.unavailable)),
                ("submitted_after_s", submitted.as_secs_f64()),
                ("done_after_s", done.as_secs_f64()),
                ("views_after_s", shown.as_secs_f64()),
                ("afterwards_p50_ms", percentile_ms(&afterwards, 50)),
                ("afterwards_p99_ms", percentile_ms(&afterwards, 99)),
                ("cpu_s_per_1000", server.cpu_seconds() / submissions as f64 * 1e3),
                ("rss_before_mib", idle_mib),
                ("peak_rss_mib", server.peak_rss_mib()),
                ("rss_afterwards_mib", server.rss_mib()),
            ],
        );
        server.stop(true).await.map(drop)
    }
}

/// Submits what nobody else has submitted, until all is; comes back when the server says so.
async fn submit(address: Arc<str>, ask: Arc<Ask>, met: Arc<Met>, submissions: usize) -> anyhow::Result<()> {
    let mut client = None;
    loop {
        let number = met.next.fetch_add(1, Ordering::Relaxed);
        if number >= submissions {
            return Ok(());
        }
        while let Some(delay) = attempt(&mut client, &address, &ask, number, &met).await? {
            tokio::time::sleep(delay).await;
        }
    }
}

/// Submits this one; or gives the time after which it is to be tried again.
async fn attempt(
    client: &mut Option<Client>,
    address: &str,
    ask: &Ask,
    number: usize,
    met: &Met,
) -> anyhow::Result<Option<Duration>> {
    let connected = match client {
        Some(connected) => connected,
        None => client.insert(Client::connect(address).await?),
    };
    let Ok(answer) = connected.send(ask.request(address, number)?).await else {
        // Hung up before it has heard all: one connection too many. What it said may be lost with it.
        *client = None;
        met.unavailable.fetch_add(1, Ordering::Relaxed);
        return Ok(Some(Duration::from_secs(1)));
    };
    let refusals = match answer.status() {
        StatusCode::ACCEPTED => {
            answer.into_body().collect().await?;
            return Ok(None);
        }
        // The first answer to it was lost.
        StatusCode::OK => return Ok(None),
        StatusCode::TOO_MANY_REQUESTS => &met.too_many,
        StatusCode::SERVICE_UNAVAILABLE => &met.unavailable,
        other => bail!("answered {other}"),
    };
    refusals.fetch_add(1, Ordering::Relaxed);
    let after = answer.headers().get(header::RETRY_AFTER).context("it does not say when to come back")?;
    let after = Duration::from_secs(after.to_str()?.parse()?);
    // Whoever waits holds no connection that another could use.
    *client = None;
    Ok(Some(after))
}

async fn until(server: &Server, there: impl Fn(&serde_json::Value) -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !there(&server.health().await?) {
        if began.elapsed() > PATIENCE {
            bail!("the server does not get there");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
