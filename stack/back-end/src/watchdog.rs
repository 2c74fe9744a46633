//! The watchdog: exits the process when its event loop is blocked, so that the restart policy starts a new one. A
//! blocked replica accepts connections and never responds.

use std::{
    io, process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time;
use tracing::error;

use crate::log::Log;

/// Interval of heartbeats of the event loop, and of checks by the thread.
const INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive checks without a heartbeat. Only time in which this process runs counts: a paused container or a
/// suspended machine misses none. A replica with 5% of a core and 1,000 busy connections misses none either.
const MISSES: u32 = 4;

/// Starts a thread that watches the event loop of this runtime.
///
/// # Errors
///
/// When the thread cannot be started.
pub fn start(log: Arc<Log>) -> io::Result<()> {
    let beats = Arc::new(AtomicU64::new(0));
    let seen = beats.clone();
    tokio::spawn(async move {
        let mut interval = time::interval(INTERVAL);
        loop {
            interval.tick().await;
            beats.fetch_add(1, Ordering::Relaxed);
        }
    });
    let watch = move || {
        let mut last = 0;
        let mut misses = 0;
        while misses < MISSES {
            thread::sleep(INTERVAL);
            let now = seen.load(Ordering::Relaxed);
            misses = if now == last { misses + 1 } else { 0 };
            last = now;
        }
        error!("the event loop is blocked: ending, to be restarted");
        log.close();
        process::exit(1);
    };
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(watch)
        .map(drop)
}
