//! What the API server refuses with 422: names, required fields, rules across fields, changes of what cannot change
//! (C4, C5, C6, C9, C15).

use super::defaults::class_of;
use super::json::{entries, flag, has, items, number, text};
use super::kinds::Kind;
use super::quantities::{Quantity, milli};
use super::status::{Cause, Refusal};
use super::store::{Key, State};
use super::validate_pod;
use serde_json::{Value, json};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

/// What is said of a text that is no amount.
pub(super) const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Finalizers that may be called by a plain name.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

/// An object as it will be kept, new or changed.
pub(super) fn new(kind: Kind, object: &Value) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    check_name(kind, object, &mut causes);
    check_metadata(object, "metadata", &mut causes);
    for (index, finalizer) in items(object, "/metadata/finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, why));
        }
    }
    match kind {
        Kind::StatefulSet | Kind::Deployment | Kind::ReplicaSet => check_workload(kind, object, &mut causes),
        Kind::Pod => validate_pod::check(object, "spec", &[], &mut causes),
        Kind::Service => check_service(object, &mut causes),
        Kind::PersistentVolumeClaim => check_claim_spec(object, "spec", &mut causes),
        Kind::PodDisruptionBudget if has(object, "/spec/minAvailable") && has(object, "/spec/maxUnavailable") => {
            causes.push(Cause::invalid("spec", &json!({}), "minAvailable and maxUnavailable cannot be both set"));
        }
        Kind::ConfigMap | Kind::Secret => {
            for (name, _) in entries(object, "/data") {
                let valid = !name.is_empty()
                    && name.len() <= 253
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
                if !valid {
                    causes.push(Cause::invalid(
                        format!("data[{name}]"),
                        &json!(name),
                        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                    ));
                }
            }
        }
        Kind::ResourceQuota => {
            for (name, value) in entries(object, "/spec/hard") {
                check_quantity(value, &format!("spec.hard[{name}]"), &mut causes);
            }
        }
        Kind::StorageClass if text(object, "/provisioner").is_empty() => {
            causes.push(Cause::required("provisioner", ""))
        }
        _ => {}
    }
    refuse(kind, object, causes)
}

/// A change, besides what holds for a new object.
pub(super) fn change(state: &State, kind: Kind, old: &Value, new: &Value) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    check_finalizers_of_going(old, new, &mut causes);
    match kind {
        Kind::StatefulSet => {
            const MUTABLE: [&str; 7] = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            let fixed = |object: &Value| -> Vec<(String, Value)> {
                let fields = entries(object, "/spec").filter(|(name, _)| !MUTABLE.contains(&name.as_str()));
                fields.map(|(name, value)| (name.clone(), value.clone())).collect()
            };
            if fixed(old) != fixed(new) {
                causes.push(Cause::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
            }
        }
        Kind::Deployment | Kind::ReplicaSet => immutable(old, new, "/spec/selector", &mut causes),
        Kind::Service if text(old, "/spec/type") != "ExternalName" => {
            let address =
                |object: &Value| object.pointer("/spec/clusterIPs/0").or(object.pointer("/spec/clusterIP")).cloned();
            if address(old) != address(new) {
                let sent = json!([address(new)]);
                causes.push(Cause::invalid("spec.clusterIPs[0]", &sent, "may not change once set"));
            }
        }
        Kind::Pod => check_pod_change(old, new, &mut causes),
        Kind::ConfigMap | Kind::Secret => {
            immutable(old, new, "/type", &mut causes);
            if flag(old, "/immutable") && (old.get("data") != new.get("data") || !flag(new, "/immutable")) {
                causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
            }
        }
        Kind::StorageClass => {
            for field in ["/provisioner", "/parameters", "/reclaimPolicy", "/volumeBindingMode"] {
                immutable(old, new, field, &mut causes);
            }
        }
        Kind::PersistentVolumeClaim => {
            check_claim_change(old, new, &mut causes);
            refuse(kind, new, std::mem::take(&mut causes))?;
            may_grow(state, old, new)?;
        }
        _ => {}
    }
    refuse(kind, new, causes)
}

/// What is being deleted can only lose what holds it.
fn check_finalizers_of_going(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let held = items(old, "/metadata/finalizers");
    let added: Vec<String> =
        items(new, "/metadata/finalizers").iter().filter(|one| !held.contains(one)).map(Value::to_string).collect();
    if has(old, "/metadata/deletionTimestamp") && !added.is_empty() {
        let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
        causes.push(Cause::forbidden("metadata.finalizers", format!("{why} []string{{{}}}", added.join(", "))));
    }
}

