//! The GitLab client: one file of settings, pulled over HTTPS from a host that the operator allows.
//!
//! The URL is a tenant's input, so it is held against everything that such a URL can be made to do (C12):
//! - only hosts on the allow-list are asked, and none is on it from the start;
//! - a name is resolved here, an address inside is refused, and the connection goes to the very address that was checked;
//! - redirects are followed on the same host only, three at most, each checked like the first;
//! - size and time are bounded, no proxy and no cookie of this machine is used, and nothing is unpacked;
//! - what comes back must be a mapping of settings that may be set (see [`crate::settings`]).
//!
//! A file of a project is pulled by commit: the API resolves the ref first, the content is that of the commit, and commit and digest are
//! in the step's output. A file behind any other URL of an allowed host is pulled as it is, and the output says that no commit is known.
//! Either way a resume uses the same bytes.

mod error;
mod place;
mod token;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

pub use self::error::GitLabError;
use self::place::{File, Place};
pub use self::token::{Token, TokenKind, TokenSource};
use crate::addresses;
use crate::request::RequestRules;
use crate::settings::Settings;

/// The largest file. Escaped as JSON it must still fit into a journaled value of 256 KiB.
pub const CONTENT_BYTES_MAX: usize = 120 * 1024;
/// The most redirects that are followed: moved projects need one or two.
const REDIRECTS_MAX: usize = 3;

/// A host that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    host: String,
    port: Option<u16>,
    private: bool,
}

impl AllowedHost {
    /// Reads `HOST` or `HOST:PORT`. Without a port, only the usual one of the scheme is allowed.
    ///
    /// # Errors
    /// [`url::ParseError`] if that is no host.
    pub fn parse(text: &str) -> Result<Self, url::ParseError> {
        let url = Url::parse(&format!("https://{text}/"))?;
        let host = url.host_str().ok_or(url::ParseError::EmptyHost)?.to_owned();
        // A path, a user or a query in the text would be dropped in silence.
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !plain || url.password().is_some() {
            return Err(url::ParseError::InvalidDomainCharacter);
        }
        // 443 is the usual port, and `url` leaves it out; whoever writes it means just that.
        let port = url.port().or_else(|| text.ends_with(":443").then_some(443));
        Ok(Self { host, port, private: false })
    }

    /// The same host, also where its address lies inside: a GitLab on the operator's own network.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// The host, and the port that is asked there.
    #[must_use]
    pub fn address(&self, allow_http: bool) -> (&str, u16) {
        (&self.host, self.port.unwrap_or(if allow_http { 80 } else { 443 }))
    }

    /// Whether its address may lie inside.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    fn covers(&self, url: &Url) -> bool {
        let usual = if url.scheme() == "http" { 80 } else { 443 };
        url.host_str() == Some(self.host.as_str()) && url.port_or_known_default() == Some(self.port.unwrap_or(usual))
    }
}

/// What the operator allows, and how long a pull may take.
#[derive(Debug, Clone)]
pub struct GitLabRules {
    /// The hosts that may be asked. None: every pull is refused, and the message says how to allow a host.
    pub hosts: Vec<AllowedHost>,
    /// Whether plain `http` will do.
    pub allow_http: bool,
    /// The time of one pull, with its redirects, from the first byte to the last.
    pub time_max: Duration,
    /// Tokens for private projects.
    pub tokens: Vec<Token>,
}

impl Default for GitLabRules {
    fn default() -> Self {
        Self { hosts: Vec::new(), allow_http: false, time_max: Duration::from_secs(20), tokens: Vec::new() }
    }
}

impl GitLabRules {
    /// What a request's `gitlab_url` may look like under these rules.
    #[must_use]
    pub fn request_rules(&self) -> RequestRules {
        RequestRules {
            allow_http: self.allow_http,
            allow_private: self.hosts.iter().any(|host| host.private),
            ..RequestRules::default()
        }
    }
}

/// A file of settings, as it was pulled: the output of the step `gitlab_pulled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Where it came from in the end, redirects followed.
    pub url: String,
    /// The ref that was asked for, where the file is one of a GitLab project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The commit that the ref was at, and whose file this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The name of the token that was used, if one was: never its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The SHA-256 of the content, in hexadecimal digits.
    pub sha256: String,
    /// The length of the content.
    pub bytes: usize,
    /// The keys that it sets.
    pub keys: Vec<String>,
    /// The content itself: what a resume uses.
    pub content: String,
}

/// The client. Cheap: connections are not kept, because each goes to an address that was checked for it. Clones share
/// their rules.
#[derive(Debug, Clone)]
pub struct GitLab {
    rules: Arc<RwLock<Arc<GitLabRules>>>,
}

impl GitLab {
    /// The client that keeps to these rules.
    #[must_use]
    pub fn new(rules: GitLabRules) -> Self {
        // `reqwest` panics without a TLS provider. The program installs one; where it has not, this is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { rules: Arc::new(RwLock::new(Arc::new(rules))) }
    }

