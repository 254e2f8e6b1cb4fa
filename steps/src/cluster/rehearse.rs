//! What the cluster would make of some objects: its own verdict on each, and what would change. Changes nothing.
//!
//! - The verdict is the API server's dry run (`dryRun=All`, `fieldValidation=Strict`): schema, values, admission, all but the
//!   keeping.
//! - An object whose namespace is not there yet has no place to be tried in. It is then tried in [`STAND_IN`] under a name of
//!   its own: that checks its schema and its values, and says so; what only its own namespace would say (a quota, a limit, a
//!   policy) stays open.
//! - What is somebody else's is refused here as the steps refuse it, and not looked into.

use kube::api::{DeleteParams, DynamicObject, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::{Value, json};

use super::errors::{Asked, is_misfit, step_error};
use super::{Cluster, Found, Made, applying, place, whose};
use crate::names;
use crate::render::{Kind, Object};

/// The namespace that every cluster has. Nothing is ever made there.
const STAND_IN: &str = "default";
/// What the server writes into every object, and what therefore is no change of ours.
const SERVERS: [&str; 5] = ["creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"];

/// What would become of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not there, and would be made.
    Create,
    /// It is there, and would be changed.
    Change,
    /// It is there, as it should be.
    Keep,
    /// It is there, and would be deleted.
    Delete,
    /// It is not ours any more, or not there: nothing would be done.
    Leave,
}

/// What the server says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It would be taken.
    Accepted,
    /// It would not.
    Refused,
    /// Nobody said anything: the message says why.
    Unchecked,
}

/// One place of an object that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// `spec.replicas`, `spec.template.spec.containers[elasticsearch].image`
    pub path: String,
    /// As it is; null if it is not there.
    pub before: Value,
    /// As it would be; null if it goes.
    pub after: Value,
}

/// What would become of one object, and what the server says to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rehearsed {
    /// `StatefulSet/elasticsearch`
    pub object: String,
    /// Where it would lie.
    pub namespace: Option<String>,
    /// What would become of it.
    pub action: Action,
    /// What the server says.
    pub verdict: Word,
    /// Where it was tried, if not in its own namespace.
    pub tried_in: Option<String>,
    /// Why it was refused or not tried, or what stays open.
    pub message: Option<String>,
    /// The fields that the server complains about, or their owners.
    pub evidence: Vec<String>,
    /// What would change of what is there.
    pub changes: Vec<Change>,
}

