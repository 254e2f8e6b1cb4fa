//! The routes: one line each, in the contract's order; and what every request passes through.

mod clusters;
mod control;
mod events;
mod health;
mod journal;
mod left;
mod lifecycle;
mod records;
mod reports;
mod there;
mod workflow;
mod workflows;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, patch, post},
};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use tower_http::request_id::{MakeRequestId as _, MakeRequestUuid};
use tracing::Instrument as _;

use crate::{app::App, auth::Caller, problem::Problem};

/// What routes share.
pub(crate) type Shared = State<Arc<App>>;

/// The header that names a request in answers and logs.
const REQUEST_ID: &str = "x-request-id";
/// The longest such name that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What is answered without a token: a kubelet asks for it, and has none.
const PUBLIC: [&str; 2] = ["/healthz", "/readyz"];

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/clusters", post(clusters::create))
        .route("/clusters/{user}/{service}", patch(lifecycle::change).delete(lifecycle::delete))
        .route("/deployment/reports/{user}/{service}", get(reports::list))
        .route("/deployment/reports/{user}/{service}/stats", get(reports::stats))
        .route("/deployments", get(records::deployments))
        .route("/tenant/containers/{user}/{service}", get(records::tenant_container))
        .route("/workflows", get(workflows::list))
        .route("/workflows/{id}", get(workflows::one))
        .route("/workflows/{id}/journal", get(journal::of_workflow))
        .route("/workflows/{id}/events", get(events::of_workflow))
        .route("/workflows/{id}/cancel", post(control::cancel))
        .route("/workflows/{id}/retry", post(control::retry))
        .route("/workflows/{id}/pause", post(control::pause))
        .route("/workflows/{id}/resume", post(control::resume))
        .route("/journal", get(journal::all))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        // One layer, and not one for each thing: each costs every request a copy of all that is within.
        .layer(middleware::from_fn_with_state(Arc::clone(&app), pass))
        .with_state(app)
}

/// What every request passes through: it gets a name, who asks is found out, and a change leaves a line in the log.
async fn pass(State(app): Shared, mut request: Request, next: Next) -> Response {
    let id = named(&mut request);
    let asked = (!request.method().is_safe()).then(|| Asked::of(&request));
    let text = id.to_str().unwrap_or_default();
    // The path only: what stands in a query may be somebody's business.
    let span = tracing::debug_span!("request", id = text, method = %request.method(), path = request.uri().path());
    let answered = AssertUnwindSafe(admitted(&app, request, next)).catch_unwind().instrument(span).await;
    let (caller, mut response) = answered.unwrap_or_else(|panic| (None, panicked(&*panic)));
    if let Some(asked) = asked {
        asked.audit(&response, caller.as_ref(), text);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The name of the request, in its header: a client's own if it is a short text, otherwise a new one.
fn named(request: &mut Request) -> HeaderValue {
    let usable = |id: &&HeaderValue| id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok();
    if let Some(id) = request.headers().get(REQUEST_ID).filter(usable) {
        return id.clone();
    }
    let id = MakeRequestUuid.make_request_id(request).expect("it always makes one").into_header_value();
    request.headers_mut().insert(REQUEST_ID, id.clone());
    id
}

/// Finds out who asks, and lets nobody else in; whether the process lives and can work is everybody's to know.
async fn admitted(app: &Arc<App>, mut request: Request, next: Next) -> (Option<Caller>, Response) {
    let rules = app.rules();
    let caller = match &rules.tokens {
        None => match local_only(request.headers(), true) {
            Ok(()) => Some(Caller::local()),
            Err(problem) => return (None, problem.into_response()),
        },
        // A browser sends no token by itself: under which name it has found us does not matter.
        Some(tokens) => match (local_only(request.headers(), false), tokens.caller(request.headers())) {
            (Err(problem), _) => return (None, problem.into_response()),
            (Ok(()), caller) => caller,
        },
    };
    let is_public = PUBLIC.contains(&request.uri().path());
    if caller.is_none() && !is_public {
        return (None, Problem::unauthenticated().into_response());
    }
    // Nothing is answered from a journal that is not read yet.
    if !is_public
        && request.extensions().get::<MatchedPath>().is_some()
        && let Err(problem) = app.engine()
    {
        return (caller, problem.into_response());
    }
    if let Some(caller) = &caller {
        request.extensions_mut().insert(caller.clone());
    }
    (caller, next.run(request).await)
}

/// A page of another site must not act through its visitor's browser: neither from its own origin, nor, where the port
/// alone lets in, under a name of its own that it makes point here.
fn local_only(headers: &HeaderMap, port_lets_in: bool) -> Result<(), Problem> {
    if port_lets_in
        && let Some(host) = headers.get(header::HOST)
        && !host.to_str().is_ok_and(is_loopback)
    {
        return Err(Problem::foreign("the header `Host` names another machine: use localhost or 127.0.0.1"));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let local =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, host)| is_loopback(host));
        if !local {
            return Err(Problem::foreign("the header `Origin` names another site"));
        }
    }
    Ok(())
}

/// Whether this `HOST` or `HOST:PORT` is a name of the loopback interface.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A change that is asked for.
struct Asked {
    method: Method,
    path: String,
    begun: Instant,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self { method: request.method().clone(), path: request.uri().path().to_owned(), begun: Instant::now() }
    }

    /// Each change that is asked for, and what came of it, is a line in the program's log.
    fn audit(self, response: &Response, caller: Option<&Caller>, id: &str) {
        let Self { method, path, begun } = self;
        let status = response.status().as_u16();
        let location = response.headers().get(header::LOCATION).and_then(|at| at.to_str().ok());
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let who = caller.map_or("nobody", Caller::name);
        tracing::info!(who, %method, path, status, location, millis, request = id, "asked");
    }
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::no_such_path(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::method_not_allowed(&method, uri.path())
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("?"), "a request met a fault in cairn");
    Problem::internal().into_response()
}

#[cfg(test)]
mod tests;
