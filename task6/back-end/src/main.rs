//! The program `api`: serves the API, or with `api healthcheck` asks whether it is served.

use std::{io, process::ExitCode};

use api::{
    config::{Command, Config},
    healthcheck, log,
    replica::Replica,
    server,
};
use tokio::net::TcpListener;
use tracing::info;

// One thread: no handler computes or blocks, and what needs another core runs another replica.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::from_args();
    let result = match config.command {
        Some(Command::Healthcheck) => healthcheck::ask(config.address).await,
        None => serve(config).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> io::Result<()> {
    let log = log::init(config.log_format, config.log_filter);
    let stop = server::stop_signal()?;
    let replica = Replica::of_this_host()?;
    let address = config.address;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })?;
    info!(%address, replica = replica.name(), "listening");
    let app = api::app(replica, config.allowed_origins);
    let server = server::serve(listener, app, stop, config.grace_period);
    tokio::select! {
        result = server => result,
        () = log.keep_writing() => Ok(()),
    }
}
