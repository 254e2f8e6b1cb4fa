//! What stands between a write and the store: is it what the path says, does the schema know it, may it be there, is
//! it valid; and what the server fills in or keeps as it was.

use super::defaults;
use super::fields::{At, duplicates};
use super::json::{has, number, set, text, unset};
use super::kinds::{Kind, unknown_fields};
use super::quantities;
use super::quota;
use super::request::{ApiRequest, ObjectTarget, Verb};
use super::status::{Cause, Refusal};
use super::store::{Key, State};
use super::validate::{self, QUANTITY};
use serde_json::{Value, json};
use uuid::Uuid;

/// A new object as it will be kept: admitted, filled in, validated, with the server's metadata.
///
/// # Errors
/// As the API server refuses: 404 without its namespace, 403 in a terminating one or above a quota, 409 where it
/// exists, 422 for what is invalid.
pub(super) fn admit_new(state: &mut State, kind: Kind, mut object: Value) -> Result<Value, Refusal> {
    let key = Key::of(kind, &object);
    check_namespace(state, &key)?;
    if let Some(there) = state.get(&key) {
        let mut refusal = Refusal::already_exists(kind, &key.name);
        if has(there, "/metadata/deletionTimestamp") {
            refusal.message = format!("object is being deleted: {}", refusal.message);
        }
        return Err(refusal);
    }
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        unset(&mut object, &format!("/metadata/{field}"));
    }
    if kind.has_status() {
        unset(&mut object, "/status");
    }
    defaults::fill(kind, &mut object);
    defaults::fill_from_cluster(kind, &mut object, state);
    validate::new(kind, &object)?;
    quota::admit(state, kind, None, &object)?;
    set(&mut object, "/metadata/uid", Uuid::now_v7().to_string());
    set(&mut object, "/metadata/creationTimestamp", state.clock.stamp());
    if kind.has_generation() {
        set(&mut object, "/metadata/generation", 1);
    }
    Ok(object)
}

fn check_namespace(state: &State, key: &Key) -> Result<(), Refusal> {
    if !key.kind.info().namespaced {
        return Ok(());
    }
    let namespace = Key::new(Kind::Namespace, "", &key.namespace);
    let Some(found) = state.get(&namespace) else {
        return Err(Refusal::not_found(Kind::Namespace, &key.namespace));
    };
    // Events may still be told of what goes on in there.
    if has(found, "/metadata/deletionTimestamp") {
        let why = format!("unable to create new content in namespace {} because it is being terminated", key.namespace);
        let cause = Cause {
            field: "metadata.namespace".to_owned(),
            reason: "NamespaceTerminating",
            message: format!("namespace {} is being terminated", key.namespace),
        };
        return Err(Refusal::forbidden(key.kind, &key.name, &why).causes(&[cause]));
    }
    Ok(())
}

/// The changed object as it will be kept, but for its managers: what a client cannot change is as it was.
pub(super) fn settle(state: &mut State, target: &ObjectTarget, live: &Value, mut new: Value) -> Result<Value, Refusal> {
    let kind = target.kind;
    match target.subresource.as_str() {
        "status" => {
            let status = new.get("status").cloned().unwrap_or(Value::Null);
            let managed = new.pointer("/metadata/managedFields").cloned();
            new = live.clone();
            if status.is_null() {
                unset(&mut new, "/status");
            } else {
                set(&mut new, "/status", status);
            }
            if let Some(managed) = managed {
                set(&mut new, "/metadata/managedFields", managed);
            }
            return Ok(new);
        }
        "finalize" => {
            let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
            new = live.clone();
            set(&mut new, "/spec/finalizers", finalizers);
            return Ok(new);
        }
        _ => {}
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        let pointer = format!("/metadata/{field}");
        match live.pointer(&pointer) {
            Some(value) => set(&mut new, &pointer, value.clone()),
            None => {
                unset(&mut new, &pointer);
            }
        }
    }
    if kind.has_status() {
        match live.get("status") {
            Some(status) => set(&mut new, "/status", status.clone()),
            None => {
                unset(&mut new, "/status");
            }
        }
    }
    // What the server gave a new object stays with it through an update that does not say it.
    for pointer in [
        "/spec/clusterIP",
        "/spec/clusterIPs",
        "/spec/ipFamilies",
        "/spec/ipFamilyPolicy",
        "/spec/storageClassName",
        "/spec/volumeName",
        "/spec/nodeName",
    ] {
        if let Some(value) = live.pointer(pointer)
            && !has(&new, pointer)
        {
            set(&mut new, pointer, value.clone());
        }
    }
    defaults::fill(kind, &mut new);
    validate::new(kind, &new)?;
    validate::change(state, kind, live, &new)?;
    quota::admit(state, kind, Some(live), &new)?;
    if kind.has_generation() && live.get("spec") != new.get("spec") {
        let generation = number(live, "/metadata/generation") + 1;
        set(&mut new, "/metadata/generation", generation);
    }
    Ok(new)
}

