//! A place where creations are disturbed: a sandbox cluster in this process, and an engine in its own, on a journal of
//! its own. The engine is the program as it is shipped; only who kills it is new.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{
    Outcome,
    store::{LogReader, check_index, verify},
};
use cairn_steps::{
    render::Kind,
    sandbox::{Fault, FaultAction},
};
use http::StatusCode;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, PostParams};
use serde_json::{Value, json};

use super::{
    judge::{End, Name, made, violations},
    points::{Creation, Point, Side, Trouble},
};
use crate::{
    command::RunningSandbox,
    config::{Places, SandboxSettings, Settings, Shared},
    driven::{Client, EngineProcess, Launch},
};

/// For one creation, with its engine's restart: far more than either takes.
const TIME_MAX: Duration = Duration::from_secs(120);
/// How long a pod takes to become ready: the sandbox is there to be finished with.
const POD_READY_AFTER: Duration = Duration::from_millis(20);
/// Whose creations these are.
const USER: &str = "prove";
/// A namespace that is somebody else's.
const THEIRS: &str = "theirs";

/// What an undisturbed creation does.
#[derive(Clone, Debug)]
pub(super) struct Clean {
    pub(super) appends: u64,
    pub(super) calls: u64,
    /// What is there once it has succeeded.
    pub(super) whole: BTreeSet<Name>,
}

/// What came of a point.
#[derive(Debug)]
pub(super) struct Tried {
    /// The creation came to it; where not, it was disturbed by nothing.
    pub(super) reached: bool,
    pub(super) outcome: Outcome,
    pub(super) violations: Vec<String>,
}

/// How a disturbed creation came through.
struct Came {
    /// It came to the point where it was to be disturbed.
    reached: bool,
    /// Its submission was on the disk when the engine was killed, and the next one does not know it.
    lost: bool,
    end: End,
}

pub(super) struct World {
    creation: Creation,
    data: PathBuf,
    sandbox: RunningSandbox,
    launch: Launch,
    engine: Option<EngineProcess>,
    theirs: Vec<Value>,
    created: u64,
}

impl World {
    /// A new one in this directory.
    ///
    /// # Errors
    /// If the cluster cannot be started there.
    pub(super) async fn new(data: &Path, creation: Creation) -> anyhow::Result<Self> {
        let shared = Shared {
            places: Places { data: Some(data.to_owned()), log_filter: Some("warn".to_owned()), ..Places::default() },
            ..Shared::default()
        };
        let settings = Settings::new(&shared)?;
        let cluster = SandboxSettings { pod_ready_after: Some(POD_READY_AFTER) };
        let sandbox = RunningSandbox::start(data, 0, &cluster).await?;
        let launch = Launch::new(&shared, &settings, &format!("http://{}", sandbox.address))?.without_variables();
        let mut world =
            Self { creation, data: data.to_owned(), sandbox, launch, engine: None, theirs: Vec::new(), created: 0 };
        world.theirs = world.add_foreign().await.context("the namespace of somebody else")?;
        Ok(world)
    }

    /// A creation that nobody disturbs, and what it does: what there is to be swept.
    ///
    /// # Errors
    /// If it does not end as it should.
    pub(super) async fn clean(&mut self) -> anyhow::Result<Clean> {
        let faults = self.sandbox.sandbox.faults();
        // A delay of nothing delays nobody, and counts.
        let counter = faults.add(Fault::new(FaultAction::Latency { millis: 0 }));
        let end = self.undisturbed().await?;
        let counted = self.sandbox.sandbox.faults().list();
        self.sandbox.sandbox.faults().remove(counter);
        let calls = counted.iter().find(|fault| fault.id == counter).map_or(0, |fault| fault.fired);
        let whole = made(&end, &self.sandbox.sandbox);
        let violations = violations(&end, self.creation.failing.is_some(), &whole, &self.sandbox.sandbox);
        ensure!(violations.is_empty(), "{} is broken undisturbed: {}", self.creation, violations.join("; "));
        // The log is read as it lies there, while the engine runs.
        let appends = LogReader::open(&self.data)?
            .try_fold(0, |appends, commit| commit.map(|commit| appends + u64::from(!commit.entries.is_empty())))?;
        ensure!(appends > 0 && calls > 0, "an undisturbed creation appends nothing, or calls nobody");
        Ok(Clean { appends, calls, whole })
    }

