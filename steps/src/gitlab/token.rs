//! Tokens for private projects: named in the settings, read where the operator keeps them, at the time of a pull.
//!
//! - A request never carries one, and cannot ask for one by name: the host and the tenant decide which is used.
//! - A value goes to the host that it is for, in a header that is marked as sensitive, and nowhere else: no journal, no log, no message
//!   has it (I32). What is told is the token's name.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use url::Url;

use super::AllowedHost;

/// A token: what it is called, for whom and for which host it is, where its value lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What messages call it.
    pub name: String,
    /// The host that it is sent to, and no other.
    pub host: AllowedHost,
    /// The tenants whose pulls use it; `*` for all.
    pub tenants: Vec<String>,
    /// How it is sent.
    pub kind: TokenKind,
    /// Where its value is.
    pub source: TokenSource,
}

/// How a token is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// `PRIVATE-TOKEN`: personal, project and group access tokens.
    #[default]
    Private,
    /// `Authorization: Bearer`: OAuth tokens.
    Bearer,
}

/// Where a token's value lies. It is read at each pull, so that a new one is used at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// A file with nothing else in it.
    File(PathBuf),
    /// A variable of the engine's environment.
    Variable(String),
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

impl Token {
    pub(super) fn is_for(&self, tenant: &str, url: &Url) -> bool {
        self.host.covers(url) && self.tenants.iter().any(|name| name == "*" || name == tenant)
    }

    /// The header that carries it.
    ///
    /// # Errors
    /// Why its value cannot be had, without the value.
    pub(super) fn header(&self) -> Result<(HeaderName, HeaderValue), String> {
        let value = match &self.source {
            TokenSource::File(path) => std::fs::read_to_string(path).map_err(|error| error.to_string())?,
            TokenSource::Variable(name) => std::env::var(name).map_err(|error| error.to_string())?,
        };
        let value = value.trim();
        if value.is_empty() {
            return Err("it is empty".to_owned());
        }
        let (name, text) = match self.kind {
            TokenKind::Private => (HeaderName::from_static("private-token"), value.to_owned()),
            TokenKind::Bearer => (AUTHORIZATION, format!("Bearer {value}")),
        };
        let mut header = HeaderValue::from_str(&text).map_err(|_| "it has characters that no token has".to_owned())?;
        header.set_sensitive(true);
        Ok((name, header))
    }
}
