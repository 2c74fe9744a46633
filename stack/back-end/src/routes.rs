//! The routes and their handlers.

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use crate::{errors::unexplained, replica::Replica};

/// The routes under `/api`.
pub fn router(replica: Replica) -> Router {
    Router::new()
        .route("/api", get(async |replica| page(replica, "./")))
        .route("/api/", get(async |replica| page(replica, "../")))
        .route("/api/hello", get(hello))
        .route("/api/whoami", get(whoami))
        .with_state(replica)
}

/// `GET /api/hello`: the greeting, as text.
async fn hello() -> &'static str {
    "Hello, World!"
}

/// What a replica reports about itself.
#[derive(Serialize)]
struct Whoami {
    /// The host name, which in a container is the container's short id.
    replica: String,
    /// The version of the program.
    version: &'static str,
    /// Seconds since the start.
    uptime_seconds: u64,
    /// Requests since the start, this one included and health checks aside.
    requests_served: u64,
}

impl From<Replica> for Whoami {
    fn from(replica: Replica) -> Self {
        Self {
            replica: replica.name().to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: replica.uptime().as_secs(),
            requests_served: replica.served(),
        }
    }
}

/// `GET /api/whoami`: the replica, as JSON.
async fn whoami(State(replica): State<Replica>) -> Json<Whoami> {
    Json(replica.into())
}

#[derive(Template)]
#[template(path = "replica.html")]
struct Page {
    whoami: Whoami,
    /// The way to the front page, for links that work below a prefix, too.
    root: &'static str,
}

/// `GET /api` and `GET /api/`: the replica, as a page.
fn page(State(replica): State<Replica>, root: &'static str) -> Response {
    let page = Page {
        whoami: replica.into(),
        root,
    };
    match page.render() {
        Ok(page) => Html(page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the page cannot be rendered");
            unexplained(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}
