//! What a request is held against before anything is recorded: its fields, the hosts that may be asked, and, where the operator
//! wants it so, whether its vectors fit. The same for a submission, for its dry run, and for `cairn plan`.

use cairn_engine::{Amounts, ResourceName};
use cairn_steps::{
    gitlab::GitLab,
    request::{FieldError, Request},
    vectors::refused_strictly,
};
use serde_json::Value;

/// The request of a creation.
///
/// # Errors
/// Every wrong field.
pub(crate) fn creation(body: &[u8], gitlab: &GitLab, strict_sizing: bool) -> Result<Request, Vec<FieldError>> {
    let refused = |url: &str| gitlab.permits(url).err().map(|error| FieldError::new("gitlab_url", error.to_string()));
    match Request::parse_with(body, gitlab.rules().request_rules()) {
        Ok(request) => {
            let mut errors = sizing(&request, None, strict_sizing);
            errors.extend(request.gitlab_url.as_deref().and_then(refused));
            if errors.is_empty() { Ok(request) } else { Err(errors) }
        }
        Err(mut errors) => {
            // The host is named too, unless the address itself is wrong already.
            if !errors.iter().any(|error| error.field == "gitlab_url" || error.field == "body") {
                let body: Option<Value> = serde_json::from_slice(body).ok();
                let url = body.as_ref().and_then(|body| body.get("gitlab_url")).and_then(Value::as_str);
                errors.extend(url.and_then(refused));
            }
            Err(errors)
        }
    }
}

/// The request that is in force once `before` is changed by this.
///
/// # Errors
/// Every wrong field.
pub(crate) fn change(before: &Request, body: &[u8], strict_sizing: bool) -> Result<Request, Vec<FieldError>> {
    let request = before.changed_by(body)?;
    let errors = sizing(&request, Some(before), strict_sizing);
    if errors.is_empty() { Ok(request) } else { Err(errors) }
}

/// What a request holds of its tenant's quota.
pub(crate) fn holds(request: &Request) -> Amounts {
    request.holds().into_iter().map(|(name, amount)| (ResourceName::new(name), amount)).collect()
}

fn sizing(request: &Request, before: Option<&Request>, strict: bool) -> Vec<FieldError> {
    if strict { refused_strictly(request, before) } else { Vec::new() }
}
