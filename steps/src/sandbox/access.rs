//! Rights, as role based access control would see them: which of them each request needed, and which are taken away.
//!
//! - Everybody may do everything here, until a fault with the action [`FaultAction::Forbid`](super::FaultAction) takes it away.
//! - What was asked for is noted whether it was granted or not: a role that grants just this is enough (`Sandbox::accesses`).
//! - A `SelfSubjectAccessReview` is answered from the same faults as the requests themselves.
//!
//! Documents about the server are everybody's, as on the API server (`system:discovery`), and are not noted.

use super::Shared;
use super::faults::Call;
use super::kinds::{self, Kind};
use super::request::{ApiRequest, Target};
use super::service::call_of;
use super::status::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::PoisonError;

/// What somebody has to be allowed to do for a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// The API group; empty for the core.
    pub group: String,
    /// The plural, with the subresource if there is one: `pods`, `pods/log`.
    pub resource: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`
    pub verb: String,
}

/// Notes what this request needs, and refuses it if that is taken away.
///
/// # Errors
/// 403, in the words of role based access control.
pub(super) fn admit(shared: &Shared, request: &ApiRequest) -> Result<(), Refusal> {
    match &request.target {
        Target::Server(_) | Target::Sandbox(_) => Ok(()),
        Target::AccessReview => {
            note(shared, "authorization.k8s.io", "selfsubjectaccessreviews", "create");
            Ok(())
        }
        Target::Object(target) => {
            check(shared, request, call_of(request))?;
            // An apply that makes the object is a creation as well.
            if request.is_apply() && shared.lock().get(&target.key()).is_none() {
                check(shared, request, Call { verb: "create", is_apply: false, ..call_of(request) })?;
            }
            Ok(())
        }
    }
}

fn check(shared: &Shared, request: &ApiRequest, call: Call<'_>) -> Result<(), Refusal> {
    let Target::Object(target) = &request.target else { return Ok(()) };
    let group = target.kind.info().group;
    let resource = match call.subresource {
        "" => call.resource.to_owned(),
        subresource => format!("{}/{subresource}", call.resource),
    };
    note(shared, group, &resource, call.verb);
    if !shared.faults.forbid(call) {
        return Ok(());
    }
    let place = match call.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why = format!("User \"sandbox\" cannot {} resource \"{resource}\" in API group \"{group}\" {place}", call.verb);
    Err(Refusal::forbidden(target.kind, call.name, &why))
}

fn note(shared: &Shared, group: &str, resource: &str, verb: &str) {
    let access = Access { group: group.to_owned(), resource: resource.to_owned(), verb: verb.to_owned() };
    shared.accesses.lock().unwrap_or_else(PoisonError::into_inner).insert(access);
}

/// A review, answered: whether this would be allowed.
///
/// # Errors
/// 400 if it is none.
pub(super) fn review(shared: &Shared, sent: &Value) -> Result<Value, Refusal> {
    let mut review = kinds::decode_access_review(sent).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let asked = &review["spec"]["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    let kind = Kind::find(text("group"), text("resource")).map(|kind| kind.info().kind);
    let call = Call {
        verb: text("verb"),
        is_apply: false,
        resource: text("resource"),
        kind: kind.unwrap_or_default(),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
    };
    let allowed = asked.is_null() || !shared.faults.would_forbid(call);
    // What is not allowed is not explained: no rule was found that allows it.
    let reason = if allowed { "the sandbox allows what no fault forbids" } else { "" };
    review["status"] = json!({"allowed": allowed, "reason": reason});
    Ok(review)
}
