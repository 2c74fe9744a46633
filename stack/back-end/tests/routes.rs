//! What each route answers, in-process.

use api::{
    REQUEST_ID, SERVED_BY, around, config::Config, metrics::Metrics, replica::Replica, router,
};
use axum::{
    Json, Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
    routing::get,
};
use http_body_util::BodyExt;
use prometheus::IntCounter;
use serde_json::{Value, json};
use tower::ServiceExt;

fn replica() -> Replica {
    Replica::new("replica-1").unwrap()
}

/// The API of `replica` with these settings, as `NAME=value`.
fn configured(replica: Replica, settings: &[&str]) -> Router {
    wrapped(router(replica.clone()), replica, settings)
}

/// `routes` in the layers of the API.
fn wrapped(routes: Router, replica: Replica, settings: &[&str]) -> Router {
    let variable = |name| {
        let mut settings = settings
            .iter()
            .filter_map(|setting| setting.split_once('='));
        settings.find_map(|(set, value)| (set == name).then(|| value.into()))
    };
    let config = Config::from_variables(variable).unwrap();
    let dropped_lines = IntCounter::new("log_lines_dropped_total", "Dropped.").unwrap();
    let metrics = Metrics::new("1.0.0", &dropped_lines).unwrap();
    around(routes, replica, &metrics, &config)
}

fn api() -> Router {
    configured(replica(), &[])
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    assert_eq!(parts.headers[SERVED_BY], "replica-1");
    assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn ask(app: &Router, method: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    send(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn hello() {
    let answer = ask(&api(), "GET", "/api/hello").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "text/plain; charset=utf-8"
    );
    assert_eq!(answer.body, "Hello, World!");
}

#[tokio::test]
async fn whoami_counts_what_clients_asked_and_not_health_checks() {
    let api = api();
    ask(&api, "GET", "/healthz").await;
    ask(&api, "GET", "/api/hello").await;
    let answer = ask(&api, "GET", "/api/whoami").await;
    assert_eq!(answer.status, StatusCode::OK);
    let expected = json!({
        "replica": "replica-1",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": 0,
        "requests_served": 2,
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn the_page_names_the_replica_and_links_the_endpoints() {
    for (path, root) in [("/api", "./"), ("/api/", "../")] {
        let answer = ask(&api(), "GET", path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(
            answer.headers[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
        for part in [
            "<h1>Replica replica-1</h1>".to_owned(),
            format!("href=\"{root}api/hello\""),
            format!("href=\"{root}api/whoami\""),
        ] {
            assert!(answer.body.contains(&part), "{part}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn the_page_escapes_what_it_shows() {
    let api = configured(Replica::new("<script>").unwrap(), &[]);
    let request = Request::get("/api").body(Body::empty()).unwrap();
    let body = api.oneshot(request).await.unwrap().into_body();
    let page = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(!page.contains("<script>"), "{page}");
}

#[tokio::test]
async fn healthz() {
    assert_eq!(ask(&api(), "GET", "/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let answer = ask(&api(), "GET", "/api/nothing").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let expected = json!({
        "status": 404,
        "error": "There is nothing at /api/nothing.",
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn another_method_is_not_allowed() {
    let answer = ask(&api(), "POST", "/api/hello").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers[header::ALLOW], "GET,HEAD");
    assert_eq!(answer.json()["status"], 405);
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    async fn panics() -> &'static str {
        panic!("on purpose")
    }
    let app = wrapped(Router::new().route("/", get(panics)), replica(), &[]);
    let answer = ask(&app, "GET", "/").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["status"], 500);
    assert!(!answer.body.contains("on purpose"), "{}", answer.body);
}

#[tokio::test]
async fn a_handlers_own_error_passes_unchanged() {
    async fn invalid() -> (StatusCode, Json<Value>) {
        let fields = json!({ "errors": { "title": "is empty: expected text" } });
        (StatusCode::UNPROCESSABLE_ENTITY, Json(fields))
    }
    let routes = Router::new()
        .route("/", get(invalid))
        .route("/bare", get(StatusCode::NOT_FOUND));
    let app = wrapped(routes, replica(), &[]);
    let answer = ask(&app, "GET", "/").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json()["errors"]["title"], "is empty: expected text");
    let answer = ask(&app, "HEAD", "/").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(answer.body, "");
    let answer = ask(&app, "GET", "/bare").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.headers.get(header::CONTENT_TYPE), None);
    assert_eq!(answer.body, "");
}

// The clock stands still but for what is waited for, so the timeout passes at once.
#[tokio::test(start_paused = true)]
async fn a_stuck_handler_is_an_answer() {
    let app = Router::new().route("/", get(std::future::pending::<()>));
    for (settings, seconds) in [(&[][..], 10), (&["API_REQUEST_TIMEOUT=3"], 3)] {
        let app = wrapped(app.clone(), replica(), settings);
        let started = tokio::time::Instant::now();
        let answer = ask(&app, "GET", "/").await;
        assert_eq!(started.elapsed().as_secs(), seconds);
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        let expected = json!({
            "status": 504,
            "error": format!(
                "/ did not answer within {seconds} seconds. The request may have been carried out."
            ),
        });
        assert_eq!(answer.json(), expected);
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_or_gets_one() {
    let request = Request::get("/api/hello").header(REQUEST_ID, "from-the-proxy");
    let answer = send(&api(), request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers[REQUEST_ID], "from-the-proxy");
    let answer = ask(&api(), "GET", "/api/hello").await;
    assert_eq!(answer.headers[REQUEST_ID].len(), 36, "a UUID");
}

async fn ask_from(api: &Router, method: &str, origin: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri("/api/hello")
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
    send(api, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn only_allowed_origins_may_read() {
    let settings = ["API_ALLOWED_ORIGINS=http://one.test,http://two.test"];
    let api = configured(replica(), &settings);
    for method in ["GET", "OPTIONS"] {
        let answer = ask_from(&api, method, "http://two.test").await;
        assert_eq!(answer.status, StatusCode::OK);
        let allowed = &answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN];
        assert_eq!(allowed, "http://two.test");
        let answer = ask_from(&api, method, "http://three.test").await;
        let allowed = answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(allowed, None);
    }
}

#[tokio::test]
async fn a_preflight_allows_what_a_page_may_send() {
    let api = configured(replica(), &["API_ALLOWED_ORIGINS=http://one.test"]);
    let preflight = ask_from(&api, "OPTIONS", "http://one.test").await;
    let methods = &preflight.headers[header::ACCESS_CONTROL_ALLOW_METHODS];
    assert_eq!(methods, "*");
    let allowed = &preflight.headers[header::ACCESS_CONTROL_ALLOW_HEADERS];
    assert_eq!(allowed, "content-type,x-request-id");
    let answer = ask_from(&api, "GET", "http://one.test").await;
    let exposed = &answer.headers[header::ACCESS_CONTROL_EXPOSE_HEADERS];
    assert_eq!(exposed, "location,retry-after,x-served-by,x-request-id");
}

#[tokio::test]
async fn any_origin_may_read_when_all_are_allowed() {
    let api = configured(replica(), &["API_ALLOWED_ORIGINS=*"]);
    let answer = ask_from(&api, "GET", "http://three.test").await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
}
