//! Hostile and broken hosts, played on loopback.

mod api;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_engine::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const GOOD: &str = "search.max_buckets: 20000\nindices:\n  recovery.max_bytes_per_sec: 50mb\n";

/// A host on loopback that answers each request by its path.
struct Played {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

async fn play(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Played {
    play_requests(move |head| answer(head.split(' ').nth(1).unwrap_or_default())).await
}

/// The same, by the whole head of a request.
async fn play_requests(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Played {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                match answer(&head) {
                    // Whoever reads no further breaks the connection, and that is fine.
                    Some(bytes) => drop(socket.write_all(&bytes).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    Played { address, asked }
}

fn ok(body: &str) -> Option<Vec<u8>> {
    Some(
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

fn head(text: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 {text}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
}

impl Played {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn client(&self) -> GitLab {
        let host = AllowedHost::parse(&self.address.to_string()).expect("a host").private();
        GitLab::new(GitLabRules {
            hosts: vec![host],
            allow_http: true,
            time_max: Duration::from_secs(10),
            ..GitLabRules::default()
        })
    }

    async fn refusal(&self, path: &str) -> GitLabError {
        self.client().pull(&self.url(path), "acme").await.expect_err("a refusal")
    }
}

#[tokio::test]
async fn a_good_file_is_pulled_with_its_digest() {
    let host = play(|_| ok(GOOD)).await;
    let pulled = host.client().pull(&host.url("/a.yml"), "acme").await.expect("pulled");
    assert_eq!(pulled.content, GOOD);
    assert_eq!(pulled.bytes, GOOD.len());
    assert_eq!(pulled.sha256.len(), 64);
    assert_eq!(pulled.keys, ["indices.recovery.max_bytes_per_sec", "search.max_buckets"]);
    assert_eq!(pulled.url, host.url("/a.yml"));
}

#[tokio::test]
async fn without_an_allow_list_nothing_is_asked_and_the_message_says_how_to_allow_a_host() {
    let host = play(|_| ok(GOOD)).await;
    let client = GitLab::new(GitLabRules { allow_http: true, ..GitLabRules::default() });
    let error = client.pull(&host.url("/a.yml"), "acme").await.expect_err("refused");
    assert!(error.to_string().contains("the operator allows one with the setting `gitlab.hosts`"), "{error}");
    assert_eq!(error.class(), ErrorClass::Permanent);
    assert_eq!(host.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_address_inside_is_refused_even_when_its_host_is_allowed() {
    let host = play(|_| ok(GOOD)).await;
    for name in ["127.0.0.1", "localhost"] {
        let allowed = AllowedHost::parse(&format!("{name}:{}", host.address.port())).expect("a host");
        let client = GitLab::new(GitLabRules { hosts: vec![allowed], allow_http: true, ..GitLabRules::default() });
        let error =
            client.pull(&format!("http://{name}:{}/a.yml", host.address.port()), "acme").await.expect_err("refused");
        assert!(matches!(error, GitLabError::Inside { .. }), "{error}");
    }
    assert_eq!(host.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_metadata_address_and_other_schemes_are_refused() {
    let hosts = vec![AllowedHost::parse("169.254.169.254").expect("a host")];
    let client = GitLab::new(GitLabRules { hosts, allow_http: true, ..GitLabRules::default() });
    let error = client.pull("http://169.254.169.254/latest/meta-data", "acme").await.expect_err("refused");
    assert!(matches!(error, GitLabError::Inside { .. }), "{error}");
    let strict = GitLab::new(GitLabRules::default());
    for url in ["file:///etc/passwd", "http://gitlab.example.com/a.yml", "gopher://gitlab.example.com/"] {
        assert!(matches!(strict.pull(url, "acme").await, Err(GitLabError::Scheme { .. })), "{url}");
    }
}

#[tokio::test]
async fn a_port_that_is_not_on_the_allow_list_is_another_host() {
    let client = GitLab::new(GitLabRules {
        hosts: vec![AllowedHost::parse("gitlab.example.com").expect("a host")],
        ..GitLabRules::default()
    });
    client.permits("https://gitlab.example.com/a.yml").expect("the usual port");
    client.permits("https://gitlab.example.com:22/a.yml").expect_err("another port");
    client.permits("https://gitlab.example.com.evil.example/a.yml").expect_err("another host");
}

#[tokio::test]
async fn absent_and_private_files_answer_alike_and_the_message_names_both() {
    let host =
        play(|path| head(if path == "/404" { "404 Not Found" } else { "302 Found\r\nlocation: /users/sign_in" })).await;
    for path in ["/404", "/login"] {
        let error = host.refusal(path).await;
        assert!(error.to_string().contains("absent, or its project is private"), "{error}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn refusals_are_permanent_and_outages_are_not() {
    let host = play(|path| head(&path[1..].replace('_', " "))).await;
    for (status, class) in [
        ("/400_x", ErrorClass::Permanent),
        ("/401_x", ErrorClass::Permanent),
        ("/403_x", ErrorClass::Permanent),
        ("/204_x", ErrorClass::Permanent),
        ("/429_x", ErrorClass::Transient),
        ("/500_x", ErrorClass::Transient),
        ("/502_x", ErrorClass::Transient),
        ("/503_x", ErrorClass::Transient),
        ("/504_x", ErrorClass::Transient),
    ] {
        assert_eq!(host.refusal(status).await.class(), class, "{status}");
    }
}

#[tokio::test]
async fn the_host_is_left_alone_for_as_long_as_it_asks() {
    let host = play(|path| {
        head(match path {
            "/seconds" => "429 x\r\nretry-after: 7",
            "/date" => "503 x\r\ndate: Wed, 01 Jan 2025 00:00:00 GMT\r\nretry-after: Wed, 01 Jan 2025 00:01:30 GMT",
            _ => "429 x",
        })
    })
    .await;
    for (path, expected) in [("/seconds", Some(7)), ("/date", Some(90)), ("/silent", None)] {
        let error: cairn_engine::StepError = host.refusal(path).await.into();
        assert_eq!(error.retry_after, expected.map(Duration::from_secs), "{path}");
        assert_eq!(error.failure.class, ErrorClass::Transient);
    }
}

#[tokio::test]
async fn ten_mebibytes_are_refused_whether_announced_or_not() {
    let host = play(|path| {
        let announced = if path == "/announced" { "content-length: 10485760\r\n" } else { "" };
        let mut answer = format!("HTTP/1.1 200 OK\r\n{announced}connection: close\r\n\r\n").into_bytes();
        answer.resize(10 << 20, b'#');
        Some(answer)
    })
    .await;
    for path in ["/announced", "/streamed"] {
        let error = host.refusal(path).await;
        assert!(matches!(error, GitLabError::TooLarge { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn a_web_page_is_not_taken_for_settings() {
    let host = play(|path| {
        if path == "/typed" {
            Some(b"HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: 4\r\n\r\na: b".to_vec())
        } else {
            ok("\n  <!DOCTYPE html><html><body>Sign in</body></html>")
        }
    })
    .await;
    for path in ["/typed", "/untyped"] {
        assert!(matches!(host.refusal(path).await, GitLabError::Html { .. }));
    }
}

#[tokio::test]
async fn other_content_than_allowed_settings_is_refused_with_the_reason() {
    let host = play(|path| match path {
        "/lfs" => ok("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "/list" => ok("- a\n- b\n"),
        "/keys" => ok("xpack.security.enabled: false\n"),
        "/bytes" => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec()),
        _ => {
            let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
            for level in 1..12 {
                bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(",")));
            }
            ok(&bomb)
        }
    })
    .await;
    for (path, why) in [
        ("/lfs", "Git LFS"),
        ("/list", "a list"),
        ("/keys", "`xpack.security.enabled`"),
        ("/bytes", "UTF-8"),
        ("/bomb", "no YAML"),
    ] {
        let error = host.refusal(path).await;
        assert!(error.to_string().contains(why), "{path}: {error}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_and_three_times_at_most() {
    let host = play(|path| match path {
        "/moved" => head("301 x\r\nlocation: /again"),
        "/again" => head("302 x\r\nlocation: /a.yml"),
        "/loop" => head("302 x\r\nlocation: /loop"),
        "/nowhere" => head("302 x"),
        _ => ok(GOOD),
    })
    .await;
    assert_eq!(host.client().pull(&host.url("/moved"), "acme").await.expect("followed").url, host.url("/a.yml"));
    assert!(matches!(host.refusal("/loop").await, GitLabError::Redirects { .. }));
    assert!(matches!(host.refusal("/nowhere").await, GitLabError::Status { .. }));
}

#[tokio::test]
async fn a_redirect_elsewhere_is_never_asked() {
    let secret = play(|_| ok(GOOD)).await;
    let inside = secret.url("/a.yml");
    let host = play(move |path| {
        head(&match path {
            "/port" => format!("302 x\r\nlocation: {inside}"),
            "/host" => "302 x\r\nlocation: https://other.example/a.yml".to_owned(),
            "/metadata" => "302 x\r\nlocation: http://169.254.169.254/latest".to_owned(),
            _ => "302 x\r\nlocation: file:///etc/passwd".to_owned(),
        })
    })
    .await;
    for path in ["/port", "/host", "/metadata", "/file"] {
        let error = host.refusal(path).await;
        assert!(matches!(error, GitLabError::Elsewhere { .. }), "{path}: {error}");
    }
    assert_eq!(secret.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_host_that_never_ends_its_answer_is_given_up() {
    let host =
        play(
            |path| {
                if path == "/silent" {
                    None
                } else {
                    Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na: b".to_vec())
                }
            },
        )
        .await;
    let client = host.client();
    client.set_rules(GitLabRules { time_max: Duration::from_millis(200), ..GitLabRules::clone(&client.rules()) });
    let error = client.pull(&host.url("/silent"), "acme").await.expect_err("given up");
    assert!(matches!(error, GitLabError::Timeout { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    let error = client.pull(&host.url("/short"), "acme").await.expect_err("broken off");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn a_host_that_is_down_is_worth_another_attempt() {
    let address = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port").local_addr().expect("bound");
    let down = Played { address, asked: Arc::default() };
    let error = down.refusal("/a.yml").await;
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("could not be read"), "{error}");
}

#[test]
fn an_allowed_host_is_a_host_and_perhaps_a_port() {
    for good in ["gitlab.example.com", "gitlab.example.com:8443", "[2001:db8::1]:443", "10.0.0.1"] {
        AllowedHost::parse(good).expect(good);
    }
    for bad in ["", "https://gitlab.example.com", "a/b", "me@gitlab.example.com", "a b"] {
        assert!(AllowedHost::parse(bad).is_err(), "{bad}");
    }
}
