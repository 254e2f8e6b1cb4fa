//! Refusals as the API server words them: a `Status` object with code, reason, message and details.
//!
//! Domain facts C13 say which answer means what; clients tell them apart by `reason` and by the causes.

use super::kinds::Kind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A refusal: what a client gets instead of what it asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
    details: Map<String, Value>,
    pub(super) retry_after: Option<Duration>,
}

/// One wrong field of a 422.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cause {
    pub(super) field: String,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Cause {
    pub(super) fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Cause {
        Cause {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {}", why.as_ref()),
        }
    }

    pub(super) fn required(field: impl Into<String>, why: &str) -> Cause {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Cause { field: field.into(), reason: "FieldValueRequired", message }
    }

    pub(super) fn forbidden(field: impl Into<String>, why: impl AsRef<str>) -> Cause {
        Cause { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {}", why.as_ref()) }
    }

    pub(super) fn not_found(field: impl Into<String>, value: &str) -> Cause {
        Cause { field: field.into(), reason: "FieldValueNotFound", message: format!("Not found: \"{value}\"") }
    }

    pub(super) fn duplicate(field: impl Into<String>, value: &str) -> Cause {
        Cause { field: field.into(), reason: "FieldValueDuplicate", message: format!("Duplicate value: \"{value}\"") }
    }
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, reason, message: message.into(), details: Map::new(), retry_after: None }
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Refusal {
        Refusal::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).about(kind, name)
    }

    /// A path that this server does not have, told as the real one tells it.
    pub(super) fn no_such_path() -> Refusal {
        Refusal::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn already_exists(kind: Kind, name: &str) -> Refusal {
        Refusal::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.qualified())).about(kind, name)
    }

    pub(super) fn conflict(kind: Kind, name: &str, why: &str) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Refusal::new(409, "Conflict", message).about(kind, name)
    }

    /// The same where the API server says the kind instead of the resource: a condition of a deletion that is not met.
    pub(super) fn conflict_of_kind(kind: Kind, name: &str, why: &str) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind_title(kind));
        let mut refusal = Refusal::new(409, "Conflict", message).about(kind, name);
        refusal.details.insert("kind".to_owned(), json!(kind.info().kind));
        refusal
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    pub(super) fn forbidden(kind: Kind, name: &str, why: &str) -> Refusal {
        // Where no name is known yet, none is quoted.
        let what = if name.is_empty() { kind.qualified() } else { format!("{} \"{name}\"", kind.qualified()) };
        Refusal::new(403, "Forbidden", format!("{what} is forbidden: {why}")).about(kind, name)
    }

    pub(super) fn method_not_allowed() -> Refusal {
        Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn gone(message: impl Into<String>) -> Refusal {
        Refusal::new(410, "Expired", message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Refusal {
        Refusal::new(500, "InternalError", message)
    }

    /// A 422 with a cause for each wrong field.
    pub(super) fn invalid(kind: Kind, name: &str, causes: Vec<Cause>) -> Refusal {
        let title = kind_title(kind);
        let told: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let told = if told.len() == 1 { told.concat() } else { format!("[{}]", told.join(", ")) };
        let mut refusal =
            Refusal::new(422, "Invalid", format!("{title} \"{name}\" is invalid: {told}")).about(kind, name);
        // Field errors name the kind, not the resource.
        refusal.details.insert("kind".to_owned(), json!(kind.info().kind));
        refusal.causes(&causes)
    }

    /// A 409 of server-side apply: one cause for each field that another manager owns.
    pub(super) fn apply_conflict(causes: &[Cause]) -> Refusal {
        let told = match causes {
            [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
            many => {
                let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
                for cause in many {
                    fields.entry(&cause.message).or_default().push(&cause.field);
                }
                let lines = fields.into_iter().flat_map(|(conflict, fields)| {
                    let whose = conflict.replacen("conflict", "conflicts", 1) + ":";
                    std::iter::once(whose).chain(fields.into_iter().map(|field| format!("- {field}")))
                });
                format!("Apply failed with {} conflicts: {}", many.len(), lines.collect::<Vec<_>>().join("\n"))
            }
        };
        Refusal::new(409, "Conflict", told).causes(causes)
    }

    pub(super) fn about(mut self, kind: Kind, name: &str) -> Refusal {
        let info = kind.info();
        self.details.insert("name".to_owned(), json!(name));
        if !info.group.is_empty() {
            self.details.insert("group".to_owned(), json!(info.group));
        }
        self.details.insert("kind".to_owned(), json!(info.plural));
        self
    }

    pub(super) fn causes(mut self, causes: &[Cause]) -> Refusal {
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        self.details.insert("causes".to_owned(), json!(causes));
        self
    }

    pub(super) fn retry_after(mut self, after: Duration) -> Refusal {
        self.details.insert("retryAfterSeconds".to_owned(), json!(after.as_secs()));
        self.retry_after = Some(after);
        self
    }

    /// The refusal of a code that a fault was told to answer with.
    pub(super) fn of_code(code: u16) -> Refusal {
        let (reason, message) = match code {
            400 => ("BadRequest", "the sandbox was told to answer so"),
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden: the sandbox was told to answer so"),
            404 => ("NotFound", "the server could not find the requested resource"),
            409 => (
                "Conflict",
                "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest version and try again",
            ),
            410 => ("Expired", "The resourceVersion for the provided watch is too old."),
            422 => ("Invalid", "invalid: the sandbox was told to answer so"),
            429 => ("TooManyRequests", "Too many requests, please try again later."),
            500 => ("InternalError", "Internal error occurred: the sandbox was told to answer so"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "Timeout: request did not complete within the allotted timeout"),
            _ => ("", "the sandbox was told to answer so"),
        };
        Refusal::new(code, reason, message)
    }

    pub(super) fn body(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_empty() {
            status["details"] = Value::Object(self.details.clone());
        }
        status
    }
}

/// `StatefulSet.apps`.
fn kind_title(kind: Kind) -> String {
    let info = kind.info();
    if info.group.is_empty() { info.kind.to_owned() } else { format!("{}.{}", info.kind, info.group) }
}
