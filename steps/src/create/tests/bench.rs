//! A workflow on a sandbox, driven by hand: one step at a time, with its facts folded as the engine would fold them.

use std::sync::Arc;

use cairn_engine::{
    Amounts, Attempt, Definition, Entry, Fact, FencingToken, Hash, OnFailure, Outcome, Output, Probe, Sequence, Step,
    StepContext, StepError, StepName, Submitted, Timestamp, WorkflowId, WorkflowState,
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Made};
use crate::create::{Deps, create_definition};
use crate::gitlab::{GitLab, GitLabRules};
use crate::input::Input;
use crate::request::{Request, RequestRules};
use crate::sandbox::{Sandbox, SandboxOptions};

/// One creation and its cluster.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) definition: Definition,
    pub(crate) state: WorkflowState,
    deps: Deps,
    followers: u8,
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::open(SandboxOptions::default()).expect("a sandbox in memory")
}

impl Bench {
    /// A creation of acme/search with these fields besides, on a cluster of its own.
    pub(crate) fn new(extra: Value) -> Self {
        Self::on(sandbox(), extra, GitLabRules::default())
    }

    pub(crate) fn on(sandbox: Sandbox, extra: Value, rules: GitLabRules) -> Self {
        let deps = Deps::new(Cluster::new(sandbox.client()), GitLab::new(rules));
        Self::with(sandbox, deps, extra)
    }

    /// A creation by an engine whose operator has chosen otherwise.
    pub(super) fn changed(extra: Value, change: impl FnOnce(&mut Deps)) -> Self {
        let sandbox = sandbox();
        let mut deps = Deps::new(Cluster::new(sandbox.client()), GitLab::new(GitLabRules::default()));
        change(&mut deps);
        Self::with(sandbox, deps, extra)
    }

    /// Goes on as an engine would that was started with other settings.
    pub(super) fn resume_with(&mut self, change: impl FnOnce(&mut Deps)) {
        change(&mut self.deps);
        self.definition = create_definition(self.deps.clone());
    }

    /// Another creation by the same engine on the same cluster.
    pub(crate) fn beside(&self, extra: Value) -> Self {
        Self::with(self.sandbox.clone(), self.deps.clone(), extra)
    }

    fn with(sandbox: Sandbox, deps: Deps, extra: Value) -> Self {
        let mut body = json!({"user": "acme", "service_name": "search"});
        let Value::Object(extra) = extra else { panic!("an object") };
        body.as_object_mut().expect("an object").extend(extra);
        let request = Request::parse_with(body.to_string().as_bytes(), RequestRules::JOURNALED).expect("good");
        let definition = create_definition(deps.clone());
        // Always the same, so that two runs can be compared.
        let workflow = WorkflowId::from_bytes([1; 16]);
        let state = submitted(&definition, workflow, &Input::creation(request));
        Self { sandbox, definition, state, deps, followers: 0 }
    }

    /// The workflow that follows on the same cluster: a change, a deletion, a creation over what is left.
    pub(crate) fn follow(&mut self, definition: Definition, input: &Input) {
        self.followers += 1;
        let workflow = WorkflowId::from_bytes([1 + self.followers; 16]);
        self.state = submitted(&definition, workflow, input);
        self.definition = definition;
    }

    pub(crate) fn cluster(&self) -> Cluster {
        self.deps.cluster.clone()
    }

    pub(crate) fn deps(&self) -> Deps {
        self.deps.clone()
    }

    pub(crate) fn step(&self, name: &str) -> Arc<dyn Step> {
        let steps = self.definition.steps();
        Arc::clone(steps.iter().find(|step| step.name().as_str() == name).expect("one of the ten"))
    }

    pub(crate) fn cx(&self, name: &str) -> StepContext {
        let (cx, stop) = StepContext::detached(self.state.clone(), name.into(), Attempt(1));
        // Dropped, it would say that the engine is gone.
        std::mem::forget(stop);
        cx
    }

    pub(crate) async fn run(&self, name: &str) -> Result<Output, StepError> {
        self.step(name).run(&self.cx(name)).await
    }

    pub(crate) async fn probe(&self, name: &str) -> Result<Probe, StepError> {
        self.step(name).probe(&self.cx(name)).await
    }

    pub(crate) async fn compensate(&self, name: &str) -> Result<String, StepError> {
        self.step(name).compensate(&self.cx(name)).await
    }

    pub(crate) async fn residue(&self) -> Vec<String> {
        self.definition.residue().look(&self.cx("completed")).await.expect("the sandbox answers")
    }

    /// Folds that this step has begun.
    pub(crate) fn begun(&mut self, name: &str) {
        self.fold(&Fact::AttemptStarted { step: name.into(), attempt: Attempt(1) });
    }

