//! The program `notes`: serves the notes, or with `notes healthcheck` asks whether it is healthy.

mod database;
mod input;
mod notes;

use std::process::ExitCode;

use api::Service;

use crate::database::Database;

fn main() -> ExitCode {
    api::run(Service {
        about: "An HTTP API for notes that PostgreSQL keeps.",
        version: env!("CARGO_PKG_VERSION"),
        settings: database::SETTINGS,
        routes: |_| Ok(notes::router(Database::from_env()?)),
    })
}
