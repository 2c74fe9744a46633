//! The middleware around all routes.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    BoxError, Router,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use tower::{Service, ServiceBuilder, layer::layer_fn};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestId, MakeRequestUuid},
    timeout::TimeoutLayer,
};
use tracing::{Instrument, Span, debug_span, error, field, info, info_span};

use crate::{
    config::{AllowedOrigins, Config},
    errors,
    metrics::Metrics,
    replica::Replica,
    routes::HEALTH,
};

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

/// Wraps `routes` in the middleware.
pub fn around(routes: Router, replica: Replica, metrics: &Metrics, config: &Config) -> Router {
    let common = Arc::new(Common {
        replica,
        metrics: metrics.clone(),
        request_timeout: config.request_timeout,
    });
    // The outermost first. One stack, because each `Router::layer` boxes the services once more.
    let layers = ServiceBuilder::new()
        .layer(layer_fn(move |routes| Handle {
            common: common.clone(),
            routes,
        }))
        .option_layer(cors(&config.allowed_origins))
        // Turn panics and timeouts into responses.
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            config.request_timeout,
        ));
    routes.layer(layers)
}

/// Handles everything around a request: its id, log line and metrics, the headers of the response, and the bodies
/// of errors.
///
/// One service, because a layer for each would take twice the instructions (`cargo bench -- instructions`).
#[derive(Clone)]
struct Handle<S> {
    common: Arc<Common>,
    routes: S,
}

impl<S, B> Service<Request> for Handle<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let begin = Instant::now();
        let common = self.common.clone();
        let measurement = common.metrics.begin(&request);
        if measurement.route() != HEALTH {
            common.replica.count();
        }
        let id = request_id(&mut request);
        let span = request_span(&request);
        let logged = !span.is_disabled();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = self.routes.call(request);
        let answer = async move {
            let mut response = response.await?.map(Body::new);
            let status = response.status();
            if status.is_client_error() || status.is_server_error() {
                response = errors::explain(response, &method, uri.path(), common.request_timeout);
            }
            let headers = response.headers_mut();
            headers.insert(SERVED_BY, common.replica.header());
            headers.extend(id.map(|id| (REQUEST_ID, id)));
            // The next request may go to another replica, so responses must not be cached.
            if !headers.contains_key(header::CACHE_CONTROL) {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            let latency = begin.elapsed();
            measurement.end(status, latency);
            if logged {
                log_response(status, latency);
            }
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
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
fn cors(allowed: &AllowedOrigins) -> Option<CorsLayer> {
    let origins = match allowed {
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::Only(origins) if origins.is_empty() => return None,
        AllowedOrigins::Only(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::CONTENT_TYPE, REQUEST_ID])
        .expose_headers([SERVED_BY, REQUEST_ID]);
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
