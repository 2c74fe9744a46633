//! The API of the final stack. Any number of replicas run behind a reverse proxy, and each says which one it is.
//!
//! Also the library of other services for the same stack ([`run`]): health check, settings, logs, metrics, deadlines,
//! errors as JSON, and a graceful shutdown.

pub mod config;
mod errors;
mod healthcheck;
pub mod log;
pub mod metrics;
mod middleware;
pub mod replica;
mod routes;
pub mod server;
mod unread;
mod watchdog;

use std::{env, future, io, process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use tokio::runtime;
use tracing::info;

use crate::{config::Config, metrics::Metrics, replica::Replica};
pub use crate::{
    errors::error,
    middleware::{REQUEST_ID, SERVED_BY, around},
    routes::router,
};

/// Exit code for a wrong argument or setting.
const USAGE: u8 = 2;

/// A service: what differs between the programs that [`run`] runs.
pub struct Service {
    /// What it does, in one sentence, for `--help`.
    pub about: &'static str,
    /// The version of the program, for `--version` and the metrics.
    pub version: &'static str,
    /// The lines of `--help` about its own environment variables, each with a newline. The library's come before them.
    pub settings: &'static str,
    /// Its routes, for this replica. Called once, inside the runtime, so that it may start tasks. Fails with a line that
    /// names a wrong setting. The library adds `/healthz` and replaces the fallbacks.
    pub routes: fn(Replica) -> Result<Router, String>,
}

/// The program: serves the routes, or checks the health of the replica that does, as the command line says.
///
/// Neither generic nor async, so that the program which calls it compiles nothing of this library again.
pub fn run(service: Service) -> ExitCode {
    let usage = |message: &str| {
        eprintln!("error: {message}");
        ExitCode::from(USAGE)
    };
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(message) => return usage(&message),
    };
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|one| one.to_string_lossy()).collect();
    let result = match arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        [] => match serve(config, &service) {
            Err(Error::Setting(message)) => return usage(&message),
            Err(Error::Io(error)) => Err(error),
            Ok(()) => Ok(()),
        },
        ["healthcheck"] => healthcheck::ask(config.address),
        ["--help" | "-h"] => {
            print!("{}\n{}{}", service.about, config::HELP, service.settings);
            Ok(())
        }
        ["--version" | "-V"] => {
            println!("{}", service.version);
            Ok(())
        }
        [first, ..] => {
            return usage(&format!(
                "the argument is '{first}': expected none, healthcheck or --help"
            ));
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a service cannot be served.
enum Error {
    /// The line about a setting of its own.
    Setting(String),
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Serves the routes and the metrics until SIGTERM or SIGINT.
///
/// # Errors
///
/// When a setting of the service is wrong, an address cannot be listened on, the host name cannot be a header, or a
/// signal handler or thread cannot be installed.
fn serve(config: Config, service: &Service) -> Result<(), Error> {
    // One thread: no handler computes or blocks, and what needs another core runs another replica.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        // Default 512. Names are resolved in threads, which wait for a slow DNS; pids_limit is 32.
        .max_blocking_threads(8)
        .build()?;
    let served = async {
        let log = Arc::new(log::init(config.log_format, config.log_filter.clone())?);
        watchdog::start(log.clone())?;
        let stop = server::stop_signal()?;
        let replica = Replica::of_this_host()?;
        let routes = (service.routes)(replica.clone()).map_err(Error::Setting)?;
        let listener = server::listen(config.address)?;
        let metrics = Metrics::new(service.version, log.dropped_lines())?;
        let metrics_listener = server::listen(config.metrics_address)?;
        info!(
            address = %listener.local_addr()?,
            metrics = %metrics_listener.local_addr()?,
            replica = replica.name(),
            "listening"
        );
        let app = around(routes, replica, &metrics, &config);
        let never = future::pending();
        let result = tokio::select! {
            result = server::serve(listener, app, stop, config.grace_period) => result,
            result = server::serve(metrics_listener, metrics.router(), never, Duration::ZERO) => result,
            () = log.keep_writing() => Ok(()),
        };
        log.close();
        Ok(result?)
    };
    runtime.block_on(served)
}
