//! `cairn demo`: one creation, live; plainly, with a crash, with a rollback, or on a cluster where it, or a change after it,
//! cannot work out.
//!
//! Nothing is staged. The engine is a process of its own, started as `cairn dev`; it is spoken to over HTTP, and what is
//! shown comes out of its journal, as events. The sandbox cluster lives in this process, so a killed engine does not take
//! it along.

mod scenario;
mod screen;

use std::{net::Ipv4Addr, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{Entry, Fact, Outcome, Phase, Sequence, WorkflowState};
use cairn_steps::{names::WORKFLOW_ANNOTATION, report::STATUSES, sandbox::FaultId};

pub(crate) use self::scenario::Scenario;
use self::screen::Screen;
use crate::{
    command::RunningSandbox,
    config::{DemoArgs, Places, Settings, Shared},
    driven::{Accepted, Client, EngineProcess, Events, Launch},
    shutdown::Signals,
    telemetry,
};

/// The whole of it, serving on not included: far more than a creation in the sandbox takes.
const TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// Whose cluster is created.
const USER: &str = "demo";

/// Shows one creation.
///
/// # Errors
/// If what was asked for did not happen.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    let data = match args.shared.places.data.clone() {
        Some(data) => data,
        // It stays: the journal is there to be looked at.
        None => tempfile::Builder::new().prefix("cairn-demo-").tempdir().context("no temporary directory")?.keep(),
    };
    let config = match args.scenario {
        Some(scenario) => Some(scenario.write_settings(&data)?),
        None => args.shared.places.config.clone(),
    };
    let places = Places { data: Some(data), config, ..args.shared.places.clone() };
    let shared = Shared { places, ..args.shared.clone() };
    // Wrong settings are told here, not in the log of a process that nobody sees.
    let settings = Settings::new(&shared)?;
    if settings.rules.tokens.is_some() || !settings.listen.is_loopback() {
        anyhow::bail!("tokens, listen: the demo is for this machine alone: start it without");
    }
    telemetry::start(settings.log_format, "warn")?;
    let sandbox = RunningSandbox::start(&settings.data, 0, &args.cluster).await?;
    let launch = Launch::new(&shared, &settings, &format!("http://{}", sandbox.address))?;
    let mut demo = Demo { args, settings, sandbox, launch, screen: Screen::new(), held: None };
    let shown = tokio::select! {
        shown = tokio::time::timeout(TIME_MAX, demo.show()) => match shown {
            Ok(shown) => shown,
            Err(_) => Err(anyhow::anyhow!("nothing to show within {} minutes", TIME_MAX.as_secs() / 60)),
        },
        () = signals.end() => Err(anyhow::anyhow!("interrupted before it was shown")),
    };
    let ended = match shown {
        Ok(mut engine) => {
            let served = if demo.args.exit { Ok(()) } else { demo.serve_on(&mut engine, &mut signals).await };
            engine.stop().await.and(served)
        }
        Err(error) => Err(error.context(format!("the engine's log is {}", demo.launch.log().display()))),
    };
    demo.sandbox.stop().await;
    ended.map(|()| ExitCode::SUCCESS)
}

struct Demo {
    args: DemoArgs,
    settings: Settings,
    sandbox: RunningSandbox,
    launch: Launch,
    screen: Screen,
    /// What holds a namespace, until it has been seen to.
    held: Option<FaultId>,
}

impl Demo {
    /// Shows it from the first engine to the final record; the engine that is left goes on serving.
    async fn show(&mut self) -> anyhow::Result<EngineProcess> {
        let fault = match (self.args.crash_at, self.args.fail_at) {
            (Some(step), _) => vec!["--kill-at".to_owned(), format!("step:{}", step.as_str())],
            (None, Some(step)) => vec!["--fail-at".to_owned(), step.as_str().to_owned()],
            (None, None) => Vec::new(),
        };
        let mut wanted = serde_json::json!({});
        if let Some(scenario) = self.args.scenario {
            self.held = scenario.prepare(&self.sandbox.sandbox).await?;
            wanted = scenario.request();
        }
        let mut engine = self.launch.start(self.port()?, &fault).await?;
        let client = Client::new(&engine.url());
        self.screen.introduce(&self.settings, &self.sandbox, &engine);
        if let Some(scenario) = self.args.scenario {
            self.screen.scenario(scenario.story());
        }
        let accepted = client.submit(USER, &wanted).await?;
        self.screen.accepted(&accepted);
        let (mut state, crashed) = self.watch(&client, &mut engine, &accepted).await?;
        if let Some(change) = self.args.scenario.and_then(Scenario::change) {
            self.created(&client, &state).await?;
            let changing = client.change(&accepted, &change).await?;
            self.screen.changing(&changing, &change);
            (state, _) = self.watch(&client, &mut engine, &changing).await?;
        }
        self.conclude(&client, &state, crashed).await?;
        self.screen.way_on(&self.settings, &self.sandbox, &engine, &accepted, self.args.exit);
        Ok(engine)
    }

    /// Shows this workflow to its end, with whichever engine drives it then. True if one was killed meanwhile.
    async fn watch(
        &mut self,
        client: &Client,
        engine: &mut EngineProcess,
        accepted: &Accepted,
    ) -> anyhow::Result<(WorkflowState, bool)> {
        let mut watched = Watched::default();
        let mut crashed = false;
        loop {
            let events = client.events(&accepted.id, watched.seen()).await?;
            if let Some(events) = events
                && self.follow(events, &mut watched).await?
            {
                break;
            }
            // The stream broke off: with the engine, or without.
            let Some(status) = engine.ended_within(Duration::from_secs(2)).await? else { continue };
            let Some(step) = self.args.crash_at.filter(|_| status.killed && !crashed) else {
                bail!("the engine ended by itself ({status})");
            };
            crashed = true;
            self.screen.crashed(engine.id(), step.as_str());
            *engine = self.launch.start(engine.port(), &[]).await?;
            self.screen.resumed(engine.id());
        }
        Ok((watched.state.context("the stream of events ended without one")?, crashed))
    }

