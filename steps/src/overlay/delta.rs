//! What an overlay changed of the base: each place with its new value, so that it can be laid over other objects of the same
//! names, whatever a request made of the rest.
//!
//! Lists whose items have names of their own are merged by these; other lists are replaced as a whole.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{OverlayError, Patch, shared_name};
use crate::names;
use crate::render::{Kind, Object};

/// What an overlay may add: kinds that nothing waits for, and that start nothing.
const ADDABLE: [Kind; 2] = [Kind::ConfigMap, Kind::Service];

/// One place and its new value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Edit {
    path: Vec<Segment>,
    /// `None`: it goes.
    value: Option<Value>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Segment {
    /// A field.
    Field(String),
    /// The item of a list with this name.
    Item(String),
    /// The item of a list at this place.
    At(usize),
}

impl Edit {
    /// Makes this change to `object`; what lies on the way there is made where it is not.
    pub(super) fn apply(&self, object: &mut Value) {
        let Some((last, way)) = self.path.split_last() else { return };
        let mut at = object;
        for segment in way {
            let Some(next) = segment.enter(at) else { return };
            at = next;
        }
        match (last, &self.value) {
            (_, Some(value)) => {
                if let Some(place) = last.enter(at) {
                    *place = value.clone();
                }
            }
            (Segment::Field(name), None) => {
                if let Some(fields) = at.as_object_mut() {
                    fields.remove(name);
                }
            }
            (Segment::Item(name), None) => {
                if let Some(items) = at.as_array_mut() {
                    items.retain(|item| item["name"] != name.as_str());
                }
            }
            // Items without a name are never taken out one by one.
            (Segment::At(_), None) => {}
        }
    }

    /// `spec.template.spec.containers[elasticsearch].image`
    fn path(&self) -> String {
        self.path.iter().fold(String::new(), |path, segment| match segment {
            Segment::Field(name) if path.is_empty() => name.clone(),
            Segment::Field(name) => format!("{path}.{name}"),
            Segment::Item(name) => format!("{path}[{name}]"),
            Segment::At(place) => format!("{path}[{place}]"),
        })
    }
}

impl Segment {
    /// The place that this leads to; nothing where something of another shape stands in the way.
    fn enter<'a>(&self, at: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Self::Field(name) => {
                if at.is_null() {
                    *at = Value::Object(Map::new());
                }
                Some(at.as_object_mut()?.entry(name).or_insert(Value::Null))
            }
            Self::Item(name) => {
                if at.is_null() {
                    *at = Value::Array(Vec::new());
                }
                let items = at.as_array_mut()?;
                let place = items.iter().position(|item| item["name"] == name.as_str());
                let place = place.unwrap_or_else(|| {
                    items.push(json!({ "name": name }));
                    items.len() - 1
                });
                items.get_mut(place)
            }
            Self::At(place) => at.as_array_mut()?.get_mut(*place),
        }
    }
}

/// What leads from the base to what was built: changes by object, and objects that are new.
///
/// # Errors
/// [`OverlayError::Protected`] for what is not an overlay's to change, to add or to take away.
pub(super) fn between(base: &[Object], built: &[Value]) -> Result<(Vec<Patch>, Vec<Value>), OverlayError> {
    let mut left: Vec<&Object> = base.iter().collect();
    let (mut patches, mut additions) = (Vec::new(), Vec::new());
    for body in built {
        let (kind, name) = (&body["kind"], &body["metadata"]["name"]);
        // `namespace: dev` gives the namespace itself another name, and what lies in it another place.
        let found = left.iter().position(|object| {
            *kind == object.kind.to_string() && (object.kind == Kind::Namespace || *name == object.name.as_str())
        });
        let Some(place) = found else {
            additions.push(addition(body)?);
            continue;
        };
        let object = left.remove(place);
        let mut edits = Vec::new();
        walk(&mut Vec::new(), &object.body, body, &mut edits);
        // Where a cluster lies is said by each request.
        let is_place =
            |path: &str| path == "metadata.namespace" || object.kind == Kind::Namespace && path == "metadata.name";
        edits.retain(|edit| !is_place(&edit.path()));
        for edit in &edits {
            if let Some(why) = protected(object, edit) {
                return Err(OverlayError::Protected { object: object.to_string(), why });
            }
        }
        if !edits.is_empty() {
            let name = shared_name(object.kind, &object.name).to_owned();
            patches.push(Patch { kind: object.kind.to_string(), name, edits });
        }
    }
    if let Some(gone) = left.first() {
        let why = "it is needed by every cluster: an overlay cannot take it away, and cannot rename it".to_owned();
        return Err(OverlayError::Protected { object: gone.to_string(), why });
    }
    patches.dedup();
    Ok((patches, additions))
}

fn addition(body: &Value) -> Result<Value, OverlayError> {
    let kind = body["kind"].as_str().unwrap_or_default();
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if !ADDABLE.iter().any(|known| known.to_string() == kind) {
        return Err(OverlayError::Protected {
            object: format!("{kind}/{name}"),
            why: "an overlay adds ConfigMaps and Services only: others would need rights of their own, and nobody would wait for them or take them back"
                .to_owned(),
        });
    }
    let mut body = body.clone();
    if let Some(metadata) = body["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    Ok(body)
}

fn walk(path: &mut Vec<Segment>, before: &Value, after: &Value, edits: &mut Vec<Edit>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                path.push(Segment::Field(name.clone()));
                side_by_side(path, one.get(name), other.get(name), edits);
                path.pop();
            }
        }
        (Value::Array(one), Value::Array(other)) if named(one) && named(other) => {
            let find = |items: &[Value], name: &str| items.iter().find(|item| item["name"] == name).cloned();
            let names: BTreeSet<&str> = one.iter().chain(other).filter_map(|item| item["name"].as_str()).collect();
            for name in names {
                path.push(Segment::Item(name.to_owned()));
                side_by_side(path, find(one, name).as_ref(), find(other, name).as_ref(), edits);
                path.pop();
            }
        }
        (Value::Array(one), Value::Array(other))
            if one.len() == other.len() && one.iter().chain(other).all(Value::is_object) =>
        {
            for (place, (before, after)) in one.iter().zip(other).enumerate() {
                path.push(Segment::At(place));
                walk(path, before, after, edits);
                path.pop();
            }
        }
        _ => edits.push(Edit { path: path.clone(), value: Some(after.clone()) }),
    }
}

