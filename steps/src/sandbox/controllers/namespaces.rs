//! Namespaces: what a new one gets, and how one goes (C7, C15).

use super::super::delete;
use super::super::json::{condition, has, items, set, set_condition, text};
use super::super::kinds::Kind;
use super::super::store::{Key, State};
use super::{is_terminating, make};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn reconcile(state: &mut State, key: &Key, namespace: &Arc<Value>) {
    if is_terminating(namespace) {
        empty(state, key, namespace);
    } else if !state.contains(Kind::ServiceAccount, &key.name, "default") {
        let account = json!({"metadata": {"name": "default", "namespace": key.name}});
        // Nobody but this controller makes it, in a namespace that is there: so it cannot be refused.
        let _ = make(state, Kind::ServiceAccount, account);
    }
}

/// Deletes the content, tells what remains, and lets the namespace go once nothing does.
fn empty(state: &mut State, key: &Key, namespace: &Value) {
    let begun = condition(namespace, "NamespaceContentRemaining").is_some();
    let uid = text(namespace, "/metadata/uid");
    if !begun && !state.work.passed(key, uid, "namespace", state.options.namespace_delete_after) {
        return;
    }
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.info().namespaced);
    let content: Vec<Key> = kinds
        .flat_map(|kind| state.list(kind, Some(&key.name)).map(|(key, _)| key.clone()).collect::<Vec<_>>())
        .collect();
    for inside in &content {
        if state.get(inside).is_some_and(|found| !has(found, "/metadata/deletionTimestamp")) {
            delete::in_background(state, inside);
        }
    }
    let mut remaining: BTreeMap<String, usize> = BTreeMap::new();
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for inside in content {
        let Some(found) = state.get(&inside) else { continue };
        *remaining.entry(inside.kind.qualified()).or_default() += 1;
        for finalizer in items(found, "/metadata/finalizers") {
            *held.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    if let Some(finalizer) = state.faults.of_namespace(&key.name) {
        remaining.entry("configmaps".to_owned()).or_insert(1);
        held.entry(finalizer).or_insert(1);
    }
    let Some(namespace) = state.get(key).cloned() else { return };
    let mut changed = (*namespace).clone();
    if remaining.is_empty() {
        set(&mut changed, "/spec/finalizers", json!([]));
        if delete::is_finished(Kind::Namespace, &changed) {
            state.remove(key);
            return;
        }
    }
    tell_conditions(&mut changed, &remaining, &held, &state.clock.stamp());
    state.put(Kind::Namespace, changed);
}

fn tell_conditions(
    namespace: &mut Value,
    remaining: &BTreeMap<String, usize>,
    held: &BTreeMap<String, usize>,
    now: &str,
) {
    let fine = [
        ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
    ];
    for (kind, reason, message) in fine {
        set_condition(namespace, kind, "False", reason, message, now);
    }
    let told = |counts: &BTreeMap<String, usize>, what: &str| {
        let parts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name}{what} {count} resource instances")).collect();
        parts.join(", ")
    };
    if remaining.is_empty() {
        set_condition(
            namespace,
            "NamespaceContentRemaining",
            "False",
            "ContentRemoved",
            "All content successfully removed",
            now,
        );
    } else {
        let message = format!("Some resources are remaining: {}", told(remaining, " has"));
        set_condition(namespace, "NamespaceContentRemaining", "True", "SomeResourcesRemain", &message, now);
    }
    if held.is_empty() {
        set_condition(
            namespace,
            "NamespaceFinalizersRemaining",
            "False",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
            now,
        );
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {}", told(held, " in"));
        set_condition(namespace, "NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", &message, now);
    }
}
