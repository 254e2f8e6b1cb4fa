//! Namespaces: what a new one gets, and how one goes (C7, C15).

use super::super::delete;
use super::super::json::{condition, has, items, number, set, set_condition, text};
use super::super::kinds::Kind;
use super::super::store::{Key, State};
use super::{is_terminating, make};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long what finalizers hold is taken to be held.
const FINALIZER_ESTIMATE: Duration = Duration::from_secs(15);

pub(super) fn reconcile(state: &mut State, key: &Key, namespace: &Arc<Value>) {
    if is_terminating(namespace) {
        empty(state, key, namespace);
    } else {
        furnish(state, &key.name);
    }
}

/// What every namespace is given: an account for its pods, and the certificate by which they know the API server.
fn furnish(state: &mut State, namespace: &str) {
    if !state.contains(Kind::ServiceAccount, namespace, "default") {
        let account = json!({"metadata": {"name": "default", "namespace": namespace}});
        // A quota may refuse it; then it is tried again with the next change, as everything here.
        let _ = make(state, Kind::ServiceAccount, account);
    }
    if !state.contains(Kind::ConfigMap, namespace, "kube-root-ca.crt") {
        let note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
        let map = json!({
            "metadata": {"name": "kube-root-ca.crt", "namespace": namespace, "annotations": {"kubernetes.io/description": note}},
            "data": {"ca.crt": "the sandbox has no certificates\n"},
        });
        let _ = make(state, Kind::ConfigMap, map);
    }
}

/// Deletes the content, tells what remains, and lets the namespace go once nothing does.
fn empty(state: &mut State, key: &Key, namespace: &Value) {
    let begun = condition(namespace, "NamespaceContentRemaining").is_some();
    let uid = text(namespace, "/metadata/uid");
    let (is_slow, delay) = (state.options.namespaces_are_slow, state.options.namespace_delete_after);
    if (!begun || is_slow) && !state.work.passed(key, uid, "namespace", delay) {
        return;
    }
    let estimate = estimate(state, &key.name, namespace);
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
        let info = inside.kind.info();
        // With the dot also where there is no group: `configmaps.`.
        *remaining.entry(format!("{}.{}", info.plural, info.group)).or_default() += 1;
        for finalizer in items(found, "/metadata/finalizers") {
            *held.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    if let Some(finalizer) = state.faults.of_namespace(&key.name) {
        remaining.entry("configmaps.".to_owned()).or_insert(1);
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
    let has_news = changed["status"] != namespace["status"];
    if is_slow {
        let estimate = if held.is_empty() { estimate } else { estimate.max(FINALIZER_ESTIMATE) };
        let next = if has_news { delay } else { estimate / 2 + Duration::from_secs(1) };
        // Only asked for so that it is looked at again then, and not before.
        let _ = state.work.passed(key, uid, "namespace", next);
    }
    state.put(Kind::Namespace, changed);
}

/// How long the pods of the namespace may still take, as far as anybody knows.
fn estimate(state: &State, name: &str, namespace: &Value) -> Duration {
    let running = state.list(Kind::Pod, Some(name)).map(|(_, pod)| pod);
    let running = running.filter(|pod| !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed"));
    let grace = running.map(|pod| number(pod, "/spec/terminationGracePeriodSeconds").unsigned_abs()).max().unwrap_or(0);
    let grace = Duration::from_secs(grace);
    let deleted: Option<jiff::Timestamp> = text(namespace, "/metadata/deletionTimestamp").parse().ok();
    let passed = deleted.and_then(|deleted| Duration::try_from(state.clock.now().duration_since(deleted)).ok());
    if passed.unwrap_or_default() >= grace { Duration::ZERO } else { grace }
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
