//! A small GitLab on loopback: one project, one branch, a route for each misdeed.

use std::sync::Mutex;

use super::*;
use crate::gitlab::{Token, TokenKind, TokenSource};

const COMMIT: &str = "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd";
const VALUE: &str = "glpat-not-to-be-seen";
const FILES: &str = "/api/v4/projects/acme%2Fsearch-config/repository/files";

/// What it does besides what it should.
#[derive(Clone, Copy, PartialEq)]
enum Misdeed {
    None,
    /// Only whoever has the token sees the project.
    Private,
    /// The bytes are not those of the digest.
    OtherBytes,
    /// The file is announced with ten megabytes.
    Huge,
    /// The file is a pointer into LFS.
    Lfs,
    /// Asked too often, and says until when, or does not.
    Busy(Option<u64>),
    /// It has no API: only the pages.
    NoApi,
}

struct GitLabOnLoopback {
    host: Played,
    heard: Arc<Mutex<Vec<String>>>,
}

async fn gitlab(misdeed: Misdeed) -> GitLabOnLoopback {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let host = play_requests(move |head| {
        log.lock().expect("no panic holds it").push(head.to_owned());
        answer(misdeed, head)
    })
    .await;
    GitLabOnLoopback { host, heard }
}

fn answer(misdeed: Misdeed, heard: &str) -> Option<Vec<u8>> {
    let mut words = heard.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let lower = heard.to_ascii_lowercase();
    let known =
        lower.contains(&format!("private-token: {VALUE}")) || lower.contains(&format!("authorization: bearer {VALUE}"));
    if lower.contains("token: wrong") {
        return head("401 Unauthorized");
    }
    if !target.starts_with("/api/") {
        return match misdeed {
            Misdeed::NoApi => ok(GOOD),
            _ => head("302 Found\r\nlocation: /users/sign_in"),
        };
    }
    if misdeed == Misdeed::NoApi || misdeed == Misdeed::Private && !known {
        return head("404 Not Found");
    }
    if let Misdeed::Busy(seconds) = misdeed {
        let after = seconds.map(|seconds| format!("\r\nretry-after: {seconds}")).unwrap_or_default();
        return head(&format!("429 Too Many Requests{after}"));
    }
    let content =
        if misdeed == Misdeed::Lfs { "version https://git-lfs.github.com/spec/v1\noid sha256:00\n" } else { GOOD };
    let digest = crate::settings::hex(&Sha256::digest(content.as_bytes()));
    let size = if misdeed == Misdeed::Huge { 10 << 20 } else { content.len() };
    // The branch is `feature/x`; after its commit was told, it has moved on, and only the commit still has the file.
    let file = format!("{FILES}/es%2Fsettings.yml");
    if method == "HEAD" && target == format!("{file}?ref=feature%2Fx") {
        return head(&format!(
            "200 OK\r\nx-gitlab-commit-id: {COMMIT}\r\nx-gitlab-content-sha256: {digest}\r\nx-gitlab-size: {size}"
        ));
    }
    if method == "GET" && target == format!("{file}/raw?ref={COMMIT}") {
        return if misdeed == Misdeed::OtherBytes { ok("search.max_buckets: 1\n") } else { ok(content) };
    }
    head("404 Not Found")
}

impl GitLabOnLoopback {
    fn url(&self) -> String {
        self.host.url("/acme/search-config/-/raw/feature/x/es/settings.yml")
    }

    fn with_token(&self, tenants: &[&str], value: &str) -> (GitLab, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{value}\n")).expect("written");
        let client = self.host.client();
        let rules = GitLabRules::clone(&client.rules());
        let token = Token {
            name: "acme-config".to_owned(),
            host: rules.hosts[0].clone(),
            tenants: tenants.iter().map(|tenant| (*tenant).to_owned()).collect(),
            kind: TokenKind::Private,
            source: TokenSource::File(path),
        };
        client.set_rules(GitLabRules { tokens: vec![token], ..rules });
        (client, dir)
    }

    async fn refusal(&self) -> GitLabError {
        self.host.client().pull(&self.url(), "acme").await.expect_err("a refusal")
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic holds it").clone()
    }
}

/// The branch moves between the two requests, and what is pulled is what its commit was.
#[tokio::test]
async fn a_ref_is_resolved_to_a_commit_and_the_file_is_that_of_the_commit() {
    let gitlab = gitlab(Misdeed::None).await;
    let pulled = gitlab.host.client().pull(&gitlab.url(), "acme").await.expect("pulled");
    assert_eq!(pulled.content, GOOD);
    assert_eq!(pulled.reference.as_deref(), Some("feature/x"));
    assert_eq!(pulled.commit.as_deref(), Some(COMMIT));
    assert!(pulled.url.ends_with(&format!("es%2Fsettings.yml/raw?ref={COMMIT}")), "{}", pulled.url);
    let first: Vec<String> =
        gitlab.heard().iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect();
    assert_eq!(first.len(), 3, "a ref of one part, of two, and the content: {first:#?}");
}