fn refuse(kind: Kind, object: &Value, causes: Vec<Cause>) -> Result<(), Refusal> {
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(kind, text(object, "/metadata/name"), causes)) }
}

fn immutable(old: &Value, new: &Value, pointer: &str, causes: &mut Vec<Cause>) {
    if old.pointer(pointer) != new.pointer(pointer) {
        let value = new.pointer(pointer).unwrap_or(&Value::Null);
        causes.push(Cause::invalid(pointer[1..].replace('/', "."), value, "field is immutable"));
    }
}

pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_dns(text)
}

fn is_dns(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

pub(super) fn label_cause(field: &str, value: &str) -> Cause {
    let why = if value.len() > 63 { "must be no more than 63 characters" } else { LABEL };
    Cause::invalid(field, &json!(value), why)
}

fn check_name(kind: Kind, object: &Value, causes: &mut Vec<Cause>) {
    let name = text(object, "/metadata/name");
    let why = match kind {
        Kind::Namespace if !is_label(name) => LABEL,
        Kind::Service if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) => SERVICE,
        _ if name.len() > 253 || !name.split('.').all(is_dns) => SUBDOMAIN,
        _ => return,
    };
    let too_long = matches!(kind, Kind::Namespace | Kind::Service) && name.len() > 63;
    let why = if too_long { "must be no more than 63 characters" } else { why };
    causes.push(Cause::invalid("metadata.name", &json!(name), why));
}

