//! The verbs on objects: what a read shows, what a write changes, in the order in which the API server does it.
//!
//! A write: decode and check fields, admit (namespace, quota), fill in defaults, validate, note who owns what, keep.
//! A dry run does all but the last. Everything happens under the caller's lock: a write is one step for the world.

use super::apply::{self, Writer};
use super::defaults;
use super::delete;
use super::effects::Effect;
use super::json::{has, set, text, unset};
use super::kinds::{Kind, unknown_fields};
use super::patch;
use super::quota;
use super::request::{ApiRequest, ObjectTarget, Verb};
use super::scale;
use super::selectors::Selector;
use super::status::Refusal;
use super::store::{Key, State};
use super::table;
use super::validate;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// The annotation that names the workflow that an object belongs to.
const WORKFLOW: &str = "cairn.dev/workflow";

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Value,
    pub(super) warnings: Vec<String>,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Answer {
        Answer { code: 200, body, warnings: Vec::new() }
    }
}

/// Does what the request asks, or refuses it.
pub(super) fn handle(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    body: &[u8],
) -> Result<Answer, Refusal> {
    if !matches!(request.verb, Verb::Get | Verb::List | Verb::Watch)
        && let Some(why) = &state.broken
    {
        return Err(Refusal::internal(format!("the sandbox cannot keep its objects: {why}")));
    }
    match request.verb {
        Verb::Get => get(state, request, target),
        Verb::List => list(state, request, target),
        Verb::Create => create(state, request, target, body),
        Verb::Update | Verb::Patch => change(state, request, target, body),
        Verb::Delete => delete::one(state, request, target, body),
        Verb::DeleteCollection => delete::collection(state, request, target, body),
        Verb::Watch => Err(Refusal::internal("watches are answered elsewhere")),
    }
}

impl ObjectTarget {
    pub(super) fn key(&self) -> Key {
        Key::new(self.kind, &self.namespace, &self.name)
    }

    pub(super) fn namespace_if_any(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }
}

pub(super) fn find(state: &State, key: &Key) -> Result<Arc<Value>, Refusal> {
    state.get(key).cloned().ok_or_else(|| Refusal::not_found(key.kind, &key.name))
}

fn get(state: &State, request: &ApiRequest, target: &ObjectTarget) -> Result<Answer, Refusal> {
    let object = find(state, &target.key())?;
    if target.subresource == "scale" {
        return Ok(Answer::ok(scale::show(&object)));
    }
    if request.as_table {
        let now = state.clock.now();
        return Ok(Answer::ok(table::render(
            target.kind,
            std::iter::once(&*object),
            &state.version().to_string(),
            now,
            request,
        )));
    }
    Ok(Answer::ok((*object).clone()))
}

fn list(state: &State, request: &ApiRequest, target: &ObjectTarget) -> Result<Answer, Refusal> {
    let selector = Selector::parse(request.option("labelSelector"), request.option("fieldSelector"))?;
    let found = state.list(target.kind, target.namespace_if_any()).map(|(_, object)| object);
    let found: Vec<&Arc<Value>> = found.filter(|object| selector.matches(object)).collect();
    let version = state.version().to_string();
    if request.as_table {
        let now = state.clock.now();
        return Ok(Answer::ok(table::render(
            target.kind,
            found.into_iter().map(|object| &**object),
            &version,
            now,
            request,
        )));
    }
    let items: Vec<Value> = found.into_iter().map(|object| as_item(object)).collect();
    Ok(Answer::ok(json!({
        "kind": format!("{}List", target.kind.info().kind), "apiVersion": target.kind.api_version(),
        "metadata": {"resourceVersion": version}, "items": items,
    })))
}

/// An object within a list: the list says what it is.
pub(super) fn as_item(object: &Value) -> Value {
    let mut item = object.clone();
    unset(&mut item, "/apiVersion");
    unset(&mut item, "/kind");
    item
}

fn create(state: &mut State, request: &ApiRequest, target: &ObjectTarget, body: &[u8]) -> Result<Answer, Refusal> {
    let mut object = request.decode_body(body)?;
    check_identity(target, &mut object)?;
    if text(&object, "/metadata/name").is_empty() {
        let prefix = text(&object, "/metadata/generateName");
        if prefix.is_empty() {
            return Err(Refusal::invalid(
                target.kind,
                "",
                vec![super::status::Cause::required("metadata.name", "name or generateName is required")],
            ));
        }
        let name = format!("{prefix}{}", random_suffix());
        set(&mut object, "/metadata/name", name);
    }
    if has(&object, "/metadata/resourceVersion") && !text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    unset(&mut object, "/metadata/managedFields");
    let warnings = check_fields(target.kind, request, &mut object)?;
    let now = state.clock.stamp();
    apply::own_changes(target.kind, None, &mut object, writer(request, target, &now));
    let made = make(state, request, target.kind, object, "create")?;
    Ok(Answer { code: 201, body: (*made).clone(), warnings })
}

