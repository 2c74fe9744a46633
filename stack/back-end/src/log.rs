//! The log, on standard output. Logging never blocks: while nobody reads standard output, as behind a stopped
//! terminal, lines are dropped and counted.

use std::{
    fmt::{self, Debug, Write as _},
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, UNIX_EPOCH},
};

use prometheus::IntCounter;
use tokio::time;
use tracing::{field::Field, warn};
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

/// Buffer size in bytes. Unbuffered, dockerd spends more CPU per log line than this program per request.
const BLOCK: usize = 32 * 1024;

/// Buffers that may wait for standard output before lines are dropped: 2 MB, some 8,000 requests.
const WAITING_BLOCKS: usize = 64;

/// How long a line may stay in the buffer.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time to write the last lines.
const CLOSE: Duration = Duration::from_millis(200);

/// The log of this process.
pub struct Log {
    lines: Arc<Lines>,
    dropped: IntCounter,
    /// Receives when the last buffer is written.
    closed: Mutex<Receiver<()>>,
}

/// The buffer that all lines go to.
struct Lines(Mutex<Block>);

struct Block {
    lines: Vec<u8>,
    /// To the thread; `None` once the log is closed.
    blocks: Option<SyncSender<Vec<u8>>>,
    /// Lines dropped since the start.
    dropped: IntCounter,
}

/// Logs events that pass `filter` to standard output, one line each.
///
/// # Errors
///
/// When there is no standard output, or the thread that writes to it cannot be started.
pub fn init(format: LogFormat, filter: Targets) -> io::Result<Log> {
    // The descriptor, because io::stdout locks and buffers, too.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (blocks, waiting) = mpsc::sync_channel::<Vec<u8>>(WAITING_BLOCKS);
    let (last_written, closed) = mpsc::channel();
    let write = move || {
        for block in waiting {
            // Standard output is closed: there is nowhere to report that.
            let _ = stdout.write_all(&block);
        }
        let _ = last_written.send(());
    };
    thread::Builder::new().name("log".to_owned()).spawn(write)?;
    let dropped = IntCounter::new(
        "log_lines_dropped_total",
        "Log lines dropped because standard output was blocked.",
    )
    .map_err(io::Error::other)?;
    let lines = Arc::new(Lines(Mutex::new(Block {
        lines: Vec::with_capacity(BLOCK),
        blocks: Some(blocks),
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
        closed: Mutex::new(closed),
    })
}

/// Writes fields as `name=value`, like the default but in one piece: half the instructions.
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

/// The time of a line in microseconds. Formats the seconds only once a second.
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

    /// Writes the buffer once a second, and logs how many lines were dropped. Never returns.
    ///
    /// A task, not a thread: because this timer is always pending, the later deadlines of requests do not wake the
    /// runtime.
    pub async fn keep_writing(&self) {
        let mut interval = time::interval(INTERVAL);
        // Total of dropped lines: already logged, and in the line that is still in the buffer.
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

    /// Writes the buffer, unless standard output is blocked. Later lines are lost.
    pub fn close(&self) {
        let mut block = self.lines.lock();
        block.hand_over();
        block.blocks = None;
        drop(block);
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        // When standard output is blocked, the lines stay unwritten.
        let _ = closed.recv_timeout(CLOSE);
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Block> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    /// Sends the buffer to the thread that writes it. Returns false if its queue is full and the lines are
    /// dropped.
    fn hand_over(&mut self) -> bool {
        if self.lines.is_empty() {
            return true;
        }
        let block = mem::replace(&mut self.lines, Vec::with_capacity(BLOCK));
        let Some(blocks) = &self.blocks else {
            return true;
        };
        match blocks.try_send(block) {
            Ok(()) => true,
            Err(TrySendError::Full(block) | TrySendError::Disconnected(block)) => {
                let lines = block.iter().filter(|&&byte| byte == b'\n').count();
                self.dropped.inc_by(lines as u64);
                false
            }
        }
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

    /// Does nothing: the buffer is written when it is full, or once a second.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
