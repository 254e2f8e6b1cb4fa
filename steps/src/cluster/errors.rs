//! Which answer of a Kubernetes API server means which class of error (C13): one table, and nobody else decides.
//!
//! What an answer means depends on what was asked. A lost answer to a read means nothing happened; a lost answer to a write
//! means that nobody knows.

use std::time::Duration;

use cairn_engine::{ErrorClass, StepError};
use kube::core::Status;

use crate::names;

/// The reason of each cause of a conflict over who owns a field.
const FIELD_CONFLICT: &str = "FieldManagerConflict";

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Something that changes nothing.
    Read,
    /// Something that may have been done although no answer came.
    Write,
}

impl Asked {
    /// The class of an error that leaves open whether the request was executed.
    fn unanswered(self) -> ErrorClass {
        match self {
            Self::Read => ErrorClass::Transient,
            Self::Write => ErrorClass::Unknown,
        }
    }
}

/// The error of a step for what the server (or the way to it) answered while `doing` something.
#[must_use]
pub fn step_error(asked: Asked, doing: &str, error: &kube::Error) -> StepError {
    match error {
        kube::Error::Api(status) => of_status(asked, doing, status),
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => {
            StepError::permanent(format!("cannot {doing}: the request cannot be made: {}", chain(error)))
        }
        kube::Error::Auth(_) => {
            StepError::transient(format!("cannot {doing}: no credentials for the cluster: {}", chain(error)))
        }
        _ if never_sent(error) => {
            StepError::transient(format!("cannot {doing}: the cluster cannot be reached: {}", chain(error)))
        }
        _ => StepError::new(asked.unanswered(), format!("cannot {doing}: no usable answer: {}", chain(error))),
    }
}

/// The table. Kubernetes' `reason` comes before the status code, which several reasons share.
fn of_status(asked: Asked, doing: &str, status: &Status) -> StepError {
    let (class, advice) = match (status.code, status.reason.as_str()) {
        // Not executed.
        (429, _) | (_, "TooManyRequests") => (ErrorClass::Transient, ""),
        (_, "ServerTimeout") | (503, _) => (ErrorClass::Transient, ""),
        (401, _) => (ErrorClass::Transient, ": the cluster does not accept the credentials"),
        // A stale version: read again, plan again, try again.
        (410, _) => (ErrorClass::Transient, ""),
        (409, _) if has_cause(status, FIELD_CONFLICT) => (ErrorClass::Permanent, ""),
        (409, "AlreadyExists") => (ErrorClass::Transient, ""),
        (409, _) => (ErrorClass::Transient, ""),
        (403, _) if has_cause(status, "NamespaceTerminating") => {
            (ErrorClass::Transient, ": its namespace is being deleted")
        }
        (403, _) if status.message.contains("exceeded quota") => {
            (ErrorClass::Permanent, ": the namespace's ResourceQuota is too small; ask for less, or for a larger quota")
        }
        // C5: who may not resize what does not resize is not the point.
        (403, _) if status.message.contains("only dynamically provisioned pvc can be resized") => (
            ErrorClass::Permanent,
            ": the StorageClass of this claim does not let disks grow; leave disk_size as it is, or have the operator set \
             allowVolumeExpansion on the class, if its provisioner can do it",
        ),
        (403, _) if is_missing_right(status) => {
            (ErrorClass::Permanent, ": the engine lacks the right; the operator must grant it")
        }
        (403, _) => {
            (ErrorClass::Permanent, ": a rule of the cluster forbids it; the operator knows which, and its exceptions")
        }
        (404, _) => (ErrorClass::Permanent, ""),
        _ if is_misfit(status) => (ErrorClass::Permanent, ""),
        // Executed or not, nobody knows.
        (504, _) | (_, "Timeout") | (500, _) => (asked.unanswered(), ""),
        (500..=599, _) => (asked.unanswered(), ""),
        // 400, 405, 406, 413, 415, 422 and whatever else the server finds wrong with the request: it stays wrong.
        _ => (ErrorClass::Permanent, ""),
    };
    let owners = field_owners(status);
    let advice = if owners.is_empty() { advice.to_owned() } else { way_to_give_back(&owners) };
    let mut error =
        StepError::new(class, format!("cannot {doing}: {}{advice}", words(status))).with_evidence(causes(status));
    if let Some(delay) = retry_after(status) {
        error = error.with_retry_after(delay);
    }
    error
}

/// How the server begins when what was applied does not fit its schema: a field that it does not know, a value of another type, an
/// item twice; and an amount that is none.
const MISFITS: [&str; 2] = ["failed to create typed patch object", "failed to convert new object"];

