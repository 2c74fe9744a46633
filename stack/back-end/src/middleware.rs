//! The middleware around all routes.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use tokio::time::timeout;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{self, AllowOrigin, CorsLayer},
    request_id::{MakeRequestId, MakeRequestUuid},
};
use tracing::{Instrument, Span, debug_span, error, field, info, info_span};

use crate::{
    config::{AllowedOrigins, Config},
    errors::{self, unexplained},
    metrics::Metrics,
    replica::Replica,
    unread,
};

/// The path of health checks, for the engine. The proxy does not forward it.
pub const HEALTH: &str = "/healthz";

/// The response header with the name of the replica.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// The header with the id of a request, set by the proxy and returned to it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header in which the proxy passes the address of the client.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Shared by all requests.
struct Common {
    replica: Replica,
    metrics: Metrics,
    request_timeout: Duration,
}

/// Adds [`HEALTH`] to `routes` and wraps them in the middleware. Their fallbacks are replaced.
///
/// # Panics
///
/// When `routes` have a `/healthz` of their own.
pub fn around(routes: Router, replica: Replica, metrics: &Metrics, config: &Config) -> Router {
    let common = Arc::new(Common {
        replica,
        metrics: metrics.clone(),
        request_timeout: config.request_timeout,
    });
    let limit = config.request_timeout;
    // The outermost first. One stack, because each `Router::layer` boxes the services once more.
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(common, handle))
        .option_layer(cross_origin(&config.allowed_origins))
        .layer(CatchPanicLayer::custom(panicked))
        // Not tower-http's TimeoutLayer, whose response looks like one of a handler.
        .map_future(move |response| async move {
            let response = timeout(limit, response).await;
            response.unwrap_or_else(|_| Ok(unexplained(StatusCode::GATEWAY_TIMEOUT)))
        });
    routes
        .route(HEALTH, get(healthz))
        .fallback(async || unexplained(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || unexplained(StatusCode::METHOD_NOT_ALLOWED))
        .layer(layers)
}

/// `GET /healthz`: this replica responds. Does not depend on anything else.
async fn healthz() -> &'static str {
    "ok"
}

/// Handles everything around a request: its id, log line and metrics, the headers of the response, and the bodies
/// of errors.
///
/// One function, because a layer for each would take twice the instructions (`cargo bench --bench speed -- instructions`).
async fn handle(State(common): State<Arc<Common>>, mut request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let measurement = common.metrics.begin(&request);
    if measurement.route() != HEALTH {
        common.replica.count();
    }
    let id = request_id(&mut request);
    let span = request_span(&request);
    let logged = !span.is_disabled();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let answer = async move {
        let response = next.run(unread::discard(request)).await;
        let mut response = errors::explain(response, &method, uri.path(), common.request_timeout);
        let headers = response.headers_mut();
        headers.insert(SERVED_BY, common.replica.header());
        headers.extend(id.map(|id| (REQUEST_ID, id)));
        // The next request may go to another replica, so responses must not be cached.
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if logged {
            log_response(response.status(), begin.elapsed());
        }
        measurement.until_sent(response)
    };
    answer.instrument(span).await
}

/// The response to a request whose handler panicked.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    error!(message, "a handler panicked");
    unexplained(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The id from the proxy, or a new one.
fn request_id(request: &mut Request) -> Option<HeaderValue> {
    if let Some(id) = request.headers().get(REQUEST_ID) {
        return Some(id.clone());
    }
    let id = MakeRequestUuid
        .make_request_id(request)?
        .into_header_value();
    request.headers_mut().insert(REQUEST_ID, id.clone());
    Some(id)
}

/// CORS for these origins, if any.
fn cross_origin(allowed: &AllowedOrigins) -> Option<CorsLayer> {
    let origins = match allowed {
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::Only(origins) if origins.is_empty() => return None,
        AllowedOrigins::Only(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(cors::Any)
        .allow_headers([header::CONTENT_TYPE, REQUEST_ID])
        .expose_headers([header::LOCATION, header::RETRY_AFTER, SERVED_BY, REQUEST_ID]);
    Some(layer)
}

/// The fields of every log line of a request.
fn request_span(request: &Request) -> Span {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    // Health checks are logged at level debug.
    macro_rules! request_span {
        ($span:ident) => {
            $span!(
                "request",
                id = header(REQUEST_ID).map(field::display),
                client = header(FORWARDED_FOR).map(field::display),
                method = %request.method().as_str(),
                uri = request.uri().path_and_query().map(field::display),
            )
        };
    }
    match request.uri().path() {
        HEALTH => request_span!(debug_span),
        _ => request_span!(info_span),
    }
}

/// Logs a response.
fn log_response(status: StatusCode, latency: Duration) {
    // 64 bits: JSON logs write 128 bits as text.
    let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if status.is_server_error() {
        error!(status = status.as_u16(), latency_us, "response");
    } else {
        info!(status = status.as_u16(), latency_us, "response");
    }
}