#[tokio::test]
async fn a_token_is_used_for_its_tenants_and_its_value_is_in_no_answer() {
    let gitlab = gitlab(Misdeed::Private).await;
    let (client, _dir) = gitlab.with_token(&["acme"], VALUE);
    let pulled = client.pull(&gitlab.url(), "acme").await.expect("pulled");
    assert_eq!(pulled.token.as_deref(), Some("acme-config"));
    let told = format!("{} {client:?}", serde_json::to_string(&pulled).expect("JSON"));
    assert!(!told.contains(VALUE), "{told}");
    // Another tenant gets what it would get without any token.
    let before = gitlab.heard().len();
    let error = client.pull(&gitlab.url(), "other").await.expect_err("private");
    assert!(matches!(error, GitLabError::Html { .. }), "{error}");
    assert!(gitlab.heard()[before..].iter().all(|head| !head.contains(VALUE)));
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_told_by_its_name() {
    let gitlab = gitlab(Misdeed::None).await;
    let (client, dir) = gitlab.with_token(&["*"], "wrong");
    let error = client.pull(&gitlab.url(), "acme").await.expect_err("not accepted");
    assert!(error.to_string().contains("does not accept the token `acme-config`"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let mut absent = GitLabRules::clone(&client.rules());
    absent.tokens[0].source = TokenSource::File(dir.path().join("nowhere"));
    client.set_rules(absent);
    let error = client.pull(&gitlab.url(), "acme").await.expect_err("no value");
    assert!(error.to_string().contains("the token `acme-config` cannot be read from the file"), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    // The right token, and no such file: both are named.
    let (client, _dir) = gitlab.with_token(&["*"], VALUE);
    let error =
        client.pull(&gitlab.host.url("/acme/search-config/-/raw/main/nope.yml"), "acme").await.expect_err("absent");
    assert!(error.to_string().contains("absent, or the token `acme-config` may not see its project"), "{error}");
    assert_eq!(error.class(), ErrorClass::Permanent);
}

#[tokio::test]
async fn a_token_goes_to_no_other_host_not_even_after_a_redirect() {
    let other = gitlab(Misdeed::None).await;
    let elsewhere = other.url();
    let gitlab = gitlab(Misdeed::None).await;
    let (client, _dir) = gitlab.with_token(&["*"], VALUE);
    // The token is for the first host; the second is allowed too, and gets none.
    let mut rules = GitLabRules::clone(&client.rules());
    rules.hosts.push(AllowedHost::parse(&other.host.address.to_string()).expect("a host").private());
    client.set_rules(rules);
    client.pull(&elsewhere, "acme").await.expect("public");
    assert!(other.heard().iter().all(|head| !head.contains(VALUE)));
    let redirecting = play(move |_| head(&format!("302 x\r\nlocation: {elsewhere}"))).await;
    let heard = other.heard().len();
    let mut rules = GitLabRules::clone(&client.rules());
    let host = AllowedHost::parse(&redirecting.address.to_string()).expect("a host").private();
    rules.hosts.push(host.clone());
    rules.tokens[0].host = host;
    client.set_rules(rules);
    let error =
        client.pull(&redirecting.url("/acme/search-config/-/raw/main/a.yml"), "acme").await.expect_err("elsewhere");
    assert!(matches!(error, GitLabError::Elsewhere { .. }), "{error}");
    assert_eq!(other.heard().len(), heard, "it was not asked");
}

#[tokio::test]
async fn each_misdeed_has_its_words() {
    for (misdeed, words, class) in [
        (Misdeed::Private, "absent, or its project is private", ErrorClass::Permanent),
        (Misdeed::OtherBytes, "the SHA-256 is another", ErrorClass::Transient),
        (Misdeed::Huge, "more than", ErrorClass::Permanent),
        (Misdeed::Lfs, "Git LFS", ErrorClass::Permanent),
        (Misdeed::Busy(None), "asked too often", ErrorClass::Transient),
        (Misdeed::Busy(Some(9)), "asked too often", ErrorClass::Transient),
    ] {
        let gitlab = gitlab(misdeed).await;
        let error = gitlab.refusal().await;
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.class(), class, "{error}");
        let step: cairn_engine::StepError = error.into();
        let asked = if let Misdeed::Busy(seconds) = misdeed { seconds } else { None };
        assert_eq!(step.retry_after, asked.map(Duration::from_secs), "{step}");
    }
}

#[tokio::test]
async fn a_host_that_is_no_gitlab_serves_its_file_without_a_commit() {
    let gitlab = gitlab(Misdeed::NoApi).await;
    let pulled = gitlab.host.client().pull(&gitlab.url(), "acme").await.expect("pulled");
    assert_eq!((pulled.content.as_str(), pulled.commit), (GOOD, None));
}