impl Rehearsed {
    fn of(object: &Object, action: Action) -> Self {
        Self {
            object: object.to_string(),
            namespace: object.namespace.clone(),
            action,
            verdict: Word::Accepted,
            tried_in: None,
            message: None,
            evidence: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// What would be kept as it is.
    #[must_use]
    pub fn kept(made: &Made) -> Self {
        Self {
            object: format!("{}/{}", made.kind, made.name),
            namespace: made.namespace.clone(),
            action: Action::Keep,
            verdict: Word::Accepted,
            tried_in: None,
            message: None,
            evidence: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Something else is known of it than what the server said.
    pub(crate) fn say(&mut self, verdict: Word, message: String) {
        (self.verdict, self.message) = (verdict, Some(message));
    }

    fn refused(self, message: impl Into<String>) -> Self {
        Self { verdict: Word::Refused, message: Some(message.into()), ..self }
    }

    /// What this error of the dry run means: only an answer of the server about the object is a refusal.
    fn failed(self, error: &kube::Error) -> Self {
        let verdict = match error {
            kube::Error::Api(status) if is_misfit(status) || !matches!(status.code, 401 | 429 | 500..) => Word::Refused,
            _ => Word::Unchecked,
        };
        let failure = step_error(Asked::Read, &format!("try {}", self.object), error).failure;
        Self { verdict, message: Some(failure.message), evidence: failure.evidence, ..self }
    }
}

impl Cluster {
    /// Tries these objects, in their order, for the workflow that would own them; for one that is yet to begin there is none.
    pub async fn rehearse(&self, objects: &[Object], workflow: Option<&str>) -> Vec<Rehearsed> {
        let mut all = Vec::new();
        let mut home = Home::Absent;
        for object in objects {
            let one = match (object.kind, &home) {
                (Kind::Namespace, _) => {
                    let (one, found) = self.rehearse_namespace(object, workflow).await;
                    home = found;
                    one
                }
                (_, Home::Ours) => self.rehearse_in_place(object, workflow.unwrap_or_default()).await,
                (_, Home::Absent) => self.rehearse_elsewhere(object).await,
            };
            all.push(one);
        }
        all
    }

    /// Tries the deletion of these objects, which bear this mark, in their order.
    pub async fn rehearse_deletion(&self, made: &[Made], mark: &str) -> Vec<Rehearsed> {
        let mut all = Vec::new();
        for one in made {
            all.push(self.rehearse_one_deletion(one, mark).await);
        }
        all
    }

    async fn rehearse_one_deletion(&self, made: &Made, mark: &str) -> Rehearsed {
        let one = Rehearsed { action: Action::Delete, ..Rehearsed::kept(made) };
        let leave =
            |message: &str| Rehearsed { action: Action::Leave, message: Some(message.to_owned()), ..one.clone() };
        let Some(kind) = made.kind() else { return leave("it is of a kind that this build does not know") };
        let namespace = made.namespace.as_deref();
        match self.find(kind, namespace, &made.name, mark).await {
            Err(error) => return Rehearsed { verdict: Word::Unchecked, message: Some(error.failure.message), ..one },
            Ok(Found::Nothing) => return leave("it is gone already"),
            Ok(Found::Ours(found)) if found.metadata.uid.as_deref() == Some(&made.uid) => {}
            Ok(_) => return leave("somebody else has put another one there: it is left alone"),
        }
        let params = DeleteParams {
            dry_run: true,
            preconditions: Some(Preconditions { uid: Some(made.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(kind, namespace).delete(&made.name, &params).await {
            Ok(_) => one,
            Err(error) => one.failed(&error),
        }
    }

    async fn rehearse_namespace(&self, object: &Object, workflow: Option<&str>) -> (Rehearsed, Home) {
        let made = Rehearsed::of(object, Action::Create);
        let found = match self.read(Kind::Namespace, None, &object.name).await {
            Ok(found) => found,
            Err(error) => {
                let failure = error.failure;
                let one = Rehearsed { verdict: Word::Unchecked, message: Some(failure.message), ..made };
                return (Rehearsed { evidence: failure.evidence, ..one }, Home::Absent);
            }
        };
        let Some(found) = found else {
            let tried = self.try_creation(Kind::Namespace, None, &object.body).await;
            return (tried.map_or_else(|error| made.clone().failed(&error), |()| made.clone()), Home::Absent);
        };
        let ours = workflow.is_some_and(|workflow| super::is_ours(&found, workflow));
        if ours && found.metadata.deletion_timestamp.is_none() {
            return (Rehearsed::of(object, Action::Keep), Home::Ours);
        }
        let message = if found.metadata.deletion_timestamp.is_some() {
            format!("namespace {} is being deleted: it would be waited for", object.name)
        } else {
            let whose = whose(&found);
            format!(
                "namespace {} exists and {whose}: choose another `namespace`, or delete that one first",
                object.name
            )
        };
        (made.refused(message), Home::Absent)
    }

    /// A creation of a kind of the core, as the step does it: with the condition that nothing is there.
    async fn try_creation(&self, kind: Kind, namespace: Option<&str>, body: &Value) -> Result<(), kube::Error> {
        let place = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        let (plural, manager) = (kind.api_resource().plural, names::FIELD_MANAGER);
        let path = format!("/api/v1/{place}{plural}?dryRun=All&fieldValidation=Strict&fieldManager={manager}");
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(body.to_string().into_bytes()).expect("a plain path and plain headers");
        self.client.request::<DynamicObject>(request).await.map(|_| ())
    }

    /// The dry run of what the steps do for this kind: two of them are made and never applied.
    async fn try_object(
        &self,
        object: &Object,
        body: &Value,
        version: Option<String>,
    ) -> Result<Option<DynamicObject>, kube::Error> {
        if matches!(object.kind, Kind::Namespace | Kind::Secret) {
            return self.try_creation(object.kind, object.namespace.as_deref(), body).await.map(|()| None);
        }
        self.apply_over_own(object, body, version, trying()).await.map(Some)
    }

    /// Where it would lie: with what is there, and what would change of it.
    async fn rehearse_in_place(&self, object: &Object, workflow: &str) -> Rehearsed {
        let namespace = object.namespace.as_deref();
        let found = match self.find(object.kind, namespace, &object.name, workflow).await {
            Ok(found) => found,
            Err(error) => {
                let one = Rehearsed::of(object, Action::Create);
                return Rehearsed { verdict: Word::Unchecked, message: Some(error.failure.message), ..one };
            }
        };
        let live = match found {
            Found::Foreign(whose) => {
                let at = place(object.kind, namespace, &object.name);
                return Rehearsed::of(object, Action::Change).refused(format!("{at} exists and {whose}"));
            }
            Found::Ours(live) => Some(live),
            Found::Nothing => None,
        };
        if live.is_some() && object.kind == Kind::Secret {
            return Rehearsed::of(object, Action::Keep);
        }
        let action = if live.is_some() { Action::Change } else { Action::Create };
        let one = Rehearsed::of(object, action);
        let version = live.as_ref().and_then(|live| live.metadata.resource_version.clone());
        let answer = match self.try_object(object, &object.body, version).await {
            Ok(answer) => answer,
            Err(error) => return one.failed(&error),
        };
        let (Some(live), Some(answer)) = (live, answer) else { return one };
        let value = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
        let changes = changes(&value(&live), &value(&answer));
        let action = if changes.is_empty() { Action::Keep } else { Action::Change };
        Rehearsed { action, changes, ..one }
    }

    /// Where nothing can be in its way, and nothing speaks for its own namespace.
    async fn rehearse_elsewhere(&self, object: &Object) -> Rehearsed {
        let mut body = object.body.clone();
        let workflow = body["metadata"]["annotations"][names::WORKFLOW_ANNOTATION].as_str().unwrap_or_default();
        // A name that nobody has: nothing may be merged into what is there.
        let name = format!("{}-{:08x}", object.name, crc(&format!("{workflow}{:?}", object.namespace)));
        body["metadata"]["name"] = json!(name);
        body["metadata"]["namespace"] = json!(STAND_IN);
        let home = object.namespace.as_deref().unwrap_or_default();
        let one = Rehearsed {
            tried_in: Some(STAND_IN.to_owned()),
            message: Some(format!(
                "namespace {home} is not there yet: fields and values were checked in namespace {STAND_IN}; quotas, limits and policies of its own were not"
            )),
            ..Rehearsed::of(object, Action::Create)
        };
        let stand_in = Object { name, namespace: Some(STAND_IN.to_owned()), ..object.clone() };
        match self.try_object(&stand_in, &body, None).await {
            Ok(_) => one,
            // What the other namespace refuses for reasons of its own says nothing.
            Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("exceeded quota") => {
                let message = format!("not checked: namespace {STAND_IN} has a quota of its own");
                Rehearsed { verdict: Word::Unchecked, message: Some(message), ..one }
            }
            Err(error) => one.failed(&error),
        }
    }
}

/// Whether there is a namespace for the objects.
enum Home {
    Absent,
    Ours,
}

fn trying() -> PatchParams {
    PatchParams { dry_run: true, ..applying() }
}

/// A short number for a text, the same every time.
fn crc(text: &str) -> u32 {
    // FNV-1a: nobody has to be kept from finding two texts with the same number.
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Where `after` is not as `before`, but for what is the server's own.
fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let own = |object: &Value| {
        let mut object = object.clone();
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|name, _| !SERVERS.contains(&name.as_str()));
        }
        object
    };
    let mut found = Vec::new();
    walk("", &own(before), &own(after), &mut found);
    found
}

fn walk(path: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        _ if before == after => {}
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let side = |side: &serde_json::Map<String, Value>| side.get(name).cloned().unwrap_or_default();
                walk(&join(name), &side(one), &side(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if named(one) && named(other) => {
            let mut names: Vec<&str> = one.iter().chain(other).filter_map(|item| item["name"].as_str()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let side = |side: &[Value]| side.iter().find(|item| item["name"] == name).cloned().unwrap_or_default();
                walk(&format!("{path}[{name}]"), &side(one), &side(other), found);
            }
        }
        _ => found.push(Change { path: path.to_owned(), before: before.clone(), after: after.clone() }),
    }
}

fn named(items: &[Value]) -> bool {
    items.iter().all(|item| item["name"].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elastic::Elastic;
    use crate::render::{Marks, Through, render};
    use crate::request::Request;
    use crate::sandbox::{Fault, Sandbox, SandboxOptions};

    fn objects(replicas: u32) -> Vec<Object> {
        let body = json!({ "user": "acme", "service_name": "search", "replicas": replicas }).to_string();
        let request = Request::parse(body.as_bytes()).expect("good");
        render(&request, &Elastic::default(), Through::RolloutCompleted, None, &Marks { workflow: "w".to_owned() })
    }

    fn sandbox() -> (Sandbox, Cluster) {
        let sandbox = Sandbox::open(SandboxOptions::default()).expect("in memory");
        let cluster = Cluster::new(sandbox.client());
        (sandbox, cluster)
    }

    async fn made(cluster: &Cluster) -> Vec<Made> {
        let mut all = Vec::new();
        for object in objects(1) {
            let answer = match object.kind {
                Kind::Namespace => cluster.make_namespace(&object, "w").await,
                _ => cluster.apply(&object, "w", &[]).await,
            };
            all.push(crate::cluster::made(&object, &answer.expect("made")).expect("it has a UID"));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_namespace_everything_is_tried_elsewhere_and_says_so_and_nothing_is_made() {
        let (sandbox, cluster) = sandbox();
        let all = cluster.rehearse(&objects(2), None).await;
        assert!(all.iter().all(|one| one.verdict == Word::Accepted && one.action == Action::Create), "{all:#?}");
        assert!(all[0].tried_in.is_none() && all[0].message.is_none(), "{:?}", all[0]);
        assert!(all[1..].iter().all(|one| one.tried_in.as_deref() == Some(STAND_IN)), "{all:#?}");
        assert_eq!(sandbox.effects(), []);
        assert!(sandbox.objects().iter().all(|object| object["kind"] != "StatefulSet"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_refuses_is_refused_with_its_words_and_what_it_does_not_answer_is_unchecked() {
        let (sandbox, cluster) = sandbox();
        let mut wrong = objects(1);
        let set = wrong.iter_mut().find(|object| object.kind == Kind::StatefulSet).expect("a set");
        set.body["spec"]["replicaz"] = json!(3);
        let all = cluster.rehearse(&wrong, None).await;
        let refused: Vec<&Rehearsed> = all.iter().filter(|one| one.verdict == Word::Refused).collect();
        assert_eq!(refused.len(), 1, "{all:#?}");
        assert!(refused[0].message.as_deref().is_some_and(|message| message.contains("replicaz")), "{refused:#?}");
        sandbox.faults().add(Fault::status(503).verb("apply").resource("services"));
        let all = cluster.rehearse(&objects(1), None).await;
        let unchecked = all.iter().filter(|one| one.verdict == Word::Unchecked);
        assert!(unchecked.clone().count() > 0 && unchecked.clone().all(|one| one.object.starts_with("Service/")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_of_somebody_elses_is_refused() {
        let (_sandbox, cluster) = sandbox();
        made(&cluster).await;
        let all = cluster.rehearse(&objects(1), None).await;
        assert_eq!(all[0].verdict, Word::Refused);
        assert!(all[0].message.as_deref().is_some_and(|message| message.contains("choose another")), "{:?}", all[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_is_tried_on_what_is_ours_and_what_is_not_is_left_and_nothing_goes() {
        let (sandbox, cluster) = sandbox();
        let all = made(&cluster).await;
        let before = sandbox.effects().len();
        let ours = cluster.rehearse_deletion(&all, "w").await;
        assert!(ours.iter().all(|one| one.action == Action::Delete && one.verdict == Word::Accepted), "{ours:#?}");
        let replaced: Vec<Made> = all.into_iter().map(|one| Made { uid: "another".to_owned(), ..one }).collect();
        let left = cluster.rehearse_deletion(&replaced, "w").await;
        assert!(left.iter().all(|one| one.action == Action::Leave && one.message.is_some()), "{left:#?}");
        assert_eq!(sandbox.effects().len(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn of_what_is_there_each_change_is_told_and_only_those() {
        let (sandbox, cluster) = sandbox();
        made(&cluster).await;
        let before = sandbox.effects().len();
        let same = cluster.rehearse(&objects(1), Some("w")).await;
        assert!(same.iter().all(|one| one.action == Action::Keep && one.changes.is_empty()), "{same:#?}");
        let more = cluster.rehearse(&objects(2), Some("w")).await;
        let set = more.iter().find(|one| one.object == "StatefulSet/elasticsearch").expect("a set");
        let replicas = Change { path: "spec.replicas".to_owned(), before: json!(1), after: json!(2) };
        assert!(set.action == Action::Change && set.changes.contains(&replicas), "{set:#?}");
        let claims: Vec<Action> =
            more.iter().filter(|one| one.object.starts_with("PersistentVolumeClaim/")).map(|one| one.action).collect();
        assert_eq!(claims, [Action::Keep, Action::Create]);
        assert_eq!(sandbox.effects().len(), before);
    }
}
