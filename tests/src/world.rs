//! A world in one process: a sandbox cluster, a journal in memory, engines one after another, and a clock that jumps
//! ahead whenever everybody waits.
//!
//! - [`World::run`] gives it a runtime of its own, so that nothing of one world lives on in the next.
//! - Each [`World::open`] is one life of an engine, cut off where it is told to be; the journal and the cluster stay.
//! - What clients are told is noted, and with all the rest is [`World::evidence`].

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use cairn_engine::{
    Amounts, Definition, Engine, EngineOptions, Hash, IdempotencyKey, Json, Limits, NewSubmission, OnFailure,
    PausedClock, Registry, ResourceName, SubmitError, SystemChance, Timestamp, WorkflowId, WorkflowState,
    store::{MemoryStore, Refusal, Store},
};
use cairn_steps::{
    cluster::{Cluster, rollout::RolloutRules},
    create::{Deps, create_definition},
    delete::delete_definition,
    gitlab::{GitLab, GitLabRules},
    request::Request,
    sandbox::{Sandbox, SandboxOptions},
    update::update_definition,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::{
    faulty::{FaultyCluster, FaultyStore},
    life::{Cut, Life, Tape},
    oracle::{Evidence, Told, Write},
    steps::failing_at,
};

/// The longest that anything may take to end, on the world's own clock: longer than the most patient of policies.
pub const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// The field manager under which tests write to the cluster: what it wrote is nobody's fault.
pub const TESTER: &str = "tester";

/// One world.
pub struct World {
    /// The cluster.
    pub sandbox: Sandbox,
    store: Arc<MemoryStore>,
    clock: PausedClock,
    tape: Arc<Tape>,
    lives: u32,
    told: Vec<Told>,
    foreign: Vec<Value>,
    quota: Amounts,
}

/// One life of an engine.
pub struct Running {
    /// The engine.
    pub engine: Engine,
    /// Its life.
    pub life: Arc<Life>,
}

impl World {
    /// Runs `test` in a world of its own, on a runtime of its own.
    ///
    /// # Errors
    /// Whatever `test` returns.
    pub fn run<T, F: Future<Output = anyhow::Result<T>>>(test: impl FnOnce(Self) -> F) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let result = runtime.block_on(async { test(Self::new()?).await });
        // What an ended life left waiting is dropped here, and not waited for.
        runtime.shutdown_background();
        result
    }

    fn new() -> anyhow::Result<Self> {
        let now = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
        Ok(Self {
            sandbox: Sandbox::open(SandboxOptions::default())?,
            store: Arc::new(MemoryStore::new()),
            clock: PausedClock::starting_at(now),
            tape: Arc::default(),
            lives: 0,
            told: Vec::new(),
            foreign: Vec::new(),
            quota: [(ResourceName::new("clusters"), 1_000)].into(),
        })
    }

    /// Puts something of somebody else's into the cluster: it must stay as it is.
    ///
    /// # Errors
    /// If the cluster does not take it.
    pub async fn add_foreign(&mut self) -> anyhow::Result<()> {
        let client = self.sandbox.client();
        let params = PostParams { field_manager: Some(TESTER.to_owned()), ..PostParams::default() };
        let namespace = serde_json::from_value(json!({ "metadata": { "name": "theirs" } }))?;
        Api::<Namespace>::all(client.clone()).create(&params, &namespace).await?;
        for (name, annotation) in
            [("plain", json!({})), ("marked", json!({ "cairn.dev/workflow": "of another engine" }))]
        {
            let object = json!({ "metadata": { "name": name, "annotations": annotation }, "data": { "a": "b" } });
            let object = serde_json::from_value(object)?;
            Api::<ConfigMap>::namespaced(client.clone(), "theirs").create(&params, &object).await?;
        }
        let theirs = |object: &Value| {
            let metadata = &object["metadata"];
            metadata["namespace"] == "theirs" || metadata["name"] == "theirs"
        };
        // What the cluster itself adds to a new namespace comes a moment later.
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.foreign = self.sandbox.objects().into_iter().filter(theirs).collect();
        Ok(())
    }

    /// Begins the next life of an engine: it ends at `cut`, and its step `failing` fails for good after its work.
    ///
    /// # Errors
    /// If the engine does not open, which a cut within the recovery makes so.
    pub async fn open(&mut self, cut: Option<Cut>, failing: Option<&str>) -> anyhow::Result<Running> {
        self.lives += 1;
        self.store = Arc::new(self.store.reopen());
        let life = Life::new(self.lives, cut, Arc::clone(&self.tape));
        let store = FaultyStore::new(Arc::clone(&self.store) as Arc<dyn Store>, Arc::clone(&life));
        let service = FaultyCluster::new(self.sandbox.service(), Arc::clone(&life));
        let definitions = definitions(&Cluster::new(kube::Client::new(service, "default")));
        let definitions = definitions.map(|definition| match failing {
            Some(step) if definition.step_names().iter().any(|name| name.as_str() == step) => {
                failing_at(&definition, step)
            }
            _ => definition,
        });
        let options = EngineOptions {
            store: Arc::new(store),
            definitions: Registry::new(definitions),
            clock: Arc::new(self.clock),
            chance: Arc::new(SystemChance),
            limits: Limits::default(),
        };
        let engine = Engine::open(options).await.context("the engine does not open")?;
        Ok(Running { engine, life })
    }

    /// Submits a creation; `None` if nobody knows whether it was accepted. The same again is the same workflow.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn submit(&mut self, running: &Running, request: &Value) -> anyhow::Result<Option<WorkflowId>> {
        let submission = submission(request, self.quota.clone())?;
        let (tenant, service) = (submission.tenant.to_string(), submission.service.to_string());
        let input = submission.input.clone();
        let workflow = match running.engine.submit(submission).await {
            Ok(state) => state.id(),
            Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => workflow,
            Err(SubmitError::Stopped { .. }) => return Ok(None),
            Err(error) => bail!("refused: {error}"),
        };
        self.told.push(Told::Accepted { workflow, tenant, service, input: Some(input) });
        Ok(Some(workflow))
    }

    /// Waits until the workflow has ended or waits for a person; `None` if this life ends first.
    ///
    /// # Errors
    /// If it does neither in [`PATIENCE`].
    pub async fn settle(&mut self, running: &Running, workflow: WorkflowId) -> anyhow::Result<Option<WorkflowState>> {
        let settled = tokio::select! {
            biased;
            () = running.life.ended() => None,
            settled = tokio::time::timeout(PATIENCE, running.engine.settled(workflow)) => {
                settled.with_context(|| format!("{workflow} neither ended nor parked"))?.ok()
            }
        };
        if let Some(outcome) = settled.as_ref().and_then(WorkflowState::outcome) {
            self.told.push(Told::Ended { workflow, outcome });
        }
        Ok(settled)
    }

    /// The journal, for reading.
    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Notes what a client was told.
    pub(crate) fn told(&mut self, told: Told) {
        self.told.push(told);
    }

    /// The most that any tenant may hold.
    pub(crate) fn quota(&self) -> Amounts {
        self.quota.clone()
    }

    /// Lets ten minutes pass, so that what should not happen can: longer than any wait between two attempts.
    pub async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    }

    /// All that is known of this world.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn evidence(&self, at_rest: bool) -> anyhow::Result<Evidence> {
        let records = self.store.services(None)?;
        let mut usage = std::collections::BTreeMap::new();
        for record in &records {
            usage.insert(record.tenant.clone(), self.store.usage(&record.tenant)?);
        }
        Ok(Evidence {
            told: self.told.clone(),
            commits: self.store.commits(cairn_engine::CommitNumber(0), usize::MAX)?,
            tape: self.tape.events(),
            writes: writes(&serde_json::to_value(self.sandbox.effects())?, false),
            objects: self.sandbox.objects(),
            foreign: self.foreign.clone(),
            records: Some(records),
            usage,
            quota: self.quota.clone(),
            views: None,
            at_rest,
        })
    }
}

