//! Who asks, and what he may see: bearer tokens, each for one tenant or for an operator.
//!
//! - The file of `--tokens` holds SHA-256 hashes, never a token: reading it gives nobody access. What is sent is hashed, and
//!   compared with every entry in constant time.
//! - A token is never logged, never in an error and never in an answer; its name is, in the log of changes and in the journal.
//! - A tenant sees only its own, and what is another's looks like what is not there (I23). An operator sees everything.
//! - Without a file everybody who reaches the port is the operator; that is why it is then on loopback only.

use std::{fmt, os::unix::fs::PermissionsExt as _, path::Path};

use axum::extract::FromRequestParts;
use cairn_engine::{Tenant, Who};
use cairn_steps::names;
use http::{HeaderMap, header, request::Parts};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::problem::Problem;

/// What a token begins with, so that one that lies about is known for what it is.
const PREFIX: &str = "cairn_";
/// The longest name of a token.
const NAME_CHARS_MAX: usize = 63;

/// Somebody who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    name: String,
    /// The only tenant whose things there are for this caller; `None` for an operator.
    only: Option<Tenant>,
}

impl Caller {
    /// Whoever reaches the port, where nobody has to say who he is.
    pub(crate) fn local() -> Self {
        Self { name: "local".to_owned(), only: None }
    }

    /// His name, for the journal.
    pub(crate) fn who(&self) -> Who {
        Who::new(&self.name)
    }

    /// His name, for the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether what is this tenant's is there for him.
    pub(crate) fn sees(&self, tenant: &Tenant) -> bool {
        self.only.as_ref().is_none_or(|only| only == tenant)
    }

    /// Whom a list is about that was asked for with this filter: `Ok(None)` for everybody.
    ///
    /// # Errors
    /// [`Unseen`] if that is nobody whom he may see: the list is empty.
    pub(crate) fn narrow(&self, asked: Option<Tenant>) -> Result<Option<Tenant>, Unseen> {
        match (asked, &self.only) {
            (asked, None) => Ok(asked),
            (None, Some(only)) => Ok(Some(only.clone())),
            (Some(asked), Some(only)) if asked == *only => Ok(Some(asked)),
            (Some(_), Some(_)) => Err(Unseen),
        }
    }

    /// Refuses who is no operator.
    ///
    /// # Errors
    /// [`Problem`] that says so; it is the same whatever there is.
    pub(crate) fn must_be_operator(&self) -> Result<(), Problem> {
        if self.only.is_none() { Ok(()) } else { Err(Problem::operators_only()) }
    }

    /// Refuses who asks for a cluster of another tenant.
    ///
    /// # Errors
    /// [`Problem`] that names his own tenant.
    pub(crate) fn must_be(&self, tenant: &Tenant) -> Result<(), Problem> {
        match &self.only {
            Some(only) if only != tenant => Err(Problem::other_tenant(only.as_str())),
            _ => Ok(()),
        }
    }
}

/// Nothing of what was asked for is there for this caller.
#[derive(Debug)]
pub(crate) struct Unseen;

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Whoever adds a route outside the layer that finds this out gets nothing, and not everything.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthenticated)
    }
}

/// The tokens that are accepted.
#[derive(Clone)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    caller: Caller,
    sha256: [u8; 32],
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    user: Option<String>,
    role: Option<String>,
    sha256: String,
}

impl Tokens {
    /// The tokens of this file.
    ///
    /// # Errors
    /// One line for each mistake. None quotes the file: somebody may have put a token there.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<String>> {
        let shown = path.display();
        let metadata = std::fs::metadata(path).map_err(|error| vec![format!("tokens: {shown}: {error}")])?;
        if metadata.permissions().mode() & 0o002 != 0 {
            let way_out = format!("chmod o-w {shown}");
            return Err(vec![format!(
                "tokens: {shown} can be written by everybody, who could let himself in: {way_out}"
            )]);
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| vec![format!("tokens: {shown} cannot be read: {error}")])?;
        Self::parse(&text)
            .map_err(|errors| errors.into_iter().map(|error| format!("tokens: {shown}: {error}")).collect())
    }

    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            vec![format!("{place}it is no list of [[token]] with name, sha256, and user or role = \"operator\"")]
        })?;
        let mut errors = Vec::new();
        let mut tokens: Vec<Token> = Vec::new();
        for (place, entry) in file.token.iter().enumerate() {
            match entry.read() {
                Ok(token) if tokens.iter().any(|known| known.caller.name == token.caller.name) => {
                    errors.push(format!("token {}: another one is called {} too", place + 1, token.caller.name));
                }
                Ok(token) if tokens.iter().any(|known| known.sha256 == token.sha256) => {
                    errors.push(format!("token {}: another one has the same sha256", place + 1));
                }
                Ok(token) => tokens.push(token),
                Err(error) => errors.push(format!("token {}: {error}", place + 1)),
            }
        }
        if file.token.is_empty() {
            errors.push("it holds no token: `cairn token --user NAME` makes one".to_owned());
        }
        if errors.is_empty() { Ok(Self(tokens)) } else { Err(errors) }
    }

    /// Whose the token of this request is.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let (value, None) = (sent.next()?, sent.next()) else { return None };
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let hash = sha256(token.trim());
        // Every entry is looked at, and each to its end: how long it takes tells nothing.
        let (mut found, mut place) = (Choice::from(0), 0_u64);
        for (at, known) in (0_u64..).zip(&self.0) {
            let same = known.sha256.ct_eq(&hash);
            place.conditional_assign(&at, same);
            found |= same;
        }
        let token = usize::try_from(place).ok().and_then(|place| self.0.get(place))?;
        bool::from(found).then(|| token.caller.clone())
    }
}