/// Whether what was applied does not fit the server's schema. It says so with 500, although it has done nothing and will never change
/// its mind (C15).
pub(super) fn is_misfit(status: &Status) -> bool {
    status.code == 500 && MISFITS.iter().any(|words| status.message.starts_with(words))
}

/// Whether these are the words of the authorizer, and not those of an admission plugin, a webhook or a policy: these answer 403
/// too, whoever asks.
fn is_missing_right(status: &Status) -> bool {
    status.message.is_empty() || (status.message.contains("User \"") && status.message.contains("\" cannot "))
}

/// Who owns the fields that an apply runs into, each once; nobody if it failed otherwise. The server tells them in words only.
pub(super) fn field_owners(status: &Status) -> Vec<&str> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let conflicts = causes.filter(|cause| cause.reason == FIELD_CONFLICT);
    let mut owners: Vec<&str> =
        conflicts.map(|cause| cause.message.split('"').nth(1).unwrap_or(&cause.message)).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// How fields come to those who apply them. `kubectl scale` and `kubectl edit` cannot be told in whose name they write.
fn way_to_give_back(owners: &[&str]) -> String {
    format!(
        ": others own these fields ({}), and they are not taken from them: set each as it is to be with `kubectl patch \
         --field-manager={}`, which gives it back, then try again",
        owners.join(", "),
        names::FIELD_MANAGER
    )
}

fn has_cause(status: &Status, reason: &str) -> bool {
    status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
}

fn words(status: &Status) -> String {
    let message = readable(status, status.message.trim());
    if message.is_empty() {
        format!("the cluster answers {} {}", status.code, status.reason)
    } else {
        message.to_owned()
    }
}

/// A change that is invalid may be told with both objects as the server's own program has them, from the second line on (claims).
fn readable<'a>(status: &Status, text: &'a str) -> &'a str {
    if status.code == 422 { text.lines().next().unwrap_or_default() } else { text }
}