    /// Disturbs a creation at `point`, and judges how it ends.
    ///
    /// # Errors
    /// If it does not end.
    pub(super) async fn try_out(&mut self, point: Point, whole: &BTreeSet<Name>) -> anyhow::Result<Tried> {
        self.created += 1;
        let disturbed = async {
            match point.trouble {
                Trouble::KilledAtAppend => self.killed_by_itself(point).await,
                Trouble::KilledAtCall | Trouble::KilledAgain => self.killed_at_call(point).await,
                Trouble::Lost => self.lost(point).await,
            }
        };
        let disturbed = tokio::time::timeout(TIME_MAX, disturbed).await;
        // What has not fired yet is not for the next one.
        self.sandbox.sandbox.faults().clear();
        let came = disturbed.unwrap_or_else(|_| bail!("it has not ended within {} s", TIME_MAX.as_secs()));
        let Came { reached, lost, end } = came?;
        let mut violations = violations(&end, self.creation.failing.is_some(), whole, &self.sandbox.sandbox);
        if lost {
            violations.push("its submission was on the disk, and is lost".to_owned());
        }
        if end.outcome == Outcome::Succeeded {
            // Room for the next one: the cluster's nodes are as large as real ones.
            self.namespaces().delete(&end.namespace, &DeleteParams::default()).await.context("making room")?;
        }
        Ok(Tried { reached, outcome: end.outcome, violations })
    }

