//! Deletion: preconditions, grace, finalizers, propagation (C7, C4).

use super::api::{Answer, find, note_effect};
use super::defaults::add_finalizer;
use super::json::{has, items, number, set, text};
use super::kinds::Kind;
use super::request::{ApiRequest, ObjectTarget};
use super::selectors::Selector;
use super::status::Refusal;
use super::store::{Key, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// Namespaces that the API server does not let go.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn one(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let options = Options::read(request, body)?;
    let key = target.key();
    let live = find(state, &key)?;
    if key.kind == Kind::Namespace && IMMORTAL.contains(&key.name.as_str()) {
        return Err(Refusal::forbidden(key.kind, &key.name, "this namespace may not be deleted"));
    }
    let gone = begin(state, request, &key, &live, &options)?;
    let Some(left) = gone else {
        let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": key.name, "kind": key.kind.info().plural, "uid": text(&live, "/metadata/uid")}});
        if !key.kind.info().group.is_empty() {
            status["details"]["group"] = json!(key.kind.info().group);
        }
        return Ok(Answer::ok(status));
    };
    Ok(Answer::ok((*left).clone()))
}

pub(super) fn collection(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let options = Options::read(request, body)?;
    let selector = Selector::parse(request.option("labelSelector"), request.option("fieldSelector"))?;
    let found: Vec<(Key, Arc<Value>)> = state
        .list(target.kind, target.namespace_if_any())
        .filter(|(_, object)| selector.matches(object))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    let mut deleted = Vec::new();
    for (key, live) in found {
        begin(state, request, &key, &live, &options)?;
        deleted.push(super::read::as_item(&live));
    }
    Ok(Answer::ok(json!({
        "kind": format!("{}List", target.kind.info().kind), "apiVersion": target.kind.api_version(),
        "metadata": {"resourceVersion": state.version().to_string()}, "items": deleted,
    })))
}

/// Whether nothing holds a deleted object any more.
pub(super) fn is_finished(kind: Kind, object: &Value) -> bool {
    let unheld = items(object, "/metadata/finalizers").is_empty();
    let unheld = unheld && (kind != Kind::Namespace || items(object, "/spec/finalizers").is_empty());
    // A pod waits for its node besides, unless it has none or its grace is over.
    let stopped = kind != Kind::Pod || number(object, "/metadata/deletionGracePeriodSeconds") == 0;
    has(object, "/metadata/deletionTimestamp") && unheld && stopped
}

/// Deletes as a controller does: in the background, without conditions.
pub(super) fn in_background(state: &mut State, key: &Key) {
    if let Some(live) = state.get(key).cloned() {
        let marked = mark(state, key.kind, &live, &Options::default());
        finish(state, key, marked);
    }
}

/// Takes one finalizer off; the object goes if it was the last thing that held it.
pub(super) fn without_finalizer(state: &mut State, key: &Key, finalizer: &str) {
    let Some(live) = state.get(key).cloned() else { return };
    let mut object = (*live).clone();
    if let Some(list) = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        list.retain(|found| found != finalizer);
        if list.is_empty() {
            super::json::unset(&mut object, "/metadata/finalizers");
        }
    }
    if is_finished(key.kind, &object) {
        state.remove(key);
    } else {
        state.put(key.kind, object);
    }
}

#[derive(Debug, Default)]
struct Options {
    uid: Option<String>,
    version: Option<String>,
    grace: Option<i64>,
    finalizer: Option<&'static str>,
    dry_run: bool,
}

