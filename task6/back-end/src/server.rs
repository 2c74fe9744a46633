//! Serving and stopping.

use std::{io, time::Duration};

use axum::Router;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::sleep,
};
use tracing::{info, warn};

/// Serves `app` until `stop` resolves, then finishes what is in flight, for at most
/// `grace_period`.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace_period: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        stop.await;
        info!("stopping");
        // It fails when nobody waits any more, and then nobody needs to know.
        let _ = stopping.send(());
    });
    let grace = async {
        if stopped.await.is_ok() {
            sleep(grace_period).await;
        }
    };
    tokio::select! {
        result = server => result,
        () = grace => {
            warn!(?grace_period, "closing connections that are still open after the grace period");
            Ok(())
        }
    }
}

/// Resolves on SIGTERM, which is `docker stop`, and on SIGINT, which is Ctrl-C.
///
/// The kernel gives process 1 of a container no default handlers: without these, `docker stop`
/// would wait for ten seconds and then kill.
///
/// # Errors
///
/// When the handlers cannot be installed.
pub fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
