//! The metrics of requests, in-process.

use std::{convert::Infallible, future::pending};

use api::{around, config::Config, metrics::Metrics, replica::Replica, router};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
    routing::get,
};
use futures_util::stream;
use http_body_util::BodyExt;
use prometheus::IntCounter;
use tower::ServiceExt;

struct Api {
    app: Router,
    metrics: Metrics,
    dropped_lines: IntCounter,
}

impl Api {
    fn new(further: Router) -> Self {
        let replica = Replica::new("replica-1").unwrap();
        let config = Config::from_variables(|_| None).unwrap();
        let dropped_lines = IntCounter::new("log_lines_dropped_total", "Dropped.").unwrap();
        let metrics = Metrics::new("1.0.0", &dropped_lines).unwrap();
        let routes = router(replica.clone()).merge(further);
        let app = around(routes, replica, &metrics, &config);
        Self {
            app,
            metrics,
            dropped_lines,
        }
    }

    async fn ask(&self, method: &str, path: &str) -> StatusCode {
        self.send(method, path).await.status()
    }

    async fn send(&self, method: &str, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// The lines of `GET /metrics`.
    async fn metrics(&self) -> Vec<String> {
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = self.metrics.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/plain; version=0.0.4");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = str::from_utf8(&body).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[track_caller]
fn assert_has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|one| one == line), "{line}: {lines:#?}");
}

#[tokio::test]
async fn requests_are_counted_by_method_route_and_status() {
    let api = Api::new(Router::new().route("/api/items/{id}", get(async || "an item")));
    for _ in 0..2 {
        api.ask("GET", "/api/hello").await;
    }
    api.ask("POST", "/api/hello").await;
    api.ask("GET", "/api/items/1").await;
    api.ask("GET", "/api/items/2").await;
    let lines = api.metrics().await;
    for labels in [
        r#"{method="GET",route="/api/hello",status="200"} 2"#,
        r#"{method="POST",route="/api/hello",status="405"} 1"#,
        r#"{method="GET",route="/api/items/{id}",status="200"} 2"#,
    ] {
        assert_has(&lines, &format!("http_requests_total{labels}"));
        assert_has(
            &lines,
            &format!("http_request_duration_seconds_count{labels}"),
        );
    }
    let bucket = r#"http_request_duration_seconds_bucket{method="GET",route="/api/hello",status="200",le="0.5"} 2"#;
    assert_has(&lines, bucket);
}

#[tokio::test]
async fn clients_cannot_add_labels() {
    let api = Api::new(Router::new());
    for name in ["one", "two"] {
        api.ask(name, &format!("/api/{name}")).await;
    }
    let lines = api.metrics().await;
    let line = r#"http_requests_total{method="other",route="none",status="404"} 2"#;
    assert_has(&lines, line);
}

#[tokio::test]
async fn requests_in_flight_are_counted_until_the_client_leaves() {
    let api = Api::new(Router::new().route("/api/never", get(pending::<()>)));
    let mut request = Box::pin(api.ask("GET", "/api/never"));
    assert!(futures_util::poll!(&mut request).is_pending());
    assert_has(&api.metrics().await, "http_requests_in_flight 1");
    drop(request);
    assert_has(&api.metrics().await, "http_requests_in_flight 0");
}

#[tokio::test]
async fn a_stream_is_in_flight_until_its_end() {
    let endless = async || Body::from_stream(stream::repeat(Ok::<_, Infallible>("more")));
    let api = Api::new(Router::new().route("/api/endless", get(endless)));
    let counted =
        r#"http_requests_total{method="GET",route="/api/endless",status="200"} 1"#.to_owned();
    let mut body = api.send("GET", "/api/endless").await.into_body();
    body.frame().await.unwrap().unwrap();
    let lines = api.metrics().await;
    assert_has(&lines, "http_requests_in_flight 1");
    assert!(!lines.contains(&counted), "{lines:#?}");
    drop(body);
    let lines = api.metrics().await;
    assert_has(&lines, "http_requests_in_flight 0");
    assert!(lines.contains(&counted), "{lines:#?}");
}

#[tokio::test]
async fn the_process_is_described() {
    let api = Api::new(Router::new());
    api.dropped_lines.inc_by(3);
    let lines = api.metrics().await;
    let version = env!("CARGO_PKG_VERSION");
    assert_has(
        &lines,
        &format!("api_build_info{{version=\"{version}\"}} 1"),
    );
    assert_has(&lines, "log_lines_dropped_total 3");
    let start = lines
        .iter()
        .find_map(|line| line.strip_prefix("process_start_time_seconds "));
    let start: f64 = start.unwrap().parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&start), "{start}, now {now}");
}

#[tokio::test]
async fn the_metrics_are_on_their_own_port_only() {
    let api = Api::new(Router::new());
    assert_eq!(api.ask("GET", "/metrics").await, StatusCode::NOT_FOUND);
}
