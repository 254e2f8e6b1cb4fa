//! The verbs on objects: what a read shows, what a write changes, in the order in which the API server does it.
//!
//! A write: decode and check fields, admit (namespace, quota), fill in defaults, validate, note who owns what, keep.
//! A dry run does all but the last. Everything happens under the caller's lock: a write is one step for the world.

use super::admission::{
    admit_new, check_applied_fields, check_fields, check_identity, check_version, decode_applied, settle,
};
use super::apply::{self, Writer};
use super::delete;
use super::effects::Effect;
use super::json::{has, set, text, unset};
use super::kinds::Kind;
use super::names::random_suffix;
use super::patch;
use super::read;
use super::request::{ApiRequest, ObjectTarget, Verb};
use super::scale;
use super::status::{Cause, Refusal};
use super::store::{Key, State};
use serde_json::Value;
use std::sync::Arc;

/// The annotation that names the workflow that an object belongs to.
const WORKFLOW: &str = "cairn.dev/workflow";

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Value,
    pub(super) warnings: Vec<String>,
    /// The body is a text, and sent as one: a log.
    pub(super) is_text: bool,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Answer {
        Answer { code: 200, body, warnings: Vec::new(), is_text: false }
    }
}

/// Does what the request asks, or refuses it.
pub(super) fn handle(
    state: &mut State,
    request: &ApiRequest,
    target: &ObjectTarget,
    body: &[u8],
) -> Result<Answer, Refusal> {
    match request.verb {
        Verb::Get => read::one(state, request, target),
        Verb::List => read::list(state, request, target),
        Verb::Watch => Err(Refusal::internal("watches are answered elsewhere")),
        _ => {
            state.keeps()?;
            let answer = write(state, request, target, body)?;
            // A change that is not kept may yet be lost: as with a real server's 500, whoever asked has to look.
            state.keeps()?;
            Ok(answer)
        }
    }
}

fn write(state: &mut State, request: &ApiRequest, target: &ObjectTarget, body: &[u8]) -> Result<Answer, Refusal> {
    match request.verb {
        Verb::Create => create(state, request, target, body),
        Verb::Update | Verb::Patch => change(state, request, target, body),
        Verb::Delete => delete::one(state, request, target, body),
        Verb::DeleteCollection => delete::collection(state, request, target, body),
        Verb::Get | Verb::List | Verb::Watch => Err(Refusal::internal("no write")),
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

fn create(state: &mut State, request: &ApiRequest, target: &ObjectTarget, body: &[u8]) -> Result<Answer, Refusal> {
    let mut object = request.decode_body(body)?;
    check_identity(target, &mut object)?;
    if text(&object, "/metadata/name").is_empty() {
        let prefix = text(&object, "/metadata/generateName");
        if prefix.is_empty() {
            return Err(Refusal::invalid(
                target.kind,
                "",
                vec![Cause::required("metadata.name", "name or generateName is required")],
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
    Ok(Answer { code: 201, warnings, ..Answer::ok((*made).clone()) })
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
    let mut new = if request.verb == Verb::Update {
        check_identity(target, &mut sent)?;
        sent
    } else {
        let mut patched = patch::apply(target.kind, &request.content_type, &live, &sent)?;
        check_identity(target, &mut patched)?;
        patched
    };
    check_version(request, &key, &live, &new)?;
    let warnings = check_fields(target.kind, request, &mut new)?;
    let managed = live.pointer("/metadata/managedFields").cloned();
    match managed {
        Some(managed) => set(&mut new, "/metadata/managedFields", managed),
        None => {
            unset(&mut new, "/metadata/managedFields");
        }
    }
    let mut new = settle(state, target, &live, new)?;
    let now = state.clock.stamp();
    apply::own_changes(target.kind, Some(&live), &mut new, writer(request, target, &now));
    let verb = if request.verb == Verb::Update { "update" } else { "patch" };
    let kept = replace(state, request, target, &live, new, verb)?;
    Ok(Answer { warnings, ..Answer::ok((*kept).clone()) })
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
    check_applied_fields(target.kind, &config)?;
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
            let uid = text(&config, "/metadata/uid");
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Refusal::conflict(target.kind, &target.name, &why));
        }
        let mut object = apply::apply(target.kind, None, &config, writer, false)?;
        decode_applied(target.kind, &mut object)?;
        let made = make(state, request, target.kind, object, "apply")?;
        return Ok(Answer { code: 201, ..Answer::ok((*made).clone()) });
    };
    // Conflicts come before conditions: those are looked at with the store's own.
    let mut merged = apply::apply(target.kind, Some(&live), &config, writer, request.is("force"))?;
    check_version(request, &key, &live, &config)?;
    let managed = unset(&mut merged, "/metadata/managedFields");
    decode_applied(target.kind, &mut merged)?;
    let mut new = settle(state, target, &live, merged)?;
    if let Some(managed) = managed {
        set(&mut new, "/metadata/managedFields", managed);
    }
    let kept = replace(state, request, target, &live, new, "apply")?;
    Ok(Answer::ok((*kept).clone()))
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
        state.remove(&key);
        // As it was changed: without what held it, and with the version of its deletion.
        let mut last = new;
        set(&mut last, "/metadata/resourceVersion", state.version().to_string());
        let last = Arc::new(last);
        note_effect(state, request, verb, target.kind, &target.subresource, Some(live), &last);
        return Ok(last);
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
