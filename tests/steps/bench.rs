//! A creation driven by hand: one step at a time, its facts folded as the engine would fold them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use cairn_engine::{
    Amounts, Attempt, Definition, Entry, Fact, FencingToken, Hash, Json, OnFailure, Output, Probe, Sequence, Step,
    StepContext, StepError, StepName, Submitted, Timestamp, WorkflowId, WorkflowState,
};
use cairn_steps::{
    cluster::{Made, rollout::RolloutRules},
    create::{Deps, create_definition},
    gitlab::{GitLab, GitLabRules},
    render::Kind,
    request::Request,
};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};

use crate::site::{Site, TENANT, random, skipped};

/// The annotation that says whose an object is.
pub(crate) const WORKFLOW: &str = "cairn.dev/workflow";

/// One creation on a cluster.
pub(crate) struct Bench<'a> {
    /// The cluster.
    pub(crate) site: &'a Site,
    /// Where the creation goes.
    pub(crate) namespace: String,
    /// What the facts so far fold to.
    pub(crate) state: WorkflowState,
    definition: Definition,
    gpus: bool,
}

impl<'a> Bench<'a> {
    /// A creation with these fields besides, in a namespace that nobody has.
    pub(crate) fn new(site: &'a Site, extra: &Value) -> anyhow::Result<Self> {
        Self::with_rules(site, extra, RolloutRules { deadline: site.patience, ..RolloutRules::default() })
    }

    /// The same with other rules for its rollout.
    pub(crate) fn with_rules(site: &'a Site, extra: &Value, rollout: RolloutRules) -> anyhow::Result<Self> {
        let (service, namespace) = site.service();
        let request = request(&service, extra)?;
        let gpus = request.gpu_count > 0;
        let gitlab = GitLab::new(GitLabRules::default());
        let deps = Deps { rollout, ..Deps::new(site.cluster.clone(), gitlab) };
        let definition = create_definition(deps);
        let state = submitted(&definition, &request)?;
        Ok(Self { site, namespace, state, definition, gpus })
    }

    /// Its id: the mark of what it makes.
    pub(crate) fn workflow(&self) -> String {
        self.state.id().to_string()
    }

    /// Runs a step.
    pub(crate) async fn run(&self, step: &str) -> Result<Output, StepError> {
        let (cx, _alive) = self.cx(step);
        self.step(step).run(&cx).await
    }

    /// Probes a step.
    pub(crate) async fn probe(&self, step: &str) -> anyhow::Result<Probe> {
        let (cx, _alive) = self.cx(step);
        let answer = self.step(step).probe(&cx).await;
        answer.map_err(|error| told(&error)).with_context(|| format!("probing {step}"))
    }

    /// Takes a step back.
    pub(crate) async fn compensate(&self, step: &str) -> Result<String, StepError> {
        let (cx, _alive) = self.cx(step);
        self.step(step).compensate(&cx).await
    }

