//! The subresource `scale` of sets and deployments.

use super::api::{Answer, find, replace, writer};
use super::apply;
use super::json::{entries, number, set, text};
use super::patch;
use super::request::{ApiRequest, ObjectTarget, Verb};
use super::status::{Cause, Refusal};
use super::store::State;
use serde_json::{Value, json};

pub(super) fn show(object: &Value) -> Value {
    let labels: Vec<String> = entries(object, "/spec/selector/matchLabels")
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    let metadata: serde_json::Map<String, Value> = entries(object, "/metadata")
        .filter(|(name, _)| {
            matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion" | "creationTimestamp")
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // None is left out, of the wish and not of what is there.
    let wanted = match number(object, "/spec/replicas") {
        0 => json!({}),
        replicas => json!({"replicas": replicas}),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": wanted,
        "status": {"replicas": number(object, "/status/replicas"), "selector": labels.join(",")},
    })
}

pub(super) fn change(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    sent: &Value,
) -> Result<Answer, Refusal> {
    let live = find(state, &target.key())?;
    let shown = show(&live);
    let wanted = match request.verb {
        Verb::Update => sent.clone(),
        // An applied scale has one field, so that merging is all there is to it.
        _ if request.is_apply() => patch::apply(target.kind, patch::MERGE, &shown, sent)?,
        _ => patch::apply(target.kind, &request.content_type, &shown, sent)?,
    };
    let version = text(&wanted, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(&live, "/metadata/resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refusal::conflict(target.kind, &target.name, why));
    }
    let replicas = number(&wanted, "/spec/replicas");
    if replicas < 0 {
        let cause = Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Refusal::invalid(target.kind, &target.name, vec![cause]));
    }
    let mut new = (*live).clone();
    if replicas != number(&live, "/spec/replicas") {
        set(&mut new, "/spec/replicas", replicas);
        set(&mut new, "/metadata/generation", number(&live, "/metadata/generation") + 1);
        let now = state.clock.stamp();
        apply::own_changes(target.kind, Some(&live), &mut new, writer(request, target, &now));
    }
    let verb = if request.verb == Verb::Update { "update" } else { "patch" };
    let kept = replace(state, request, target, &live, new, verb)?;
    Ok(Answer::ok(show(&kept)))
}
