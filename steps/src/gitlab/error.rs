//! Why a pull failed, in words for the tenant, and whether another attempt can do better.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use cairn_engine::{ErrorClass, StepError};
use reqwest::StatusCode;
use url::Url;

use crate::settings::SettingsError;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum GitLabError {
    /// Not a URL.
    #[error("{url:?} is no URL: {error}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        error: url::ParseError,
    },
    /// Neither https nor an allowed http.
    #[error("{url} does not begin with https://: only that is pulled from")]
    Scheme {
        /// Which.
        url: String,
    },
    /// The host is not on the allow-list.
    #[error("nothing may be pulled from {host}: {}", if *none { "no host is allowed yet; the operator allows one with the setting `gitlab.hosts`" } else { "it is not among the hosts that the operator allows with the setting `gitlab.hosts`" })]
    NotAllowed {
        /// Which host.
        host: String,
        /// Whether the allow-list is empty.
        none: bool,
    },
    /// The name leads inside.
    #[error("{url} leads to {address}, an address inside: only hosts on the public network are pulled from")]
    Inside {
        /// Which URL.
        url: String,
        /// What its host resolves to.
        address: IpAddr,
    },
    /// The name cannot be resolved just now.
    #[error("the name {host} cannot be resolved: is it written right?")]
    Resolve {
        /// Which name.
        host: String,
        /// What the resolver said.
        #[source]
        error: Option<io::Error>,
    },
    /// A redirect off the host.
    #[error("{url} redirects to another host, {host}: give the URL of the file itself")]
    Elsewhere {
        /// From where.
        url: String,
        /// Whereto.
        host: String,
    },
    /// A redirect after a redirect.
    #[error("{url} redirects more than {most} times: give the URL of the file itself")]
    Redirects {
        /// From where.
        url: String,
        /// How many are followed.
        most: usize,
    },
    /// An answer that is not the file.
    #[error("{url} answers {status}{}", meaning(*status, token.as_deref()))]
    Status {
        /// Which URL.
        url: String,
        /// The answer.
        status: StatusCode,
        /// How long the host asks to be left alone.
        retry_after: Option<Duration>,
        /// The name of the token that was sent, if one was.
        token: Option<String>,
    },
    /// The token for this host and tenant cannot be read.
    #[error("the token `{name}` cannot be read from {at}: {why}; the operator sees to it")]
    Token {
        /// What the settings call it.
        name: String,
        /// Where its value should be.
        at: String,
        /// Why it is not to be had.
        why: String,
    },
    /// Other bytes than the host had announced.
    #[error("{url} is not what its host said it would be: the SHA-256 is another")]
    Changed {
        /// Which URL.
        url: String,
    },
    /// More bytes than a file of settings needs.
    #[error("{url} has more than {most} bytes, the most that a file of settings may have")]
    TooLarge {
        /// Which URL.
        url: String,
        /// The limit.
        most: usize,
    },
    /// A page for people.
    #[error(
        "{url} is a web page and not a file: the file is absent, or its project is private; give the URL of the raw file (…/-/raw/…) of a public project, or have the operator give the engine a token for it"
    )]
    Html {
        /// Which URL.
        url: String,
    },
    /// A pointer to a large file.
    #[error("{url} is a pointer to a file in Git LFS and not the file: keep settings in plain Git")]
    Lfs {
        /// Which URL.
        url: String,
    },
    /// Not UTF-8.
    #[error("{url} is no text in UTF-8")]
    NotText {
        /// Which URL.
        url: String,
    },
    /// The file, with settings that are not taken.
    #[error("{url} cannot be used: {error}")]
    Settings {
        /// Which URL.
        url: String,
        /// Why not.
        error: SettingsError,
    },
    /// It took too long.
    #[error("{url} did not answer in full within {limit:?}")]
    Timeout {
        /// Which URL.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection failed, or broke.
    #[error("{url} could not be read: {}", chain(error))]
    Transport {
        /// Which URL.
        url: String,
        /// What the connection said; it is told in the message.
        error: reqwest::Error,
    },
}

impl GitLabError {
    pub(super) fn status(url: &Url, status: StatusCode, retry_after: Option<Duration>, token: Option<String>) -> Self {
        Self::Status { url: url.to_string(), status, retry_after, token }
    }

    /// Whether another attempt can do better. A pull changes nothing, so its outcome is never unknown.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Resolve { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            // A file that is mounted may come a moment later.
            | Self::Token { .. }
            | Self::Changed { .. } => ErrorClass::Transient,
            Self::Status { status, .. } if retryable(*status) => ErrorClass::Transient,
            Self::Url { .. }
            | Self::Scheme { .. }
            | Self::NotAllowed { .. }
            | Self::Inside { .. }
            | Self::Elsewhere { .. }
            | Self::Redirects { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Html { .. }
            | Self::Lfs { .. }
            | Self::NotText { .. }
            | Self::Settings { .. } => ErrorClass::Permanent,
        }
    }
}

impl From<GitLabError> for StepError {
    fn from(error: GitLabError) -> Self {
        let step = Self::new(error.class(), format!("settings were not pulled: {error}"));
        match error {
            GitLabError::Status { retry_after: Some(delay), .. } => step.with_retry_after(delay),
            _ => step,
        }
    }
}

/// C12: what GitLab answers when it is busy or broken for a moment.
fn retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

fn meaning(status: StatusCode, token: Option<&str>) -> String {
    let text = match (status.as_u16(), token) {
        (401, None) => {
            ": it asks for a login; the operator gives the engine a token for this host and tenant (`gitlab.tokens`), or the project is made public"
        }
        (401, Some(token)) => {
            return format!(
                ": it does not accept the token `{token}`: it has expired, or was revoked; the operator renews it"
            );
        }
        (403, None) => {
            ": it refuses; the operator gives the engine a token for this host and tenant (`gitlab.tokens`), or the project is made public"
        }
        (403, Some(token)) => {
            return format!(
                ": it refuses the token `{token}`: it needs the scope read_api or read_repository, and this address may be banned for an hour after failed logins"
            );
        }
        // GitLab answers the same for both, so that nobody learns which private projects there are.
        (404, None) => {
            ": the file is absent, or its project is private; check the path and the branch, and that the project is public or the operator has given the engine a token for it"
        }
        (404, Some(token)) => {
            return format!(
                ": the file is absent, or the token `{token}` may not see its project (a deploy token may not, whatever its scope); check the path, the branch and the token's project"
            );
        }
        (429, _) => ": it is asked too often and wants to be left alone for a while",
        _ if retryable(status) => ": it is out of order for the moment",
        _ => "",
    };
    text.to_owned()
}

/// reqwest says "error sending request", and why only in its sources.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
