//! The API of the final stack. Any number of replicas run behind a reverse proxy, and each says which one it is.

pub mod config;
mod errors;
pub mod healthcheck;
pub mod log;
pub mod metrics;
mod middleware;
pub mod replica;
mod routes;
pub mod server;
mod watchdog;

use std::{io, sync::Arc};

use axum::Router;
use tracing::info;

use crate::{config::Config, metrics::Metrics, replica::Replica};
pub use crate::{
    middleware::{REQUEST_ID, SERVED_BY, around},
    routes::router,
};

/// Serves `routes` and the metrics until SIGTERM or SIGINT.
///
/// # Errors
///
/// When an address cannot be listened on, the host name cannot be a header, or a signal handler or
/// thread cannot be installed.
pub async fn run(config: Config, routes: impl FnOnce(Replica) -> Router) -> io::Result<()> {
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
    let result = tokio::select! {
        result = server::serve(listener, app, stop, config.grace_period) => result,
        result = axum::serve(metrics_listener, metrics.router()).into_future() => result,
        () = log.keep_writing() => Ok(()),
    };
    log.close();
    result
}
