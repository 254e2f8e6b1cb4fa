//! Server-side apply, and who owns which field after any other write (C2, C15).
//!
//! 1. The applied object is merged over the live one: objects by name, lists by their merge keys, atomic things whole.
//! 2. A field that this merge changes and that another manager owns is a conflict; `force` takes it.
//! 3. A field that this manager applied before and leaves out now is removed, unless somebody else owns it.
//!
//! The difference of step 2 is taken before defaulting, as the API server does it: so an atomic list that defaulting
//! changed conflicts for another manager that applies the same manifest (C15).

use super::fields::{At, FieldSet, ListType, difference, item_element};
use super::kinds::Kind;
use super::status::{Cause, Refusal};
use serde_json::{Value, json};

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) applies: bool,
    pub(super) subresource: String,
    api_version: String,
    time: String,
    fields: FieldSet,
}

/// Who writes, where and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'a> {
    pub(super) manager: &'a str,
    pub(super) subresource: &'a str,
    pub(super) now: &'a str,
}

/// The live object with the applied one merged in, and the managers after it. Not yet defaulted.
///
/// # Errors
/// 409 with a cause of type `FieldManagerConflict` for each field of another manager, unless forced.
pub(super) fn apply(
    kind: Kind,
    live: Option<&Value>,
    applied: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Refusal> {
    let root = At::root(kind);
    let config = tracked(applied, writer.subresource);
    // An apply of nothing owns nothing, and not the object as such.
    let fields = if config == json!({}) { FieldSet::default() } else { FieldSet::of(&config, &root) };
    let Some(live) = live else {
        let mut object = without_nulls(applied);
        write_managers(&mut object, &[Manager::new(kind, writer, true, fields)]);
        return Ok(object);
    };
    let mut managers = read_managers(live);
    let mut merged = live.clone();
    merge(&mut merged, &config, &root);

    let found = difference(&tracked(live, writer.subresource), &tracked(&merged, writer.subresource), &root);
    let mut touched = found.changed;
    touched.union(&found.removed);
    let is_self = |manager: &Manager| {
        manager.applies && manager.name == writer.manager && manager.subresource == writer.subresource
    };
    let mut causes = Vec::new();
    for manager in managers.iter_mut().filter(|manager| !is_self(manager)) {
        let theirs = manager.fields.intersection(&touched);
        if theirs.is_empty() {
            continue;
        }
        if force {
            manager.fields = manager.fields.minus(&theirs);
            continue;
        }
        for field in theirs.paths() {
            causes.push(Cause {
                field,
                reason: "FieldManagerConflict",
                message: format!("conflict with {}", manager.told()),
            });
        }
    }
    if !causes.is_empty() {
        return Err(Refusal::apply_conflict(&causes));
    }

    let before = managers.iter().position(is_self).map(|at| managers.remove(at));
    let mut kept = fields.clone();
    managers.iter().for_each(|manager| kept.union(&manager.fields));
    if let Some(before) = &before {
        prune(&mut merged, &before.fields, &kept, &root);
    }
    match before {
        // The same fields again keep the time of the entry: so the same apply again changes nothing at all.
        Some(before) if before.fields == fields => managers.push(before),
        _ => managers.push(Manager::new(kind, writer, true, fields)),
    }
    write_managers(&mut merged, &managers);
    Ok(merged)
}

/// Gives the fields that a write other than apply changed to its writer.
pub(super) fn own_changes(kind: Kind, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let root = At::root(kind);
    let nothing = json!({});
    let mut managers = old.map(read_managers).unwrap_or_default();
    let before = old.map_or_else(|| nothing.clone(), |old| tracked(old, writer.subresource));
    let found = difference(&before, &tracked(new, writer.subresource), &root);
    let mut touched = found.changed.clone();
    touched.union(&found.removed);
    let is_self = |manager: &Manager| {
        !manager.applies && manager.name == writer.manager && manager.subresource == writer.subresource
    };
    for manager in managers.iter_mut() {
        let taken = if is_self(manager) { &found.removed } else { &touched };
        manager.fields = manager.fields.minus(taken);
    }
    if !found.changed.is_empty() {
        match managers.iter_mut().find(|manager| is_self(manager)) {
            Some(manager) => {
                manager.fields.union(&found.changed);
                manager.time = writer.now.to_owned();
            }
            None => managers.push(Manager::new(kind, writer, false, found.changed)),
        }
    }
    write_managers(new, &managers);
}

/// What of an object managers own: its identity, its server's fields and (but for `…/status`) its status are nobody's.
fn tracked(object: &Value, subresource: &str) -> Value {
    if subresource == "status" {
        return json!({"status": without_nulls(object.get("status").unwrap_or(&Value::Null))});
    }
    let mut object = without_nulls(object);
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "status"));
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata
                .retain(|name, _| matches!(name.as_str(), "labels" | "annotations" | "finalizers" | "ownerReferences"));
            if metadata.is_empty() {
                fields.remove("metadata");
            }
        }
    }
    object
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(without_nulls).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

