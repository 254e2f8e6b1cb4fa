//! What several steps do alike: render for this workflow, apply, probe what was applied, take it back.

use cairn_engine::{Json, Output, Probe, StepContext, StepError, StepName};
use serde::{Deserialize, Serialize};

use super::{gitlab_pulled, starting};
use crate::cluster::gone::Deletion;
use crate::cluster::{Cluster, Found, Made, compare, made};
use crate::elastic::Elastic;
use crate::gitlab::Pulled;
use crate::names;
use crate::overlay::Overlay;
use crate::render::{Kind, Marks, Object, Through, render};
use crate::request::Request;
use crate::settings::Settings;

/// All that a step knows of its workflow.
pub(super) struct Plan {
    pub(super) request: Request,
    pub(super) workflow: String,
    pub(super) elastic: Elastic,
    overlay: Option<Overlay>,
    settings: Option<Settings>,
}

/// The result of a step that made or changed objects. Other fields of a step's result stand beside these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Objects {
    /// `StatefulSet/elasticsearch`, for people.
    #[serde(default)]
    pub(super) objects: Vec<String>,
    /// The same with their UIDs: what the compensation may delete.
    #[serde(default)]
    pub(super) made: Vec<Made>,
}

impl Objects {
    pub(super) fn push(&mut self, one: Made) {
        self.objects.push(format!("{}/{}", one.kind, one.name));
        self.made.push(one);
    }
}

/// What the world has of some objects that shall be as rendered.
pub(super) enum Seen {
    /// All of them, as rendered.
    All(Objects),
    /// Some are missing, different or somebody else's; those of ours that are there are listed.
    Some(Objects),
    /// None is there.
    None,
    /// One of them is somebody else's, and none is ours.
    Foreign(String),
}

impl Plan {
    /// Reads the request, and the settings that were pulled for it: the journaled bytes, never newer ones (I11).
    pub(super) fn of(cx: &StepContext) -> Result<Self, StepError> {
        let request: Request = cx.input()?;
        let pulled = cx.output(&StepName::from(gitlab_pulled::NAME)).filter(|output| !output.skipped);
        let settings = match pulled {
            None => None,
            Some(output) => {
                let unreadable = |error: &dyn std::fmt::Display| {
                    StepError::permanent(format!("the journaled settings cannot be read by this build: {error}"))
                };
                let pulled: Pulled = output.result.read().map_err(|error| unreadable(&error))?;
                Some(Settings::parse(&pulled.content).map_err(|error| unreadable(&error))?)
            }
        };
        Ok(Self { request, workflow: cx.workflow().to_string(), elastic: elastic(cx), overlay: overlay(cx)?, settings })
    }

    pub(super) fn namespace(&self) -> &str {
        self.request.namespace.as_str()
    }

    /// The objects of these kinds, as they are when the creation is through this far.
    pub(super) fn objects(&self, through: Through, kinds: &[Kind]) -> Vec<Object> {
        let marks = Marks { workflow: self.workflow.clone() };
        let mut objects = render(&self.request, &self.elastic, through, self.settings.as_ref(), &marks);
        if let Some(overlay) = &self.overlay {
            overlay.apply(&mut objects, &self.request, through, &marks);
        }
        objects.retain(|object| kinds.contains(&object.kind));
        objects
    }

    /// Applies them in order.
    pub(super) async fn apply(
        &self,
        cx: &StepContext,
        cluster: &Cluster,
        objects: &[Object],
    ) -> Result<Objects, StepError> {
        let (mut applied, journaled) = (Objects::default(), made_by_all(cx));
        for object in objects {
            let answer = cluster.apply(object, &self.workflow, &journaled).await?;
            applied.push(made(object, &answer)?);
        }
        Ok(applied)
    }

    /// Looks which of them are there and as rendered.
    ///
    /// At all of them, also behind one that is somebody else's: what was made before that one was met is ours to take back, and
    /// this is where its UIDs get into the journal. Forward, the next run meets the foreign one again, and fails for good.
    pub(super) async fn look(&self, cluster: &Cluster, objects: &[Object]) -> Result<Seen, StepError> {
        let mut there = Objects::default();
        let mut whole = true;
        let mut foreign = None;
        for object in objects {
            match cluster.find(object.kind, object.namespace.as_deref(), &object.name, &self.workflow).await? {
                Found::Nothing => whole = false,
                Found::Foreign(whose) => {
                    whole = false;
                    foreign.get_or_insert(format!("{object} {whose}"));
                }
                Found::Ours(found) => {
                    let live = serde_json::to_value(&found).unwrap_or_default();
                    let going = found.metadata.deletion_timestamp.is_some();
                    whole &= !going && compare::differences(&object.body, &live).is_empty();
                    there.push(made(object, &found)?);
                }
            }
        }
        Ok(match foreign {
            _ if whole => Seen::All(there),
            _ if !there.made.is_empty() => Seen::Some(there),
            Some(foreign) => Seen::Foreign(foreign),
            None => Seen::None,
        })
    }

    /// The answer of a probe whose step makes these objects: `done` writes the output as the run would have.
    pub(super) async fn probe_made(
        &self,
        cluster: &Cluster,
        objects: &[Object],
        done: impl FnOnce(Objects) -> Result<Output, StepError>,
    ) -> Result<Probe, StepError> {
        Ok(match self.look(cluster, objects).await? {
            Seen::All(there) => Probe::Applied { output: done(there)? },
            Seen::Some(there) => Probe::Partly { made: Json::of(&there)? },
            Seen::None => Probe::NotApplied,
            Seen::Foreign(detail) => Probe::Foreign { detail },
        })
    }

