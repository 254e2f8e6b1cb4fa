//! Whether what is in the cluster is what was rendered: everything that we say must be there as we said it.
//!
//! What the server adds (defaults, status) is not looked at. Quantities are compared as amounts: the server may write
//! `1Gi` where `1024Mi` was asked for (C5).

use serde_json::Value;

use crate::quantity::Quantity;

/// The most differences that are told of one object.
const DIFFERENCES_MAX: usize = 20;

/// Each place where `live` is not as `wanted`, with both values; empty if all is as it should be.
#[must_use]
pub fn differences(wanted: &Value, live: &Value) -> Vec<String> {
    walked(wanted, live).into_iter().take(DIFFERENCES_MAX).map(|(path, what)| format!("{path} {what}")).collect()
}

/// Where that is, all of it and without the values.
#[must_use]
pub fn places(wanted: &Value, live: &Value) -> Vec<String> {
    walked(wanted, live).into_iter().map(|(path, _)| path).collect()
}

/// Each place, and what is wrong with it.
type Found = Vec<(String, String)>;

fn walked(wanted: &Value, live: &Value) -> Found {
    let mut found = Found::new();
    walk("", wanted, live, &mut found);
    found
}

fn walk(path: &str, wanted: &Value, live: &Value, found: &mut Found) {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (key, value) in wanted {
                walk(&format!("{path}.{key}"), value, live.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(items), Value::Array(others)) => lists(path, items, others, found),
        _ if wanted == live || (path.contains(".resources.") && same_amount(wanted, live)) => {}
        _ => found.push((path.to_owned(), format!("is {live} and should be {wanted}"))),
    }
}

/// What tells the items of a list apart: a volume may be mounted twice, so its name does not.
const KEYS: [&str; 2] = ["mountPath", "name"];

/// Lists whose items have a key are merged by it, so the order and other people's items do not matter.
fn lists(path: &str, wanted: &[Value], live: &[Value], found: &mut Found) {
    let key_of = |item: &Value| KEYS.into_iter().find(|key| item.get(key).is_some());
    for (place, item) in wanted.iter().enumerate() {
        let (path, other) = match key_of(item) {
            Some(key) => (
                format!("{path}[{}]", item[key].as_str().unwrap_or_default()),
                live.iter().find(|other| other.get(key) == item.get(key)),
            ),
            None => (format!("{path}[{place}]"), live.get(place)),
        };
        walk(&path, item, other.unwrap_or(&Value::Null), found);
    }
    let unnamed = wanted.iter().all(|item| key_of(item).is_none());
    if unnamed && live.len() > wanted.len() {
        found.push((path.to_owned(), format!("has {} items and should have {}", live.len(), wanted.len())));
    }
}

fn same_amount(wanted: &Value, live: &Value) -> bool {
    let amount = |value: &Value| match value {
        Value::String(text) => text.parse::<Quantity>().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    };
    matches!((amount(wanted), amount(live)), (Some(wanted), Some(live)) if wanted == live)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let wanted = json!({"spec": {"replicas": 1, "containers": [{"name": "a", "image": "x"}]}});
        let live = json!({"spec": {"replicas": 1, "paused": false, "containers": [{"name": "sidecar"}, {"name": "a", "image": "x", "imagePullPolicy": "Always"}]}, "status": {}});
        assert_eq!(differences(&wanted, &live), Vec::<String>::new());
    }

    #[test]
    fn a_changed_a_missing_and_an_extra_value_are_each_named() {
        let wanted = json!({"spec": {"replicas": 3, "drop": ["ALL"], "containers": [{"name": "a", "image": "x"}]}});
        let live = json!({"spec": {"replicas": 1, "drop": ["ALL", "X"], "containers": []}});
        assert_eq!(
            differences(&wanted, &live),
            [
                ".spec.containers[a] is null and should be {\"image\":\"x\",\"name\":\"a\"}",
                ".spec.drop has 2 items and should have 1",
                ".spec.replicas is 1 and should be 3"
            ]
        );
    }

    #[test]
    fn a_volume_that_is_mounted_twice_is_two_mounts() {
        let mounts =
            json!({"mounts": [{"name": "a", "mountPath": "/x"}, {"name": "a", "mountPath": "/y", "subPath": "z"}]});
        assert_eq!(differences(&mounts, &mounts), Vec::<String>::new());
        let live = json!({"mounts": [{"name": "a", "mountPath": "/x"}]});
        assert_eq!(differences(&mounts, &live).len(), 1);
    }

    #[test]
    fn quantities_are_compared_as_amounts_and_other_texts_are_not() {
        let wanted = json!({"resources": {"limits": {"memory": "1024Mi", "cpu": "1000m"}}});
        assert!(differences(&wanted, &json!({"resources": {"limits": {"memory": "1Gi", "cpu": "1"}}})).is_empty());
        assert_eq!(differences(&wanted, &json!({"resources": {"limits": {"memory": "2Gi", "cpu": 1}}})).len(), 1);
        assert_eq!(differences(&json!({"image": "1000m"}), &json!({"image": "1"})).len(), 1);
    }
}
