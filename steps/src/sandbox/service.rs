//! The sandbox as a tower service, and behind a port.
//!
//! One request: parsed, delayed or dropped by the faults, read to the end of its body, then done in one step under the lock.
//! An answer that a fault drops is an error of the connection: `kube` sees what it would see of a broken socket.

use super::discovery;
use super::faults::{Call, Fault, FaultAction, FaultId};
use super::request::{ApiRequest, Target, Verb};
use super::status::Refusal;
use super::{Shared, access, api, watch};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;

/// What the API server takes at most.
const BODY_MAX: usize = 3 * 1024 * 1024;
/// How long connections may finish what they are at once the server stops.
const GRACE: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: a document, or the events of a watch.
pub type SandboxBody = UnsyncBoxBody<Bytes, BoxError>;

/// The connection to the sandbox is lost, as a fault wanted it: whether the call was executed is not known to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection reset by the sandbox, as a fault asked for")]
pub struct ConnectionLost;

/// The sandbox as a `tower::Service`: what `kube::Client::new` takes, and what tests wrap in layers of their own.
#[derive(Clone, Debug)]
pub struct SandboxService {
    pub(super) shared: Arc<Shared>,
}

impl<B> tower::Service<Request<B>> for SandboxService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<SandboxBody>;
    type Error = ConnectionLost;
    type Future = BoxFuture<'static, Result<Response<SandboxBody>, ConnectionLost>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            match ApiRequest::parse(&head.method, &head.uri, &head.headers) {
                Ok(request) => answer(shared, request, body).await,
                Err(refusal) => Ok(refuse(&refusal)),
            }
        })
    }
}

/// Serves the sandbox on a listener until `stop` is there; open watches end with it.
pub(super) async fn serve(
    service: SandboxService,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = &mut stop => break,
        };
        let service = service.clone();
        let handler = hyper::service::service_fn(move |request| {
            let mut service = service.clone();
            async move { tower::Service::call(&mut service, request).await }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), handler);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Broken connections are the client's to notice, and often what a fault asked for.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the sandbox ended");
            }
        });
    }
    // Watches never end by themselves: who still reads one after the grace is cut off with the process.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

async fn answer<B>(shared: Arc<Shared>, request: ApiRequest, body: B) -> Result<Response<SandboxBody>, ConnectionLost>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut drop_answer, mut hang) = (false, false);
    if !matches!(request.target, Target::Sandbox(_)) {
        let (wait, action) = shared.faults.on_call(call_of(&request));
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        match action {
            Some(FaultAction::Status { code, retry_after }) => {
                let refusal = Refusal::of_code(code);
                return Ok(refuse(&match retry_after {
                    Some(seconds) => refusal.retry_after(Duration::from_secs(seconds)),
                    None => refusal,
                }));
            }
            Some(FaultAction::DropBefore) => return Err(ConnectionLost),
            Some(FaultAction::Gone) => return Ok(refuse(&Refusal::of_code(410))),
            Some(FaultAction::DropAfter) => drop_answer = true,
            Some(FaultAction::HangBefore) => match shared.faults.hang().await {},
            Some(FaultAction::HangAfter) => hang = true,
            _ => {}
        }
    }
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(refuse(&Refusal::new(
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
            )));
        }
        // The client is gone in the middle of its request: nothing was executed.
        Err(_) => return Err(ConnectionLost),
    };
    let response = respond(&shared, &request, &body);
    if hang {
        match shared.faults.hang().await {}
    }
    if drop_answer { Err(ConnectionLost) } else { Ok(response.unwrap_or_else(|refusal| refuse(&refusal))) }
}

fn respond(shared: &Arc<Shared>, request: &ApiRequest, body: &[u8]) -> Result<Response<SandboxBody>, Refusal> {
    access::admit(shared, request)?;
    match &request.target {
        Target::Server(path) => discovery::document(path).map(|document| json_response(200, &document)),
        Target::Sandbox(path) => own(shared, request, path, body),
        Target::AccessReview => {
            let review = access::review(shared, &request.decode_body(body)?)?;
            Ok(json_response(201, &review))
        }
        Target::Object(target) if request.verb == Verb::Watch => watch::open(shared, request, target),
        Target::Object(target) => {
            let answer = api::handle(&mut shared.lock(), request, target, body)?;
            let mut response = match answer.body.as_str() {
                Some(text) if answer.is_text => text_response(text),
                _ => json_response(answer.code, &answer.body),
            };
            for warning in answer.warnings {
                let text = format!("299 - \"{}\"", warning.replace('"', "\\\""));
                if let Ok(value) = HeaderValue::from_str(&text) {
                    response.headers_mut().append(header::WARNING, value);
                }
            }
            Ok(response)
        }
    }
}

/// The sandbox's own paths: its faults and its effect log.
fn own(shared: &Arc<Shared>, request: &ApiRequest, path: &str, body: &[u8]) -> Result<Response<SandboxBody>, Refusal> {
    let rest = path.strip_prefix("/sandbox").unwrap_or_default();
    match (request.verb, rest) {
        (Verb::Get, "/effects") => Ok(json_response(200, &json!(shared.lock().effects.to_vec()))),
        (Verb::Get, "/objects") => {
            let objects: Vec<Value> = shared.lock().all().map(|(_, object)| (**object).clone()).collect();
            Ok(json_response(200, &json!(objects)))
        }
        (Verb::Get, "/accesses") => {
            let accesses = shared.accesses.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(json_response(200, &json!(accesses)))
        }
        (Verb::Get, "/faults") => Ok(json_response(200, &json!(shared.faults.list()))),
        (Verb::Create, "/faults") => {
            let fault: Fault = serde_json::from_slice(body)
                .map_err(|error| Refusal::bad_request(format!("the body is no fault: {error}")))?;
            let id = shared.faults.add(fault);
            Ok(json_response(201, &json!({"id": id})))
        }
        (Verb::Delete, "/faults") => {
            shared.faults.clear();
            Ok(json_response(200, &json!([])))
        }
        (Verb::Delete, rest) => {
            let id = rest.strip_prefix("/faults/").and_then(|id| id.parse().ok()).ok_or_else(Refusal::no_such_path)?;
            if !shared.faults.remove(FaultId(id)) {
                return Err(Refusal::new(404, "NotFound", format!("there is no fault {id}")));
            }
            Ok(json_response(200, &json!(shared.faults.list())))
        }
        _ => Err(Refusal::no_such_path()),
    }
}

pub(super) fn call_of(request: &ApiRequest) -> Call<'_> {
    let nothing = Call {
        verb: request.verb.name(),
        is_apply: false,
        resource: "",
        kind: "",
        subresource: "",
        namespace: "",
        name: "",
    };
    match &request.target {
        Target::Object(target) => Call {
            is_apply: request.is_apply(),
            resource: target.kind.info().plural,
            kind: target.kind.info().kind,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            ..nothing
        },
        _ => nothing,
    }
}

fn refuse(refusal: &Refusal) -> Response<SandboxBody> {
    let mut response = json_response(refusal.code, &refusal.body());
    if let Some(after) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    response
}

fn json_response(code: u16, body: &Value) -> Response<SandboxBody> {
    let bytes = serde_json::to_vec(body).expect("a JSON value encodes");
    stream_response(code, Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {}).boxed_unsync())
}

fn text_response(text: &str) -> Response<SandboxBody> {
    let bytes = Bytes::from(text.to_owned());
    let body = Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = stream_response(200, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

pub(super) fn stream_response(code: u16, body: SandboxBody) -> Response<SandboxBody> {
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("a code of three digits and one plain header")
}
