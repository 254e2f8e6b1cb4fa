//! The Kubernetes cluster, as the steps need it: apply, read, delete what is ours, wait.
//!
//! - Every write is idempotent: a server-side apply of the complete intent by one field manager (C2), which takes no field from
//!   anybody else; a namespace is created, so that of two that want it one gets it; a deletion carries the UID of what it means.
//! - What does not bear the workflow's annotation is never changed, and what bears it under another UID is never deleted.
//! - Nothing is retried here: the engine retries, so that every attempt is in the journal (C13).

mod bounded;
pub mod claims;
pub mod compare;
pub mod doctor;
pub mod errors;
pub mod gone;
pub mod gpus;
pub mod health;
mod pods;
mod progress;
pub mod rehearse;
mod repair;
pub mod rollout;
mod secret;
pub mod strangers;
mod trouble;
mod watched;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use cairn_engine::StepError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use self::bounded::{AT_ONCE, Bounded, REHEARSALS_AT_ONCE};
use self::errors::{Asked, field_owners, step_error};
use self::health::Reach;
use self::strangers::Tolerated;
use self::watched::Watched;
use crate::names;
use crate::render::{Kind, Object};

/// How long an answer may take. Shorter than an attempt, so that the step hears of it (C13).
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a watch may be silent: longer than the five minutes after which the server ends one by itself.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(330);
/// The most objects that one answer brings: far more than a cluster has.
const LIST_MAX: u32 = 1000;
/// The most answers that one list takes. Nothing has a million objects: a list that goes on from there does not end.
const PAGES_MAX: u32 = 1000;

/// The cluster. Cheap to clone; the clones share their watches.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    rehearsal_client: Client,
    watch_client: Client,
    watched: Arc<OnceCell<Watched>>,
    tolerated: Arc<[Tolerated]>,
    reach: Reach,
}

/// An object that a step has made: what the compensation may delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its kind, as Kubernetes writes it.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace; none for a Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What tells it from another of the same name.
    pub uid: String,
}

impl Made {
    /// The kind, if it is one of those that a cluster is made of.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.to_string() == self.kind)
    }
}

/// What stands where an object shall be.
#[derive(Debug, Clone)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// What this workflow made.
    Ours(Box<DynamicObject>),
    /// Somebody else's; the text says whose, as far as a tenant may know.
    Foreign(String),
}