    /// Ends the engine in order, and looks at what is left of all creations: the journal, and what is somebody else's.
    ///
    /// # Errors
    /// If either is not as it has to be.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        if let Some(engine) = self.engine.take() {
            engine.stop().await?;
        }
        let data = self.data.clone();
        let checked = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let mut log = LogReader::open(&data)?;
            verify(&mut log).context("the journal")?;
            let index = check_index(&data)?;
            ensure!(index.differences.is_empty(), "the index differs: {}", index.differences.join("; "));
            Ok(())
        });
        checked.await??;
        ensure!(self.foreign().await? == self.theirs, "what is somebody else's has changed");
        self.sandbox.stop().await;
        Ok(())
    }

    /// Before an append is written or after it is durable the engine kills itself, as no other process could that exactly.
    async fn killed_by_itself(&mut self, point: Point) -> anyhow::Result<Came> {
        if let Some(engine) = self.engine.take() {
            engine.kill().await?;
        }
        let mut fault = self.failing();
        fault.extend(point.kill_at().into_iter().flat_map(|at| ["--kill-at".to_owned(), at]));
        let mut engine = self.launch.start(0, &fault).await?;
        let client = Client::new(&engine.url());
        let (wanted, key) = (self.wanted(), self.key());
        let answer = client.create(&wanted, &key, TIME_MAX).await;
        let reached = answer.is_err();
        if reached {
            let ended = engine.ended().await?;
            ensure!(ended.killed, "the engine was to be killed, and ended otherwise: {ended}");
        } else {
            engine.stop().await?;
        }
        // The first append is the submission's.
        let submitted = point.number > 1 || point.side == Side::After;
        let lost = reached && submitted && !self.is_known().await?;
        Ok(Came { reached, lost, end: self.undisturbed().await? })
    }

    /// The cluster does not answer the call, and the engine is killed while it waits; and, if so wanted, the one after it.
    async fn killed_at_call(&mut self, point: Point) -> anyhow::Result<Came> {
        self.engine().await?;
        let first = self.killed_waiting(point.fault().context("a fault of the cluster's")?).await?;
        let reached = match point.again {
            Some(again) if first => self.killed_waiting(again.fault()).await?,
            _ => first,
        };
        // Nothing is called before the submission is on the disk.
        let lost = first && !self.is_known().await?;
        Ok(Came { reached, lost, end: self.undisturbed().await? })
    }

    /// Asks for the creation until the cluster leaves a call unanswered, and kills the engine then. The calls of one that is
    /// started here count from its beginning. Returns whether it came to that.
    async fn killed_waiting(&mut self, fault: Fault) -> anyhow::Result<bool> {
        let faults = self.sandbox.sandbox.faults();
        let mut hung = faults.hung();
        hung.mark_unchanged();
        let id = faults.add(fault);
        self.engine().await?;
        let (client, wanted, key) = (self.client()?, self.wanted(), self.key());
        let reached = tokio::select! {
            changed = hung.changed() => { changed.context("the sandbox is gone")?; true }
            answer = client.create(&wanted, &key, TIME_MAX) => { answer?; false }
        };
        if reached && let Some(engine) = self.engine.take() {
            engine.kill().await?;
        }
        self.sandbox.sandbox.faults().remove(id);
        Ok(reached)
    }

    /// The connection breaks before the call is executed, or instead of its answer.
    async fn lost(&mut self, point: Point) -> anyhow::Result<Came> {
        self.engine().await?;
        let id = self.sandbox.sandbox.faults().add(point.fault().context("a fault of the cluster's")?);
        let end = self.undisturbed().await;
        let fired = self.sandbox.sandbox.faults().list().iter().any(|fault| fault.id == id && fault.fired > 0);
        self.sandbox.sandbox.faults().remove(id);
        Ok(Came { reached: fired, lost: false, end: end? })
    }

    /// Whether an engine that has just started knows the creation, before anybody asks for it again.
    async fn is_known(&mut self) -> anyhow::Result<bool> {
        self.engine().await?;
        let listed = self.client()?.get(&format!("/workflows?user={USER}&service_name={}", self.service())).await?;
        Ok(listed["workflows"].as_array().is_some_and(|workflows| !workflows.is_empty()))
    }

    /// Asks for the creation, or asks again with the same key, until it has ended.
    async fn undisturbed(&mut self) -> anyhow::Result<End> {
        self.engine().await?;
        let client = self.client()?;
        let (status, body) = client.create(&self.wanted(), &self.key(), TIME_MAX).await?;
        let outcome = match status {
            StatusCode::CREATED | StatusCode::OK => Outcome::Succeeded,
            StatusCode::INTERNAL_SERVER_ERROR => Outcome::Failed,
            _ => bail!("it has not ended: {status}, {body}"),
        };
        let workflow = ["id", "workflow_id"].iter().find_map(|field| body[*field].as_str());
        let workflow = workflow.with_context(|| format!("no workflow in {body}"))?.to_owned();
        let reports = client.get(&format!("/deployment/reports/{USER}/{}", self.service())).await?;
        let statuses = reports.as_array().into_iter().flatten().filter_map(|report| report["status"].as_str());
        let reports = statuses.map(str::to_owned).collect();
        Ok(End { outcome, workflow, reports, namespace: format!("{USER}--{}", self.service()) })
    }

    /// An engine that runs: the one that is there, or a new one.
    async fn engine(&mut self) -> anyhow::Result<()> {
        if self.engine.is_none() {
            self.engine = Some(self.launch.start(0, &self.failing()).await?);
        }
        Ok(())
    }

    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.engine.as_ref().context("there is no engine")?.url()))
    }

    fn failing(&self) -> Vec<String> {
        self.creation.failing.iter().flat_map(|step| ["--fail-at".to_owned(), step.as_str().to_owned()]).collect()
    }

    fn service(&self) -> String {
        format!("creation-{}", self.created)
    }

    fn key(&self) -> String {
        format!("key-{}", self.created)
    }

    /// Two nodes with a GPU each: but for the pull from a GitLab no step is skipped.
    fn wanted(&self) -> Value {
        json!({ "user": USER, "service_name": self.service(), "replicas": 2, "gpu_count": 1 })
    }

    async fn add_foreign(&self) -> anyhow::Result<Vec<Value>> {
        let object = |name: &str, data: Value| DynamicObject {
            types: None,
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data,
        };
        let post = PostParams::default();
        self.namespaces().create(&post, &object(THEIRS, json!({}))).await?;
        self.maps().create(&post, &object("theirs", json!({ "data": { "a": "b" } }))).await?;
        self.foreign().await
    }

    async fn foreign(&self) -> anyhow::Result<Vec<Value>> {
        let namespace = self.namespaces().get(THEIRS).await?;
        let map = self.maps().get("theirs").await?;
        Ok(vec![serde_json::to_value(namespace)?, serde_json::to_value(map)?])
    }

    fn namespaces(&self) -> Api<DynamicObject> {
        Api::all_with(self.sandbox.sandbox.client(), &Kind::Namespace.api_resource())
    }

    fn maps(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.sandbox.sandbox.client(), THEIRS, &Kind::ConfigMap.api_resource())
    }
}
