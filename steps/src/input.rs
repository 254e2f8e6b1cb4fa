//! What a workflow is submitted with beside its request, where it does not begin from nothing.
//!
//! - Everything that a change, a deletion or a creation over kept data needs to know of what is there stands in its own
//!   `Submitted`: it reads no other workflow's journal while it runs, and needs none to be resumed.
//! - A deletion fits into the journal whatever was made: it has the names and UIDs of all objects, and not what they were
//!   rendered with. That stays where it is, for a change after a deletion that was cancelled.
//! - A cluster bears one mark through its whole life: the id of the workflow that first made it.

use cairn_engine::{Attempt, Effect, Json, JsonError, Outcome, StepName, WorkflowId, WorkflowState};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::cluster::Made;
use crate::create::{GITLAB_PULLED, ROLLOUT_COMPLETED, STARTING, elastic_in, made_in, overlay_in};
use crate::delete::DELETED;
use crate::elastic::Elastic;
use crate::gitlab::Pulled;
use crate::kept::Kept;
use crate::overlay::Overlay;
use crate::quantity::Quantity;
use crate::render::Kind;
use crate::request::Request;

/// What is kept by a deletion that keeps the data: the disks, what opens the data on them, and where both lie.
pub const KEPT: [Kind; 3] = [Kind::Namespace, Kind::Secret, Kind::PersistentVolumeClaim];

/// The input of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// The request as it is in force once the workflow has succeeded.
    pub request: Request,
    /// The request as it was in force before: what a change goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Request>,
    /// A deletion leaves the claims, and so the namespace.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_data: bool,
    /// Where what is there comes from; none for a creation that begins from nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Where a cluster comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The id of the workflow that first made it: the mark of its objects.
    pub mark: String,
    /// Its objects with their UIDs, as the journal knows them: of each name the newest.
    pub made: Vec<Made>,
    /// The size in the claim template of its StatefulSet, which can never be changed (C4).
    pub template_disk: Quantity,
    /// What is installed, or has last opened the data.
    #[serde(default)]
    pub elastic: Elastic,
    /// What its creation laid over its objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// The settings that its creation pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// The workflow whose journal has these two, where they are not repeated here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered_by: Option<WorkflowId>,
    /// The data that a deletion has left. A deletion by a build that did not look has none here, and then the last request says
    /// what there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            request: Request,
            before: Option<Request>,
            #[serde(default)]
            keep_data: bool,
            origin: Option<Origin>,
        }
        let value = Value::deserialize(deserializer)?;
        if value.get("request").is_none() {
            let request = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
            return Ok(Self { request, before: None, keep_data: false, origin: None });
        }
        let Whole { request, before, keep_data, origin } =
            serde_json::from_value(value).map_err(serde::de::Error::custom)?;
        Ok(Self { request, before, keep_data, origin })
    }
}

impl Input {
    /// The input of a creation that begins from nothing.
    #[must_use]
    pub fn creation(request: Request) -> Self {
        Self { request, before: None, keep_data: false, origin: None }
    }

    /// The input of a creation that goes on with the data that a deletion has kept.
    #[must_use]
    pub fn over_kept_data(request: Request, origin: Origin) -> Self {
        // The set is a new one.
        let origin = Origin { template_disk: request.disk_size.clone(), ..origin.of_kept_data() };
        Self { request, before: None, keep_data: false, origin: Some(origin) }
    }

    /// The input of a change.
    #[must_use]
    pub fn change(before: Request, request: Request, origin: Origin) -> Self {
        Self { request, before: Some(before), keep_data: false, origin: Some(origin) }
    }

    /// The input of a deletion. What the objects were rendered with stays in the journal of `rendered_by`, the workflow whose
    /// origin this is: a deletion has no use for it, and must fit into the journal whatever it takes.
    #[must_use]
    pub fn deletion(request: Request, origin: Origin, rendered_by: WorkflowId, keep_data: bool) -> Self {
        let repeated = origin.overlay.is_some() || origin.settings.is_some();
        let origin = Origin {
            overlay: origin.overlay.as_ref().map(Overlay::name_only),
            settings: None,
            rendered_by: origin.rendered_by.or(repeated.then_some(rendered_by)),
            ..origin
        };
        Self { request, before: None, keep_data, origin: Some(origin) }
    }