    /// The rules in force now.
    #[must_use]
    pub fn rules(&self) -> Arc<GitLabRules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on these rules are in force, for every clone. A pull under way ends under the new ones.
    pub fn set_rules(&self, rules: GitLabRules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Checks, without asking anybody, that this URL may be pulled.
    ///
    /// # Errors
    /// [`GitLabError`]: not on the allow-list, or not of an allowed scheme.
    pub fn permits(&self, url: &str) -> Result<(), GitLabError> {
        allowed(&self.rules(), &parse(url)?).map(|_| ())
    }

    /// Pulls the file behind this URL, for this tenant.
    ///
    /// # Errors
    /// [`GitLabError`], each with its class: only what the host may cure by itself is worth another attempt.
    pub async fn pull(&self, url: &str, tenant: &str) -> Result<Pulled, GitLabError> {
        let limit = self.rules().time_max;
        let pulled = tokio::time::timeout(limit, self.pull_at_leisure(url, tenant)).await;
        pulled.unwrap_or_else(|_| Err(GitLabError::Timeout { url: url.to_owned(), limit }))
    }

    async fn pull_at_leisure(&self, url: &str, tenant: &str) -> Result<Pulled, GitLabError> {
        let at = parse(url)?;
        let rules = self.rules();
        allowed(&rules, &at)?;
        let token = rules.tokens.iter().find(|token| token.is_for(tenant, &at));
        let named = token.map(|token| token.name.clone());
        let Some(place) = Place::of(&at) else { return self.plain(at).await };
        let Some((file, metadata)) = self.resolve(&place, token).await? else {
            // No right to the project, no such file, or a host without the API: its page says which, as far as it says.
            return match named {
                Some(_) => Err(GitLabError::status(&at, StatusCode::NOT_FOUND, None, named)),
                None => self.plain(at).await,
            };
        };
        let from = parse(&file.content(&metadata.commit))?;
        let (from, response) = self.follow(Method::GET, from, token).await?;
        let content = content(&from, response, named.clone()).await?;
        let digest = crate::settings::hex(&Sha256::digest(content.as_bytes()));
        if metadata.sha256.is_some_and(|announced| !announced.eq_ignore_ascii_case(&digest)) {
            return Err(GitLabError::Changed { url: from.to_string() });
        }
        let (reference, commit) = (Some(file.reference), Some(metadata.commit));
        Ok(Pulled { reference, commit, token: named, ..checked(&from, content)? })
    }

    /// The file as its URL has it now: no commit is known.
    async fn plain(&self, url: Url) -> Result<Pulled, GitLabError> {
        let (from, response) = self.follow(Method::GET, url, None).await?;
        let content = content(&from, response, None).await?;
        checked(&from, content)
    }

    /// Which file it is, and the commit that its ref is at now; `None` if the API knows no such file.
    async fn resolve(&self, place: &Place, token: Option<&Token>) -> Result<Option<(File, Metadata)>, GitLabError> {
        for file in place.files() {
            let (at, response) = self.follow(Method::HEAD, parse(&file.metadata())?, token).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => continue,
                status => {
                    let named = token.map(|token| token.name.clone());
                    return Err(GitLabError::status(&at, status, retry_after(&response), named));
                }
            }
            // A host that answers everything with a page has no such header.
            let Some(metadata) = Metadata::of(response.headers()) else { return Ok(None) };
            if metadata.bytes.is_some_and(|bytes| bytes > CONTENT_BYTES_MAX) {
                return Err(GitLabError::TooLarge { url: at.to_string(), most: CONTENT_BYTES_MAX });
            }
            return Ok(Some((file, metadata)));
        }
        Ok(None)
    }

    async fn follow(&self, method: Method, url: Url, token: Option<&Token>) -> Result<(Url, Response), GitLabError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.ask(&method, &at, token).await?;
            if !response.status().is_redirection() {
                return Ok((at, response));
            }
            at = next(&at, &response)?;
        }
        Err(GitLabError::Redirects { url: url.to_string(), most: REDIRECTS_MAX })
    }

    /// One request to one checked address.
    async fn ask(&self, method: &Method, url: &Url, token: Option<&Token>) -> Result<Response, GitLabError> {
        let rules = self.rules();
        let host = allowed(&rules, url)?;
        let addresses = resolve(url).await?;
        if !host.private
            && let Some(inside) = addresses.iter().find(|address| addresses::is_inside(address.ip()))
        {
            return Err(GitLabError::Inside { url: url.to_string(), address: inside.ip() });
        }
        let transport =
            |error: reqwest::Error| GitLabError::Transport { url: url.to_string(), error: error.without_url() };
        let client = Client::builder()
            // The checked addresses and no others: a name that is resolved again may say something else (rebinding).
            .resolve_to_addrs(url.host_str().unwrap_or_default(), &addresses)
            // Redirects are followed by hand, each checked; retries are the engine's; a proxy would see the inside.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .https_only(!rules.allow_http)
            .pool_max_idle_per_host(0)
            .connect_timeout(rules.time_max)
            .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(transport)?;
        let mut request = client
            .request(method.clone(), url.clone())
            .header(header::ACCEPT, "text/plain, application/yaml, */*;q=0.1");
        // Looked at once more at the very request: a token goes to its own host and no other.
        if let Some(token) = token.filter(|token| token.host.covers(url)) {
            let unreadable = |why| GitLabError::Token { name: token.name.clone(), at: token.source.to_string(), why };
            let (name, value) = token.header().map_err(unreadable)?;
            request = request.header(name, value);
        }
        request.send().await.map_err(transport)
    }
}

