//! The back-end: an HTTP API that says hello.

use std::{io, process::ExitCode};

use axum::{Router, routing::get};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tower_http::trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer};
use tracing::{Level, info};

/// Every interface, because 127.0.0.1 of a container cannot be reached from outside of it.
const ADDRESS: &str = "0.0.0.0:5252";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens on [`ADDRESS`] until the program is told to stop.
async fn run() -> io::Result<()> {
    let stop = stop_signal()?;
    let listener = TcpListener::bind(ADDRESS).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {ADDRESS}: {error}"))
    })?;
    info!("listening on {ADDRESS}");
    serve(listener, app(), stop).await
}

/// The routes, and a log line for each request.
fn app() -> Router {
    Router::new()
        .route("/api/hello", get(async || "Hello, World!"))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
}

/// Serves `app` until `stop` resolves, then finishes what is in flight.
async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await
}

/// Resolves on SIGTERM, which is `docker stop`, and on SIGINT, which is Ctrl-C.
///
/// The kernel gives process 1 of a container no default handlers: without these, `docker stop`
/// would wait for ten seconds and then kill.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use axum::{
        body::Body,
        http::{Request, StatusCode, header},
        response::Response,
    };
    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Notify,
        time::timeout,
    };
    use tower::ServiceExt;

    use super::*;

    async fn answer(method: &str, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        app().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn says_hello() {
        let response = answer("GET", "/api/hello").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/plain; charset=utf-8"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "Hello, World!");
    }

    #[tokio::test]
    async fn an_unknown_path_is_not_found() {
        let response = answer("GET", "/api/nothing").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn another_method_is_not_allowed() {
        let response = answer("POST", "/api/hello").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_stop_finishes_what_is_in_flight() {
        let (begun, release, stop) = <(Arc<Notify>, Arc<Notify>, Arc<Notify>)>::default();
        let handler = {
            let (begun, release) = (begun.clone(), release.clone());
            async move || {
                begun.notify_one();
                release.notified().await;
                "finished"
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(handler));
        let server = tokio::spawn(serve(listener, app, stop.clone().notified_owned()));

        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.write_all(request).await.unwrap();
        begun.notified().await;
        stop.notify_one();
        let refuses = async { while TcpStream::connect(address).await.is_ok() {} };
        timeout(Duration::from_secs(5), refuses).await.unwrap();
        release.notify_one();

        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.ends_with("finished"), "{response}");
        server.await.unwrap().unwrap();
    }
}
