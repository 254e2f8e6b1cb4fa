//! What several steps do alike: render for this workflow, apply, probe what was applied, take it back.

use cairn_engine::{Json, Output, Probe, StepContext, StepError, StepName};
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};

use super::{gitlab_pulled, starting};
use crate::cluster::gone::Deletion;
use crate::cluster::rollout::{Awaited, RolledOut, RolloutRules};
use crate::cluster::{Cluster, Found, Made, compare, made};
use crate::elastic::Elastic;
use crate::gitlab::Pulled;
use crate::input::{Input, Origin};
use crate::names;
use crate::overlay::Overlay;
use crate::render::{Kind, Marks, Object, Through, render};
use crate::request::Request;
use crate::settings::Settings;

/// All that a step knows of its workflow.
pub(crate) struct Plan {
    pub(crate) request: Request,
    /// The mark of the cluster's objects: the id of the workflow that first made it, which may be this one.
    pub(crate) workflow: String,
    pub(crate) elastic: Elastic,
    overlay: Option<Overlay>,
    settings: Option<Settings>,
    /// Where what was there before this workflow comes from.
    origin: Option<Origin>,
}

/// The result of a step that made or changed objects. Other fields of a step's result stand beside these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Objects {
    /// `StatefulSet/elasticsearch`, for people.
    #[serde(default)]
    pub(crate) objects: Vec<String>,
    /// The same with their UIDs: what the compensation may delete.
    #[serde(default)]
    pub(crate) made: Vec<Made>,
}

impl Objects {
    pub(crate) fn push(&mut self, one: Made) {
        self.objects.push(format!("{}/{}", one.kind, one.name));
        self.made.push(one);
    }
}

/// What the world has of some objects that shall be as rendered.
pub(crate) enum Seen {
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
    /// Reads the request of a creation, and the settings that were pulled for it: the journaled bytes, never newer ones (I11).
    pub(super) fn of(cx: &StepContext) -> Result<Self, StepError> {
        let Input { request, origin, .. } = cx.input()?;
        let pulled = cx.output(&StepName::from(gitlab_pulled::NAME)).filter(|output| !output.skipped);
        let pulled =
            pulled.map(|output| output.result.read::<Pulled>()).transpose().map_err(|error| unreadable(&error))?;
        let settings = settings(pulled.as_ref().map(|pulled| pulled.content.as_str()))?;
        let workflow = origin.as_ref().map_or_else(|| cx.workflow().to_string(), |origin| origin.mark.clone());
        Ok(Self { request, workflow, elastic: elastic(cx), overlay: overlay(cx)?, settings, origin })
    }

    /// The plan of a creation that is still to be submitted, or never will be: without what it would pull.
    pub(super) fn of_one_to_be(input: Input, mark: &str, elastic: Elastic, overlay: Option<Overlay>) -> Self {
        let Input { request, origin, .. } = input;
        let workflow = origin.as_ref().map_or_else(|| mark.to_owned(), |origin| origin.mark.clone());
        Self { request, workflow, elastic, overlay, settings: None, origin }
    }

    /// The plan of a cluster that is there, as it is when this request is in force.
    pub(crate) fn of_living(request: Request, origin: &Origin) -> Result<Self, StepError> {
        let settings = settings(origin.settings.as_deref())?;
        let Origin { mark, elastic, overlay, .. } = origin.clone();
        Ok(Self { request, workflow: mark, elastic, overlay, settings, origin: Some(origin.clone()) })
    }

    pub(crate) fn namespace(&self) -> &str {
        self.request.namespace.as_str()
    }

