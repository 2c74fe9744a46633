//! The API of the final stack. Any number of replicas run behind a reverse proxy, and each says which one it is.

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
    middleware::{REQUEST_ID, SERVED_BY, around},
    routes::router,
};

/// Exit code for a wrong argument or setting.
const USAGE: u8 = 2;

/// The program: serves `routes`, or checks the health of the replica that does, as the command line says.
///
/// Neither generic nor async, so that the program which calls it compiles nothing of this library again.
pub fn run(routes: fn(Replica) -> Router) -> ExitCode {
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
        [] => serve(config, routes),
        ["healthcheck"] => healthcheck::ask(config.address),
        ["--help" | "-h"] => {
            print!("{}", config::HELP);
            Ok(())
        }
        ["--version" | "-V"] => {
            println!("{}", env!("CARGO_PKG_VERSION"));
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

/// Serves `routes` and the metrics until SIGTERM or SIGINT.
///
/// # Errors
///
/// When an address cannot be listened on, the host name cannot be a header, or a signal handler or
/// thread cannot be installed.
fn serve(config: Config, routes: fn(Replica) -> Router) -> io::Result<()> {
    // One thread: no handler computes or blocks, and what needs another core runs another replica.
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = async {
        let log = Arc::new(log::init(config.log_format, config.log_filter.clone())?);
        watchdog::start(log.clone())?;
        let stop = server::stop_signal()?;
        let replica = Replica::of_this_host()?;
        let listener = server::listen(config.address)?;
        let metrics = Metrics::new(log.dropped_lines())?;
        let metrics_listener = server::listen(config.metrics_address)?;
        info!(
            address = %listener.local_addr()?,
            metrics = %metrics_listener.local_addr()?,
            replica = replica.name(),
            "listening"
        );
        let app = around(routes(replica.clone()), replica, &metrics, &config);
        let never = future::pending();
        let result = tokio::select! {
            result = server::serve(listener, app, stop, config.grace_period) => result,
            result = server::serve(metrics_listener, metrics.router(), never, Duration::ZERO) => result,
            () = log.keep_writing() => Ok(()),
        };
        log.close();
        result
    };
    runtime.block_on(served)
}
