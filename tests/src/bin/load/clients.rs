//! Clients of a server on this machine: each with one connection that stays, and one request at a time on it.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// Tenants that share the work.
const TENANTS: usize = 64;

/// What is asked for: one request a number, and the answer that counts.
pub(crate) struct Ask {
    path: String,
    expected: StatusCode,
    /// Makes names and keys that no other run has.
    run: u32,
}

impl Ask {
    /// A creation at this path, for which an answer with this status is right.
    pub(crate) fn new(path: &str, expected: StatusCode) -> Self {
        Self { path: path.to_owned(), expected, run: rand::random() }
    }

    /// The request for this number.
    pub(crate) fn request(&self, address: &str, number: usize) -> anyhow::Result<Request<Full<Bytes>>> {
        let body = serde_json::json!({
            "user": format!("tenant-{}", number % TENANTS),
            "service_name": format!("s-{:x}-{number}", self.run),
        });
        let request = Request::post(&self.path)
            .header("host", address)
            .header("content-type", "application/json")
            .header("idempotency-key", format!("{:x}-{number}", self.run));
        Ok(request.body(Full::from(body.to_string()))?)
    }
}

/// One client, with a connection that stays.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    /// Connects it.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("nobody listens at {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its end is seen by whoever sends next.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends the request, and gives the answer, of which the body may still be on its way.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    /// Asks, and waits for the whole answer, which has to have this status.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>, expected: StatusCode) -> anyhow::Result<()> {
        let answer = self.send(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != expected {
            bail!("answered {status} instead of {expected}: {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }
}

/// So many clients of one server.
pub(crate) struct Clients {
    address: Arc<str>,
    clients: Vec<Client>,
}

impl Clients {
    /// Connects them all: what that takes is not what is measured.
    pub(crate) async fn connect(address: &str, count: usize) -> anyhow::Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Client::connect(address).await?);
        }
        Ok(Self { address: address.into(), clients })
    }

    /// Asks for each of these numbers, and gives the sorted times until the whole answer was there.
    pub(crate) async fn ask(&mut self, ask: &Arc<Ask>, numbers: Range<usize>) -> anyhow::Result<Vec<Duration>> {
        let next = Arc::new(AtomicUsize::new(numbers.start));
        let mut workers = JoinSet::new();
        for mut client in self.clients.drain(..) {
            let (ask, next, address) = (Arc::clone(ask), Arc::clone(&next), Arc::clone(&self.address));
            workers.spawn(async move {
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return anyhow::Ok((client, times));
                    }
                    let request = ask.request(&address, number)?;
                    let start = Instant::now();
                    client.ask(request, ask.expected).await?;
                    times.push(start.elapsed());
                }
            });
        }
        let mut all = Vec::new();
        while let Some(worker) = workers.join_next().await {
            let (client, times) = worker??;
            self.clients.push(client);
            all.extend(times);
        }
        all.sort();
        Ok(all)
    }
}
