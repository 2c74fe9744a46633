//! The log, on standard output.

use std::{
    io::{self, BufWriter, Stdout, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// How much is written at once, in bytes. Line by line, the engine spends more time on the log of a
/// request than the program on the request.
const BLOCK: usize = 32 * 1024;

/// How long a line may wait for the rest of its block.
const INTERVAL: Duration = Duration::from_secs(1);

/// The log. What still waits is written when it is dropped.
pub struct Log(Arc<Blocks>);

/// Standard output, in blocks.
struct Blocks(Mutex<BufWriter<Stdout>>);

/// Writes what `filter` lets through to standard output, one line an event.
pub fn init(format: LogFormat, filter: Targets) -> Log {
    let blocks = BufWriter::with_capacity(BLOCK, io::stdout());
    let blocks = Arc::new(Blocks(Mutex::new(blocks)));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(blocks.clone());
    match format {
        LogFormat::Text => registry.with(layer).init(),
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    Log(blocks)
}

impl Log {
    /// Writes what has waited long enough, for ever.
    ///
    /// A task and not a thread: with this timer pending, the runtime need not be woken for that of
    /// each request, which is later.
    pub async fn keep_writing(&self) {
        let mut interval = time::interval(INTERVAL);
        loop {
            interval.tick().await;
            self.write_out();
        }
    }

    fn write_out(&self) {
        // When nobody reads the log any more, there is nobody to tell.
        let _ = self.0.lock().flush();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.write_out();
    }
}

impl Blocks {
    fn lock(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Blocks {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lock().write(line)
    }

    /// Nothing: a block is written when it is full, or old enough.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
