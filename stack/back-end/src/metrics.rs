//! Metrics in Prometheus's text format, on a separate port that the proxy does not forward.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::{Frame, SizeHint};
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TEXT_FORMAT, TextEncoder,
};

/// Upper bounds of the histogram buckets, in seconds. Handlers take microseconds; 0.5 is the threshold of the alert
/// for slow responses, and 10 the default deadline.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 2.5, 10.0,
];

/// Labels of a request. The route template, not the path: clients choose paths, and each label value uses memory.
const LABELS: [&str; 3] = ["method", "route", "status"];

/// The metrics of this process. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
}

impl Metrics {
    /// Metrics of a process that starts now, of this version. `dropped_lines` is registered with them.
    ///
    /// # Errors
    ///
    /// When two metrics have the same name.
    pub fn new(version: &str, dropped_lines: &IntCounter) -> io::Result<Self> {
        Self::register(version, dropped_lines).map_err(io::Error::other)
    }

    fn register(version: &str, dropped_lines: &IntCounter) -> prometheus::Result<Self> {
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("http_requests_total", "HTTP requests answered."),
                &LABELS,
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "http_request_duration_seconds",
                    "Time from a request's headers to the end of its response.",
                )
                .buckets(BUCKETS.into()),
                &LABELS,
            )?,
            in_flight: IntGauge::new(
                "http_requests_in_flight",
                "HTTP requests whose response is not sent yet.",
            )?,
        };
        let started = Gauge::new(
            "process_start_time_seconds",
            "Start time of the process, in seconds since 1970.",
        )?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        started.set(now.unwrap_or_default().as_secs_f64());
        let build = IntGauge::with_opts(
            Opts::new("api_build_info", "Always 1; the version is a label.")
                .const_label("version", version),
        )?;
        build.set(1);

        let registry = &metrics.registry;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(started))?;
        registry.register(Box::new(build))?;
        registry.register(Box::new(dropped_lines.clone()))?;
        Ok(metrics)
    }

    /// Starts to measure a request.
    pub fn begin(&self, request: &Request) -> Measurement {
        self.in_flight.inc();
        Measurement {
            method: method(request.method()),
            route: request.extensions().get().cloned(),
            begin: Instant::now(),
            status: None,
            metrics: self.clone(),
        }
    }

    /// The routes of the metrics port: `GET /metrics`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }
}

/// A request in flight, until this is dropped, even if the client disconnects.
pub struct Measurement {
    method: &'static str,
    route: Option<MatchedPath>,
    begin: Instant,
    /// Once there is a response.
    status: Option<StatusCode>,
    metrics: Metrics,
}

impl Measurement {
    /// The route template, or `none`.
    pub fn route(&self) -> &str {
        self.route.as_ref().map_or("none", MatchedPath::as_str)
    }

    /// Measures until the body of the response is sent, which for a stream is later than its headers.
    pub fn until_sent(mut self, response: Response) -> Response {
        self.status = Some(response.status());
        response.map(|body| {
            Body::new(Measured {
                body,
                _measurement: self,
            })
        })
    }
}

impl Drop for Measurement {
    /// Counts the response, if there is one, and its duration.
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        let Some(status) = self.status else { return };
        let labels = [self.method, self.route(), status.as_str()];
        let (requests, durations) = (&self.metrics.requests, &self.metrics.durations);
        requests.with_label_values(&labels).inc();
        durations
            .with_label_values(&labels)
            .observe(self.begin.elapsed().as_secs_f64());
    }
}

/// A body with the measurement of its request.
struct Measured {
    body: Body,
    _measurement: Measurement,
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The label of a method. Clients may invent methods, and each label value uses memory.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// `GET /metrics`: all metrics, as text.
async fn metrics(State(metrics): State<Metrics>) -> Response {
    let mut text = vec![];
    match TextEncoder::new().encode(&metrics.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
