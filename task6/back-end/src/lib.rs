//! The API of the final stack: any number of replicas behind a reverse proxy, each of which says
//! who it is.

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

use axum::{Router, http::HeaderName};
use tracing::info;

use crate::{config::Config, metrics::Metrics, replica::Replica};
pub use crate::{middleware::around, routes::router};

/// The response header that names the replica which made the response.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// The header that carries the id of a request, from the proxy and back.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The path that health checks ask for.
const HEALTH: &str = "/healthz";

/// Serves `routes`, and the metrics, as `config` says, until the process is told to stop.
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
