//! The program `api`: serves the API, or with `api healthcheck` asks whether it is healthy.

use std::process::ExitCode;

use api::{
    config::{Command, Config},
    healthcheck,
};

// One thread: no handler computes or blocks, and what needs another core runs another replica.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::from_args();
    let result = match config.command {
        Some(Command::Healthcheck) => healthcheck::ask(config.address).await,
        None => api::run(config, api::router).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
