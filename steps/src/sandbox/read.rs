//! Reads: one object or a list, as a whole, as a table, or its metadata alone, as the client asks.

use super::api::{Answer, find};
use super::json::{items, text, unset};
use super::kinds::Kind;
use super::pages::Page;
use super::request::{ApiRequest, Form, ObjectTarget};
use super::scale;
use super::status::Refusal;
use super::store::State;
use super::table;
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) fn one(state: &State, request: &ApiRequest, target: &ObjectTarget) -> Result<Answer, Refusal> {
    let object = find(state, &target.key())?;
    match target.subresource.as_str() {
        "scale" => Ok(Answer::ok(scale::show(&object))),
        "log" => log(&object, request),
        _ => Ok(Answer::ok(show(target.kind, &object, state.clock.now(), request))),
    }
}

pub(super) fn list(state: &State, request: &ApiRequest, target: &ObjectTarget) -> Result<Answer, Refusal> {
    let page = Page::read(state, request, target)?;
    let found = page.objects.iter();
    let (kind, api_version, items) = match request.form {
        Form::Table => {
            let now = state.clock.now();
            let objects = found.map(|object| &**object);
            let mut table = table::render(target.kind, objects, &page.version(), now, request);
            table["metadata"] = page.metadata();
            return Ok(Answer::ok(table));
        }
        Form::Metadata => {
            let items: Vec<Value> = found.map(|object| metadata_of(object)).collect();
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1", items)
        }
        Form::Whole => {
            let items: Vec<Value> = found.map(|object| as_item(object)).collect();
            (format!("{}List", target.kind.info().kind), target.kind.api_version(), items)
        }
    };
    Ok(Answer::ok(json!({
        "kind": kind, "apiVersion": api_version, "metadata": page.metadata(), "items": items,
    })))
}

/// An object in the form that the client asks for.
pub(super) fn show(kind: Kind, object: &Value, now: Timestamp, request: &ApiRequest) -> Value {
    match request.form {
        Form::Whole => object.clone(),
        Form::Metadata => metadata_of(object),
        Form::Table => {
            table::render(kind, std::iter::once(object), text(object, "/metadata/resourceVersion"), now, request)
        }
    }
}

/// An object within a list: the list says what it is.
pub(super) fn as_item(object: &Value) -> Value {
    let mut item = object.clone();
    unset(&mut item, "/apiVersion");
    unset(&mut item, "/kind");
    item
}

fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// The log of a container in which nothing runs: what a fault said of its end, or that there is nothing to say.
fn log(pod: &Value, request: &ApiRequest) -> Result<Answer, Refusal> {
    let statuses = items(pod, "/status/containerStatuses");
    let wanted = request.option("container");
    let status = match wanted {
        "" => statuses.first(),
        wanted => statuses.iter().find(|status| status["name"] == wanted),
    };
    let name = text(pod, "/metadata/name");
    let Some(status) = status else {
        return Err(Refusal::bad_request(format!("container {wanted} is not valid for pod {name}")));
    };
    let container = text(status, "/name");
    let ended = status.pointer("/lastState/terminated");
    let waiting = text(status, "/state/waiting/reason");
    let lines = match (ended, request.is("previous"), waiting) {
        (Some(ended), _, _) => format!("{}\n", text(ended, "/message")),
        (None, true, _) => {
            let why = format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
            return Err(Refusal::bad_request(why));
        }
        (None, false, "") => "the sandbox runs nothing: this is all its log\n".to_owned(),
        (None, false, waiting) => {
            let why = format!("container \"{container}\" in pod \"{name}\" is waiting to start: {waiting}");
            return Err(Refusal::bad_request(why));
        }
    };
    Ok(Answer { is_text: true, ..Answer::ok(json!(lines)) })
}
