//! Resource quotas: what they count, and whom they refuse (C6, C8, C15).

use super::json::{entries, items, text};
use super::kinds::Kind;
use super::quantities::{Quantity, milli};
use super::status::Refusal;
use super::store::{Key, State};
use serde_json::{Map, Value, json};

/// Refuses what a quota of the namespace does not allow: 403.
pub(super) fn admit(state: &State, kind: Kind, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
    if !kind.info().namespaced {
        return Ok(());
    }
    let namespace = text(new, "/metadata/namespace");
    let name = text(new, "/metadata/name");
    for (key, quota) in state.list(Kind::ResourceQuota, Some(namespace)) {
        let hard: Vec<(&String, &Value)> = entries(quota, "/spec/hard").collect();
        let mut missing = Vec::new();
        let mut exceeded = Vec::new();
        for (resource, limit) in hard {
            let Some(wanted) = counted(resource, kind, new) else {
                if kind == Kind::Pod && old.is_none() && is_compute(resource) {
                    let containers = without(resource, new);
                    if !containers.is_empty() {
                        missing.push(format!("{resource} for: {}", containers.join(",")));
                    }
                }
                continue;
            };
            let before = old.and_then(|old| counted(resource, kind, old)).unwrap_or_default();
            let used = used(state, namespace, resource);
            let limit_quantity = limit.as_str().and_then(Quantity::parse);
            let allowed = limit_quantity.map_or(0, |limit| limit.milli);
            if wanted > before && used - before + wanted > allowed {
                let say = |milli: i128| Quantity::of_milli(milli, limit_quantity).canonical();
                exceeded.push((resource.clone(), say(wanted - before), say(used), say(allowed)));
            }
        }
        if !missing.is_empty() {
            let why = format!("failed quota: {}: must specify {}", key.name, missing.join("; "));
            return Err(Refusal::forbidden(kind, name, &why));
        }
        if !exceeded.is_empty() {
            let told = |pick: fn(&(String, String, String, String)) -> &String| {
                let parts: Vec<String> = exceeded.iter().map(|entry| format!("{}={}", entry.0, pick(entry))).collect();
                parts.join(",")
            };
            let why = format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                key.name,
                told(|entry| &entry.1),
                told(|entry| &entry.2),
                told(|entry| &entry.3)
            );
            return Err(Refusal::forbidden(kind, name, &why));
        }
    }
    Ok(())
}

/// Brings the quota's status up to what is used.
pub(super) fn reconcile(state: &mut State, key: &Key) {
    let Some(quota) = state.get(key).cloned() else { return };
    let mut used_now = Map::new();
    for (resource, limit) in entries(&quota, "/spec/hard") {
        let like = limit.as_str().and_then(Quantity::parse);
        let amount = Quantity::of_milli(used(state, &key.namespace, resource), like);
        used_now.insert(resource.clone(), json!(amount.canonical()));
    }
    let mut object = (*quota).clone();
    object["status"] = json!({"hard": quota["spec"]["hard"], "used": used_now});
    state.put(Kind::ResourceQuota, object);
}

fn used(state: &State, namespace: &str, resource: &str) -> i128 {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.info().namespaced);
    kinds
        .flat_map(|kind| state.list(kind, Some(namespace)))
        .filter(|(key, object)| {
            key.kind != Kind::Pod || !matches!(text(object, "/status/phase"), "Succeeded" | "Failed")
        })
        .filter_map(|(key, object)| counted(resource, key.kind, object))
        .sum()
}

fn is_compute(resource: &str) -> bool {
    let name = resource.strip_prefix("requests.").or_else(|| resource.strip_prefix("limits.")).unwrap_or(resource);
    matches!(name, "cpu" | "memory")
}

/// The containers that say nothing of a resource that a quota counts.
fn without(resource: &str, pod: &Value) -> Vec<String> {
    let (list, name) = side_of(resource);
    let pointer = format!("/resources/{list}/{}", name.replace('/', "~1"));
    let containers = items(pod, "/spec/containers").iter().chain(items(pod, "/spec/initContainers"));
    containers
        .filter(|container| container.pointer(&pointer).is_none())
        .map(|container| text(container, "/name").to_owned())
        .collect()
}

fn side_of(resource: &str) -> (&'static str, &str) {
    if let Some(name) = resource.strip_prefix("limits.") {
        return ("limits", name);
    }
    ("requests", resource.strip_prefix("requests.").unwrap_or(resource))
}

/// How much of a quota's resource an object takes, in thousandths; nothing if it is not of that kind, or says nothing.
fn counted(resource: &str, kind: Kind, object: &Value) -> Option<i128> {
    const ONE: i128 = 1000;
    if resource == format!("count/{}", kind.qualified()) || resource == kind.info().plural {
        return Some(ONE);
    }
    match kind {
        Kind::PersistentVolumeClaim if resource == "requests.storage" => {
            Some(milli(object.pointer("/spec/resources/requests/storage")))
        }
        Kind::Pod if is_compute(resource) || resource.contains('/') && !resource.starts_with("count/") => {
            let (list, name) = side_of(resource);
            let pointer = format!("/resources/{list}/{}", name.replace('/', "~1"));
            if is_compute(resource) && !without(resource, object).is_empty() {
                return None;
            }
            Some(pod_total(object, &pointer))
        }
        Kind::Service if resource == "services.loadbalancers" => {
            (text(object, "/spec/type") == "LoadBalancer").then_some(ONE)
        }
        _ => None,
    }
}

/// Containers run together, init containers one after the other.
pub(super) fn pod_total(pod: &Value, pointer: &str) -> i128 {
    let amount = |container: &Value| milli(container.pointer(pointer));
    let together: i128 = items(pod, "/spec/containers").iter().map(amount).sum();
    let first = items(pod, "/spec/initContainers").iter().map(amount).max().unwrap_or_default();
    together.max(first)
}