impl Options {
    fn read(request: &ApiRequest, body: &[u8]) -> Result<Options, Refusal> {
        let sent = if body.is_empty() { json!({}) } else { request.decode_body(body)? };
        let either = |field: &str| match text(&sent, &format!("/{field}")) {
            "" => request.option(field).to_owned(),
            found => found.to_owned(),
        };
        let finalizer = match either("propagationPolicy").as_str() {
            "" | "Background" => None,
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            other => {
                return Err(Refusal::new(
                    422,
                    "Invalid",
                    format!("DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"{other}\""),
                ));
            }
        };
        let condition =
            |field: &str| sent.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str).map(str::to_owned);
        Ok(Options {
            uid: condition("uid"),
            version: condition("resourceVersion"),
            grace: sent["gracePeriodSeconds"].as_i64().or_else(|| request.option("gracePeriodSeconds").parse().ok()),
            finalizer,
            dry_run: request.is_dry_run() || items(&sent, "/dryRun").iter().any(|value| value == "All"),
        })
    }
}

/// Begins a deletion; gives back what is left of the object while something holds it.
fn begin(
    state: &mut State,
    request: &ApiRequest,
    key: &Key,
    live: &Arc<Value>,
    options: &Options,
) -> Result<Option<Arc<Value>>, Refusal> {
    for (wanted, field, name) in
        [(&options.uid, "/metadata/uid", "UID"), (&options.version, "/metadata/resourceVersion", "ResourceVersion")]
    {
        let found = text(live, field);
        if let Some(wanted) = wanted
            && wanted != found
        {
            return Err(unmet(key, name, wanted, found));
        }
    }
    let marked = mark(state, key.kind, live, options);
    if options.dry_run {
        return Ok((!is_finished(key.kind, &marked)).then(|| Arc::new(marked)));
    }
    let changed = marked != **live;
    let left = finish(state, key, marked);
    if changed {
        let mut after = left.clone().unwrap_or_else(|| live.clone());
        if left.is_none() {
            let version = state.version().to_string();
            set(Arc::make_mut(&mut after), "/metadata/resourceVersion", version);
        }
        note_effect(state, request, "delete", key.kind, "", Some(live), &after);
    }
    Ok(left)
}

/// Told by two hands, as on a real server: its namespaces look at their condition before everybody else's code does.
fn unmet(key: &Key, name: &str, wanted: &str, found: &str) -> Refusal {
    let then = if name == "UID" { "deleted and then recreated" } else { "modified" };
    let why = match key.kind {
        Kind::Namespace if name == "UID" => {
            format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}")
        }
        _ => {
            let why = format!(
                "the {name} in the precondition ({wanted}) does not match the {name} in record ({found}). The object might have been {then}"
            );
            return Refusal::conflict_of_kind(key.kind, &key.name, &why);
        }
    };
    Refusal::conflict(key.kind, &key.name, &why)
}

fn finish(state: &mut State, key: &Key, marked: Value) -> Option<Arc<Value>> {
    if is_finished(key.kind, &marked) {
        state.remove(key);
        return None;
    }
    Some(state.put(key.kind, marked))
}

/// The object as it looks once its deletion has begun.
fn mark(state: &State, kind: Kind, live: &Value, options: &Options) -> Value {
    let mut object = live.clone();
    if let Some(finalizer) = options.finalizer {
        add_finalizer(&mut object, finalizer);
    }
    let grace = match kind {
        Kind::Pod => pod_grace(live, options.grace),
        _ => 0,
    };
    let marked = has(live, "/metadata/deletionTimestamp");
    if !marked || grace < number(live, "/metadata/deletionGracePeriodSeconds") {
        let at =
            state.clock.now().saturating_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(jiff::Timestamp::MAX);
        set(&mut object, "/metadata/deletionTimestamp", at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        set(&mut object, "/metadata/deletionGracePeriodSeconds", grace);
    }
    if kind == Kind::Namespace {
        super::json::unset(&mut object, "/metadata/deletionGracePeriodSeconds");
        set(&mut object, "/status/phase", "Terminating");
    }
    if kind.has_generation() && !marked {
        set(&mut object, "/metadata/generation", number(live, "/metadata/generation") + 1);
    }
    object
}

/// A pod that never reached a node, or that has ended, has nothing to stop.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    asked.unwrap_or_else(|| number(pod, "/spec/terminationGracePeriodSeconds")).max(0)
}
