//! An engine behind HTTP, from the open port to the closed store: what `serve` and `dev` have in common.

use std::{io::Write as _, net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use cairn_engine::{
    Engine, EngineOptions, Registry, SystemChance, SystemClock,
    store::{Cut, DurableOptions, DurableStore, OpenReport, Store, StoreError},
};
use cairn_steps::{
    cluster::Cluster,
    create::{Deps, create_definition},
    delete::delete_definition,
    gitlab::GitLab,
    overlay::Overlay,
    update::update_definition,
};
use tokio::net::TcpListener;

use crate::{
    app::App,
    cluster::ClusterCheck,
    config::{Settings, Testing},
    failpoint,
    killpoint::KillingStore,
    routes, server,
    shutdown::{self, Asked, Signals},
    telemetry::LogFormat,
    views::Views,
};

/// The definition that creates a cluster.
pub(crate) const CREATE: &str = cairn_steps::create::NAME;

/// The file that holds the port while the program runs.
const PORT_FILE: &str = "cairn.port";

/// Runs an engine against this cluster until a signal ends it.
///
/// # Errors
/// If the port is taken, the journal cannot be opened, or it stopped after a failed write.
pub(crate) async fn run(settings: Settings, testing: Testing, cluster: Cluster) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    let overlay = settings.load_overlay().await?;
    let (listen, wanted) = (settings.listen, settings.port);
    let listener = TcpListener::bind((listen, wanted))
        .await
        .with_context(|| format!("port {wanted} of {listen} cannot be used: choose another --port, or 0"))?;
    let address = listener.local_addr()?;
    let port = address.port();
    let check = ClusterCheck::new(cluster.clone());
    let app = App::new(settings.rules.clone(), settings.elastic.clone(), check);
    let app = app.with_overlay(overlay.clone()).with_views_behind(settings.views_behind);
    let app = Arc::new(app.sizing_strictly(settings.strict_sizing));
    let connections = settings.connections;
    // The port is open before recovery: whoever asks hears 503 instead of nothing.
    let serving =
        tokio::spawn(server::serve(listener, routes::router(Arc::clone(&app)), connections, app.stopping.clone()));
    announce(address, settings.log_format);
    let opened = tokio::select! {
        opened = open(&settings, &testing, cluster, app.gitlab.clone(), overlay) => opened,
        () = signals.end() => {
            tracing::info!("ended before recovery was done");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let engine = opened?;
    let port_file = settings.data.join(PORT_FILE);
    if let Err(error) = std::fs::write(&port_file, format!("{port}\n")) {
        // The port is said above, too. What a full disk took of the file, or an earlier run left, would mislead.
        let _ = std::fs::remove_file(&port_file);
        tracing::warn!(file = %port_file.display(), port, %error, "the port cannot be written into its file");
    }
    tracing::info!(port, data = %settings.data.display(), active = engine.health().active, "ready");
    app.opened(engine.clone());
    let ended = watch(&app, &engine, &settings, &testing, &mut signals).await;
    app.stopping.cancel();
    let _ = serving.await;
    let _ = std::fs::remove_file(&port_file);
    if ended.is_ok() {
        tracing::info!("ended");
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// Obeys signals until one of them, or a fault of the journal, ends the program.
async fn watch(
    app: &Arc<App>,
    engine: &Engine,
    settings: &Settings,
    testing: &Testing,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let parent_gone = async {
        if testing.exit_with_parent {
            shutdown::parent_gone().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(parent_gone);
    loop {
        tokio::select! {
            why = engine.stopped() => {
                anyhow::bail!("the journal has stopped: {why}; nothing more was accepted or done: start cairn again once its disk takes writes");
            }
            () = &mut parent_gone => return shutdown::drain(app, engine, settings, signals).await,
            asked = signals.next() => match asked {
                Asked::End => return shutdown::drain(app, engine, settings, signals).await,
                Asked::Reread => match settings.reread() {
                    Ok(rules) => {
                        tracing::info!("quotas, GitLab hosts and tokens are read again, and in force");
                        app.set_rules(rules);
                    }
                    Err(error) => tracing::error!(%error, "the settings are wrong: those before stay in force"),
                },
            },
        }
    }
}

/// Opens the store and the engine, and starts the views.
async fn open(
    settings: &Settings,
    testing: &Testing,
    cluster: Cluster,
    gitlab: GitLab,
    overlay: Option<Arc<Overlay>>,
) -> anyhow::Result<Engine> {
    let data = settings.data.clone();
    // Healing a damaged copy can take a while, and blocks.
    let mut store = tokio::task::spawn_blocking(move || open_store(&data)).await.context("opening the journal")??;
    if let Some(point) = testing.kill_at.clone() {
        tracing::warn!(?point, "this process is going to kill itself");
        store = Arc::new(KillingStore::new(store, point));
    }
    let engine = Engine::open(EngineOptions {
        store,
        definitions: definitions(settings, testing, cluster, gitlab, overlay),
        clock: Arc::new(SystemClock),
        chance: Arc::new(SystemChance),
        limits: settings.limits,
    })
    .await?;
    if testing.instead.is_none_or(|instead| instead.views) {
        engine.project(Box::new(Views::new(&settings.views, &settings.log))).context("starting the views")?;
    }
    Ok(engine)
}

/// The journal in this directory; what had to be healed to open it is logged.
///
/// # Errors
/// [`StoreError`], with what to do about it.
pub(crate) fn open_store(data: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let (store, report) = DurableStore::open(&DurableOptions::new(data))?;
    let OpenReport { caught_up, rebuilt, set_aside, healed, cut } = report;
    if caught_up > 0 {
        tracing::info!(commits = caught_up, "the journal's index was behind its log, and is caught up");
    }
    if let Some(why) = rebuilt {
        let aside = set_aside.map(|path| path.display().to_string());
        tracing::warn!(why, aside, "the journal's index was made again from its log");
    }
    for place in in_ranges(&healed) {
        tracing::warn!(place, "a damaged place of the journal's log was put right");
    }
    if let Some(Cut { file, offset, bytes }) = cut {
        tracing::warn!(file, offset, bytes, "the journal's log ended in a write that was not whole: it was cut off");
    }
    Ok(Arc::new(store))
}

/// The places of healed commits, with those that follow one another in one file as one: a lost file has thousands.
fn in_ranges(places: &[String]) -> Vec<String> {
    let commit = |place: &str| -> Option<(u64, String, String)> {
        let (number, place) = place.strip_prefix("commit ")?.split_once(", ")?;
        let (file, offset) = place.split_once(" at byte ")?;
        Some((number.parse().ok()?, file.to_owned(), offset.to_owned()))
    };
    let mut ranges = Vec::new();
    let mut places = places.iter().peekable();
    while let Some(place) = places.next() {
        let Some((first, file, offset)) = commit(place) else {
            ranges.push(place.clone());
            continue;
        };
        let mut last = first;
        while places.next_if(|next| commit(next).is_some_and(|(next, of, _)| next == last + 1 && of == file)).is_some()
        {
            last += 1;
        }
        let range = format!("commits {first} to {last}, {file} from byte {offset} on");
        ranges.push(if last == first { place.clone() } else { range });
    }
    ranges
}

/// Gives the journal's ballast up if there is too little room, for those who write to this directory before it is opened.
///
/// # Errors
/// [`StoreError`], with what to do about it.
pub(crate) fn make_room(data: &Path) -> Result<(), StoreError> {
    DurableStore::make_room(&DurableOptions::new(data))
}

fn definitions(
    settings: &Settings,
    testing: &Testing,
    cluster: Cluster,
    gitlab: GitLab,
    overlay: Option<Arc<Overlay>>,
) -> Registry {
    let update = update_definition(cluster.clone(), settings.rollout.clone());
    let delete = delete_definition(cluster.clone());
    let deps = Deps {
        rollout: settings.rollout.clone(),
        elastic: settings.elastic.clone(),
        overlay,
        ..Deps::new(cluster, gitlab)
    };
    let create = create_definition(deps);
    let create = match testing.instead {
        Some(instead) => create.wrapped(instead.steps),
        None => create,
    };
    let create = match testing.fail_at {
        Some(step) => failpoint::failing_at(&create, step.as_str()),
        None => create,
    };
    Registry::new([create, update, delete])
}

/// Says where it listens, where a script can read it.
pub(crate) fn announce(address: SocketAddr, format: LogFormat) {
    let url = format!("http://{address}");
    let line = match format {
        LogFormat::Human => format!("listening on {url}"),
        LogFormat::Json => serde_json::json!({ "listening": url }).to_string(),
    };
    let mut stdout = std::io::stdout().lock();
    // Nobody has to read it.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::in_ranges;

    #[test]
    fn healed_commits_that_follow_one_another_in_a_file_are_one_place() {
        let places = [
            "the header of log/000001.log at byte 0",
            "commit 1, log/000001.log at byte 96",
            "commit 2, log/000001.log at byte 200",
            "commit 3, log/000001.log at byte 300",
            "commit 5, log/000001.log at byte 500",
            "commit 6, log/000002.log at byte 96",
            "commit 7, log/000002.log at byte 190",
        ]
        .map(str::to_owned);
        let expected = [
            "the header of log/000001.log at byte 0",
            "commits 1 to 3, log/000001.log from byte 96 on",
            "commit 5, log/000001.log at byte 500",
            "commits 6 to 7, log/000002.log from byte 96 on",
        ];
        assert_eq!(in_ranges(&places), expected);
    }
}