    /// What was there before this workflow: never its to take back.
    pub(super) fn was_there(&self, one: &Made) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.knows(one))
    }

    /// The objects of these kinds, as they are when the creation is through this far.
    pub(crate) fn objects(&self, through: Through, kinds: &[Kind]) -> Vec<Object> {
        let marks = Marks { workflow: self.workflow.clone() };
        let render = |through| {
            let mut objects = render(&self.request, &self.elastic, through, self.settings.as_ref(), &marks);
            if let Some(overlay) = &self.overlay {
                overlay.apply(&mut objects, &self.request, through, &marks);
            }
            objects
        };
        let mut objects = render(through);
        if let Some(origin) = &self.origin {
            for object in &mut objects {
                match object.kind {
                    // The claims of later nodes are made before their pods, of the size that is asked for now.
                    Kind::StatefulSet => set_template_disk(object, origin),
                    // Kept disks know the cluster that they are of: a list would let new nodes found another one (C10).
                    Kind::ConfigMap => {
                        let formed =
                            render(Through::Formed).into_iter().find(|formed| formed.to_string() == object.to_string());
                        *object = formed.unwrap_or_else(|| object.clone());
                    }
                    _ => {}
                }
            }
        }
        objects.retain(|object| kinds.contains(&object.kind));
        objects
    }

    /// Every object that the journal knows of this cluster.
    pub(crate) fn journaled(&self, cx: &StepContext) -> Vec<Made> {
        let mut journaled = made_by_all(cx);
        journaled.extend(self.origin.iter().flat_map(|origin| origin.made.clone()));
        journaled
    }

    /// Applies them in order.
    pub(crate) async fn apply(
        &self,
        cx: &StepContext,
        cluster: &Cluster,
        objects: &[Object],
    ) -> Result<Objects, StepError> {
        let (mut applied, journaled) = (Objects::default(), self.journaled(cx));
        for object in objects {
            let answer = cluster.apply(object, &self.workflow, &journaled).await?;
            applied.push(made(object, &answer)?);
        }
        Ok(applied)
    }

    /// Applies these workloads and waits until they are rolled out (C1).
    pub(crate) async fn roll_out(
        &self,
        cx: &StepContext,
        cluster: &Cluster,
        workloads: &[Object],
        rules: &RolloutRules,
    ) -> Result<(Vec<RolledOut>, Objects), StepError> {
        let (mut awaited, mut applied, journaled) = (Vec::new(), Objects::default(), self.journaled(cx));
        for object in workloads {
            let answer = cluster.apply(object, &self.workflow, &journaled).await?;
            let one = made(object, &answer)?;
            applied.push(one.clone());
            awaited.push(Awaited { made: one, generation: answer.metadata.generation.unwrap_or(0) });
        }
        let rolled_out = cx.wait(cluster.rolled_out(self.namespace(), &awaited, rules)).await??;
        Ok((rolled_out, applied))
    }

    /// Reads these objects back: their names, and what of them is missing, somebody else's, or different as `differences` says.
    pub(crate) async fn read_back(
        &self,
        cluster: &Cluster,
        objects: &[Object],
        differences: impl Fn(&Object, &DynamicObject) -> Vec<String>,
    ) -> Result<(Vec<String>, Vec<String>), StepError> {
        let (mut names, mut wrong) = (Vec::new(), Vec::new());
        for object in objects {
            match cluster.find(object.kind, object.namespace.as_deref(), &object.name, &self.workflow).await? {
                Found::Nothing => wrong.push(format!("{object} is gone")),
                Found::Foreign(whose) => wrong.push(format!("{object} {whose}")),
                Found::Ours(found) => wrong.extend(differences(object, &found)),
            }
            names.push(object.to_string());
        }
        Ok((names, wrong))
    }

    /// Looks which of them are there and as rendered.
    ///
    /// At all of them, also behind one that is somebody else's: what was made before that one was met is ours to take back, and
    /// this is where its UIDs get into the journal. Forward, the next run meets the foreign one again, and fails for good.
    pub(crate) async fn look(&self, cluster: &Cluster, objects: &[Object]) -> Result<Seen, StepError> {
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
                    let going = found.metadata.deletion_timestamp.is_some();
                    whole &= !going && not_as_rendered(object, &found).is_empty();
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
    pub(crate) async fn probe_made(
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
    pub(crate) async fn take_back(
        &self,
        cx: &StepContext,
        cluster: &Cluster,
        made: &[Made],
    ) -> Result<String, StepError> {
        let made: Vec<&Made> = made.iter().filter(|one| !self.was_there(one)).collect();
        if made.is_empty() {
            return Ok("nothing was made".to_owned());
        }
        if self.owns_namespace(cx, cluster).await? {
            return Ok("goes with the namespace".to_owned());
        }
        let mut deleted = 0;
        let mut left_alone = Vec::new();
        for one in &made {
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
        if self.was_there(&namespace) {
            return Ok(false);
        }
        match cluster.find(Kind::Namespace, None, &namespace.name, &self.workflow).await? {
            Found::Ours(found) => Ok(found.metadata.uid.as_deref() == Some(&namespace.uid)),
            Found::Nothing | Found::Foreign(_) => Ok(false),
        }
    }
}

/// Each place where what was found is not as it was rendered.
pub(crate) fn not_as_rendered(object: &Object, found: &DynamicObject) -> Vec<String> {
    let live = serde_json::to_value(found).unwrap_or_default();
    let differences = compare::differences(&object.body, &live);
    differences.into_iter().map(|difference| format!("{object}: {difference}")).collect()
}

/// What this workflow installs: taken down by its first step. A journal from before there was a choice has the default.
pub(super) fn elastic(cx: &StepContext) -> Elastic {
    cx.output(&StepName::from(starting::NAME)).map(|started| elastic_in(&started.result)).unwrap_or_default()
}

/// What the result of a creation's first step says that it installs.
pub(crate) fn elastic_in(started: &Json) -> Elastic {
    #[derive(Deserialize)]
    struct Chosen {
        elastic: Elastic,
    }
    started.read::<Chosen>().map(|chosen| chosen.elastic).unwrap_or_default()
}

fn settings(content: Option<&str>) -> Result<Option<Settings>, StepError> {
    content.map(Settings::parse).transpose().map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> StepError {
    StepError::permanent(format!("the journaled settings cannot be read by this build: {error}"))
}

/// The claim template keeps the size that the set was made with: it can never be changed (C4).
fn set_template_disk(set: &mut Object, origin: &Origin) {
    if let Some(size) = set.body.pointer_mut("/spec/volumeClaimTemplates/0/spec/resources/requests/storage") {
        *size = origin.template_disk.to_string().into();
    }
}

/// What this workflow lays over its objects: taken down by its first step, as what it installs is.
fn overlay(cx: &StepContext) -> Result<Option<Overlay>, StepError> {
    let Some(started) = cx.output(&StepName::from(starting::NAME)) else { return Ok(None) };
    overlay_in(&started.result)
        .map_err(|error| StepError::permanent(format!("the journaled overlay cannot be read by this build: {error}")))
}

/// What the result of a creation's first step says that it lays over its objects.
pub(crate) fn overlay_in(started: &Json) -> Result<Option<Overlay>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Chosen {
        overlay: Option<Overlay>,
    }
    started.read::<Chosen>().map(|chosen| chosen.overlay)
}

/// The answer of a probe of a step that changes what is on record already, and has not changed all of it.
pub(super) fn made_anew(cx: &StepContext, there: Objects) -> Result<Probe, StepError> {
    let known = made_by_all(cx);
    let mut anew = Objects::default();
    there.made.into_iter().filter(|one| !known.contains(one)).for_each(|one| anew.push(one));
    Ok(if anew.made.is_empty() { Probe::NotApplied } else { Probe::Partly { made: Json::of(&anew)? } })
}

/// What this step is known to have made: each object once, in the order of making.
pub(crate) fn made_by_this_step(cx: &StepContext) -> Vec<Made> {
    made_in_all(cx.made())
}

/// The same of every step.
pub(crate) fn made_by_all(cx: &StepContext) -> Vec<Made> {
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

/// What a step's result says that it made.
pub(crate) fn made_in(result: &Json) -> Vec<Made> {
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
