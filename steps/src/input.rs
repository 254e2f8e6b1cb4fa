//! What a workflow is submitted with beside its request, where it does not begin from nothing.
//!
//! - Everything that a change, a deletion or a creation over kept data needs to know of what is there stands in its own
//!   `Submitted`: it reads no other workflow's journal while it runs, and needs none to be resumed.
//! - A cluster bears one mark through its whole life: the id of the workflow that first made it.

use cairn_engine::{Effect, Json, JsonError, StepName, WorkflowState};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::cluster::Made;
use crate::create::{GITLAB_PULLED, STARTING, elastic_in, made_in, overlay_in};
use crate::elastic::Elastic;
use crate::gitlab::Pulled;
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
    /// Its objects with their UIDs, as the journal knows them.
    pub made: Vec<Made>,
    /// The size in the claim template of its StatefulSet, which can never be changed (C4).
    pub template_disk: Quantity,
    /// What its creation installed.
    #[serde(default)]
    pub elastic: Elastic,
    /// What its creation laid over its objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// The settings that its creation pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
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
    /// If its input or what it pulled cannot be read by this build.
    pub fn after(last: &WorkflowState) -> Result<Self, serde_json::Error> {
        let submitted = last.submitted();
        let input: Input = submitted.input.read()?;
        let made = last.steps().iter().flat_map(|step| last.made(step)).flat_map(made_in);
        let is_creation = submitted.effect == Effect::Create;
        let pulled = last.output(&StepName::from(GITLAB_PULLED)).filter(|output| !output.skipped);
        let pulled = pulled.map(|output| output.result.read::<Pulled>()).transpose()?.map(|pulled| pulled.content);
        let mut origin = input.origin.unwrap_or_else(|| Self {
            mark: last.id().to_string(),
            made: Vec::new(),
            template_disk: input.request.disk_size.clone(),
            elastic: Elastic::default(),
            overlay: None,
            settings: None,
        });
        for one in made {
            if !origin.made.contains(&one) {
                origin.made.push(one);
            }
        }
        if is_creation {
            // Over kept data as well, the set is a new one, and so is what was pulled.
            let started = last.output(&StepName::from(STARTING));
            origin.elastic = started.map(|output| elastic_in(&output.result)).unwrap_or_default();
            origin.overlay = started.map(|output| overlay_in(&output.result)).transpose()?.flatten();
            origin.template_disk = input.request.disk_size;
            origin.settings = pulled;
        }
        Ok(origin)
    }

    /// The same, of which a deletion has left only the data.
    #[must_use]
    pub fn of_kept_data(mut self) -> Self {
        self.made.retain(|made| made.kind().is_some_and(|kind| KEPT.contains(&kind)));
        self.settings = None;
        self.overlay = None;
        self
    }

    /// Whether the journal knows this very object.
    #[must_use]
    pub fn knows(&self, made: &Made) -> bool {
        self.made.contains(made)
    }
}
