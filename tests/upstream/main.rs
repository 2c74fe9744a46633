//! The API with additional handlers: slow, silent and blocked ones.

use std::{
    collections::BTreeMap, convert::Infallible, future, process::ExitCode, thread, time::Duration,
};

use api::{
    config::{Command, Config},
    healthcheck,
    replica::Replica,
};
use axum::{
    Json, Router,
    extract::{
        Path, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, Sse},
    },
    routing::{any, get},
};
use futures_util::stream;
use tokio::time::sleep;
use tracing::info;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::from_args();
    let result = match config.command {
        Some(Command::Healthcheck) => healthcheck::ask(config.address).await,
        None => api::run(config, routes).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn routes(replica: Replica) -> Router {
    api::router(replica)
        .route("/api/slow/{milliseconds}", any(slow))
        .route("/api/never", any(never))
        .route("/api/events/{milliseconds}", get(events))
        .route("/api/echo", any(echo))
        .route("/api/block", any(block))
        .route("/api/headers", get(headers))
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