impl Cluster {
    /// The cluster behind this client. For a client over a network, see [`Cluster::connect`].
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            rehearsal_client: client.clone(),
            watch_client: client.clone(),
            client,
            watched: Arc::default(),
            tolerated: Arc::default(),
            reach: Reach::default(),
        }
    }

    /// Connects to a cluster, with the client's own retries off, an end to every wait (C13), and a bound to the requests at once.
    ///
    /// # Errors
    /// [`kube::Error`] if the configuration cannot be used. Nothing is asked of the server yet.
    pub fn connect(mut config: Config) -> Result<Self, kube::Error> {
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.write_timeout = Some(ANSWER_TIME_MAX);
        // Counted from the request, and not from when its connection was last used.
        config.reset_reader_on_write = true;
        config.read_timeout = Some(ANSWER_TIME_MAX);
        let mut watching = config.clone();
        watching.read_timeout = Some(WATCH_SILENCE_MAX);
        let (all, rehearsals) = (Bounded::new(AT_ONCE), Bounded::new(REHEARSALS_AT_ONCE));
        Ok(Self {
            rehearsal_client: ClientBuilder::try_from(config.clone())?.with_layer(&all).with_layer(&rehearsals).build(),
            client: ClientBuilder::try_from(config)?.with_layer(&all).build(),
            watch_client: Client::try_from(watching)?,
            watched: Arc::default(),
            tolerated: Arc::default(),
            reach: Reach::default(),
        })
    }

    /// The same cluster, whose Elasticsearch can be asked this way.
    #[must_use]
    pub fn reached(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The same cluster, which puts these into its namespaces by itself: they do not keep a namespace from being deleted.
    #[must_use]
    pub fn tolerating(self, tolerated: Vec<Tolerated>) -> Self {
        Self { tolerated: tolerated.into(), ..self }
    }

    /// The same cluster for whoever only wants to know beforehand: it has fewer requests at once, and stands in nobody's way.
    #[must_use]
    pub fn rehearsing(&self) -> Self {
        Self { client: self.rehearsal_client.clone(), ..self.clone() }
    }

    /// Whether the server answers now. This does not wait behind anything else that is asked.
    ///
    /// # Errors
    /// [`kube::Error`] if it does not, or not as a Kubernetes server does.
    pub async fn answers(&self) -> Result<(), kube::Error> {
        self.watch_client.apiserver_version().await.map(drop)
    }

    /// The client that everything but watches goes through.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What stands where this object shall be.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`errors`].
    pub async fn find(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
        workflow: &str,
    ) -> Result<Found, StepError> {
        let found = self.read(kind, namespace, name).await?;
        Ok(match found {
            None => Found::Nothing,
            Some(object) if is_ours(&object, workflow) => Found::Ours(Box::new(object)),
            Some(object) => Found::Foreign(whose(&object)),
        })
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`errors`].
    pub async fn read(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<DynamicObject>, StepError> {
        let doing = format!("read {}", place(kind, namespace, name));
        let read = self.api(kind, namespace).get_opt(name).await;
        let mut object = read.map_err(|error| step_error(Asked::Read, &doing, &error))?;
        if let Some(object) = &mut object {
            secret::hide(kind, object);
        }
        Ok(object)
    }

    /// Everything of this kind in this namespace, whoever made it.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`errors`]; a kind that the server has not got is none at all.
    pub async fn list(&self, kind: Kind, namespace: &str) -> Result<Vec<DynamicObject>, StepError> {
        let doing = format!("list {} in namespace {namespace}", kind.api_resource().plural);
        let api = self.api(kind, Some(namespace));
        let mut params = ListParams::default().limit(LIST_MAX);
        let mut all = Vec::new();
        // Each is a later part of one snapshot of the server, and the last one says so.
        for _ in 0..PAGES_MAX {
            match api.list(&params).await {
                Ok(mut page) => {
                    page.items.iter_mut().for_each(|object| secret::hide(kind, object));
                    all.extend(page.items);
                    match page.metadata.continue_.filter(|token| !token.is_empty()) {
                        Some(token) => params.continue_token = Some(token),
                        None => return Ok(all),
                    }
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
                Err(error) => return Err(step_error(Asked::Read, &doing, &error)),
            }
        }
        Err(endless(&doing))
    }

    /// Makes a namespace, or finds the one that this workflow made before.
    ///
    /// # Errors
    /// [`StepError`]: permanent if it is somebody else's, transient while an old one is being deleted, else by the table.
    pub async fn make_namespace(&self, object: &Object, workflow: &str) -> Result<DynamicObject, StepError> {
        let doing = format!("create {}", place(Kind::Namespace, None, &object.name));
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let body: DynamicObject = serde_json::from_value(object.body.clone())
            .map_err(|error| StepError::permanent(format!("cannot {doing}: {error}")))?;
        match self.api(Kind::Namespace, None).create(&params, &body).await {
            Ok(made) => Ok(made),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                self.existing_namespace(&object.name, workflow).await
            }
            Err(error) => Err(step_error(Asked::Write, &doing, &error)),
        }
    }

    /// C7: never adopted, and never waited in for what ends by itself.
    async fn existing_namespace(&self, name: &str, workflow: &str) -> Result<DynamicObject, StepError> {
        let Some(object) = self.read(Kind::Namespace, None, name).await? else {
            return Err(StepError::transient(format!("namespace {name} was there and is gone")));
        };
        let terminating = object.metadata.deletion_timestamp.is_some();
        match (is_ours(&object, workflow), terminating) {
            (true, false) => Ok(object),
            (true, true) => {
                Err(StepError::permanent(format!("namespace {name} was made, and somebody is deleting it")))
            }
            (false, true) => {
                let waits = gone::conditions(&object);
                Err(StepError::transient(format!(
                    "namespace {name} still belongs to another cluster, which is being deleted"
                ))
                .with_evidence(waits))
            }
            (false, false) => Err(StepError::permanent(format!(
                "namespace {name} exists and {}: choose another `namespace`, or delete that one first",
                whose(&object)
            ))),
        }
    }

    /// Applies the complete intent for an object that is not there, or that this workflow made: that bears its mark and, where
    /// the journal knows its UID, has that one.
    ///
    /// # Errors
    /// [`StepError`]: permanent if the object is somebody else's, else by the table of [`errors`].
    pub async fn apply(&self, object: &Object, workflow: &str, journaled: &[Made]) -> Result<DynamicObject, StepError> {
        if object.kind == Kind::Secret {
            return self.make_secret(object, workflow, journaled).await;
        }
        let (namespace, name) = (object.namespace.as_deref(), &object.name);
        let at = place(object.kind, namespace, name);
        let doing = format!("apply {at}");
        let mut body = object.body.clone();
        let (uid, version) = match self.find(object.kind, namespace, name, workflow).await? {
            Found::Foreign(whose) => return Err(theirs(&at, &whose)),
            Found::Ours(found) if found.metadata.deletion_timestamp.is_some() => {
                return Err(StepError::transient(format!("{at} is being deleted")));
            }
            Found::Ours(found) => (found.metadata.uid, found.metadata.resource_version),
            Found::Nothing => (None, None),
        };
        if let Some(uid) = &uid {
            refuse_unrecorded(object, uid, journaled)?;
            // A condition: what replaces it between our look and our apply is not changed.
            body["metadata"]["uid"] = uid.clone().into();
        }
        match self.apply_over_own(object, &body, version, applying()).await {
            Ok(answer) if uid.is_none() && !is_made_by_us_alone(&answer) => self.give_back(object, &answer).await,
            Ok(answer) => Ok(answer),
            // Servers differ in what they call a UID that is not met.
            Err(kube::Error::Api(status)) if status.code == 422 && uid.is_some() => {
                let now = self.read(object.kind, namespace, name).await?;
                if now.is_none_or(|now| now.metadata.uid != uid) {
                    return Err(StepError::transient(format!("{at} was replaced while it was applied")));
                }
                Err(step_error(Asked::Write, &doing, &kube::Error::Api(status)))
            }
            Err(error) => Err(step_error(Asked::Write, &doing, &error)),
        }
    }

    /// Sends an apply. A field that this program has last set otherwise than by an apply (a scale, a patch in its name) is to the
    /// server another manager's: it is taken back, if the object is still of the version that was looked at. Nobody else's ever is.
    async fn apply_over_own(
        &self,
        object: &Object,
        body: &Value,
        version: Option<String>,
        params: PatchParams,
    ) -> Result<DynamicObject, kube::Error> {
        let api = self.api(object.kind, object.namespace.as_deref());
        let refused = match api.patch(&object.name, &params, &Patch::Apply(body)).await {
            Err(kube::Error::Api(status)) => status,
            answer => return answer,
        };
        let owners = field_owners(&refused);
        let (Some(version), false) = (version, owners.is_empty()) else { return Err(kube::Error::Api(refused)) };
        if !owners.iter().all(|owner| writes_for_us(object.kind, owner)) {
            return Err(kube::Error::Api(refused));
        }
        let mut body = body.clone();
        body["metadata"]["resourceVersion"] = version.into();
        api.patch(&object.name, &params.force(), &Patch::Apply(&body)).await
    }

    /// Somebody made the object between our look and our apply, which was merged into it: an apply of nothing takes back every
    /// field that is ours alone, our mark among them (C2).
    async fn give_back(&self, object: &Object, merged: &DynamicObject) -> Result<DynamicObject, StepError> {
        let at = place(object.kind, object.namespace.as_deref(), &object.name);
        let nothing = serde_json::json!({
            "apiVersion": object.body["apiVersion"], "kind": object.body["kind"],
            "metadata": {"name": object.name, "uid": merged.metadata.uid},
        });
        let api = self.api(object.kind, object.namespace.as_deref());
        let error = theirs(&at, "was made by somebody else at the same time");
        Err(match api.patch(&object.name, &applying(), &Patch::Apply(&nothing)).await {
            Ok(_) => error,
            Err(kube::Error::Api(status)) if status.code == 404 => error,
            Err(why) => error.with_evidence([format!("what was applied to {at} could not be taken back: {why}")]),
        })
    }

    /// [`Cluster::scale`] to 0.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`errors`].
    pub async fn scale_to_none(&self, made: &Made, workflow: &str) -> Result<bool, StepError> {
        self.scale(made, workflow, 0).await
    }

    /// Sets the replicas of a workload that this workflow made, whoever has set them to what they are. Only this one field is
    /// sent: an apply of the whole intent would run into every field that others have taken over since. The field is this
    /// program's then, and the next apply finds it so.
    ///
    /// False if there is nothing to do: it is gone, going, somebody else's, or at so many already.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`errors`].
    pub async fn scale(&self, made: &Made, workflow: &str, replicas: u32) -> Result<bool, StepError> {
        let Some(kind) = made.kind() else { return Ok(false) };
        let namespace = made.namespace.as_deref();
        let Found::Ours(found) = self.find(kind, namespace, &made.name, workflow).await? else { return Ok(false) };
        let going = found.metadata.deletion_timestamp.is_some();
        if going || found.metadata.uid.as_deref() != Some(&made.uid) || found.data["spec"]["replicas"] == replicas {
            return Ok(false);
        }
        // The UID is a condition: it cannot be changed, so the server refuses the patch of another object.
        let patch = serde_json::json!({"metadata": {"uid": made.uid}, "spec": {"replicas": replicas}});
        let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let refused = match self.api(kind, namespace).patch(&made.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(error) => error,
        };
        // An unmet UID is a conflict, or an immutable field: only what stands there now says which of our errors it is.
        if matches!(&refused, kube::Error::Api(status) if matches!(status.code, 409 | 422)) {
            let now = self.read(kind, namespace, &made.name).await?;
            if now.is_none_or(|now| now.metadata.uid.as_deref() != Some(&made.uid)) {
                return Ok(false);
            }
        }
        Err(step_error(Asked::Write, &format!("scale {}", place(kind, namespace, &made.name)), &refused))
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = kind.api_resource();
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

/// The cluster always has one more page of a list.
fn endless(doing: &str) -> StepError {
    StepError::transient(format!(
        "cannot {doing}: the list has not ended after {PAGES_MAX} answers; the API server, or a proxy before it, repeats itself: \
         its operator should look"
    ))
}

/// How everything is applied: by the one manager, never by force, and with no field that the server does not know.
fn applying() -> PatchParams {
    PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    }
}

/// Whether what this field manager sets is set for us: by ourselves, or of a claim by the controller of our set, which makes from
/// our template what it misses, and does not look at it again (C4).
fn writes_for_us(kind: Kind, manager: &str) -> bool {
    manager == names::FIELD_MANAGER || (kind == Kind::PersistentVolumeClaim && manager == names::CONTROLLER_MANAGER)
}

/// Whether this program has applied the object. What a controller has made from a template of ours bears our mark, too.
#[must_use]
pub fn is_applied_by_us(object: &DynamicObject) -> bool {
    let mut managers = object.metadata.managed_fields.iter().flatten();
    managers.any(|entry| {
        entry.manager.as_deref() == Some(names::FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    })
}

/// Whether the answer to an apply shows an object that this apply has made: no other manager has a field of it yet.
fn is_made_by_us_alone(answer: &DynamicObject) -> bool {
    let mut managers = answer.metadata.managed_fields.iter().flatten();
    managers.all(|entry| entry.manager.as_deref() == Some(names::FIELD_MANAGER))
}

/// What bears our mark and is not the one that the journal knows is somebody else's copy of it.
fn refuse_unrecorded(object: &Object, uid: &str, journaled: &[Made]) -> Result<(), StepError> {
    let mut same =
        journaled.iter().filter(|made| made.kind() == Some(object.kind) && made.name == object.name).peekable();
    if same.peek().is_none() || same.any(|made| made.uid == uid) {
        return Ok(());
    }
    let at = place(object.kind, object.namespace.as_deref(), &object.name);
    Err(theirs(&at, "bears our mark, but is not the one that was made: somebody made it anew"))
}

fn theirs(at: &str, whose: &str) -> StepError {
    StepError::permanent(format!("{at} exists and {whose}: delete it, or choose another `namespace`"))
}

/// What was made, for the journal.
///
/// # Errors
/// [`StepError`] (unknown) if the server's answer has no UID: then nobody knows what it did.
pub fn made(object: &Object, answer: &DynamicObject) -> Result<Made, StepError> {
    let uid = answer.metadata.uid.clone();
    let uid = uid.ok_or_else(|| StepError::unknown(format!("the cluster's answer for {object} has no UID")))?;
    Ok(Made { kind: object.kind.to_string(), name: object.name.clone(), namespace: object.namespace.clone(), uid })
}

/// Whether this workflow made the object.
#[must_use]
pub fn is_ours(object: &DynamicObject, workflow: &str) -> bool {
    marked_by(&object.metadata, workflow)
}

fn marked_by(metadata: &ObjectMeta, workflow: &str) -> bool {
    mark(metadata) == Some(workflow)
}

fn mark(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(names::WORKFLOW_ANNOTATION).map(String::as_str)
}

/// Whose a foreign object is. Not which tenant's: that is nobody else's business (I23).
fn whose(object: &DynamicObject) -> String {
    if mark(&object.metadata).is_some() {
        return "belongs to another cluster that was made here".to_owned();
    }
    let labels = object.metadata.labels.as_ref();
    match labels.and_then(|labels| labels.get(names::MANAGED_BY_LABEL.0)) {
        Some(manager) => format!("is managed by {manager}"),
        None => "was not made here".to_owned(),
    }
}

/// `StatefulSet/elasticsearch in namespace acme--search`.
fn place(kind: Kind, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{kind}/{name} in namespace {namespace}"),
        None => format!("{kind}/{name}"),
    }
}