fn merge(live: &mut Value, applied: &Value, at: &At) {
    match (&mut *live, applied) {
        (Value::Object(live), Value::Object(applied)) if !at.is_atomic_map() => {
            for (name, value) in applied {
                match live.get_mut(name) {
                    Some(found) if !found.is_null() => merge(found, value, &at.field(name)),
                    _ => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(applied)) if at.list_type() != ListType::Atomic => {
            let list = at.list_type();
            for item in applied {
                let element = item_element(item, list);
                match live.iter_mut().find(|found| element.is_some() && item_element(found, list) == element) {
                    Some(found) => merge(found, item, at),
                    None => live.push(item.clone()),
                }
            }
        }
        _ => *live = applied.clone(),
    }
}

/// Removes what was applied before and that nobody keeps.
fn prune(value: &mut Value, before: &FieldSet, kept: &FieldSet, at: &At) {
    match value {
        Value::Object(object) => {
            for (element, below) in &before.children {
                let Some(name) = element.strip_prefix("f:") else { continue };
                match kept.children.get(element) {
                    None => {
                        object.remove(name);
                    }
                    Some(kept) => {
                        if let Some(child) = object.get_mut(name) {
                            prune(child, below, kept, &at.field(name));
                        }
                    }
                }
            }
        }
        Value::Array(items) => {
            let list = at.list_type();
            items.retain_mut(|item| {
                let Some(element) = item_element(item, list) else { return true };
                let Some(below) = before.children.get(&element) else { return true };
                let Some(kept) = kept.children.get(&element) else { return false };
                prune(item, below, kept, at);
                true
            });
        }
        _ => {}
    }
}

impl Manager {
    fn new(kind: Kind, writer: Writer<'_>, applies: bool, fields: FieldSet) -> Manager {
        Manager {
            name: writer.manager.to_owned(),
            applies,
            subresource: writer.subresource.to_owned(),
            api_version: kind.api_version().to_owned(),
            time: writer.now.to_owned(),
            fields,
        }
    }

    /// As a conflict names him: of those who apply the version is nobody's business.
    fn told(&self) -> String {
        let mut text = format!("\"{}\"", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource \"{}\"", self.subresource));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

fn read_managers(object: &Value) -> Vec<Manager> {
    let entry = |value: &Value| {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Manager {
            name: text("manager"),
            applies: value["operation"] == "Apply",
            subresource: text("subresource"),
            api_version: text("apiVersion"),
            time: text("time"),
            fields: FieldSet::from_json(&value["fieldsV1"]),
        }
    };
    super::json::items(object, "/metadata/managedFields").iter().map(entry).collect()
}

fn write_managers(object: &mut Value, managers: &[Manager]) {
    let mut managers: Vec<&Manager> = managers.iter().filter(|manager| !manager.fields.is_empty()).collect();
    // In an order of their own, so that the order of writes does not look like a change.
    managers.sort_by_key(|manager| (!manager.applies, &manager.time, &manager.name, &manager.subresource));
    let entries: Vec<Value> = managers
        .into_iter()
        .map(|manager| {
            let mut entry = json!({
                "manager": manager.name, "operation": if manager.applies { "Apply" } else { "Update" },
                "apiVersion": manager.api_version, "time": manager.time,
                "fieldsType": "FieldsV1", "fieldsV1": manager.fields.to_json(),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = json!(manager.subresource);
            }
            entry
        })
        .collect();
    if entries.is_empty() {
        super::json::unset(object, "/metadata/managedFields");
    } else {
        super::json::set(object, "/metadata/managedFields", entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::StatefulSet;

    fn writer(manager: &str) -> Writer<'_> {
        Writer { manager, subresource: "", now: "2026-01-01T00:00:00Z" }
    }

    fn set(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn the_same_apply_again_changes_nothing() {
        let config = set(json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}}));
        let once = apply(KIND, None, &config, writer("cairn"), false).expect("creates");
        let later = Writer { now: "2027-01-01T00:00:00Z", ..writer("cairn") };
        assert_eq!(apply(KIND, Some(&once), &config, later, false).expect("applies"), once);
    }

    #[test]
    fn a_field_left_out_by_its_only_manager_is_removed_and_one_that_another_owns_stays() {
        let live = apply(KIND, None, &set(json!({"replicas": 1, "minReadySeconds": 3})), writer("cairn"), false)
            .expect("creates");
        let live =
            apply(KIND, Some(&live), &set(json!({"minReadySeconds": 3})), writer("other"), false).expect("shares");
        let live =
            apply(KIND, Some(&live), &set(json!({"serviceName": "s"})), writer("cairn"), false).expect("applies");
        assert_eq!(live["spec"], json!({"minReadySeconds": 3, "serviceName": "s"}));
    }

    #[test]
    fn another_managers_field_conflicts_by_name_and_force_takes_it() {
        let live = apply(KIND, None, &set(json!({"replicas": 1})), writer("kubectl"), false).expect("creates");
        let refusal =
            apply(KIND, Some(&live), &set(json!({"replicas": 2})), writer("cairn"), false).expect_err("conflicts");
        assert_eq!(refusal.code, 409);
        assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas");
        let live = apply(KIND, Some(&live), &set(json!({"replicas": 2})), writer("cairn"), true).expect("forced");
        assert_eq!(read_managers(&live).len(), 1);
        assert_eq!(live["spec"]["replicas"], 2);
    }

    #[test]
    fn several_conflicts_are_told_by_manager_and_the_shallow_fields_first() {
        let config = |image: &str, replicas: i64| {
            set(json!({"replicas": replicas, "minReadySeconds": replicas,
                "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}))
        };
        let live = apply(KIND, None, &config("x", 1), writer("cairn"), false).expect("creates");
        let mut scaled = live.clone();
        scaled["spec"]["minReadySeconds"] = json!(3);
        own_changes(KIND, Some(&live), &mut scaled, writer("kubectl"));
        let refusal = apply(KIND, Some(&scaled), &config("y", 2), writer("other"), false).expect_err("conflicts");
        assert_eq!(
            refusal.message,
            "Apply failed with 3 conflicts: conflicts with \"cairn\":\n- .spec.replicas\n\
             - .spec.template.spec.containers[name=\"c\"].image\nconflicts with \"kubectl\" using apps/v1:\n\
             - .spec.minReadySeconds"
        );
    }

    #[test]
    fn an_apply_of_nothing_takes_back_what_was_applied_and_the_manager_goes() {
        let live = apply(KIND, None, &set(json!({"replicas": 1})), writer("theirs"), false).expect("creates");
        let live =
            apply(KIND, Some(&live), &set(json!({"serviceName": "s"})), writer("cairn"), false).expect("applies");
        let nothing = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "a"}});
        let live = apply(KIND, Some(&live), &nothing, writer("cairn"), false).expect("applies");
        let managers = read_managers(&live);
        assert_eq!(managers.iter().map(|manager| manager.name.as_str()).collect::<Vec<_>>(), ["theirs"]);
        assert_eq!(live["spec"], json!({"replicas": 1}));
    }

    #[test]
    fn containers_merge_by_name_and_claim_templates_as_a_whole() {
        let config = |image: &str| {
            set(json!({
            "template": {"spec": {"containers": [{"name": "c", "image": image}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}))
        };
        let mut live = apply(KIND, None, &config("x"), writer("cairn"), false).expect("creates");
        live["spec"]["volumeClaimTemplates"][0]["spec"] = json!({"volumeMode": "Filesystem"});
        live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        let refusal = apply(KIND, Some(&live), &config("x"), writer("other"), false).expect_err("conflicts");
        assert!(refusal.message.ends_with(": .spec.volumeClaimTemplates"), "{}", refusal.message);
        let live = apply(KIND, Some(&live), &config("y"), writer("cairn"), false).expect("applies");
        assert_eq!(
            live["spec"]["template"]["spec"]["containers"][0],
            json!({"name": "c", "image": "y", "imagePullPolicy": "Always"})
        );
    }

    #[test]
    fn an_update_takes_the_fields_it_changes_from_those_who_applied_them() {
        let live = apply(KIND, None, &set(json!({"replicas": 1, "serviceName": "s"})), writer("cairn"), false)
            .expect("creates");
        let mut scaled = live.clone();
        scaled["spec"]["replicas"] = json!(3);
        own_changes(KIND, Some(&live), &mut scaled, writer("kubectl"));
        let refusal =
            apply(KIND, Some(&scaled), &set(json!({"replicas": 1, "serviceName": "s"})), writer("cairn"), false)
                .expect_err("conflicts");
        assert!(refusal.message.contains("conflict with \"kubectl\""), "{}", refusal.message);
    }
}