/// Makes an object that is decoded and whose managers are noted.
fn make(state: &mut State, request: &ApiRequest, kind: Kind, object: Value, verb: &str) -> Result<Arc<Value>, Refusal> {
    let object = admit_new(state, kind, object)?;
    if request.is_dry_run() {
        return Ok(Arc::new(object));
    }
    let made = state.put(kind, object);
    note_effect(state, request, verb, kind, "", None, &made);
    Ok(made)
}

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
        let cause = super::status::Cause {
            field: "metadata.namespace".to_owned(),
            reason: "NamespaceTerminating",
            message: format!("namespace {} is being terminated", key.namespace),
        };
        return Err(Refusal::forbidden(key.kind, &key.name, &why).causes(&[cause]));
    }
    Ok(())
}

fn change(state: &mut State, request: &ApiRequest, target: &ObjectTarget, body: &[u8]) -> Result<Answer, Refusal> {
    let mut sent = request.decode_body(body)?;
    if target.subresource == "scale" {
        return scale::change(state, request, target, &sent);
    }
    if request.is_apply() {
        return server_side_apply(state, request, target, sent);
    }
    let key = target.key();
    let live = find(state, &key)?;
    let (mut new, mut warnings) = if request.verb == Verb::Update {
        check_identity(target, &mut sent)?;
        (sent, Vec::new())
    } else {
        (patch::apply(target.kind, &request.content_type, &live, &sent)?, Vec::new())
    };
    check_version(&key, &live, &new)?;
    warnings.extend(check_fields(target.kind, request, &mut new)?);
    let managed = live.pointer("/metadata/managedFields").cloned();
    match managed {
        Some(managed) => set(&mut new, "/metadata/managedFields", managed),
        None => {
            unset(&mut new, "/metadata/managedFields");
        }
    }
    let new = settle(state, target, &live, new)?;
    let now = state.clock.stamp();
    let mut new = new;
    apply::own_changes(target.kind, Some(&live), &mut new, writer(request, target, &now));
    let verb = if request.verb == Verb::Update { "update" } else { "patch" };
    let kept = replace(state, request, target, &live, new, verb)?;
    Ok(Answer { code: 200, body: (*kept).clone(), warnings })
}

fn server_side_apply(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    mut config: Value,
) -> Result<Answer, Refusal> {
    if request.option("fieldManager").is_empty() {
        return Err(Refusal::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if has(&config, "/metadata/managedFields") {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    check_identity(target, &mut config)?;
    check_applied_fields(target.kind, request, &config)?;
    if target.subresource.is_empty() && target.kind.has_status() {
        unset(&mut config, "/status");
    }
    let key = target.key();
    let now = state.clock.stamp();
    let writer = writer(request, target, &now);
    let Some(live) = state.get(&key).cloned() else {
        if !target.subresource.is_empty() {
            return Err(Refusal::not_found(target.kind, &target.name));
        }
        if has(&config, "/metadata/uid") {
            return Err(Refusal::conflict(target.kind, &target.name, &precondition(&config, "")));
        }
        let mut object = apply::apply(target.kind, None, &config, writer, false)?;
        decode_into(target.kind, &mut object)?;
        let made = make(state, request, target.kind, object, "apply")?;
        return Ok(Answer { code: 201, body: (*made).clone(), warnings: Vec::new() });
    };
    check_version(&key, &live, &config)?;
    let mut merged = apply::apply(target.kind, Some(&live), &config, writer, request.is("force"))?;
    let managed = unset(&mut merged, "/metadata/managedFields");
    decode_into(target.kind, &mut merged)?;
    let mut new = settle(state, target, &live, merged)?;
    if let Some(managed) = managed {
        set(&mut new, "/metadata/managedFields", managed);
    }
    let kept = replace(state, request, target, &live, new, "apply")?;
    Ok(Answer::ok((*kept).clone()))
}

/// The changed object as it will be kept, but for its managers: what a client cannot change is as it was.
fn settle(state: &mut State, target: &ObjectTarget, live: &Value, mut new: Value) -> Result<Value, Refusal> {
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
        let generation = super::json::number(live, "/metadata/generation") + 1;
        set(&mut new, "/metadata/generation", generation);
    }
    Ok(new)
}

/// Keeps the changed object; one that was only waiting for its last finalizer goes.
pub(super) fn replace(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    live: &Arc<Value>,
    new: Value,
    verb: &str,
) -> Result<Arc<Value>, Refusal> {
    if request.is_dry_run() {
        return Ok(Arc::new(new));
    }
    let key = target.key();
    if delete::is_finished(target.kind, &new) {
        let mut removed = state.remove(&key).unwrap_or_else(|| live.clone());
        note_effect(state, request, verb, target.kind, &target.subresource, Some(live), &removed);
        Arc::make_mut(&mut removed);
        return Ok(removed);
    }
    let kept = state.put(target.kind, new);
    if !Arc::ptr_eq(&kept, live) {
        note_effect(state, request, verb, target.kind, &target.subresource, Some(live), &kept);
    }
    Ok(kept)
}

pub(super) fn note_effect(
    state: &mut State,
    request: &ApiRequest,
    verb: &str,
    kind: Kind,
    subresource: &str,
    before: Option<&Value>,
    after: &Value,
) {
    let version = |object: &Value| text(object, "/metadata/resourceVersion").parse().unwrap_or_default();
    let workflow = |object: &Value| object["metadata"]["annotations"][WORKFLOW].as_str().map(str::to_owned);
    let effect = Effect {
        verb: verb.to_owned(),
        resource: kind.info().plural.to_owned(),
        subresource: (!subresource.is_empty()).then(|| subresource.to_owned()),
        kind: kind.info().kind.to_owned(),
        namespace: text(after, "/metadata/namespace").to_owned(),
        name: text(after, "/metadata/name").to_owned(),
        uid: text(after, "/metadata/uid").to_owned(),
        manager: request.manager().to_owned(),
        workflow: workflow(after),
        version_before: before.map(version),
        version_after: version(after),
        at: state.clock.now(),
    };
    state.effects.push(effect);
}

pub(super) fn writer<'a>(request: &'a ApiRequest, target: &'a ObjectTarget, now: &'a str) -> Writer<'a> {
    Writer { manager: request.manager(), subresource: &target.subresource, now }
}

