//! The API of the final stack: any number of replicas behind a reverse proxy, each of which says
//! who it is.

pub mod config;
mod errors;
pub mod healthcheck;
pub mod log;
pub mod replica;
mod routes;
pub mod server;

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware,
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, Any, CorsLayer},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span, field, info_span};

use crate::{config::AllowedOrigin, replica::Replica};

/// The response header that names the replica which made the response.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// The header that carries the id of a request, from the proxy and back.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header in which the proxy names the client: its address, then those of proxies.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How long a handler may take. None here waits for anything: one that takes this long is stuck.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything this replica serves.
pub fn app(replica: Replica, allowed_origins: Vec<AllowedOrigin>) -> Router {
    around(routes::router(replica.clone()), replica, allowed_origins)
}

/// Puts around `routes` what holds for every one of them: from the outside in, the replica's name,
/// the request id, the log, CORS, and last what turns a failure into an answer.
pub fn around(routes: Router, replica: Replica, allowed_origins: Vec<AllowedOrigin>) -> Router {
    let served_by = SetResponseHeaderLayer::overriding(SERVED_BY, replica.header());
    let timeout = TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT);
    // The last layer added is the first that a request meets.
    let routes = routes
        .layer(timeout)
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(errors::explain));
    let routes = match cors(allowed_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(served_by)
        // Another request may be answered by another replica: no answer may be used again.
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
}

/// Lets pages of these origins read the answers, if any.
fn cors(allowed: Vec<AllowedOrigin>) -> Option<CorsLayer> {
    if allowed.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET])
        .expose_headers([SERVED_BY]);
    if allowed.contains(&AllowedOrigin::Any) {
        return Some(layer.allow_origin(Any));
    }
    let origins = allowed.into_iter().filter_map(|origin| match origin {
        AllowedOrigin::Any => None,
        AllowedOrigin::Only(origin) => Some(origin),
    });
    Some(layer.allow_origin(AllowOrigin::list(origins)))
}

/// What every log line of a request carries.
fn request_span(request: &Request) -> Span {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    info_span!(
        "request",
        id = header(REQUEST_ID).map(field::display),
        client = header(FORWARDED_FOR).map(field::display),
        method = %request.method(),
        uri = %request.uri(),
    )
}
