//! What routes take out of a request: names in the path, parameters, the body. Whatever is wrong there is a [`Problem`].

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::extract::{FromRequestParts, Path, Query};
use bytes::{Bytes, BytesMut};
use cairn_engine::{IdempotencyKey, Service, Tenant, WorkflowId};
use cairn_steps::{names, request::FieldError};
use http::{HeaderMap, request::Parts};
use http_body_util::BodyExt as _;

use crate::problem::Problem;

/// The longest body.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// The time in which a body has to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);
/// What is still read, and dropped, of a body that is too long, so that its sender gets to read the answer.
const DRAINED_BYTES_MAX: usize = 16 << 20;
/// The longest idempotency key.
const KEY_CHARS_MAX: usize = 255;

/// `{user}/{service}` in a path.
pub(crate) struct Named {
    /// The tenant.
    pub(crate) tenant: Tenant,
    /// The service.
    pub(crate) service: Service,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((user, service))) = read else { return Err(Problem::no_such_path(parts.uri.path())) };
        // What cannot be a name is nobody's: the answer is the one for what is not there.
        match (names::Tenant::parse(&user), names::Service::parse(&service)) {
            (Ok(user), Ok(service)) => {
                Ok(Self { tenant: Tenant::new(user.as_str()), service: Service::new(service.as_str()) })
            }
            (Err(error), _) => Err(Problem::not_found(format!("there is no such user: the name {error}"))),
            (_, Err(error)) => Err(Problem::not_found(format!("there is no such service: the name {error}"))),
        }
    }
}

/// `{id}` in a path.
pub(crate) struct Workflow(pub(crate) WorkflowId);

impl<S: Send + Sync> FromRequestParts<S> for Workflow {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        let Ok(Path(id)) = read else { return Err(Problem::no_such_path(parts.uri.path())) };
        let id = id.parse().map_err(|_| Problem::not_found("there is no such workflow: the id of one is a UUID"))?;
        Ok(Self(id))
    }
}

/// The parameters of a request. Each is taken by its name; those that nobody takes are errors, as is every wrong value.
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self { pairs, errors: Vec::new() }),
            Err(error) => Err(Problem::invalid(&[FieldError::new("query", error.body_text())])),
        }
    }
}

impl Params {
    /// The parameter `name`, read by `read`.
    pub(crate) fn take<T, E: Display>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let place = self.pairs.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.pairs.remove(place);
        if self.pairs.iter().any(|(key, _)| key == name) {
            self.pairs.retain(|(key, _)| key != name);
            self.errors.push(FieldError::new(name, "is given more than once"));
            return None;
        }
        read(&value).map_err(|error| self.errors.push(FieldError::new(name, error.to_string()))).ok()
    }

    /// The parameter `name` as `true` or `false`; false without it.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        self.take(name, |text| match text {
            "true" | "1" | "" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("is `true` or `false`"),
        })
        .unwrap_or(false)
    }

    /// The parameter `name` as a whole number from `least` to `most`.
    pub(crate) fn number<T: FromStr + PartialOrd + Display + Copy>(
        &mut self,
        name: &str,
        least: T,
        most: T,
    ) -> Option<T> {
        self.take(name, |text| match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(format!("is a whole number from {least} to {most}")),
        })
    }

    /// The parameter `name` as a duration such as `30s` or `10m`, at most `most`.
    pub(crate) fn duration(&mut self, name: &str, most: Duration) -> Option<Duration> {
        self.take(name, |text| match crate::config::duration(text) {
            Ok(duration) if duration <= most => Ok(duration),
            _ => Err(format!("is a duration such as `30s`, at most {} minutes", most.as_secs() / 60)),
        })
    }

    /// The parameter `user`.
    pub(crate) fn tenant(&mut self) -> Option<Tenant> {
        self.take("user", names::Tenant::parse).map(|name| Tenant::new(name.as_str()))
    }

    /// The parameter `service_name`.
    pub(crate) fn service(&mut self) -> Option<Service> {
        self.take("service_name", names::Service::parse).map(|name| Service::new(name.as_str()))
    }

    /// Nothing else may be there.
    ///
    /// # Errors
    /// [`Problem`] that names every wrong and every unknown parameter.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in self.pairs.drain(..).take(20) {
            let name: String = name.chars().take(64).collect();
            self.errors.push(FieldError::new(name, "is no parameter of this call"));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(&self.errors)) }
    }
}

/// The header `Idempotency-Key`, if there is one.
///
/// # Errors
/// [`Problem`] if it is empty, too long, given twice, or has other than visible ASCII characters.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let wrong = |message: &str| Problem::invalid(&[FieldError::new("Idempotency-Key", message)]);
    let mut all = headers.get_all("idempotency-key").iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(wrong("is given more than once"));
    }
    let Ok(text) = value.to_str() else { return Err(wrong("may only have visible ASCII characters")) };
    if text.is_empty() || text.len() > KEY_CHARS_MAX {
        return Err(wrong("has 1 to 255 characters"));
    }
    Ok(Some(IdempotencyKey::new(text)))
}

/// The whole body.
///
/// # Errors
/// [`Problem`] if it is too long, does not arrive in time, or breaks off.
pub(crate) async fn body(body: axum::body::Body) -> Result<Bytes, Problem> {
    tokio::time::timeout(BODY_TIME_MAX, collect(body)).await.unwrap_or_else(|_| Err(Problem::too_slow(BODY_TIME_MAX)))
}

async fn collect(mut body: axum::body::Body) -> Result<Bytes, Problem> {
    let mut collected = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::broken_body(crate::telemetry::chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen <= BODY_BYTES_MAX {
            collected.extend_from_slice(&data);
        } else if seen > DRAINED_BYTES_MAX {
            break;
        } else {
            collected.clear();
        }
    }
    if seen > BODY_BYTES_MAX { Err(Problem::too_large(BODY_BYTES_MAX)) } else { Ok(collected.freeze()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn params(query: &str) -> Params {
        let request = http::Request::builder().uri(format!("/x?{query}")).body(()).expect("a request");
        Params::from_request_parts(&mut request.into_parts().0, &()).await.expect("readable")
    }

    #[tokio::test]
    async fn every_wrong_and_every_unknown_parameter_is_named() {
        let mut params = params("limit=0&user=A&colour=red").await;
        assert_eq!(params.number("limit", 1, 500), None);
        assert_eq!(params.tenant(), None);
        let problem = format!("{:?}", params.finish().expect_err("three errors"));
        for field in ["limit", "user", "colour"] {
            assert!(problem.contains(field), "{problem}");
        }
    }

    #[tokio::test]
    async fn durations_have_a_unit_and_a_limit() {
        let ten_minutes = Duration::from_secs(600);
        assert_eq!(params("wait=30s").await.duration("wait", ten_minutes), Some(Duration::from_secs(30)));
        assert_eq!(params("wait=10m").await.duration("wait", ten_minutes), Some(ten_minutes));
        for wrong in ["wait=11m", "wait=-1s", "wait=soon", "wait="] {
            let mut params = params(wrong).await;
            assert_eq!(params.duration("wait", ten_minutes), None, "{wrong}");
            assert!(params.finish().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_body_too_long_is_refused_and_one_of_the_limit_taken() {
        let full = axum::body::Body::from(vec![b' '; BODY_BYTES_MAX]);
        assert_eq!(body(full).await.expect("just fits").len(), BODY_BYTES_MAX);
        assert!(body(axum::body::Body::from(vec![b' '; BODY_BYTES_MAX + 1])).await.is_err());
    }
}
