//! This replica: its name and its figures.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use gethostname::gethostname;

/// A running instance of the API. Clones are the same replica.
#[derive(Clone, Debug)]
pub struct Replica(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    header: HeaderValue,
    started: Instant,
    served: AtomicU64,
}

impl Replica {
    /// A replica named after this host, which in a container is its short id.
    ///
    /// # Errors
    ///
    /// When the host name is not a valid header value.
    pub fn of_this_host() -> io::Result<Self> {
        Self::new(&gethostname().to_string_lossy())
    }

    /// A replica called `name`, starting now.
    ///
    /// # Errors
    ///
    /// When `name` is not a valid header value.
    pub fn new(name: &str) -> io::Result<Self> {
        let header = HeaderValue::from_str(name).map_err(|_| {
            io::Error::other(format!(
                "invalid host name {name:?}: expected visible ASCII characters"
            ))
        })?;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            header,
            started: Instant::now(),
            served: AtomicU64::new(0),
        })))
    }

    /// The name of the host.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name as a header value.
    pub fn header(&self) -> HeaderValue {
        self.0.header.clone()
    }

    /// The time since the start.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// The number of requests counted so far.
    pub fn served(&self) -> u64 {
        self.0.served.load(Ordering::Relaxed)
    }

    /// Counts one request.
    pub fn count(&self) {
        self.0.served.fetch_add(1, Ordering::Relaxed);
    }
}