    /// The same until it works: as often as the engine would, for as long as the cluster needs.
    pub(crate) async fn take_back(&self, step: &str) -> anyhow::Result<String> {
        let ends = tokio::time::Instant::now() + self.site.patience;
        // Ends with the patience, or with an error that stays one.
        loop {
            match self.compensate(step).await {
                Ok(said) => return Ok(said),
                Err(error) if error.failure.class == cairn_engine::ErrorClass::Permanent => {
                    return Err(told(&error).context(format!("taking back {step}")));
                }
                Err(error) if tokio::time::Instant::now() > ends => {
                    return Err(told(&error).context(format!("taking back {step}, until the end of patience")));
                }
                Err(error) => println!("taking back {step}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What the engine finds left after a rollback.
    pub(crate) async fn residue(&self) -> anyhow::Result<Vec<String>> {
        let (cx, _alive) = self.cx("completed");
        self.definition.residue().look(&cx).await.map_err(|error| told(&error))
    }

    /// Runs a step that must succeed, and folds that it has.
    pub(crate) async fn done(&mut self, step: &str) -> anyhow::Result<Output> {
        self.begun(step)?;
        let output = match self.is_without_gpus(step).await? {
            // What it decides for those after it, it decides without GPUs as well.
            true => Self::new(self.site, &json!({}))?.run(step).await,
            false => self.run(step).await,
        };
        let output = output.map_err(|error| told(&error)).with_context(|| step.to_owned())?;
        self.fold(&Fact::AttemptSucceeded { step: step.into(), attempt: Attempt(1), output: output.clone() })?;
        if step == "namespace_created" {
            self.site.bind_claims(&self.namespace);
        }
        Ok(output)
    }

    /// The first step refuses GPUs that no node has; what the others do about them needs none.
    async fn is_without_gpus(&self, step: &str) -> anyhow::Result<bool> {
        if step != "starting" || !self.gpus || self.site.has_gpus().await? {
            return Ok(false);
        }
        skipped("the first step of a creation with GPUs: no node of this cluster has any");
        Ok(true)
    }

    /// Runs every step before this one.
    pub(crate) async fn up_to(&mut self, step: &str) -> anyhow::Result<()> {
        let names: Vec<StepName> = self.definition.step_names().to_vec();
        for name in names.iter().map(StepName::as_str).take_while(|name| *name != step) {
            self.done(name).await?;
        }
        Ok(())
    }

    /// Folds that this step has begun.
    pub(crate) fn begun(&mut self, step: &str) -> anyhow::Result<()> {
        self.fold(&Fact::AttemptStarted { step: step.into(), attempt: Attempt(1) })
    }

    /// Folds what a probe of this step, which has begun, has seen.
    pub(crate) fn probed(&mut self, step: &str, answer: Probe) -> anyhow::Result<()> {
        let retry_at = Some(Timestamp::default());
        self.fold(&Fact::Probed { step: step.into(), attempt: Attempt(1), answer, retry_at })
    }

    /// Takes back this step and every one before it, newest first.
    pub(crate) async fn roll_back_from(&self, step: &str) -> anyhow::Result<()> {
        let names: Vec<StepName> = self.definition.step_names().to_vec();
        let last = names.iter().position(|name| name.as_str() == step).context("one of the ten")?;
        for name in names[..=last].iter().rev() {
            self.take_back(name.as_str()).await?;
        }
        Ok(())
    }

    /// What this creation has in the cluster, a line each: identity, generation and everything that was asked for. What
    /// controllers write beside it is left out.
    pub(crate) async fn snapshot(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut lines = BTreeMap::new();
        let workflow = self.workflow();
        for kind in Kind::ALL {
            for object in self.site.objects(kind, &self.namespace).list(&ListParams::default()).await? {
                if object.annotations().get(WORKFLOW) != Some(&workflow) {
                    continue;
                }
                let ours = object.annotations().iter().filter(|(name, _)| name.starts_with("cairn.dev/"));
                let ours: BTreeMap<&String, &String> = ours.collect();
                let mut spec = object.data["spec"].clone();
                if let Some(fields) = spec.as_object_mut() {
                    // Called after whoever bound it, whenever that was.
                    fields.remove("volumeName");
                }
                let (uid, generation) = (object.uid(), object.metadata.generation);
                // Nobody needs to see what is in a Secret: it cannot be changed.
                let data = if kind == Kind::Secret { Value::Null } else { object.data["data"].clone() };
                let intent = json!([uid, generation, object.labels(), ours, spec, data]);
                lines.insert(format!("{kind}/{}", object.name_any()), intent.to_string());
            }
        }
        Ok(lines)
    }

    fn cx(&self, step: &str) -> (StepContext, impl Sized + use<>) {
        StepContext::detached(self.state.clone(), step.into(), Attempt(1))
    }

    fn step(&self, name: &str) -> Arc<dyn Step> {
        let steps = self.definition.steps();
        Arc::clone(steps.iter().find(|step| step.name().as_str() == name).expect("one of the ten"))
    }

    fn fold(&mut self, fact: &Fact) -> anyhow::Result<()> {
        self.state.fold_fact(fact, Timestamp::default()).map_err(|error| anyhow::anyhow!("{error}"))
    }
}

/// A request of the tests' tenant: as small as a request may be.
pub(crate) fn body(service: &str, extra: &Value) -> anyhow::Result<Value> {
    let mut body = json!({"user": TENANT, "service_name": service, "disk_size": "1Gi", "cpu_request": "10m",
        "mem_request": "256Mi", "mem_limit": "512Mi"});
    let extra = extra.as_object().context("the extra fields are an object")?;
    body.as_object_mut().context("an object")?.extend(extra.clone());
    Ok(body)
}

fn request(service: &str, extra: &Value) -> anyhow::Result<Request> {
    let body = body(service, extra)?;
    Request::parse(body.to_string().as_bytes()).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

/// An error of a step with its evidence.
pub(crate) fn told(error: &StepError) -> anyhow::Error {
    anyhow::anyhow!("{error}; evidence: {:?}", error.failure.evidence)
}

/// The objects in a step's result.
pub(crate) fn made(output: &Output) -> Vec<Made> {
    serde_json::from_value(output.result.value()["made"].clone()).unwrap_or_default()
}

/// Whether what was refused says this, in its message or its evidence.
pub(crate) fn says(error: &StepError, words: &str) -> anyhow::Result<()> {
    let whole = format!("{error} {}", error.failure.evidence.join(" "));
    ensure!(whole.contains(words), "no word of {words:?} in {whole}");
    Ok(())
}

fn submitted(definition: &Definition, request: &Request) -> anyhow::Result<WorkflowState> {
    let workflow = WorkflowId::from_bytes((u128::from(random()) << 64 | u128::from(random())).to_be_bytes());
    let fact = Fact::Submitted(Submitted {
        definition: definition.name().clone(),
        version: definition.version(),
        fingerprint: definition.fingerprint(),
        steps: definition.step_names().to_vec(),
        effect: definition.effect(),
        tenant: request.user.as_str().into(),
        service: request.service_name.as_str().into(),
        input: Json::of(request)?,
        key: None,
        body_hash: Hash::default(),
        who: "a test".into(),
        holds: Amounts::new(),
        on_failure: OnFailure::Rollback,
    });
    let entry = Entry {
        workflow,
        sequence: Sequence(1),
        token: FencingToken(1),
        time: Timestamp::default(),
        previous: Hash::default(),
        fact,
        hash: Hash::default(),
    };
    WorkflowState::begin(&entry).map_err(|error| anyhow::anyhow!("{error}"))
}