fn side_by_side(path: &mut Vec<Segment>, before: Option<&Value>, after: Option<&Value>, edits: &mut Vec<Edit>) {
    match (before, after) {
        (Some(before), Some(after)) => walk(path, before, after, edits),
        // One by one: a request may have some of its own there.
        (None, Some(after)) if path.last().is_some_and(is_marks) => walk(path, &json!({}), after, edits),
        (_, after) => edits.push(Edit { path: path.clone(), value: after.cloned() }),
    }
}

/// Labels or annotations.
fn is_marks(segment: &Segment) -> bool {
    matches!(segment, Segment::Field(name) if name == "labels" || name == "annotations")
}

/// Whether every item has a name, and none the name of another.
fn named(items: &[Value]) -> bool {
    let names: BTreeSet<&str> = items.iter().filter_map(|item| item["name"].as_str()).collect();
    names.len() == items.len()
}

/// Why this place of this object is not an overlay's to change.
fn protected(object: &Object, edit: &Edit) -> Option<String> {
    let path = edit.path();
    let of_request = |field: &str| Some(format!("{path} is what a request says: {field}"));
    let ours = || Some(format!("{path} holds the cluster together: it is not an overlay's to change"));
    let within = |prefix: &str| {
        path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['.', '[']))
            // A whole that is replaced takes this part with it.
            || prefix.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    if is_mark(&path) {
        return Some(format!("{path} is a mark, by which cairn knows what is its own"));
    }
    if within("metadata.name") || within("kind") || within("apiVersion") || within("status") {
        return ours();
    }
    if ["spec.template.spec.serviceAccountName", "spec.template.spec.hostNetwork", "spec.template.spec.hostPID"]
        .iter()
        .any(|field| within(field) && path.starts_with("spec"))
    {
        return Some(format!("{path} would give its pods more than a tenant's pods may have"));
    }
    match object.kind {
        Kind::StatefulSet | Kind::Deployment if within("spec.replicas") => of_request("`replicas`"),
        Kind::StatefulSet if within("spec.volumeClaimTemplates[0].spec") => of_request("`disk_size`"),
        Kind::StatefulSet if within("spec.persistentVolumeClaimRetentionPolicy") => Some(format!(
            "{path} would let Kubernetes delete disks by itself, which a deletion with `keep_data` and a change promise to keep: \
             claims are retained, and deleted by cairn alone"
        )),
        Kind::StatefulSet if within(&container("resources")) => {
            of_request("`cpu_request`, `cpu_limit`, `mem_request`, `mem_limit` and `gpu_count`")
        }
        Kind::StatefulSet if base_env(object, edit) => ours(),
        Kind::StatefulSet | Kind::Deployment => {
            if within("spec.selector") {
                return Some(format!(
                    "{path} finds the pods, and can never change: write `labels` without `includeSelectors` instead of `commonLabels`"
                ));
            }
            let fixed = [
                "spec.volumeClaimTemplates[0].metadata.name",
                "spec.serviceName",
                "spec.podManagementPolicy",
                "spec.template.metadata.name",
            ];
            fixed.iter().any(|field| within(field)).then(ours).flatten()
        }
        Kind::Service => {
            let fixed = ["spec.selector", "spec.clusterIP", "spec.publishNotReadyAddresses"];
            fixed.iter().any(|field| within(field)).then(ours).flatten()
        }
        Kind::PodDisruptionBudget => within("spec.selector").then(ours).flatten(),
        Kind::ConfigMap if within("data") => {
            Some(format!("{path} is made for each request: Elasticsearch's settings come from its `gitlab_url`"))
        }
        Kind::ConfigMap => None,
        _ if path.starts_with("metadata.labels") || path.starts_with("metadata.annotations") => None,
        _ => ours(),
    }
}

/// `spec.template.spec.containers[elasticsearch].FIELD`
fn container(field: &str) -> String {
    format!("spec.template.spec.containers[{}].{field}", names::ELASTICSEARCH_CONTAINER)
}

/// Whether a variable is changed that the base sets: one more is nobody's harm.
fn base_env(object: &Object, edit: &Edit) -> bool {
    let path = edit.path();
    let env = container("env");
    let known = object.body["spec"]["template"]["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["name"] == names::ELASTICSEARCH_CONTAINER)
        .flat_map(|one| one["env"].as_array().into_iter().flatten())
        .filter_map(|variable| variable["name"].as_str());
    path == env
        || path == env.trim_end_matches(".env")
        || known.into_iter().any(|name| path.starts_with(&format!("{env}[{name}]")))
}

/// Whether this is one of our labels or annotations, or all of them.
fn is_mark(path: &str) -> bool {
    let Some((_, key)) = ["labels.", "annotations."]
        .iter()
        .find_map(|part| path.split_once(part).filter(|(before, _)| before.ends_with("metadata.")))
    else {
        return path.ends_with("metadata")
            || path.ends_with("metadata.labels")
            || path.ends_with("metadata.annotations");
    };
    key == names::CLUSTER_LABEL.0 || key.starts_with("app.kubernetes.io/") || key.starts_with("cairn.dev/")
}