pub(super) fn check_metadata(object: &Value, at: &str, causes: &mut Vec<Cause>) {
    for (name, value) in entries(object, "/metadata/labels") {
        if !is_qualified_name(name) {
            causes.push(Cause::invalid(format!("{at}.labels"), &json!(name), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
        if let Some(value) = value.as_str()
            && !is_label_value(value)
        {
            let why = if value.len() > 63 {
                "must be no more than 63 characters"
            } else {
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            };
            causes.push(Cause::invalid(format!("{at}.labels"), &json!(value), why));
        }
    }
    let mut size = 0;
    for (name, value) in entries(object, "/metadata/annotations") {
        size += name.len() + value.as_str().map_or(0, str::len);
        if !is_qualified_name(name) {
            causes.push(Cause::invalid(format!("{at}.annotations"), &json!(name), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
    }
    if size > 256 * 1024 {
        causes.push(Cause {
            field: format!("{at}.annotations"),
            reason: "FieldValueTooLong",
            message: "Too long: may not be more than 262144 bytes".to_owned(),
        });
    }
}

fn is_qualified_name(name: &str) -> bool {
    let (prefix, last) = name.rsplit_once('/').map_or(("", name), |(prefix, last)| (prefix, last));
    let prefix_fine =
        prefix.is_empty() && !name.starts_with('/') || (prefix.len() <= 253 && prefix.split('.').all(is_dns));
    prefix_fine && !last.is_empty() && is_label_value(last)
}

pub(super) fn is_label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && edge(value.chars().next())
        && edge(value.chars().next_back())
}

pub(super) fn check_quantity(value: &Value, field: &str, causes: &mut Vec<Cause>) -> Option<Quantity> {
    let quantity = value.as_str().and_then(Quantity::parse);
    match quantity {
        None => causes.push(Cause::invalid(field, value, QUANTITY)),
        Some(found) if found.milli < 0 => {
            causes.push(Cause::invalid(field, value, "must be greater than or equal to 0"))
        }
        Some(_) => {}
    }
    quantity
}

fn check_workload(kind: Kind, object: &Value, causes: &mut Vec<Cause>) {
    let replicas = number(object, "/spec/replicas");
    if replicas < 0 {
        causes.push(Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0"));
    }
    let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
    let is_empty =
        entries(selector, "/matchLabels").next().is_none() && items(selector, "/matchExpressions").is_empty();
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    if is_empty {
        causes.push(Cause::required("spec.selector", ""));
    } else if !super::selectors::label_selector_matches(selector, template) {
        let labels = template.pointer("/metadata/labels").unwrap_or(&Value::Null);
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        ));
    }
    let mut claims = Vec::new();
    if kind == Kind::StatefulSet {
        for (index, claim) in items(object, "/spec/volumeClaimTemplates").iter().enumerate() {
            claims.push(text(claim, "/metadata/name"));
            check_claim_spec(claim, &format!("spec.volumeClaimTemplates[{index}].spec"), causes);
        }
        let policy = text(object, "/spec/podManagementPolicy");
        if !matches!(policy, "OrderedReady" | "Parallel") {
            causes.push(Cause::invalid(
                "spec.podManagementPolicy",
                &json!(policy),
                "must be 'OrderedReady' or 'Parallel'",
            ));
        }
    }
    check_metadata(template, "spec.template.metadata", causes);
    validate_pod::check(template, "spec.template.spec", &claims, causes);
    let restart = text(template, "/spec/restartPolicy");
    if !restart.is_empty() && restart != "Always" {
        causes.push(Cause {
            field: "spec.template.spec.restartPolicy".into(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: \"{restart}\": supported values: \"Always\""),
        });
    }
}

fn check_service(object: &Value, causes: &mut Vec<Cause>) {
    let ports = items(object, "/spec/ports");
    let headless = text(object, "/spec/clusterIP") == "None";
    if ports.is_empty() && !headless && text(object, "/spec/type") != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let number = number(port, "/port");
        if !(1..=65535).contains(&number) {
            causes.push(Cause::invalid(
                format!("spec.ports[{index}].port"),
                &json!(number),
                "must be between 1 and 65535, inclusive",
            ));
        }
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        } else if !name.is_empty() && !names.insert(name) {
            causes.push(Cause::duplicate(format!("spec.ports[{index}].name"), name));
        }
    }
}

fn check_claim_spec(claim: &Value, at: &str, causes: &mut Vec<Cause>) {
    if items(claim, "/spec/accessModes").is_empty() {
        causes.push(Cause::required(format!("{at}.accessModes"), "at least 1 access mode is required"));
    }
    let field = format!("{at}.resources[storage]");
    match claim.pointer("/spec/resources/requests/storage") {
        None => causes.push(Cause::required(field, "")),
        Some(value) => {
            if check_quantity(value, &field, causes).is_some_and(|found| found.milli == 0) {
                causes.push(Cause::invalid(field, value, "must be greater than zero"));
            }
        }
    }
}

/// Of a claim only the wished size changes, and only once it is bound; never to or below its capacity (C5, C15).
fn check_claim_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let frozen = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        super::json::unset(&mut spec, "/resources/requests/storage");
        super::json::unset(&mut spec, "/volumeName");
        spec
    };
    let size = |object: &Value| milli(object.pointer("/spec/resources/requests/storage"));
    let bound = text(old, "/status/phase") == "Bound";
    if frozen(old) != frozen(new) || (size(old) != size(new) && !bound) {
        causes.push(Cause::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    } else if size(new) < size(old) {
        let capacity = milli(old.pointer("/status/capacity/storage"));
        // A growth that has not come about may be lowered again, but not to what there is already.
        if size(new) <= capacity || size(old) <= capacity {
            causes.push(Cause::forbidden(
                "spec.resources.requests.storage",
                "field can not be less than status.capacity",
            ));
        }
    }
}

fn may_grow(state: &State, old: &Value, new: &Value) -> Result<(), Refusal> {
    let size = |object: &Value| milli(object.pointer("/spec/resources/requests/storage"));
    // Neither a class that does not say so grows, nor a volume that was made by hand (C5).
    let volume = state.get(&Key::new(Kind::PersistentVolume, "", text(new, "/spec/volumeName")));
    let is_provisioned =
        volume.is_some_and(|volume| has(volume, "/metadata/annotations/pv.kubernetes.io~1provisioned-by"));
    let expandable = is_provisioned && class_of(state, new).is_some_and(|(expandable, _)| expandable);
    if size(new) > size(old) && !expandable {
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        return Err(Refusal::forbidden(Kind::PersistentVolumeClaim, text(new, "/metadata/name"), why));
    }
    Ok(())
}

fn check_pod_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let frozen = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        for list in ["/containers", "/initContainers"] {
            for container in spec.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                super::json::unset(container, "/image");
            }
        }
        for field in ["/activeDeadlineSeconds", "/tolerations", "/terminationGracePeriodSeconds"] {
            super::json::unset(&mut spec, field);
        }
        spec
    };
    if frozen(old) != frozen(new) {
        causes.push(Cause::forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
    }
}