    /// Folds that this step, which has begun, has succeeded.
    pub(crate) fn succeeded(&mut self, name: &str, output: Output) {
        self.fold(&Fact::AttemptSucceeded { step: name.into(), attempt: Attempt(1), output });
    }

    /// Folds that the workflow, all of whose steps have succeeded or whose end was asked for by force, has ended.
    pub(crate) fn finished(&mut self, outcome: Outcome) {
        self.fold(&Fact::Finished { outcome, residue: Vec::new() });
    }

    /// Folds that the workflow was ended by force.
    pub(crate) fn ended_by_force(&mut self) {
        self.fold(&Fact::CancelRequested { who: "a test".into(), force: true });
        self.finished(Outcome::Cancelled);
    }

    /// Folds what a probe of this step, which has begun, has seen.
    pub(crate) fn probed(&mut self, name: &str, answer: Probe) {
        self.fold(&Fact::Probed {
            step: name.into(),
            attempt: Attempt(1),
            answer,
            retry_at: Some(Timestamp::default()),
        });
    }

    /// Runs every step before this one.
    pub(crate) async fn up_to(&mut self, name: &str) {
        let names: Vec<StepName> = self.definition.step_names().to_vec();
        for step in names.iter().map(StepName::as_str).take_while(|step| *step != name) {
            self.up_to_next(step).await;
        }
    }

    /// Runs this step, which is the next one.
    pub(crate) async fn up_to_next(&mut self, step: &str) {
        self.begun(step);
        let output =
            self.run(step).await.unwrap_or_else(|error| panic!("{step}: {error} {:?}", error.failure.evidence));
        self.succeeded(step, output);
    }

    /// Compensates this step and every one before it, newest first.
    pub(crate) async fn roll_back_from(&self, name: &str) {
        let names: Vec<StepName> = self.definition.step_names().to_vec();
        let last = names.iter().position(|step| step.as_str() == name).expect("one of the ten");
        for step in names[..=last].iter().rev() {
            self.compensate(step.as_str()).await.unwrap_or_else(|error| panic!("taking back {step}: {error}"));
        }
    }

    /// Puts somebody else's object into the cluster.
    pub(crate) async fn stranger(&self, body: Value) {
        let kind =
            crate::render::Kind::ALL.into_iter().find(|kind| body["kind"] == kind.to_string()).expect("a kind of ours");
        let object: kube::api::DynamicObject = serde_json::from_value(body.clone()).expect("an object");
        let (client, resource) = (self.sandbox.client(), kind.api_resource());
        let api = match body["metadata"]["namespace"].as_str() {
            Some(namespace) => kube::Api::namespaced_with(client, namespace, &resource),
            None => kube::Api::all_with(client, &resource),
        };
        api.create(&kube::api::PostParams::default(), &object).await.expect("created");
    }

    /// What was written, as lines: verb, object, UID.
    pub(crate) fn effects(&self) -> Vec<String> {
        let effects = self.sandbox.effects();
        effects.iter().map(|effect| format!("{} {}/{} {}", effect.verb, effect.kind, effect.name, effect.uid)).collect()
    }

    /// What is in the cluster besides what a cluster has from its beginning.
    pub(crate) fn things(&self) -> Vec<Value> {
        let mut things = self.sandbox.objects();
        let metadata = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        things.retain(|object| {
            metadata(object, "namespace") == "acme--search" || metadata(object, "name") == "acme--search"
        });
        things
    }

    pub(crate) fn workflow(&self) -> String {
        self.state.id().to_string()
    }

    fn fold(&mut self, fact: &Fact) {
        self.state.fold_fact(fact, Timestamp::default()).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The UIDs in a step's result.
pub(crate) fn made(output: &Output) -> Vec<Made> {
    serde_json::from_value(output.result.value()["made"].clone()).unwrap_or_default()
}

fn submitted(definition: &Definition, workflow: WorkflowId, input: &Input) -> WorkflowState {
    let request = &input.request;
    let fact = Fact::Submitted(Submitted {
        definition: definition.name().clone(),
        version: definition.version(),
        fingerprint: definition.fingerprint(),
        steps: definition.step_names().to_vec(),
        effect: definition.effect(),
        tenant: request.user.as_str().into(),
        service: request.service_name.as_str().into(),
        input: input.to_json().expect("small"),
        key: None,
        body_hash: Hash::default(),
        who: "a test".into(),
        holds: Amounts::new(),
        on_failure: OnFailure::Rollback,
    });
    WorkflowState::begin(&Entry {
        workflow,
        sequence: Sequence(1),
        token: FencingToken(1),
        time: Timestamp::default(),
        previous: Hash::default(),
        fact,
        hash: Hash::default(),
    })
    .expect("a beginning")
}