    /// The answer of a probe whose step changes objects that an earlier one made: they are changed, or they are not. One that
    /// is not on record was made anew by this step, because somebody had deleted it, and is this step's to take back.
    pub(super) async fn probe_changed(
        &self,
        cx: &StepContext,
        cluster: &Cluster,
        objects: &[Object],
        done: impl FnOnce(Objects) -> Result<Output, StepError>,
    ) -> Result<Probe, StepError> {
        Ok(match self.look(cluster, objects).await? {
            Seen::All(there) => Probe::Applied { output: done(there)? },
            Seen::Some(there) => made_anew(cx, there)?,
            Seen::None => Probe::NotApplied,
            Seen::Foreign(detail) => Probe::Foreign { detail },
        })
    }

    /// Deletes what was made, unless the namespace is ours: then all of it goes with that, and one object that cannot be
    /// deleted by itself parks nobody.
    pub(super) async fn take_back(
        &self,
        cx: &StepContext,
        cluster: &Cluster,
        made: &[Made],
    ) -> Result<String, StepError> {
        if made.is_empty() {
            return Ok("nothing was made".to_owned());
        }
        if self.owns_namespace(cx, cluster).await? {
            return Ok("goes with the namespace".to_owned());
        }
        let mut deleted = 0;
        let mut left_alone = Vec::new();
        for one in made {
            match cluster.delete_ours(one, &self.workflow).await? {
                Deletion::Begun => deleted += 1,
                Deletion::Absent => {}
                Deletion::NotOurs => left_alone.push(format!("{}/{}", one.kind, one.name)),
            }
        }
        let mut message = format!("deleted {deleted} of {} objects, the others were gone", made.len());
        if deleted == made.len() {
            message = format!("deleted {deleted} objects");
        }
        if !left_alone.is_empty() {
            message.push_str(&format!("; left alone what somebody else has put there: {}", left_alone.join(", ")));
        }
        Ok(message)
    }

    /// Whether the namespace is this workflow's to delete: then everything in it goes with it.
    pub(super) async fn owns_namespace(&self, cx: &StepContext, cluster: &Cluster) -> Result<bool, StepError> {
        let journaled = made_by_all(cx);
        let Some(namespace) = journaled.into_iter().rfind(|made| made.kind() == Some(Kind::Namespace)) else {
            return Ok(false);
        };
        match cluster.find(Kind::Namespace, None, &namespace.name, &self.workflow).await? {
            Found::Ours(found) => Ok(found.metadata.uid.as_deref() == Some(&namespace.uid)),
            Found::Nothing | Found::Foreign(_) => Ok(false),
        }
    }
}

/// What this workflow installs: taken down by its first step. A journal from before there was a choice has the default.
pub(super) fn elastic(cx: &StepContext) -> Elastic {
    #[derive(Deserialize)]
    struct Chosen {
        elastic: Elastic,
    }
    let started = cx.output(&StepName::from(starting::NAME));
    started.and_then(|output| output.result.read::<Chosen>().ok()).map(|chosen| chosen.elastic).unwrap_or_default()
}

/// What this workflow lays over its objects: taken down by its first step, as what it installs is.
fn overlay(cx: &StepContext) -> Result<Option<Overlay>, StepError> {
    #[derive(Deserialize)]
    struct Chosen {
        overlay: Option<Overlay>,
    }
    let Some(started) = cx.output(&StepName::from(starting::NAME)) else { return Ok(None) };
    let chosen = started.result.read::<Chosen>().map_err(|error| {
        StepError::permanent(format!("the journaled overlay cannot be read by this build: {error}"))
    })?;
    Ok(chosen.overlay)
}

/// The answer of a probe of a step that changes what is on record already, and has not changed all of it.
pub(super) fn made_anew(cx: &StepContext, there: Objects) -> Result<Probe, StepError> {
    let known = made_by_all(cx);
    let mut anew = Objects::default();
    there.made.into_iter().filter(|one| !known.contains(one)).for_each(|one| anew.push(one));
    Ok(if anew.made.is_empty() { Probe::NotApplied } else { Probe::Partly { made: Json::of(&anew)? } })
}

/// What this step is known to have made: each object once, in the order of making.
pub(super) fn made_by_this_step(cx: &StepContext) -> Vec<Made> {
    made_in_all(cx.made())
}

/// The same of every step.
pub(super) fn made_by_all(cx: &StepContext) -> Vec<Made> {
    made_in_all(cx.made_by_all())
}

fn made_in_all(results: Vec<&Json>) -> Vec<Made> {
    let mut all: Vec<Made> = Vec::new();
    for made in results.into_iter().flat_map(made_in) {
        if !all.contains(&made) {
            all.push(made);
        }
    }
    all
}

fn made_in(result: &Json) -> Vec<Made> {
    // A skipped step has no result, and then it has made nothing.
    result.read::<Objects>().map(|objects| objects.made).unwrap_or_default()
}

/// Where the cluster is reached from within Kubernetes.
pub(super) fn endpoint(service: &str, namespace: &str, port: u16) -> String {
    format!("https://{service}.{namespace}.svc:{port}")
}

/// The two endpoints of a cluster: Elasticsearch's and Kibana's.
pub(super) fn endpoints(namespace: &str) -> (String, String) {
    (endpoint(names::CLIENT_SERVICE, namespace, 9200), endpoint(names::KIBANA, namespace, 5601))
}