/// What is sent must be what the path says; what it leaves out is filled in from the path.
fn check_identity(target: &ObjectTarget, object: &mut Value) -> Result<(), Refusal> {
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
            return Err(Refusal::bad_request(format!(
                "the {field} of the provided object does not match the {field} sent on the request"
            )));
        }
    }
    if kind.info().namespaced && target.namespace.is_empty() {
        return Err(Refusal::bad_request("an empty namespace may not be set during creation"));
    }
    Ok(())
}

fn decode_into(kind: Kind, object: &mut Value) -> Result<(), Refusal> {
    let decoded = kind.decode(object).map_err(|error| wrong_type(kind, &error))?;
    *object = decoded;
    Ok(())
}

fn wrong_type(kind: Kind, error: &serde_json::Error) -> Refusal {
    let info = kind.info();
    Refusal::bad_request(format!("{} in version \"v1\" cannot be handled as a {}: {error}", info.kind, info.kind))
}

/// Decodes in place; unknown fields go, with a warning, or an error where the client asks for one.
fn check_fields(kind: Kind, request: &ApiRequest, object: &mut Value) -> Result<Vec<String>, Refusal> {
    let known = kind.decode(object).map_err(|error| wrong_type(kind, &error))?;
    let unknown = unknown_fields(object, &known);
    *object = known;
    if unknown.is_empty() || request.option("fieldValidation") == "Ignore" {
        return Ok(Vec::new());
    }
    let told: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    if request.option("fieldValidation") == "Strict" {
        return Err(Refusal::bad_request(format!("strict decoding error: {}", told.join(", "))));
    }
    Ok(told)
}

/// An applied object is judged by the schema, whatever validation was asked for: a field that it does not know
/// is a 500 (C15), and with strict validation a 400.
fn check_applied_fields(kind: Kind, request: &ApiRequest, config: &Value) -> Result<(), Refusal> {
    let known = kind.decode(config).map_err(|error| wrong_type(kind, &error))?;
    let unknown = unknown_fields(config, &known);
    let Some(first) = unknown.first() else { return Ok(()) };
    if request.option("fieldValidation") == "Strict" {
        let told: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        return Err(Refusal::bad_request(format!("strict decoding error: {}", told.join(", "))));
    }
    let key = Key::of(kind, config);
    let of = if key.namespace.is_empty() { key.name } else { format!("{}/{}", key.namespace, key.name) };
    Err(Refusal::new(
        500,
        "",
        format!(
            "failed to create typed patch object ({of}; {}, Kind={}): .{first}: field not declared in schema",
            kind.api_version(),
            kind.info().kind
        ),
    ))
}

/// A version or UID in what was sent is a condition.
fn check_version(key: &Key, live: &Value, sent: &Value) -> Result<(), Refusal> {
    let version = text(sent, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(live, "/metadata/resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refusal::conflict(key.kind, &key.name, why));
    }
    let uid = text(sent, "/metadata/uid");
    if !uid.is_empty() && uid != text(live, "/metadata/uid") {
        return Err(Refusal::conflict(key.kind, &key.name, &precondition(sent, text(live, "/metadata/uid"))));
    }
    Ok(())
}

fn precondition(sent: &Value, uid: &str) -> String {
    format!("Precondition failed: UID in precondition: {}, UID in object meta: {uid}", text(sent, "/metadata/uid"))
}

/// Five characters that no other name has, out of the alphabet that Kubernetes uses for them.
pub(super) fn random_suffix() -> String {
    let bytes = Uuid::now_v7().into_bytes();
    safe_text(u64::from_be_bytes(bytes[8..].try_into().expect("eight of sixteen bytes")), 5)
}

/// A number in letters that make no words.
pub(super) fn safe_text(mut number: u64, length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut out = String::with_capacity(length);
    for _ in 0..length {
        let index = usize::try_from(number % 27).expect("below 27");
        out.push(char::from(ALPHABET[index]));
        number /= 27;
    }
    out
}
