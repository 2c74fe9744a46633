//! The API with additional handlers: slow, silent and blocked ones.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env, future,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

use api::{Service, replica::Replica};
use axum::{
    Json, Router,
    extract::{
        Path, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, StatusCode, header},
    response::{
        AppendHeaders, IntoResponse,
        sse::{Event, Sse},
    },
    routing::{any, get},
};
use futures_util::stream;
use tokio::time::sleep;
use tracing::info;

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some("invalid") => invalid(),
        _ => api::run(Service {
            about: "The API with handlers for tests.",
            version: env!("CARGO_PKG_VERSION"),
            settings: "",
            routes: |replica| Ok(routes(replica)),
        }),
    }
}

/// Serves invalid responses on port 5252, for ever. Logs each request as `METHOD PATH`.
fn invalid() -> ExitCode {
    let listener = TcpListener::bind(("0.0.0.0", 5252)).expect("the port is free");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || answer_invalid(&stream));
    }
    ExitCode::SUCCESS
}

/// Answers one request, and closes the connection.
fn answer_invalid(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let line = lines.next().unwrap_or_default();
    // Unread headers would reset the connection.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next());
    let path = path.unwrap_or_default();
    println!("{method} {path}");
    let ok = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n";
    let response = match path.split('/').nth(2) {
        Some("too-large") => format!("{ok}large: {}\r\n\r\nok", "a".repeat(20_000)),
        Some("bad-header") => format!("{ok}no colon\r\n\r\nok"),
        Some("early-end") => ok.to_owned(),
        _ => format!("{ok}\r\nok"),
    };
    // The proxy closes when it has seen enough.
    let _ = stream.write_all(response.as_bytes());
}

fn routes(replica: Replica) -> Router {
    api::router(replica)
        .route("/api/slow/{milliseconds}", any(slow))
        .route("/api/never", any(never))
        .route("/api/events/{milliseconds}", get(events))
        .route("/api/echo", any(echo))
        .route("/api/block", any(block))
        .route("/api/headers", get(headers))
        .route("/api/cookies/{number}", get(cookies))
        .route("/api/unprocessable", get(unprocessable))
}

/// Responds after this time.
async fn slow(Path(milliseconds): Path<u64>) -> &'static str {
    // Tests count these lines, which have the URI of the request.
    info!("carried out");
    sleep(Duration::from_millis(milliseconds)).await;
    "slow"
}

/// The headers of the request.
async fn headers(headers: HeaderMap) -> Json<BTreeMap<String, Vec<String>>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.to_string()).or_default().push(value);
    }
    Json(all)
}

/// So many cookies, of 1 KB each.
async fn cookies(Path(number): Path<usize>) -> impl IntoResponse {
    info!("carried out");
    let cookie = |index| {
        let value = "a".repeat(1024 - "set-cookie: c00=\r\n".len());
        (header::SET_COOKIE, format!("c{index:02}={value}"))
    };
    AppendHeaders((0..number).map(cookie).collect::<Vec<_>>())
}

/// A handler's own error.
async fn unprocessable() -> impl IntoResponse {
    let fields = BTreeMap::from([("title", "is empty: expected text")]);
    (StatusCode::UNPROCESSABLE_ENTITY, Json(fields))
}

/// Never responds.
async fn never() {
    info!("carried out");
    future::pending().await
}

/// Three server-sent events with silence between them.
async fn events(Path(milliseconds): Path<u64>) -> impl IntoResponse {
    let silence = Duration::from_millis(milliseconds);
    Sse::new(stream::unfold(0, move |sent| async move {
        match sent {
            0 => {}
            1 | 2 => sleep(silence).await,
            _ => return None,
        }
        let event = Event::default().data(sent.to_string());
        Some((Ok::<_, Infallible>(event), sent + 1))
    }))
}

/// A WebSocket that returns each message.
async fn echo(upgrade: WebSocketUpgrade) -> impl IntoResponse {
    upgrade.on_upgrade(async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// Blocks the event loop for ever.
async fn block() {
    loop {
        thread::park();
    }
}
