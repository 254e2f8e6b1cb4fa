//! The revisions of a StatefulSet: each pod template that it ever had, by a hash of it.

use super::super::json::{number, set, text};
use super::super::kinds::Kind;
use super::super::names::safe_text;
use super::super::store::{Key, State, owner_reference};
use super::events::fnv;
use super::make;
use serde_json::{Value, json};
use std::sync::Arc;

/// Ten characters of a template: as long as Kubernetes' own hashes may get (C9).
pub(super) fn hash(template: &Value) -> String {
    safe_text(fnv(&[&template.to_string()]), 10)
}

/// The revision of the set's present template, made if it is new, and the newest of all.
pub(super) fn ensure(state: &mut State, stateful_set: &Value) -> String {
    let template = stateful_set.pointer("/spec/template").cloned().unwrap_or_default();
    let hash = hash(&template);
    let name = format!("{}-{hash}", text(stateful_set, "/metadata/name"));
    let namespace = text(stateful_set, "/metadata/namespace");
    let all = state.owned(text(stateful_set, "/metadata/uid"), Kind::ControllerRevision);
    let newest = all.iter().map(|revision| number(revision, "/revision")).max().unwrap_or_default();
    match state.get(&Key::new(Kind::ControllerRevision, namespace, &name)).cloned() {
        Some(found) if number(&found, "/revision") == newest => {}
        Some(found) => {
            // A template of old is the newest again: a rollback.
            let mut found = (*found).clone();
            set(&mut found, "/revision", newest + 1);
            state.put(Kind::ControllerRevision, found);
        }
        None => {
            let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
            labels["controller.kubernetes.io/hash"] = json!(hash);
            let revision = json!({
                "metadata": {"name": name, "namespace": namespace, "labels": labels,
                    "ownerReferences": [owner_reference(Kind::StatefulSet, stateful_set)]},
                "revision": newest + 1, "data": {"spec": {"template": template}},
            });
            // Refused only in a namespace that goes: then nothing follows from it either.
            let _ = make(state, Kind::ControllerRevision, revision);
        }
    }
    name
}

/// The template of a revision.
pub(super) fn template(state: &State, stateful_set: &Value, name: &str) -> Value {
    let key = Key::new(Kind::ControllerRevision, text(stateful_set, "/metadata/namespace"), name);
    let found = state.get(&key).and_then(|revision| revision.pointer("/data/spec/template"));
    found.or_else(|| stateful_set.pointer("/spec/template")).cloned().unwrap_or_default()
}

/// Forgets the oldest revisions that nothing runs, down to the set's limit.
pub(super) fn forget(state: &mut State, stateful_set: &Value, live: &[&str]) {
    let limit = usize::try_from(number(stateful_set, "/spec/revisionHistoryLimit")).unwrap_or_default();
    let mut old: Vec<Arc<Value>> = state.owned(text(stateful_set, "/metadata/uid"), Kind::ControllerRevision);
    old.retain(|revision| !live.contains(&text(revision, "/metadata/name")));
    old.sort_by_key(|revision| number(revision, "/revision"));
    let excess = old.len().saturating_sub(limit);
    for revision in &old[..excess] {
        state.remove(&Key::of(Kind::ControllerRevision, revision));
    }
}
