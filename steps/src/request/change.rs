//! What may be changed of a cluster that is there, and what would need a new one.

use serde_json::Value;

use super::fields::{Object, UNKNOWN_NAMED_MAX, quoted, refusal, unknown_field};
use super::{FieldError, Request, RequestRules};

/// The fields that a change may name.
const CHANGEABLE: [&str; 7] =
    ["replicas", "cpu_request", "cpu_limit", "mem_request", "mem_limit", "disk_size", "gpu_count"];

/// Why each of the others may not be changed, and what to do instead.
fn frozen(field: &str) -> Option<&'static str> {
    Some(match field {
        "user" | "service_name" => "is the cluster's name, which stands in the path: a cluster is not renamed",
        "namespace" => "cannot be changed: nothing moves from one namespace to another; create a second cluster there",
        "dimension" => {
            "cannot be changed: an index keeps the dimension of its vectors; create a second cluster for another"
        }
        "vector_count" => {
            "cannot be changed: it is what the creation was sized by; change `mem_limit` and `disk_size` instead"
        }
        "gitlab_url" => "cannot be changed: settings are pulled once, by the creation",
        "on_failure" => "cannot be changed: a change that fails always goes back to the values before it",
        _ => return None,
    })
}

impl Request {
    /// This request with what `body` changes of it; the values that `body` does not name stay.
    ///
    /// # Errors
    /// Every wrong field: what is unknown, what cannot be changed, what may only grow, and what does not fit together
    /// afterwards, in this order.
    pub fn changed_by(&self, body: &[u8]) -> Result<Self, Vec<FieldError>> {
        let Object(entries) =
            serde_json::from_slice(body).map_err(|error| vec![FieldError::new("body", refusal(&error))])?;
        let mut wanted = serde_json::to_value(self).expect("a request is plain strings and numbers");
        let mut errors = Vec::new();
        let mut named: Vec<&str> = Vec::new();
        if entries.is_empty() {
            errors.push(FieldError::new("body", format!("names nothing to change: {}", CHANGEABLE.join(", "))));
        }
        for (name, value) in &entries {
            if errors.len() > UNKNOWN_NAMED_MAX {
                errors.push(FieldError::new("body", "has more wrong fields than these"));
                break;
            }
            if named.contains(&name.as_str()) {
                errors.push(FieldError::new(quoted(name), "is given twice: give it once"));
            } else if CHANGEABLE.contains(&name.as_str()) {
                wanted[name.as_str()] = value.clone();
            } else {
                let why = frozen(name)
                    .map_or_else(|| unknown_field(name, "what can be changed is", &CHANGEABLE), str::to_owned);
                errors.push(FieldError::new(quoted(name), why));
            }
            named.push(name);
        }
        match Self::parse_with(wanted.to_string().as_bytes(), RequestRules::JOURNALED) {
            Ok(changed) => {
                self.refuse_shrinking(&changed, &mut errors);
                if errors.is_empty() { Ok(changed) } else { Err(errors) }
            }
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }

    fn refuse_shrinking(&self, changed: &Self, errors: &mut Vec<FieldError>) {
        if changed.replicas < self.replicas {
            errors.push(FieldError::new(
                "replicas",
                format!(
                    "is {}, and the cluster has {}: nodes are not taken away, since each may hold the only copy of a shard \
                     and a vote; create a smaller cluster and move the indices there",
                    changed.replicas, self.replicas
                ),
            ));
        }
        if changed.disk_size < self.disk_size {
            errors.push(FieldError::new(
                "disk_size",
                format!(
                    "is `{}`, and the disks have `{}`: a disk can only grow; create a second cluster with smaller ones \
                     and move the indices there",
                    changed.disk_size, self.disk_size
                ),
            ));
        }
    }

    /// The fields in which `changed` is another than this, each with the value before and after.
    #[must_use]
    pub fn changes(&self, changed: &Self) -> Vec<(&'static str, Value, Value)> {
        let fields = |request: &Self| serde_json::to_value(request).expect("a request is plain strings and numbers");
        let (mut before, mut after) = (fields(self), fields(changed));
        CHANGEABLE
            .into_iter()
            .map(|field| (field, before[field].take(), after[field].take()))
            .filter(|(_, before, after)| before != after)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Request {
        Request::parse(br#"{"user":"acme","service_name":"search","replicas":2,"disk_size":"10Gi"}"#).expect("good")
    }

    fn refused(body: &str) -> Vec<String> {
        let errors = before().changed_by(body.as_bytes()).expect_err("refused");
        errors.into_iter().map(|error| format!("{} {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_is_not_named_stays_and_what_is_named_changes() {
        let changed = before().changed_by(br#"{"replicas":3,"disk_size":"20Gi","gpu_count":1}"#).expect("good");
        assert_eq!((changed.replicas, changed.disk_size.as_str(), changed.gpu_count), (3, "20Gi", 1));
        assert_eq!((changed.user, changed.mem_limit), (before().user, before().mem_limit));
        let fields: Vec<&str> = before().changes(&before()).into_iter().map(|(field, ..)| field).collect();
        assert_eq!(fields, [""; 0]);
    }

    #[test]
    fn every_wrong_field_of_a_change_is_named_at_once() {
        let errors = refused(r#"{"replica":3,"dimension":64,"replicas":1,"disk_size":"5Gi","cpu_limit":true}"#);
        let fields: Vec<&str> = errors.iter().filter_map(|error| error.split(' ').next()).collect();
        assert_eq!(fields, ["replica", "dimension", "cpu_limit"], "{errors:?}");
        let errors = refused(r#"{"dimension":64,"replicas":1,"disk_size":"5Gi"}"#);
        assert!(errors[0].contains("create a second cluster"), "{errors:?}");
        assert!(errors[1].contains("the only copy of a shard"), "{errors:?}");
        assert!(errors[2].contains("can only grow"), "{errors:?}");
    }

    #[test]
    fn an_unknown_field_of_a_change_is_told_what_can_be_changed_and_nothing_else() {
        let errors = refused(r#"{"colour":"red","namespac":"x"}"#);
        for (error, field) in errors.iter().zip(["colour", "namespac"]) {
            assert_eq!(*error, format!("{field} is unknown: what can be changed is {}", CHANGEABLE.join(", ")));
        }
        assert_eq!(refused(r#"{"replica":3}"#), ["replica is unknown: did you mean `replicas`?"]);
    }

    #[test]
    fn a_change_is_held_against_what_it_does_not_name() {
        assert_eq!(
            refused(r#"{"mem_limit":"512Mi"}"#),
            ["mem_request `1Gi` is more than `mem_limit`, which is `512Mi`"]
        );
    }

    #[test]
    fn a_change_of_nothing_and_what_is_no_object_are_refused() {
        assert!(refused("{}")[0].starts_with("body names nothing to change: replicas"));
        assert!(refused("[]")[0].starts_with("body must be a JSON object"));
        assert!(refused(r#"{"replicas":3,"replicas":4}"#)[0].contains("given twice"));
    }

    #[test]
    fn the_same_size_in_another_notation_is_no_shrinking() {
        before().changed_by(br#"{"disk_size":"10240Mi"}"#).expect("the same");
    }
}