impl Entry {
    fn read(&self) -> Result<Token, String> {
        let named = |character: char| character.is_ascii_alphanumeric() || "-_.@".contains(character);
        if self.name.is_empty() || self.name.len() > NAME_CHARS_MAX || !self.name.chars().all(named) {
            return Err(format!("name: 1 to {NAME_CHARS_MAX} of letters, digits and -_.@"));
        }
        let only = match (&self.user, self.role.as_deref()) {
            (Some(user), None | Some("tenant")) => {
                let user = names::Tenant::parse(user).map_err(|error| format!("user: {error}"))?;
                Some(Tenant::new(user.as_str()))
            }
            (None, Some("operator")) => None,
            (Some(_), Some("operator")) => return Err("user: an operator is of no tenant; leave it out".to_owned()),
            (None, None | Some("tenant")) => {
                return Err("user: name the tenant, or say role = \"operator\"".to_owned());
            }
            (_, Some(_)) => return Err("role: is \"tenant\" or \"operator\"".to_owned()),
        };
        let sha256 = read_hex(&self.sha256).ok_or("sha256: is 64 hexadecimal digits, as `cairn token` prints them")?;
        Ok(Token { caller: Caller { name: self.name.clone(), only }, sha256 })
    }
}

/// A new token, and its entry for the file. The token itself is in nothing but this answer.
pub(crate) fn issue(name: &str, user: Option<&str>) -> Result<(String, String), String> {
    let secret: [u8; 32] = rand::random();
    let token = format!("{PREFIX}{}", hex(&secret));
    let whose = match user {
        Some(user) => format!("user = \"{user}\""),
        None => "role = \"operator\"".to_owned(),
    };
    let entry = format!("[[token]]\nname = \"{name}\"\n{whose}\nsha256 = \"{}\"\n", hex(&sha256(&token)));
    Tokens::parse(&entry).map_err(|errors| errors.join("\n"))?;
    Ok((token, entry))
}

fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).expect("visible"));
        headers
    }

    #[test]
    fn a_token_lets_in_whom_its_entry_names_and_nothing_else_does() {
        let (acme, first) = issue("acme-ci", Some("acme")).expect("good names");
        let (ops, second) = issue("ops", None).expect("a good name");
        let tokens = Tokens::parse(&format!("{first}{second}")).expect("two entries");
        let caller = |value: &str| tokens.caller(&headers(value));
        let tenant = caller(&format!("Bearer {acme}")).expect("let in");
        assert_eq!(
            (tenant.name(), tenant.sees(&"acme".into()), tenant.sees(&"other".into())),
            ("acme-ci", true, false)
        );
        let operator = caller(&format!("bearer {ops}")).expect("let in");
        assert!(operator.sees(&"other".into()) && operator.must_be_operator().is_ok());
        let hash = first.split('"').nth(5).expect("the hash");
        for wrong in [&acme[..acme.len() - 1], "", &format!("{acme}0"), hash] {
            assert_eq!(caller(&format!("Bearer {wrong}")), None, "{wrong}");
        }
        assert_eq!(caller(&format!("Basic {acme}")), None);
        let mut twice = headers(&format!("Bearer {acme}"));
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(tokens.caller(&twice), None);
    }

    #[test]
    fn every_mistake_in_the_file_is_named_and_nothing_in_it_is_quoted() {
        let good = issue("a", None).expect("a good name").1;
        for (text, words) in [
            ("", "no token"),
            ("[[token]]\nname = \"a\"\ntoken = \"cairn_secret\"\nsha256 = \"\"", "line"),
            ("[[token]]\nname = \"a\"\nrole = \"operator\"\nsha256 = \"cairn_secret\"", "token 1: sha256"),
            ("[[token]]\nname = \"a b\"\nrole = \"operator\"\nsha256 = \"\"", "token 1: name"),
            ("[[token]]\nname = \"a\"\nuser = \"A\"\nsha256 = \"\"", "token 1: user"),
            ("[[token]]\nname = \"a\"\nsha256 = \"\"", "token 1: user: name the tenant"),
            ("[[token]]\nname = \"a\"\nrole = \"king\"\nsha256 = \"\"", "token 1: role"),
            (&format!("{good}{good}"), "token 2: another one is called a"),
        ] {
            let errors = Tokens::parse(text).expect_err(text).join("\n");
            assert!(errors.contains(words), "{words} in {errors}");
            assert!(!errors.contains("cairn_secret"), "{errors}");
        }
    }

    #[test]
    fn a_file_that_everybody_can_write_is_refused_with_the_way_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens.toml");
        std::fs::write(&path, issue("ops", None).expect("a good name").1).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).expect("ours");
        assert!(Tokens::read(&path).expect_err("refused").join("").contains("chmod o-w"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).expect("ours");
        assert_eq!(format!("{:?}", Tokens::read(&path).expect("good")), "1 tokens");
    }
}
