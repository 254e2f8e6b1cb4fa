//! Which fields an object has, as server-side apply counts them, and how lists merge.
//!
//! A [`FieldSet`] is the tree that `metadata.managedFields` writes as FieldsV1: `f:name` a field, `k:{…}` a list
//! item by its keys, `v:…` an item of a set. The merge keys are those of the API's types
//! (`x-kubernetes-list-type`, `x-kubernetes-list-map-keys`); a list that is not named here is atomic.

use super::kinds::Kind;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListType {
    /// Replaced as a whole, owned as a whole.
    Atomic,
    /// Each value once.
    Set,
    /// Items are told apart by these keys.
    Map(&'static [&'static str]),
}

/// The way from the root to a field: names joined with dots, list items left out.
#[derive(Clone, Debug)]
pub(super) struct At {
    kind: Kind,
    path: String,
}

impl At {
    pub(super) fn root(kind: Kind) -> At {
        At { kind, path: String::new() }
    }

    pub(super) fn field(&self, name: &str) -> At {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        At { kind: self.kind, path }
    }

    /// The path within the pod, for the kinds that carry a pod template.
    fn in_pod(&self) -> Option<&str> {
        match self.kind {
            Kind::Pod => Some(&self.path),
            Kind::StatefulSet | Kind::Deployment | Kind::ReplicaSet => self.path.strip_prefix("spec.template."),
            _ => None,
        }
    }

    pub(super) fn list_type(&self) -> ListType {
        match self.path.as_str() {
            "metadata.ownerReferences" => return ListType::Map(&["uid"]),
            "metadata.finalizers" => return ListType::Set,
            "status.conditions" | "status.addresses" => return ListType::Map(&["type"]),
            "spec.ports" if self.kind == Kind::Service => return ListType::Map(&["port", "protocol"]),
            "secrets" if self.kind == Kind::ServiceAccount => return ListType::Map(&["name"]),
            _ => {}
        }
        let Some(path) = self.in_pod() else { return ListType::Atomic };
        let path = path.strip_prefix("spec.").unwrap_or(path);
        if let Some((list, rest)) = path.split_once('.')
            && matches!(list, "containers" | "initContainers" | "ephemeralContainers")
        {
            return match rest {
                "ports" => ListType::Map(&["containerPort", "protocol"]),
                "env" | "resources.claims" => ListType::Map(&["name"]),
                "volumeMounts" => ListType::Map(&["mountPath"]),
                "volumeDevices" => ListType::Map(&["devicePath"]),
                _ => ListType::Atomic,
            };
        }
        match path {
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "imagePullSecrets"
            | "schedulingGates"
            | "resourceClaims" => ListType::Map(&["name"]),
            "hostAliases" => ListType::Map(&["ip"]),
            "topologySpreadConstraints" => ListType::Map(&["topologyKey", "whenUnsatisfiable"]),
            _ => ListType::Atomic,
        }
    }

    /// Whether the object here is owned and replaced as a whole (`x-kubernetes-map-type: atomic`).
    pub(super) fn is_atomic_map(&self) -> bool {
        let last = self.path.rsplit('.').next().unwrap_or_default();
        self.path == "spec.selector"
            || matches!(
                last,
                "labelSelector"
                    | "namespaceSelector"
                    | "configMapKeyRef"
                    | "secretKeyRef"
                    | "fieldRef"
                    | "resourceFieldRef"
                    | "involvedObject"
            )
    }
}

/// The `k:{…}` of a list item, `v:…` of a set's; nothing for an item without its keys.
pub(super) fn item_element(item: &Value, list: ListType) -> Option<String> {
    match list {
        ListType::Atomic => None,
        ListType::Set => Some(format!("v:{item}")),
        ListType::Map(keys) => {
            let mut found = Map::new();
            for key in keys {
                let value = match item.get(key) {
                    Some(value) => value.clone(),
                    None if *key == "protocol" => json!("TCP"),
                    None => return None,
                };
                found.insert((*key).to_owned(), value);
            }
            Some(format!("k:{}", Value::Object(found)))
        }
    }
}

/// Each list of this value that has two items of the same keys.
pub(super) fn duplicates(value: &Value, at: &At) -> Vec<String> {
    let mut found = Vec::new();
    collect_duplicates(value, at, "", &mut found);
    found
}

