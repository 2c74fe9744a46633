//! The log, on standard output. Logging never blocks: when nobody reads standard output, as behind a
//! stopped terminal, lines are dropped and counted.

use std::{
    fmt::{self, Debug, Write as _},
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use prometheus::IntCounter;
use tokio::time;
use tracing::{field::Field, warn};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    field::RecordFields,
    filter::Targets,
    fmt::{
        FormatFields,
        format::Writer,
        layer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// How much is written at once, in bytes. Line by line, the engine spends more time on the log of a
/// request than the program on the request.
const BLOCK: usize = 32 * 1024;

/// Blocks that wait for standard output before lines are dropped: 2 MB, some 8,000 requests.
const WAITING_BLOCKS: usize = 64;

/// How long a line may wait for the rest of its block.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the last lines may take to be written.
const CLOSE: Duration = Duration::from_millis(200);

/// The log of this process.
pub struct Log {
    lines: Arc<Lines>,
    dropped: IntCounter,
    worker: Mutex<Option<WorkerGuard>>,
}

/// Lines on their way to the thread that writes them.
struct Lines(Mutex<Block>);

struct Block {
    lines: Vec<u8>,
    writer: NonBlocking,
    /// Lines dropped since the start.
    dropped: IntCounter,
}

/// Logs what `filter` lets through to standard output, one line an event.
///
/// # Errors
///
/// When there is no standard output.
pub fn init(format: LogFormat, filter: Targets) -> io::Result<Log> {
    // The descriptor itself: the lock and the buffer of `io::stdout` would only be in the way.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_BLOCKS)
        .lossy(true)
        .thread_name("log")
        .finish(stdout);
    let dropped = IntCounter::new(
        "log_lines_dropped_total",
        "Log lines dropped because standard output was blocked.",
    )
    .map_err(io::Error::other)?;
    let lines = Arc::new(Lines(Mutex::new(Block {
        lines: Vec::with_capacity(BLOCK),
        writer,
        dropped: dropped.clone(),
    })));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = layer()
        .with_target(false)
        .with_timer(Clock::default())
        .with_writer(lines.clone());
    match format {
        LogFormat::Text => registry.with(layer.fmt_fields(Fields)).init(),
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    Ok(Log {
        lines,
        dropped,
        worker: Mutex::new(Some(worker)),
    })
}

/// How fields are written as text: as by default, but without colours and in one piece, which takes half the
/// instructions.
struct Fields;

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut text = String::with_capacity(160);
        let mut write = |field: &Field, value: &dyn Debug| {
            if !text.is_empty() {
                text.push(' ');
            }
            if field.name() != "message" {
                text.push_str(field.name());
                text.push('=');
            }
            // Writing to a string does not fail.
            let _ = write!(text, "{value:?}");
        };
        fields.record(&mut write);
        writer.write_str(&text)
    }
}

/// The time of a line, to the microsecond. Seconds are formatted once for all lines that share them.
#[derive(Default)]
struct Clock(Mutex<Second>);

#[derive(Default)]
struct Second {
    since_epoch: u64,
    /// As `2026-01-31T12:34:56.`
    text: String,
}

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.since_epoch != now.as_secs() {
            let mut text = String::new();
            SystemTime.format_time(&mut Writer::new(&mut text))?;
            let (seconds, _) = text.split_once('.').unwrap_or((&text, ""));
            *second = Second {
                since_epoch: now.as_secs(),
                text: format!("{seconds}."),
            };
        }
        writer.write_str(&second.text)?;
        write!(writer, "{:06}Z", now.subsec_micros())
    }
}

impl Log {
    /// The number of lines dropped since the start.
    pub fn dropped_lines(&self) -> &IntCounter {
        &self.dropped
    }

    /// Writes the lines that have waited long enough and reports how many were dropped, forever.
    ///
    /// A task and not a thread: with this timer pending, the runtime need not be woken for that of
    /// each request, which is later.
    pub async fn keep_writing(&self) {
        let mut interval = time::interval(INTERVAL);
        // Totals of dropped lines: as logged for sure, and as in the report that waits in the block.
        let (mut reported, mut reporting) = (0, 0);
        loop {
            interval.tick().await;
            let taken = self.lines.lock().hand_over();
            let dropped = self.dropped.get();
            if taken {
                reported = reporting;
            }
            if dropped > reported {
                reporting = dropped;
                warn!(
                    dropped,
                    "standard output was blocked: log lines dropped since the start"
                );
            }
        }
    }

    /// Writes what still waits, as far as standard output takes it. Later lines are lost.
    pub fn close(&self) {
        self.lines.lock().hand_over();
        let worker = self.worker.lock();
        let Some(worker) = worker.unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        // In a thread, because dropping the guard prints to standard output when that is blocked.
        let (closed, wait) = mpsc::channel();
        thread::spawn(move || {
            drop(worker);
            // It fails when nobody waits any more, and then nobody needs to know.
            let _ = closed.send(());
        });
        let _ = wait.recv_timeout(CLOSE);
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Block> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    /// Hands the lines to the thread that writes them. Returns whether it took them; they are dropped
    /// otherwise.
    fn hand_over(&mut self) -> bool {
        if self.lines.is_empty() {
            return true;
        }
        let refused = self.writer.error_counter();
        let before = refused.dropped_lines();
        // It counts a block that it has no room for, and never fails.
        let _ = self.writer.write(&self.lines);
        let taken = refused.dropped_lines() == before;
        if !taken {
            let lines = self.lines.iter().filter(|&&byte| byte == b'\n').count();
            self.dropped.inc_by(lines as u64);
        }
        self.lines.clear();
        taken
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut block = self.lock();
        if block.lines.len() + line.len() > BLOCK {
            block.hand_over();
        }
        block.lines.extend_from_slice(line);
        Ok(line.len())
    }

    /// Nothing: a block is written when it is full, or old enough.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