impl Running {
    /// Ends this life as a kill would.
    pub fn kill(self) {
        self.life.end();
    }
}

/// All that can be done to a cluster.
#[must_use]
pub fn definitions(cluster: &Cluster) -> [Definition; 3] {
    let update = update_definition(cluster.clone(), RolloutRules::default());
    [definition(cluster.clone()), update, delete_definition(cluster.clone())]
}

/// The creation, on this cluster.
#[must_use]
pub fn definition(cluster: Cluster) -> Definition {
    let gitlab = GitLab::new(GitLabRules::default());
    create_definition(Deps::new(cluster, gitlab))
}

/// The request of most tests: three nodes, with a GPU each, so that no step is skipped but the pull.
#[must_use]
pub fn request(user: &str, service: &str) -> Value {
    json!({ "user": user, "service_name": service, "replicas": 2, "gpu_count": 1, "disk_size": "20Gi" })
}

/// What a client submits with this body.
///
/// # Errors
/// If it is no good request.
pub fn submission(body: &Value, quota: Amounts) -> anyhow::Result<NewSubmission> {
    let text = body.to_string();
    let request = Request::parse(text.as_bytes()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    Ok(NewSubmission {
        definition: cairn_steps::create::NAME.into(),
        tenant: request.user.as_str().into(),
        service: request.service_name.as_str().into(),
        input: Json::parse(&request.to_json())?,
        key: Some(IdempotencyKey::new(&format!("{}/{}", request.user, request.service_name))),
        body_hash: Hash::default(),
        who: "tester".into(),
        holds: request.holds().into_iter().map(|(name, amount)| (ResourceName::new(name), amount)).collect(),
        quota,
        on_failure: OnFailure::Rollback,
    })
}

/// The cluster's effect log as the oracle reads it. `timed`: its clock is the journal's.
#[must_use]
pub fn writes(effects: &Value, timed: bool) -> Vec<Write> {
    let text = |effect: &Value, field: &str| effect[field].as_str().unwrap_or_default().to_owned();
    let effects = effects.as_array().map(Vec::as_slice).unwrap_or_default();
    effects
        .iter()
        .filter(|effect| effect["manager"] != TESTER)
        .map(|effect| Write {
            verb: text(effect, "verb"),
            kind: text(effect, "kind"),
            namespace: text(effect, "namespace"),
            name: text(effect, "name"),
            uid: text(effect, "uid"),
            workflow: effect["workflow"].as_str().map(str::to_owned),
            made_it: effect["version_before"].is_null(),
            at_micros: effect["at"]
                .as_str()
                .and_then(|at| at.parse::<jiff::Timestamp>().ok())
                .map(jiff::Timestamp::as_microsecond)
                .filter(|_| timed),
        })
        .collect()
}
