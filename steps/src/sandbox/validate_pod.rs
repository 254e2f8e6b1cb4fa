//! Rules of a pod's spec, in a pod or in a template (C6, C9).

use super::json::{entries, has, items, text};
use super::quantities::Quantity;
use super::status::Cause;
use super::validate::{check_quantity, is_label, label_cause};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// `at` is where the spec stands, `claims` the names of a set's claim templates: mounts may name them too.
pub(super) fn check(object: &Value, at: &str, claims: &[&str], causes: &mut Vec<Cause>) {
    let mut volumes: BTreeSet<&str> = claims.iter().copied().collect();
    for (index, volume) in items(object, "/spec/volumes").iter().enumerate() {
        let name = text(volume, "/name");
        if !is_label(name) {
            causes.push(label_cause(&format!("{at}.volumes[{index}].name"), name));
        }
        if !volumes.insert(name) && !claims.contains(&name) {
            causes.push(Cause::duplicate(format!("{at}.volumes[{index}].name"), name));
        }
    }
    if items(object, "/spec/containers").is_empty() {
        causes.push(Cause::required(format!("{at}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(object, &format!("/spec/{list}")).iter().enumerate() {
            let at = format!("{at}.{list}[{index}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{at}.name"), ""));
            } else if !is_label(name) {
                causes.push(label_cause(&format!("{at}.name"), name));
            } else if !names.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), name));
            }
            check_container(container, &at, &volumes, causes);
        }
    }
}

fn check_container(container: &Value, at: &str, volumes: &BTreeSet<&str>, causes: &mut Vec<Cause>) {
    if text(container, "/image").is_empty() {
        causes.push(Cause::required(format!("{at}.image"), ""));
    }
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let name = text(mount, "/name");
        if !volumes.contains(name) {
            causes.push(Cause::not_found(format!("{at}.volumeMounts[{index}].name"), name));
        }
    }
    for (index, port) in items(container, "/ports").iter().enumerate() {
        let number = super::json::number(port, "/containerPort");
        if !(1..=65535).contains(&number) {
            causes.push(Cause::invalid(
                format!("{at}.ports[{index}].containerPort"),
                &json!(number),
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
    check_resources(container, at, causes);
}

fn check_resources(container: &Value, at: &str, causes: &mut Vec<Cause>) {
    for (name, value) in entries(container, "/resources/limits") {
        let field = format!("{at}.resources.limits.{name}");
        if let Some(limit) = check_quantity(value, &field, causes) {
            check_whole(name, limit, value, &field, causes);
        }
    }
    let limits = container.pointer("/resources/limits").unwrap_or(&Value::Null);
    for (name, value) in entries(container, "/resources/requests") {
        let field = format!("{at}.resources.requests.{name}");
        let Some(request) = check_quantity(value, &field, causes) else { continue };
        check_whole(name, request, value, &field, causes);
        let told = limits.get(name).and_then(Value::as_str);
        let limit = told.and_then(Quantity::parse);
        match (limit, is_extended(name)) {
            (None, true) if !has(limits, &format!("/{}", name.replace('/', "~1"))) => {
                causes.push(Cause::required(
                    format!("{at}.resources.limits"),
                    "Limit must be set for non overcommit resources",
                ));
            }
            (Some(limit), true) if limit.milli != request.milli => {
                let why = format!("must be equal to {name} limit of {}", told.unwrap_or_default());
                causes.push(Cause::invalid(format!("{at}.resources.requests"), value, why));
            }
            (Some(limit), false) if request.milli > limit.milli => {
                let why = format!("must be less than or equal to {name} limit of {}", told.unwrap_or_default());
                causes.push(Cause::invalid(format!("{at}.resources.requests"), value, why));
            }
            _ => {}
        }
    }
}

fn check_whole(name: &str, quantity: Quantity, value: &Value, field: &str, causes: &mut Vec<Cause>) {
    if is_extended(name) && !quantity.is_whole() {
        causes.push(Cause::invalid(field, value, "must be an integer"));
    }
}

/// A device plugin's resource: whole, and never overcommitted.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/") && !name.contains(".kubernetes.io/")
}