    /// Shows events as they come. True once the workflow has ended, false if the stream broke off before.
    async fn follow(&mut self, mut events: Events, watched: &mut Watched) -> anyhow::Result<bool> {
        while let Some(entry) = events.next().await? {
            watched.take_in(&entry)?;
            let state = watched.state.as_ref().expect("it has just taken in an entry");
            self.screen.entry(&entry, state);
            if let Fact::CompensationFailed { error, .. } = &entry.fact
                && let Some(held) = self.held.take()
            {
                self.sandbox.sandbox.faults().remove(held);
                self.screen.released(&error.message);
            }
            match state.phase() {
                Phase::Finished { .. } => return Ok(true),
                Phase::Parked { .. } => bail!("the workflow is parked: {:?}", state.phase()),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Whether what was asked for is what happened.
    async fn conclude(&mut self, client: &Client, state: &WorkflowState, crashed: bool) -> anyhow::Result<()> {
        let (tenant, service) = (&state.submitted().tenant, &state.submitted().service);
        let deployment = format!("/deployments?user={tenant}&service_name={service}");
        if let Some(scenario) = self.args.scenario {
            let report = scenario.check(state)?;
            self.screen.told(&report);
            let record = client.get(&deployment).await?;
            if scenario.change().is_some() {
                ensure!(record[0]["status"] == "created", "the cluster is not as it was before: {}", record[0]);
                self.screen.changed_back(&record[0]);
                return Ok(());
            }
            let left = self.left(&state.id().to_string());
            ensure!(left.is_empty(), "the rollback left behind: {}", left.join(", "));
            self.screen.rolled_back(&record[0]);
            return Ok(());
        }
        if let Some(step) = self.args.fail_at {
            ensure!(
                state.outcome() == Some(Outcome::Failed),
                "{} was to fail the workflow, and did not",
                step.as_str()
            );
            let failed_at = state.failure().map(|(step, _)| step.as_str());
            ensure!(failed_at == Some(step.as_str()), "it failed at {failed_at:?} instead of {}", step.as_str());
            let left = self.left(&state.id().to_string());
            ensure!(left.is_empty(), "the rollback left behind: {}", left.join(", "));
            self.screen.rolled_back(&client.get(&deployment).await?[0]);
            return Ok(());
        }
        ensure!(self.args.crash_at.is_none() || crashed, "the engine was to be killed, and was not");
        self.created(client, state).await
    }

    /// Shows the cluster, which is there, with its ten reports.
    async fn created(&mut self, client: &Client, state: &WorkflowState) -> anyhow::Result<()> {
        let (tenant, service) = (&state.submitted().tenant, &state.submitted().service);
        ensure!(state.outcome() == Some(Outcome::Succeeded), "the workflow did not succeed: {:?}", state.phase());
        let reports = client.get(&format!("/deployment/reports/{tenant}/{service}")).await?;
        let statuses: Vec<&str> = reports
            .as_array()
            .into_iter()
            .flatten()
            .filter(|report| report["workflow_id"] == state.id().to_string().as_str())
            .filter_map(|report| report["status"].as_str())
            .collect();
        ensure!(statuses == STATUSES, "these are not the ten reports: {}", statuses.join(", "));
        let record = client.get(&format!("/tenant/containers/{tenant}/{service}")).await?;
        self.screen.created(&record, statuses.len());
        Ok(())
    }

    /// What bears the workflow's mark in the cluster itself, whatever the journal says.
    fn left(&self, workflow: &str) -> Vec<String> {
        let pointer = format!("/metadata/annotations/{}", WORKFLOW_ANNOTATION.replace('/', "~1"));
        let mark =
            |object: &serde_json::Value| object.pointer(&pointer).and_then(|mark| mark.as_str()) == Some(workflow);
        let objects = self.sandbox.sandbox.objects();
        let name = |object: &serde_json::Value| format!("{}/{}", object["kind"], object["metadata"]["name"]);
        objects.iter().filter(|object| mark(object)).map(name).collect()
    }

    async fn serve_on(&mut self, engine: &mut EngineProcess, signals: &mut Signals) -> anyhow::Result<()> {
        self.screen.serving_on();
        tokio::select! {
            () = signals.end() => Ok(()),
            status = engine.ended() => {
                let status = status?;
                // Ctrl-C reaches both processes, and the other one may be quicker.
                if status.clean { Ok(()) } else { bail!("the engine ended by itself ({status})") }
            }
        }
    }

    /// The port that was asked for; the usual one if it is free, else any.
    fn port(&self) -> anyhow::Result<u16> {
        let port = self.settings.port;
        if port == 0 || self.args.shared.port.is_some() {
            return Ok(port);
        }
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => Ok(port),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// The workflow as its events have told so far.
#[derive(Default)]
struct Watched {
    state: Option<WorkflowState>,
}

impl Watched {
    fn seen(&self) -> Sequence {
        self.state.as_ref().map(WorkflowState::sequence).unwrap_or_default()
    }

    /// An event with a gap before it, or seen before, is no legal entry: that is an error of the stream.
    fn take_in(&mut self, entry: &Entry) -> anyhow::Result<()> {
        match &mut self.state {
            Some(state) => state.fold(entry)?,
            None => self.state = Some(WorkflowState::begin(entry)?),
        }
        Ok(())
    }
}
