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

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, patch, post},
};
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    trace::TraceLayer,
};

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
        .layer(middleware::from_fn_with_state(Arc::clone(&app), recovered))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), admitted))
        .layer(middleware::from_fn(audit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_failure(()))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(middleware::from_fn(short_request_id))
        .with_state(app)
}

/// Nothing is answered from a journal that is not read yet.
async fn recovered(State(app): Shared, request: Request, next: Next) -> Response {
    match app.engine() {
        Ok(_) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Finds out who asks, and lets nobody else in; whether the process lives and can work is everybody's to know.
async fn admitted(State(app): Shared, mut request: Request, next: Next) -> Response {
    let rules = app.rules();
    let caller = match &rules.tokens {
        None => match local_only(request.headers(), true) {
            Ok(()) => Some(Caller::local()),
            Err(problem) => return problem.into_response(),
        },
        // A browser sends no token by itself: under which name it has found us does not matter.
        Some(tokens) => match (local_only(request.headers(), false), tokens.caller(request.headers())) {
            (Err(problem), _) => return problem.into_response(),
            (Ok(()), caller) => caller,
        },
    };
    let is_public = PUBLIC.contains(&request.uri().path());
    if caller.is_none() && !is_public {
        return Problem::unauthenticated().into_response();
    }
    let Some(caller) = caller else { return next.run(request).await };
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    // For the log of changes.
    response.extensions_mut().insert(caller);
    response
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

/// Each change that is asked for, and what came of it, is a line in the program's log.
async fn audit(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request_id(&request).to_owned();
    let begun = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION).and_then(|at| at.to_str().ok());
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let who = response.extensions().get::<Caller>().map_or("nobody", Caller::name);
    tracing::info!(who, %method, path, status, location, millis, request = id, "asked");
    response
}

fn request_id(request: &Request) -> &str {
    request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// A client's own request id is kept if it is a short text; otherwise it gets a new one.
async fn short_request_id(mut request: Request, next: Next) -> Response {
    let usable = |id: &HeaderValue| id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok();
    if !request.headers().get(REQUEST_ID).is_none_or(usable) {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

fn span(request: &Request) -> tracing::Span {
    let id = request_id(request);
    // The path only: what stands in a query may be somebody's business.
    tracing::debug_span!("request", id, method = %request.method(), path = request.uri().path())
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::no_such_path(uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::method_not_allowed(&method, uri.path())
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("?"), "a request met a fault in cairn");
    Problem::internal().into_response()
}

#[cfg(test)]
mod tests;
