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
