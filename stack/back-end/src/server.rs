//! Serving and stopping.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    serve::Listener,
};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tracing::{debug, info, warn};

/// Limit of open connections; more of them wait in the listen backlog. A connection uses 15 KB, and up to 57 KB
/// with a full buffer, so the stack's memory limit of 512 MB is enough for any number of clients. The proxy has
/// one per request in flight, and keeps up to 1,024 idle ones per worker and upstream.
const MAX_CONNECTIONS: usize = 8192;

/// Read buffer of a connection, in bytes: more than the 32 KB of headers that the proxy forwards. hyper's default
/// is 400 KB.
const MAX_BUFFER: usize = 40 * 1024;

/// Open files besides connections: standard streams, listeners, the runtime.
const OTHER_FILES: u64 = 32;

/// Listen backlog. A burst exceeds tokio's default of 1024, and a dropped SYN is sent again only after a second.
/// net.core.somaxconn, 4096 by default, is the upper bound.
const BACKLOG: u32 = 4096;

/// Idle timeout of a connection. Longer than nginx's 60 s, so that nginx never sends a request on a connection that
/// is being closed. Frees connections of a proxy whose machine is gone.
const IDLE: Duration = Duration::from_secs(75);

/// Time after SIGTERM in which open connections are answered with `Connection: close` before idle ones are closed. A
/// busy proxy has used all of its connections by then, and so closed them.
const DRAIN: Duration = Duration::from_secs(1);

/// Address family not supported: the kernel was started with `ipv6.disable=1`. The same number on every architecture
/// that the rust image supports.
const EAFNOSUPPORT: i32 = 97;

/// Listens on `address`. `[::]` includes IPv4, and means IPv4 only if the kernel has no IPv6.
///
/// # Errors
///
/// When the address is in use or not of this host.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listen = |address| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // A restart finds connections of the last process that are not over yet.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let result = match listen(address) {
        Err(error)
            if error.raw_os_error() == Some(EAFNOSUPPORT) && address.ip().is_unspecified() =>
        {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    };
    result.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Serves `app` until `stop` resolves. Then drains: accepts no new connections, answers open ones for about a second,
/// closes idle ones, and finishes requests in flight within `grace_period`.
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()> + Send,
    grace_period: Duration,
) -> io::Result<()> {
    // Not generic, so compiled once for both ports.
    serve_until(listener, app, pin!(stop), grace_period).await
}

async fn serve_until(
    mut listener: TcpListener,
    app: Router,
    mut stop: Pin<&mut (dyn Future<Output = ()> + Send)>,
    grace_period: Duration,
) -> io::Result<()> {
    let connections = Connections::new(app)?;
    loop {
        let next = async {
            let place = connections.place().await;
            (Listener::accept(&mut listener).await.0, place)
        };
        tokio::select! {
            (stream, place) = next => connections.serve(stream, place),
            () = &mut stop => break,
        }
    }
    info!("stopping");
    connections.draining.store(true, Ordering::Relaxed);
    // Serve connections that wait in the listen backlog: closing the listener would reset them, and lose their requests.
    let listener = listener.into_std()?;
    while let place @ Some(_) = connections.free_place()
        && let Ok((stream, _)) = listener.accept()
    {
        stream.set_nonblocking(true)?;
        connections.serve(TcpStream::from_std(stream)?, place);
    }
    drop(listener);
    if timeout(DRAIN, connections.all_closed()).await.is_ok() {
        return Ok(());
    }
    connections.close_idle.send_replace(());
    if timeout(grace_period, connections.all_closed())
        .await
        .is_err()
    {
        warn!(
            ?grace_period,
            "closing connections that are still open after the grace period"
        );
    }
    Ok(())
}

/// All open connections.
struct Connections {
    app: TowerToHyperService<Router>,
    http: http1::Builder,
    max: u32,
    places: Arc<Semaphore>,
    draining: Arc<AtomicBool>,
    /// Tells every connection to close when it is idle.
    close_idle: watch::Sender<()>,
}

impl Connections {
    /// # Errors
    ///
    /// When the limit of open files cannot be read.
    fn new(app: Router) -> io::Result<Self> {
        // The soft limit is 1,024 on engines since 29, and the hard one much higher.
        let files = rlimit::increase_nofile_limit(MAX_CONNECTIONS as u64 + OTHER_FILES)?;
        let max = files
            .saturating_sub(OTHER_FILES)
            .clamp(1, MAX_CONNECTIONS as u64) as u32;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MAX_BUFFER);
        Ok(Self {
            app: TowerToHyperService::new(app),
            http,
            max,
            places: Arc::new(Semaphore::new(max as usize)),
            draining: Arc::default(),
            close_idle: watch::Sender::default(),
        })
    }

    /// Waits until one more connection is allowed.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // It fails when the semaphore is closed, which it never is.
        self.places.clone().acquire_owned().await.ok()
    }

    fn free_place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    async fn all_closed(&self) {
        let _ = self.places.acquire_many(self.max).await;
    }

    /// Serves a connection in its own task.
    fn serve(&self, stream: TcpStream, place: Option<OwnedSemaphorePermit>) {
        let (app, draining) = (self.app.clone(), self.draining.clone());
        let service = service_fn(move |request| {
            let (response, draining) = (app.call(request), draining.clone());
            async move {
                let mut response = response.await?;
                let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if draining.load(Ordering::Relaxed) && !upgraded {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut close_idle = self.close_idle.subscribe();
        tokio::spawn(async move {
            let mut connection = pin!(connection.with_upgrades());
            let result = tokio::select! {
                result = &mut connection => result,
                _ = close_idle.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                // What a peer does, such as leaving early, is no fault of this program.
                debug!(%error, "connection failed");
            }
            drop(place);
        });
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
