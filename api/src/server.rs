//! The HTTP server: an accept loop of its own, since `axum::serve` sets no time limit on headers.
//!
//! - A header that does not arrive in time closes its connection; so does one that is too long.
//! - There are at most so many connections; one more is told to come back, and does not wait in a queue without end.
//! - Shutdown: no new connection, those at work may finish what they are at, then they are cut off.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

/// The time in which the header of a request has to arrive, and the longest idle time between two requests.
const HEADER_TIME_MAX: Duration = Duration::from_secs(15);
/// The most bytes that are buffered of a connection, header included.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The time that connections at work have when the program ends.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers requests on `listener` until `stopping`; returns when the last connection is closed.
pub(crate) async fn serve(listener: TcpListener, router: Router, connections_max: usize, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others have to end first.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            refuse(&stream);
            continue;
        };
        // Small answers, soon: events must not wait for one another.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                // Clients that go away in the middle are nothing to worry about.
                tracing::debug!(error = crate::telemetry::chain(&error), "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME_MAX, graceful.shutdown()).await.is_err() {
        tracing::info!("connections that did not end in time are cut off");
    }
}

/// One connection too many. The answer fits into any socket's buffer, so nobody waits for its reader.
fn refuse(stream: &TcpStream) {
    let body = r#"{"type":"urn:cairn:problem:overloaded","title":"Too many connections","status":503,"detail":"too many connections are open: try again in a moment"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
    };

    use super::*;

    struct Server {
        address: SocketAddr,
        stopping: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn start(router: Router, connections_max: usize) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, connections_max, stopping.clone()));
        Server { address, stopping, serving }
    }

    async fn everything(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        // A reset is an end as well: what was read before is there.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_arrive_in_time_closes_its_connection() {
        let server = start(Router::new(), 8).await;
        let mut stream = TcpStream::connect(server.address).await.expect("a server");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ").await.expect("taken");
        // The clock is paused: it runs on only when nobody has anything else to do.
        let text = everything(&mut stream).await;
        assert!(!text.contains("200 OK"), "{text}");
    }

    #[tokio::test]
    async fn a_header_that_is_too_long_is_refused() {
        let server = start(Router::new(), 8).await;
        let mut stream = TcpStream::connect(server.address).await.expect("a server");
        let header = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(200_000));
        // The server may hang up before it has heard all.
        let _ = stream.write_all(header.as_bytes()).await;
        assert!(!everything(&mut stream).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_to_come_back_and_a_free_place_is_used_again() {
        let server = start(Router::new().route("/", get(|| async { "here" })), 1).await;
        let ask = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut first = TcpStream::connect(server.address).await.expect("a server");
        first.write_all(ask).await.expect("taken");
        let mut buffer = [0; 512];
        let read = first.read(&mut buffer).await.expect("an answer");
        assert!(String::from_utf8_lossy(&buffer[..read]).contains("200 OK"));
        let mut second = TcpStream::connect(server.address).await.expect("a server");
        let text = everything(&mut second).await;
        assert!(text.contains("503 Service Unavailable") && text.contains("retry-after: 1"), "{text}");
        drop(first);
        loop {
            let mut third = TcpStream::connect(server.address).await.expect("a server");
            let _ = third.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
            if everything(&mut third).await.contains("200 OK") {
                break;
            }
        }
    }

    #[tokio::test]
    async fn when_it_stops_a_request_in_hand_is_answered_and_nobody_else_is_heard() {
        let (begun, in_hand) = oneshot::channel();
        let begun = std::sync::Mutex::new(Some(begun));
        let go = CancellationToken::new();
        let router = Router::new().route(
            "/",
            get({
                let (begun, go) = (Arc::new(begun), go.clone());
                move || async move {
                    if let Some(begun) = begun.lock().expect("nobody panics").take() {
                        let _ = begun.send(());
                    }
                    go.cancelled().await;
                    "done"
                }
            }),
        );
        let server = start(router, 8).await;
        let mut stream = TcpStream::connect(server.address).await.expect("a server");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("taken");
        in_hand.await.expect("it is asked");
        server.stopping.cancel();
        go.cancel();
        assert!(everything(&mut stream).await.contains("done"));
        server.serving.await.expect("it ends");
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