/// What the API says of a file without sending it.
struct Metadata {
    commit: String,
    sha256: Option<String>,
    bytes: Option<usize>,
}

impl Metadata {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_hash =
            |text: &String| matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some(Self {
            commit: text("x-gitlab-commit-id").filter(is_hash)?,
            sha256: text("x-gitlab-content-sha256"),
            bytes: text("x-gitlab-size").and_then(|size| size.parse().ok()),
        })
    }
}

fn parse(url: &str) -> Result<Url, GitLabError> {
    Url::parse(url).map_err(|error| GitLabError::Url { url: url.to_owned(), error })
}

/// The text of an answer, if it is a file and not too long.
async fn content(url: &Url, mut response: Response, token: Option<String>) -> Result<String, GitLabError> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(GitLabError::status(url, status, retry_after(&response), token));
    }
    let too_large = || GitLabError::TooLarge { url: url.to_string(), most: CONTENT_BYTES_MAX };
    let announced = response.content_length().unwrap_or(0);
    if announced > CONTENT_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let html = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| GitLabError::Transport { url: url.to_string(), error: error.without_url() })?
    {
        if bytes.len() + chunk.len() > CONTENT_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    let content = String::from_utf8(bytes).map_err(|_| GitLabError::NotText { url: url.to_string() })?;
    if html || looks_like_html(&content) {
        return Err(GitLabError::Html { url: url.to_string() });
    }
    if content.starts_with("version https://git-lfs") {
        return Err(GitLabError::Lfs { url: url.to_string() });
    }
    Ok(content)
}

/// The content as settings that may be set.
fn checked(url: &Url, content: String) -> Result<Pulled, GitLabError> {
    let settings = Settings::parse(&content).map_err(|error| GitLabError::Settings { url: url.to_string(), error })?;
    Ok(Pulled {
        url: url.to_string(),
        reference: None,
        commit: None,
        token: None,
        sha256: crate::settings::hex(&Sha256::digest(content.as_bytes())),
        bytes: content.len(),
        keys: settings.keys().into_iter().map(str::to_owned).collect(),
        content,
    })
}

fn allowed<'a>(rules: &'a GitLabRules, url: &Url) -> Result<&'a AllowedHost, GitLabError> {
    if url.scheme() != "https" && !(url.scheme() == "http" && rules.allow_http) {
        return Err(GitLabError::Scheme { url: url.to_string() });
    }
    rules
        .hosts
        .iter()
        .find(|host| host.covers(url))
        .ok_or_else(|| GitLabError::NotAllowed { host: authority(url), none: rules.hosts.is_empty() })
}

/// Where a redirect leads, if it stays on the same host.
fn next(at: &Url, response: &Response) -> Result<Url, GitLabError> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let to = location.and_then(|location| at.join(location).ok());
    let Some(to) = to else {
        return Err(GitLabError::status(at, response.status(), None, None));
    };
    // GitLab sends whoever may not see a project to its login page: the same answer as for one that is not there.
    if to.path().ends_with("/users/sign_in") {
        return Err(GitLabError::Html { url: at.to_string() });
    }
    if (to.scheme(), to.host_str(), to.port_or_known_default())
        != (at.scheme(), at.host_str(), at.port_or_known_default())
    {
        return Err(GitLabError::Elsewhere { url: at.to_string(), host: authority(&to) });
    }
    Ok(to)
}

async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, GitLabError> {
    let port = url.port_or_known_default().unwrap_or(443);
    let name = match url.host() {
        Some(Host::Ipv4(address)) => return Ok(vec![(IpAddr::V4(address), port).into()]),
        Some(Host::Ipv6(address)) => return Ok(vec![(IpAddr::V6(address), port).into()]),
        Some(Host::Domain(name)) => name.to_owned(),
        None => String::new(),
    };
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|error| GitLabError::Resolve { host: name.clone(), error: Some(error) })?.collect();
    if addresses.is_empty() { Err(GitLabError::Resolve { host: name, error: None }) } else { Ok(addresses) }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn looks_like_html(content: &str) -> bool {
    let start: String = content.trim_start().chars().take(15).collect::<String>().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// How long the host asks to be left alone: seconds, or a date, which is held against the host's own clock.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let asked = text(header::RETRY_AFTER)?.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let now = httpdate::parse_http_date(text(header::DATE)?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
