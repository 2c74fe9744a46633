//! The program `api`: serves the API, or with `api healthcheck` asks whether it is healthy.

use std::process::ExitCode;

fn main() -> ExitCode {
    api::run(api::router)
}