/// The fields that the server complains about, or the owners of fields: one line each. Some it finds twice (C15).
fn causes(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut lines: Vec<String> = Vec::new();
    for cause in causes {
        let line = format!("{}: {}", cause.field, readable(status, &cause.message));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// Whether no byte of the request can have reached a server.
fn never_sent(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            return true;
        }
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// The error with its causes, each told once: kube's errors quote the one below them.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(asked: Asked, code: u16, reason: &str, cause: &str) -> ErrorClass {
        answer(asked, code, reason, cause, "").failure.class
    }

    fn answer(asked: Asked, code: u16, reason: &str, cause: &str, message: &str) -> StepError {
        let causes = if cause.is_empty() {
            json!([])
        } else {
            json!([{"reason": cause, "field": ".spec", "message": "conflict with \"kubectl\" using apps/v1"}])
        };
        let status: Status = serde_json::from_value(json!({
            "code": code, "reason": reason, "message": message, "details": {"causes": causes, "retryAfterSeconds": if code == 429 { 7 } else { 0 }}
        }))
        .expect("a status");
        step_error(asked, "apply StatefulSet/elasticsearch", &kube::Error::Api(status.boxed()))
    }

    #[test]
    fn every_row_of_the_table_has_its_class() {
        use ErrorClass::{Permanent, Transient, Unknown};
        for (code, reason, cause, read, write) in [
            (429, "TooManyRequests", "", Transient, Transient),
            (500, "ServerTimeout", "", Transient, Transient),
            (504, "Timeout", "", Transient, Unknown),
            (500, "InternalError", "", Transient, Unknown),
            (502, "", "", Transient, Unknown),
            (503, "ServiceUnavailable", "", Transient, Transient),
            (409, "AlreadyExists", "", Transient, Transient),
            (409, "Conflict", "", Transient, Transient),
            (409, "Conflict", "FieldManagerConflict", Permanent, Permanent),
            (410, "Expired", "", Transient, Transient),
            (401, "Unauthorized", "", Transient, Transient),
            (403, "Forbidden", "NamespaceTerminating", Transient, Transient),
            (403, "Forbidden", "", Permanent, Permanent),
            (404, "NotFound", "", Permanent, Permanent),
            (400, "BadRequest", "", Permanent, Permanent),
            (405, "MethodNotAllowed", "", Permanent, Permanent),
            (406, "NotAcceptable", "", Permanent, Permanent),
            (413, "RequestEntityTooLarge", "", Permanent, Permanent),
            (415, "UnsupportedMediaType", "", Permanent, Permanent),
            (422, "Invalid", "", Permanent, Permanent),
        ] {
            assert_eq!(class(Asked::Read, code, reason, cause), read, "read {code} {reason} {cause}");
            assert_eq!(class(Asked::Write, code, reason, cause), write, "write {code} {reason} {cause}");
        }
    }

    /// C15: it was tried for as long as a step may be tried, as if the server were ill.
    #[test]
    fn what_does_not_fit_the_schema_is_final_although_the_server_answers_500() {
        for words in [
            "failed to create typed patch object (a/b; apps/v1, Kind=StatefulSet): .spec.x: field not declared in schema",
            "failed to convert new object (a/b; apps/v1, Kind=StatefulSet) to proper version: unable to convert unstructured \
             object to apps/v1, Kind=StatefulSet: quantities must match the regular expression '…'",
        ] {
            assert_eq!(answer(Asked::Write, 500, "", "", words).failure.class, ErrorClass::Permanent);
        }
    }

    #[test]
    fn what_is_invalid_is_told_once_and_without_the_servers_own_notation() {
        let told = "Forbidden: spec is immutable after creation\n  core.PersistentVolumeClaimSpec{\n- \tA: 1,\n+ \tA: 2,\n  }\n";
        let cause = json!({"reason": "FieldValueForbidden", "field": "spec", "message": told});
        let status: Status = serde_json::from_value(json!({"code": 422, "reason": "Invalid",
            "message": format!("PersistentVolumeClaim \"a\" is invalid: spec: {told}"), "details": {"causes": [cause, cause]}}))
        .expect("a status");
        let error = step_error(Asked::Write, "apply it", &kube::Error::Api(status.boxed()));
        assert!(
            error.failure.message.ends_with("is invalid: spec: Forbidden: spec is immutable after creation"),
            "{error}"
        );
        assert_eq!(error.failure.evidence, ["spec: Forbidden: spec is immutable after creation"]);
    }

    #[test]
    fn the_server_is_left_alone_for_as_long_as_it_asks() {
        assert_eq!(answer(Asked::Write, 429, "TooManyRequests", "", "").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer(Asked::Write, 500, "InternalError", "", "").retry_after, None);
    }

    #[test]
    fn the_message_says_what_was_tried_and_the_owners_are_the_evidence() {
        let error = answer(Asked::Write, 409, "Conflict", "FieldManagerConflict", "Apply failed with 1 conflict");
        assert!(
            error
                .failure
                .message
                .starts_with("cannot apply StatefulSet/elasticsearch: Apply failed with 1 conflict: others own")
        );
        assert_eq!(error.failure.evidence, [".spec: conflict with \"kubectl\" using apps/v1"]);
        assert!(error.failure.message.contains("these fields (kubectl)"), "{error}");
        let error = answer(Asked::Write, 403, "Forbidden", "", "pods \"a\" is forbidden: exceeded quota: small");
        assert!(error.failure.message.contains("ResourceQuota is too small"), "{error}");
    }

    /// What is forbidden to everybody is no right that somebody could grant.
    #[test]
    fn each_403_is_told_apart_by_its_words_and_has_its_own_way_out() {
        for (words, way_out) in [
            (
                "persistentvolumeclaims \"elasticsearch-data-elasticsearch-0\" is forbidden: only dynamically provisioned pvc can be \
                 resized and the storageclass that provisions the pvc must support resize",
                "allowVolumeExpansion",
            ),
            (
                "pods \"a\" is forbidden: exceeded quota: small, requested: cpu=2, used: cpu=1, limited: cpu=2",
                "ResourceQuota is too small",
            ),
            (
                "statefulsets.apps \"elasticsearch\" is forbidden: User \"system:serviceaccount:cairn:cairn\" cannot patch resource \
                 \"statefulsets\" in API group \"apps\" in the namespace \"a\"",
                "lacks the right",
            ),
            (
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
                "a rule of the cluster",
            ),
            ("admission webhook \"policy.example.com\" denied the request: no", "a rule of the cluster"),
        ] {
            let error = answer(Asked::Write, 403, "Forbidden", "", words);
            assert_eq!(error.failure.class, ErrorClass::Permanent, "{words}");
            let said = &error.failure.message;
            assert!(said.contains(words) && said.contains(way_out), "{way_out}: {said}");
            assert!(way_out == "lacks the right" || !said.contains("lacks the right"), "{said}");
        }
    }

    #[test]
    fn a_lost_answer_to_a_write_leaves_it_unknown_and_a_refused_connection_does_not() {
        let lost = || kube::Error::Service("connection reset".into());
        assert_eq!(step_error(Asked::Write, "x", &lost()).failure.class, ErrorClass::Unknown);
        assert_eq!(step_error(Asked::Read, "x", &lost()).failure.class, ErrorClass::Transient);
        let refused = kube::Error::Service(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        assert_eq!(step_error(Asked::Write, "x", &refused).failure.class, ErrorClass::Transient);
    }
}
