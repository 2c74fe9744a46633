//! The API without a container, for a debugger, and the pages beside it: `cargo run --example develop`, then
//! <http://localhost:5252>. Variables in the `.env` of the top folder apply.

use std::{path::Path, process::ExitCode};

use api::Service;
use tower_http::services::ServeDir;

fn main() -> ExitCode {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match dotenvy::from_path(top.join(".env")) {
        Err(error) if !error.not_found() => {
            eprintln!("error: .env: {error}: expected lines such as API_LOG_FILTER=debug");
            return ExitCode::from(2);
        }
        _ => {}
    }
    api::run(Service {
        about: "The API and the pages, for development.",
        version: env!("CARGO_PKG_VERSION"),
        settings: "",
        routes: |replica| {
            let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../front-end/html");
            Ok(api::router(replica)
                .route_service("/", ServeDir::new(pages))
                .route_service("/{*path}", ServeDir::new(pages)))
        },
    })
}
