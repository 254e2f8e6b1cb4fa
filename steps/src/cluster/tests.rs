//! A server that answers slowly, and who waits for whom behind a bounded client.

use std::sync::atomic::{AtomicU32, Ordering};

use cairn_engine::ErrorClass;
use futures::future::join_all;
use kube::{Client, Config};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::service_fn;

use super::bounded::{AT_ONCE, REHEARSALS_AT_ONCE};
use super::*;

/// Answers the question for its version; whoever asks for something else waits for ever, and is told of in the channel.
async fn slow_server() -> (Config, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
    let (waits, waiting) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Ends with the test, whose runtime it is.
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, waits.clone()));
        }
    });
    (Config::new(url), waiting)
}

async fn serve(mut connection: TcpStream, waits: mpsc::UnboundedSender<()>) {
    let mut asked = Vec::new();
    // One request a turn, until the client has no more.
    while connection.read_buf(&mut asked).await.is_ok_and(|bytes| bytes > 0) {
        if !asked.ends_with(b"\r\n\r\n") {
            continue;
        }
        if !asked.starts_with(b"GET /version ") {
            let _ = waits.send(());
            return std::future::pending().await;
        }
        let version = json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        })
        .to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{version}",
            version.len()
        );
        connection.write_all(answer.as_bytes()).await.expect("the client reads");
        asked.clear();
    }
}

/// Far more questions at once than there are places, none of which is answered.
fn burst(client: &Client) -> impl Future<Output = ()> + Send + 'static {
    let client = client.clone();
    async move {
        join_all((0..10 * AT_ONCE).map(|_| client.list_api_groups())).await;
    }
}

/// I25: a tenant's dry runs stood before everybody's steps, and both before the question whether the engine is ready.
#[tokio::test]
async fn rehearsals_leave_places_to_steps_and_neither_holds_up_the_question_whether_the_server_answers() {
    let (config, mut waiting) = slow_server().await;
    let cluster = Cluster::connect(config).expect("a URL");
    let rehearsals = tokio::spawn(burst(cluster.rehearsing().client()));
    for _ in 0..REHEARSALS_AT_ONCE {
        waiting.recv().await.expect("a rehearsal's request");
    }
    cluster.client().apiserver_version().await.expect("a step is answered");
    let steps = tokio::spawn(burst(cluster.client()));
    // Together they have no more than the bound.
    for _ in REHEARSALS_AT_ONCE..AT_ONCE {
        waiting.recv().await.expect("a step's request");
    }
    cluster.answers().await.expect("whether it answers is asked past the bound");
    assert!(waiting.try_recv().is_err(), "no more than {AT_ONCE} at once");
    assert!(!rehearsals.is_finished() && !steps.is_finished());
}

/// A server that answered every page with a token for one more kept an attempt, and its memory, until the attempt's timeout.
#[tokio::test]
async fn a_list_that_never_ends_is_an_error_that_is_tried_again() {
    let answers = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&answers);
    let server = service_fn(move |asked: http::Request<kube::client::Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let node = json!({ "metadata": { "name": "a" }, "status": { "allocatable": { "nvidia.com/gpu": "1" } } });
        let (nodes, next) = if asked.uri().path() == "/api/v1/nodes" { (vec![node], "") } else { (Vec::new(), "more") };
        let page = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "continue": next }, "items": nodes });
        let answer = http::Response::new(kube::client::Body::from(page.to_string().into_bytes()));
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let cluster = Cluster::new(Client::new(server, "default"));
    let error = cluster.list(Kind::ConfigMap, "acme--search").await.expect_err("it does not end");
    assert_eq!(error.failure.class, ErrorClass::Transient);
    assert!(error.failure.message.contains("has not ended after 1000 answers"), "{error}");
    let gpus = cluster.gpus(None).await.expect("the nodes are listed");
    let unknown = gpus.free().expect_err("which pods hold some, nobody knows");
    assert!(unknown.contains("has not ended after 1000 answers"), "{unknown}");
    assert_eq!(answers.load(Ordering::Relaxed), 2 * PAGES_MAX + 1);
}