fn collect_duplicates(value: &Value, at: &At, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !at.is_atomic_map() => {
            for (name, value) in fields {
                collect_duplicates(value, &at.field(name), &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) if at.list_type() != ListType::Atomic => {
            let mut seen = BTreeSet::new();
            for item in items {
                let Some(element) = item_element(item, at.list_type()) else { continue };
                let here = step(&element);
                collect_duplicates(item, at, &format!("{path}{here}"), found);
                if !seen.insert(element) {
                    found.push(format!("{path}: duplicate entries for key {here}"));
                }
            }
        }
        _ => {}
    }
}

/// An element of a [`FieldSet`] as messages write it.
fn step(element: &str) -> String {
    match element.split_at(2) {
        ("f:", field) => format!(".{field}"),
        ("v:", value) => format!("[={value}]"),
        (_, keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
    }
}

/// A set of fields. `member`: the field itself is in it, not only some below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    pub(super) member: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub(super) fn from_json(value: &Value) -> FieldSet {
        let Some(object) = value.as_object() else { return FieldSet::default() };
        let mut set = FieldSet { member: object.is_empty(), children: BTreeMap::new() };
        for (name, child) in object {
            if name == "." {
                set.member = true;
            } else {
                set.children.insert(name.clone(), FieldSet::from_json(child));
            }
        }
        set
    }

    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        if self.member && !self.children.is_empty() {
            object.insert(".".to_owned(), json!({}));
        }
        for (name, child) in &self.children {
            object.insert(name.clone(), child.to_json());
        }
        Value::Object(object)
    }

    /// The fields of a value.
    pub(super) fn of(value: &Value, at: &At) -> FieldSet {
        let mut set = FieldSet::default();
        match value {
            Value::Object(object) if !object.is_empty() && !at.is_atomic_map() => {
                for (name, child) in object {
                    set.children.insert(format!("f:{name}"), FieldSet::of(child, &at.field(name)));
                }
            }
            Value::Array(list) if !list.is_empty() && at.list_type() != ListType::Atomic => {
                for item in list {
                    let Some(element) = item_element(item, at.list_type()) else { continue };
                    let mut child = FieldSet::of(item, at);
                    child.member = true;
                    set.children.insert(element, child);
                }
            }
            _ => set.member = true,
        }
        set
    }

    pub(super) fn union(&mut self, other: &FieldSet) {
        self.member |= other.member;
        for (name, child) in &other.children {
            self.children.entry(name.clone()).or_default().union(child);
        }
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut set = FieldSet { member: self.member && other.member, children: BTreeMap::new() };
        for (name, child) in &self.children {
            if let Some(theirs) = other.children.get(name) {
                let both = child.intersection(theirs);
                if !both.is_empty() {
                    set.children.insert(name.clone(), both);
                }
            }
        }
        set
    }

    /// What is in this and not in the other.
    pub(super) fn minus(&self, other: &FieldSet) -> FieldSet {
        let mut set = FieldSet { member: self.member && !other.member, children: BTreeMap::new() };
        for (name, child) in &self.children {
            let left = match other.children.get(name) {
                Some(theirs) => child.minus(theirs),
                None => child.clone(),
            };
            if !left.is_empty() {
                set.children.insert(name.clone(), left);
            }
        }
        set
    }

    /// Every member as the API server writes paths in messages: `.spec.ports[port=80,protocol="TCP"].name`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    /// Those that lie in here first, and then those below them, as the API server lists them.
    fn collect_paths(&self, at: &str, paths: &mut Vec<String>) {
        let here = |name: &str| format!("{at}{}", step(name));
        paths.extend(self.children.iter().filter(|(_, child)| child.member).map(|(name, _)| here(name)));
        for (name, child) in &self.children {
            child.collect_paths(&here(name), paths);
        }
    }
}

/// What became different from `old` to `new`.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Added, or there with another value.
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

pub(super) fn difference(old: &Value, new: &Value, at: &At) -> Difference {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) if !at.is_atomic_map() => {
            let mut found = Difference::default();
            let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
            for name in names {
                found.add(format!("f:{name}"), before.get(name), after.get(name), &at.field(name));
            }
            found
        }
        (Value::Array(before), Value::Array(after)) if at.list_type() != ListType::Atomic => {
            let list = at.list_type();
            let index = |items: &[Value]| -> BTreeMap<String, Value> {
                items.iter().filter_map(|item| Some((item_element(item, list)?, item.clone()))).collect()
            };
            let (before, after) = (index(before), index(after));
            let mut found = Difference::default();
            let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
            for name in names {
                found.add_item(name.clone(), before.get(name), after.get(name), at);
            }
            found
        }
        _ if old == new => Difference::default(),
        _ => Difference { changed: FieldSet { member: true, ..FieldSet::default() }, removed: FieldSet::default() },
    }
}

impl Difference {
    fn add(&mut self, name: String, before: Option<&Value>, after: Option<&Value>, at: &At) {
        let below = match (before, after) {
            (Some(before), Some(after)) => difference(before, after, at),
            (None, Some(after)) => Difference { changed: FieldSet::of(after, at), removed: FieldSet::default() },
            (Some(before), None) => Difference { changed: FieldSet::default(), removed: FieldSet::of(before, at) },
            (None, None) => return,
        };
        self.attach(name, below);
    }

    fn add_item(&mut self, name: String, before: Option<&Value>, after: Option<&Value>, at: &At) {
        let whole = |item: &Value| FieldSet { member: true, ..FieldSet::of(item, at) };
        let below = match (before, after) {
            (Some(before), Some(after)) => difference(before, after, at),
            (None, Some(after)) => Difference { changed: whole(after), removed: FieldSet::default() },
            (Some(before), None) => Difference { changed: FieldSet::default(), removed: whole(before) },
            (None, None) => return,
        };
        self.attach(name, below);
    }

    fn attach(&mut self, name: String, below: Difference) {
        if !below.changed.is_empty() {
            self.changed.children.insert(name.clone(), below.changed);
        }
        if !below.removed.is_empty() {
            self.removed.children.insert(name, below.removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_an_object_are_written_as_fields_v1() {
        let object = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "es", "image": "x", "ports": [{"containerPort": 9200}], "command": ["a", "b"]}]}}}});
        let set = FieldSet::of(&object, &At::root(Kind::StatefulSet));
        let expected = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"es\"}": {
            ".": {}, "f:command": {}, "f:image": {}, "f:name": {},
            "f:ports": {"k:{\"containerPort\":9200,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}});
        assert_eq!(set.to_json(), expected);
        assert_eq!(FieldSet::from_json(&expected), set);
        assert!(set.paths().contains(&".spec.template.spec.containers[name=\"es\"].image".to_owned()));
    }

    #[test]
    fn a_difference_names_what_changed_and_what_went() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"replicas": 1}});
        let new = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"replicas": 1, "serviceName": "s"}});
        let found = difference(&old, &new, &At::root(Kind::StatefulSet));
        assert_eq!(found.changed.paths(), [".metadata.labels.a", ".spec.serviceName"]);
        assert_eq!(found.removed.paths(), [".metadata.labels.b"]);
    }
}
