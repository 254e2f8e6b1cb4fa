//! Patches that are no apply: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and Kubernetes' strategic merge patch.

use super::fields::{At, ListType, item_element};
use super::kinds::Kind;
use super::status::Refusal;
use serde_json::{Map, Value};

pub(super) const MERGE: &str = "application/merge-patch+json";

/// The live object with the patch applied.
///
/// # Errors
/// 415 for a content type that is no patch, 400 for a patch that cannot be read, 422 for one that cannot be applied.
pub(super) fn apply(kind: Kind, content_type: &str, live: &Value, patch: &Value) -> Result<Value, Refusal> {
    let mut object = live.clone();
    match content_type {
        MERGE => json_patch::merge(&mut object, patch),
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Refusal::bad_request(format!("the body is no JSON patch: {error}")))?;
            json_patch::patch(&mut object, &patch).map_err(|error| {
                Refusal::new(
                    422,
                    "Invalid",
                    format!("the server rejected our request due to an error in our request: {error}"),
                )
            })?;
        }
        "application/strategic-merge-patch+json" => strategic(&mut object, patch, &At::root(kind)),
        other => {
            return Err(Refusal::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/strategic-merge-patch+json; got {other}"
                ),
            ));
        }
    }
    Ok(object)
}

/// Merges maps by name and lists by their merge keys; `$patch: delete|replace`, `$retainKeys` and
/// `$deleteFromPrimitiveList/…` do what they say, `$setElementOrder/…` changes nothing that anybody could see here.
fn strategic(live: &mut Value, patch: &Value, at: &At) {
    let Some(patch) = patch.as_object() else {
        *live = patch.clone();
        return;
    };
    if patch.get("$patch").is_some_and(|directive| directive == "replace") || !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let fields = live.as_object_mut().expect("made an object just above");
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(found), Some(out)) = (fields.get_mut(list).and_then(Value::as_array_mut), value.as_array()) {
                found.retain(|item| !out.contains(item));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        let below = at.field(name);
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(inner) if inner.get("$patch").is_some_and(|directive| directive == "delete") => {
                fields.remove(name);
            }
            Value::Object(_) => strategic(fields.entry(name.clone()).or_insert(Value::Null), value, &below),
            Value::Array(items) if below.list_type() != ListType::Atomic => {
                strategic_list(fields.entry(name.clone()).or_insert(Value::Null), items, &below);
            }
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

fn strategic_list(live: &mut Value, patch: &[Value], at: &At) {
    let list = at.list_type();
    let replaces = patch.iter().any(|item| item["$patch"] == "replace");
    if replaces || !live.is_array() {
        *live = Value::Array(Vec::new());
    }
    let found = live.as_array_mut().expect("made a list just above");
    for item in patch.iter().filter(|item| item["$patch"] != "replace") {
        // A strategic patch names a port by its number alone; so the first key decides where the item has no other.
        let element = item_element(item, list);
        let same = |candidate: &Value| match list {
            ListType::Map(keys) => {
                keys.iter().all(|key| item.get(key).is_none() || item.get(key) == candidate.get(key))
            }
            _ => element.is_some() && item_element(candidate, list) == element,
        };
        let place = found.iter().position(same);
        match (place, item["$patch"] == "delete") {
            (Some(place), true) => {
                found.remove(place);
            }
            (None, true) => {}
            (Some(place), false) => strategic(&mut found[place], item, at),
            (None, false) => found.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_strategic_patch_merges_containers_by_name_and_deletes_by_directive() {
        let live = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]}}}});
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "c", "image": "3"}]}}}});
        let new = apply(Kind::Deployment, "application/strategic-merge-patch+json", &live, &patch).expect("applies");
        assert_eq!(
            new["spec"]["template"]["spec"]["containers"],
            json!([
            {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}]}, {"name": "c", "image": "3"}])
        );
    }

    #[test]
    fn merge_and_json_patches_do_what_their_rfcs_say_and_other_types_are_415() {
        let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1}});
        let merged = apply(Kind::Pod, MERGE, &live, &json!({"metadata": {"labels": {"a": null}}})).expect("merges");
        assert_eq!(merged["metadata"]["labels"], json!({}));
        let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 2}]);
        let patched = apply(Kind::Pod, "application/json-patch+json", &live, &json_patch).expect("patches");
        assert_eq!(patched["spec"]["replicas"], 2);
        let missing = json!([{"op": "remove", "path": "/spec/nothing"}]);
        assert_eq!(apply(Kind::Pod, "application/json-patch+json", &live, &missing).expect_err("refused").code, 422);
        assert_eq!(apply(Kind::Pod, "text/plain", &live, &json!({})).expect_err("refused").code, 415);
    }
}
