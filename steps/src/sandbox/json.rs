//! Reading and writing inside JSON objects without a ladder of matches.

use serde_json::{Map, Value, json};

/// The text at a JSON pointer, or nothing where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; an absent one is 0, as the API has it (C15).
pub(super) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The items of the list at a pointer; none where there is no list.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of the object at a pointer.
pub(super) fn entries<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flatten()
}

/// Whether something other than null stands there.
pub(super) fn has(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|found| !found.is_null())
}

/// The place at a pointer, made of objects where it is missing.
pub(super) fn place<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut at = value;
    for part in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let name = part.replace("~1", "/").replace("~0", "~");
        at = at.as_object_mut().expect("made an object just above").entry(name).or_insert(Value::Null);
    }
    at
}

pub(super) fn set(value: &mut Value, pointer: &str, to: impl Into<Value>) {
    *place(value, pointer) = to.into();
}

/// Sets it where nothing, or null, stands.
pub(super) fn set_default(value: &mut Value, pointer: &str, to: impl Into<Value>) {
    let at = place(value, pointer);
    if at.is_null() {
        *at = to.into();
    }
}

/// Takes out the last part of the pointer.
pub(super) fn unset(value: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    value.pointer_mut(parent)?.as_object_mut()?.remove(&name.replace("~1", "/").replace("~0", "~"))
}

/// Sets a condition of a status, and its transition time only where its status changes.
pub(super) fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let list = place(object, "/status/conditions");
    if !list.is_array() {
        *list = json!([]);
    }
    let list = list.as_array_mut().expect("made a list just above");
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": now});
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    if !message.is_empty() {
        condition["message"] = json!(message);
    }
    match list.iter_mut().find(|found| found["type"] == kind) {
        None => list.push(condition),
        Some(found) => {
            if found["status"] == status {
                condition["lastTransitionTime"] = found["lastTransitionTime"].clone();
            }
            if let Some(updated) = found.get("lastUpdateTime") {
                condition["lastUpdateTime"] = updated.clone();
            }
            *found = condition;
        }
    }
}

/// The condition of that type, if there is one.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "/status/conditions").iter().find(|found| found["type"] == kind)
}
