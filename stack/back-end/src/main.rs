//! The program `api`: serves the API, or with `api healthcheck` asks whether it is healthy.

use std::process::ExitCode;

use api::Service;

fn main() -> ExitCode {
    api::run(Service {
        about: "An HTTP API that says hello and which replica it is.",
        version: env!("CARGO_PKG_VERSION"),
        settings: "",
        routes: |replica| Ok(api::router(replica)),
    })
}
