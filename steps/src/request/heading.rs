//! What every report and record shows of a request, read out of the journal without judging the request again.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Details, Request};
use crate::quantity::Quantity;

/// The part of a request that reports and records show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// Where the cluster is.
    pub namespace: String,
    /// The nine fields, as they are in force.
    pub details: Details,
}

/// An input in which the request is not all.
#[derive(Deserialize)]
struct Around<'a> {
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

/// A request as [`Request::to_json`] writes it: no field is missing.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    replicas: u32,
    cpu_request: Quantity,
    cpu_limit: Quantity,
    mem_request: Quantity,
    mem_limit: Quantity,
    disk_size: Quantity,
    gpu_count: u32,
    dimension: u32,
    vector_count: u64,
}

impl Heading {
    /// That of the request in the input of a workflow, as [`Request::journaled`] reads it; `None` if there is none.
    ///
    /// What is in the journal was proved right before it came there: a view of it costs a fraction of that.
    #[must_use]
    pub fn journaled(input: &[u8]) -> Option<Self> {
        let around: Around<'_> = serde_json::from_slice(input).ok()?;
        let request = around.request.map_or(input, |request| request.get().as_bytes());
        match serde_json::from_slice::<Written<'_>>(request) {
            Ok(written) => Some(written.into()),
            // An input without its defaults: no build writes one, and the journal may have one all the same.
            Err(_) => Request::journaled(input).ok().as_ref().map(Self::from),
        }
    }
}

impl From<&Request> for Heading {
    fn from(request: &Request) -> Self {
        Self { namespace: request.namespace.to_string(), details: request.details() }
    }
}

impl From<Written<'_>> for Heading {
    fn from(written: Written<'_>) -> Self {
        Self {
            namespace: written.namespace.into_owned(),
            details: Details {
                replicas: written.replicas,
                cpu_request: written.cpu_request,
                cpu_limit: written.cpu_limit,
                mem_request: written.mem_request,
                mem_limit: written.mem_limit,
                disk_size: written.disk_size,
                gpu_count: written.gpu_count,
                dimension: written.dimension,
                vector_count: written.vector_count,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a view shows is what the request says, whichever way it was read.
    #[test]
    fn a_heading_is_that_of_the_request_as_it_is_read_back() {
        let request = Request::parse(
            br#"{"user":"acme","service_name":"search","replicas":3,"cpu_limit":"1.5","disk_size":"2e10"}"#,
        );
        let request = request.expect("it is right");
        let alone = request.to_json();
        let around = format!(r#"{{"request":{},"keep_data":true}}"#, String::from_utf8_lossy(&alone));
        let short = br#"{"user":"acme","service_name":"search","replicas":3,"cpu_limit":"1.5","disk_size":"2e10"}"#;
        for input in [&alone[..], around.as_bytes(), short] {
            let read = Request::journaled(input).expect("it is read");
            assert_eq!(Heading::journaled(input), Some(Heading::from(&read)));
            assert_eq!(Heading::journaled(input), Some(Heading::from(&request)));
        }
        assert_eq!(Heading::journaled(br#""something else""#), None);
        assert_eq!(Heading::journaled(br#"{"user":"Acme"}"#), None);
    }
}