/// What is sent must be what the path says; what it leaves out is filled in from the path.
pub(super) fn check_identity(target: &ObjectTarget, object: &mut Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the body is no object"));
    }
    let kind = target.kind;
    for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.info().kind)] {
        match object[field].as_str() {
            None | Some("") => set(object, &format!("/{field}"), wanted),
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(Refusal::bad_request(format!(
                    "the {field} in the data ({found}) does not match the expected {field} ({wanted})"
                )));
            }
        }
    }
    for (field, wanted) in [("namespace", &target.namespace), ("name", &target.name)] {
        let found = text(object, &format!("/metadata/{field}")).to_owned();
        if wanted.is_empty() {
            if field == "namespace" && !found.is_empty() && !kind.info().namespaced {
                unset(object, "/metadata/namespace");
            }
        } else if found.is_empty() {
            set(object, &format!("/metadata/{field}"), wanted.clone());
        } else if found != *wanted {
            return Err(Refusal::bad_request(match field {
                "name" => format!("the name of the object ({found}) does not match the name on the URL ({wanted})"),
                _ => "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
            }));
        }
    }
    if kind.info().namespaced && target.namespace.is_empty() {
        return Err(Refusal::bad_request("an empty namespace may not be set during creation"));
    }
    Ok(())
}

pub(super) fn decode_into(kind: Kind, object: &mut Value) -> Result<(), Refusal> {
    let decoded = kind.decode(object).map_err(|error| wrong_type(kind, error))?;
    *object = decoded;
    Ok(())
}

fn wrong_type(kind: Kind, error: impl std::fmt::Display) -> Refusal {
    let info = kind.info();
    Refusal::bad_request(format!("{} in version \"v1\" cannot be handled as a {}: {error}", info.kind, info.kind))
}

/// Decodes in place; unknown fields go, with a warning, or an error where the client asks for one.
pub(super) fn check_fields(kind: Kind, request: &ApiRequest, object: &mut Value) -> Result<Vec<String>, Refusal> {
    let known = kind.decode(object).map_err(|error| wrong_type(kind, error))?;
    // Of a patch it is the result that is wrong.
    if request.verb != Verb::Patch && !quantities::are_readable(&known) {
        return Err(wrong_type(kind, QUANTITY));
    }
    let unknown = unknown_fields(object, &known);
    *object = known;
    if unknown.is_empty() || request.option("fieldValidation") == "Ignore" {
        return Ok(Vec::new());
    }
    let told: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    let why = format!("strict decoding error: {}", told.join(", "));
    match (request.option("fieldValidation"), request.verb) {
        // Of a patch it is the result that has the field.
        ("Strict", Verb::Patch) => {
            Err(Refusal::new(422, "Invalid", format!(" \"\" is invalid: patch: Invalid value: {why}")))
        }
        ("Strict", _) => Err(Refusal::bad_request(why)),
        _ => Ok(told),
    }
}

/// An applied object is judged by the schema, whatever validation was asked for: a field that it does not know, a value of another
/// type, an item twice are a 500 (C15), and strict validation only refuses what is said twice.
pub(super) fn check_applied_fields(kind: Kind, config: &Value) -> Result<(), Refusal> {
    let misfits = match kind.decode(config) {
        Err(error) => vec![error.to_string()],
        Ok(known) => {
            let unknown = unknown_fields(config, &known);
            let unknown = unknown.iter().map(|path| format!(".{path}: field not declared in schema"));
            let mut misfits: Vec<String> = unknown.collect();
            misfits.extend(duplicates(config, &At::root(kind)));
            misfits
        }
    };
    let told = match misfits.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(Refusal::new(500, "", format!("failed to create typed patch object ({}): {told}", described(kind, config))))
}

/// What comes of an apply, decoded. An amount that is none has the schema's type, and is found out only here.
pub(super) fn decode_applied(kind: Kind, object: &mut Value) -> Result<(), Refusal> {
    decode_into(kind, object)?;
    if quantities::are_readable(object) {
        return Ok(());
    }
    let (version, name) = (kind.api_version(), kind.info().kind);
    Err(Refusal::new(
        500,
        "",
        format!(
            "failed to convert new object ({}) to proper version ({version}): unable to convert unstructured object to {version}, Kind={name}: {QUANTITY}",
            described(kind, object)
        ),
    ))
}

/// `a/es; apps/v1, Kind=StatefulSet`.
fn described(kind: Kind, object: &Value) -> String {
    let key = Key::of(kind, object);
    let name = if key.namespace.is_empty() { key.name } else { format!("{}/{}", key.namespace, key.name) };
    format!("{name}; {}, Kind={}", kind.api_version(), kind.info().kind)
}

/// A version or UID in what was sent is a condition. A patch to another UID would change what cannot change, a replacement
/// is not done at all: two codes for the same thing.
pub(super) fn check_version(request: &ApiRequest, key: &Key, live: &Value, sent: &Value) -> Result<(), Refusal> {
    let version = text(sent, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(live, "/metadata/resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refusal::conflict(key.kind, &key.name, why));
    }
    let uid = text(sent, "/metadata/uid");
    let found = text(live, "/metadata/uid");
    if uid.is_empty() || uid == found {
        return Ok(());
    }
    if request.verb == Verb::Patch {
        let cause = Cause::invalid("metadata.uid", &json!(uid), "field is immutable");
        return Err(Refusal::invalid(key.kind, &key.name, vec![cause]));
    }
    let path = [key.kind.info().plural, &key.namespace, &key.name].into_iter().filter(|part| !part.is_empty());
    let path: Vec<&str> = path.collect();
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {found}",
        path.join("/")
    );
    Err(Refusal::conflict(key.kind, &key.name, &why))
}
