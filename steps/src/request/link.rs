//! What a `gitlab_url` may look like. Whether its host may be asked at all is for [`crate::gitlab`] to say.
//!
//! A URL is kept in the journal for ever, so it may carry nothing that could be a secret: no user, no password, and of query
//! parameters only those that GitLab itself puts behind a raw file, with the values that it gives them. No message quotes one.

use std::net::IpAddr;

use url::{Host, Url};

use super::RequestRules;
use crate::addresses;

/// The longest URL. GitLab's own limit for a path is shorter.
const URL_CHARS_MAX: usize = 2048;

/// What GitLab's own pages put behind the path of a raw file: name and possible values.
const PARAMETERS: [(&str, [&str; 2]); 2] = [("ref_type", ["heads", "tags"]), ("inline", ["true", "false"])];

/// Why a text cannot be a `gitlab_url`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    #[error("has {0} characters, and at most {URL_CHARS_MAX} are possible")]
    TooLong(usize),
    #[error("may have neither spaces nor control characters nor backslashes: write them percent-encoded")]
    Characters,
    #[error("is no URL ({0}): write https://HOST/GROUP/PROJECT/-/raw/REF/FILE.yml")]
    Malformed(url::ParseError),
    #[error("must begin with https://, not {0}:")]
    Scheme(String),
    #[error("must not carry a user name or password: give the engine a token for that host instead")]
    Credentials,
    #[error(
        "must have no query but ref_type=heads, ref_type=tags, inline=true or inline=false: \
         it would be kept for ever, and if it is a token, give the engine one for that host instead"
    )]
    Query,
    #[error("must not have a fragment: `#…` is never sent to a server")]
    Fragment,
    #[error("has no host: write https://HOST/GROUP/PROJECT/-/raw/REF/FILE.yml")]
    NoHost,
    #[error("points at {0}, an address inside: only hosts on the public network can be pulled from")]
    Inside(String),
}

/// Checks a `gitlab_url` and returns it as it will be asked for.
pub(super) fn check(text: &str, rules: RequestRules) -> Result<String, LinkError> {
    let chars = text.chars().count();
    if chars > URL_CHARS_MAX {
        return Err(LinkError::TooLong(chars));
    }
    // A URL parser drops tabs and line ends and turns backslashes round: what was checked must be what was written.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(LinkError::Characters);
    }
    let url = Url::parse(text).map_err(LinkError::Malformed)?;
    match url.scheme() {
        "https" => {}
        "http" if rules.allow_http => {}
        other => return Err(LinkError::Scheme(other.to_owned())),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LinkError::Credentials);
    }
    if !rules.allow_any_query && !url.query_pairs().all(|(name, value)| is_harmless(&name, &value)) {
        return Err(LinkError::Query);
    }
    if url.fragment().is_some() {
        return Err(LinkError::Fragment);
    }
    let inside = match url.host() {
        None => return Err(LinkError::NoHost),
        Some(Host::Ipv4(address)) => addresses::is_inside(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => addresses::is_inside(IpAddr::V6(address)),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
    };
    if inside && !rules.allow_private {
        return Err(LinkError::Inside(url.host_str().unwrap_or_default().to_owned()));
    }
    Ok(text.to_owned())
}

fn is_harmless(name: &str, value: &str) -> bool {
    PARAMETERS.iter().any(|(known, values)| *known == name && values.contains(&value))
}