    /// As it is journaled: for a creation that begins from nothing, the request alone.
    ///
    /// # Errors
    /// [`JsonError`] if it is too long.
    pub fn to_json(&self) -> Result<Json, JsonError> {
        if self.origin.is_none() { Json::parse(&self.request.to_json()) } else { Json::of(self) }
    }
}

impl Origin {
    /// Where what `last`, the last workflow of a service, has left comes from.
    ///
    /// # Errors
    /// If its input, what it pulled or what it kept cannot be read by this build.
    pub fn after(last: &WorkflowState) -> Result<Self, serde_json::Error> {
        let input: Input = last.submitted().input.read()?;
        let over_kept_data = input.origin.is_some();
        let mut origin = input.origin.unwrap_or_else(|| Self::new(last.id().to_string(), input.request.disk_size));
        for one in last.steps().iter().flat_map(|step| last.made(step)).flat_map(made_in) {
            origin.learn(one);
        }
        match last.submitted().effect {
            Effect::Create => origin.created_by(last, over_kept_data)?,
            Effect::Update => {}
            Effect::Delete if last.outcome() == Some(Outcome::Succeeded) => origin.kept = kept_by(last)?,
            Effect::Delete => {}
        }
        Ok(origin)
    }

    /// Of a cluster of which nothing is known but its mark and the size of its claim template.
    #[must_use]
    pub fn new(mark: String, template_disk: Quantity) -> Self {
        Self {
            mark,
            made: Vec::new(),
            template_disk,
            elastic: Elastic::default(),
            overlay: None,
            settings: None,
            rendered_by: None,
            kept: None,
        }
    }

    fn created_by(&mut self, creation: &WorkflowState, over_kept_data: bool) -> Result<(), serde_json::Error> {
        let started = creation.output(&StepName::from(STARTING));
        let rollout = creation.place(&StepName::from(ROLLOUT_COMPLETED));
        let has_nodes = rollout.is_some_and(|step| creation.progress()[step].attempt > Attempt(0));
        // Kept data stays of the version that it was until a node of another one has opened it.
        if let Some(started) = started.filter(|_| has_nodes || !over_kept_data) {
            self.elastic = elastic_in(&started.result);
        }
        self.overlay = started.map(|output| overlay_in(&output.result)).transpose()?.flatten();
        let pulled = creation.output(&StepName::from(GITLAB_PULLED)).filter(|output| !output.skipped);
        self.settings = pulled.map(|output| output.result.read::<Pulled>()).transpose()?.map(|pulled| pulled.content);
        if creation.outcome() == Some(Outcome::Succeeded) {
            self.kept = None;
        }
        Ok(())
    }

    /// An object that was made. What bore its name before is gone for good, as its UID is.
    fn learn(&mut self, one: Made) {
        if self.knows(&one) {
            return;
        }
        let same =
            |known: &Made| (&known.kind, &known.namespace, &known.name) == (&one.kind, &one.namespace, &one.name);
        self.made.retain(|known| !same(known));
        self.made.push(one);
    }

    /// The same, with what the objects were rendered with: as `whole`, the origin after [`Origin::rendered_by`], has it.
    #[must_use]
    pub fn rendered_as(self, whole: Self) -> Self {
        Self { overlay: whole.overlay, settings: whole.settings, rendered_by: None, ..self }
    }

    /// The same, of which a deletion has left only the data.
    #[must_use]
    pub fn of_kept_data(mut self) -> Self {
        self.made.retain(|made| made.kind().is_some_and(|kind| KEPT.contains(&kind)));
        self.settings = None;
        self.overlay = None;
        self.rendered_by = None;
        self
    }

    /// Whether the journal knows this very object.
    #[must_use]
    pub fn knows(&self, made: &Made) -> bool {
        self.made.contains(made)
    }
}

/// What the last step of this deletion has seen of the data that it kept.
fn kept_by(deletion: &WorkflowState) -> Result<Option<Kept>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Seen {
        data: Option<Kept>,
    }
    let deleted = deletion.output(&StepName::from(DELETED));
    Ok(deleted.map(|output| output.result.read::<Seen>()).transpose()?.and_then(|seen| seen.data))
}

#[cfg(test)]
pub(crate) mod tests;
