//! wrk, a load generator, in the network of what it asks.

use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::tools::{docker, output, root};

/// The image of wrk, which has curl and a libc, too.
pub const IMAGE: &str = "bench-wrk";

/// What wrk reports.
#[derive(Clone, Deserialize)]
pub struct Report {
    pub requests: u64,
    pub duration_us: u64,
    /// Connections that failed, responses that are no success, and those that never came.
    pub errors: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
}

impl Report {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 * 1e6 / self.duration_us as f64
    }

    /// Successful responses per second.
    pub fn good_rate(&self) -> f64 {
        self.requests.saturating_sub(self.errors) as f64 * 1e6 / self.duration_us as f64
    }
}

/// Builds wrk's image.
///
/// # Panics
///
/// When it cannot be built.
pub fn build() {
    let folder = root().join("bench/contenders/wrk").display().to_string();
    docker(&["build", "--tag", IMAGE, &folder]);
}

/// Sends `GET /api/hello` to a port of a container for some seconds, over so many connections. It runs
/// inside the container's network, without the engine's proxy of published ports. `meanwhile` runs beside it.
///
/// # Panics
///
/// When wrk cannot be run, or its report cannot be read.
#[track_caller]
pub fn load<T>(
    container: &str,
    port: u16,
    connections: u32,
    seconds: u32,
    meanwhile: impl FnOnce() -> T,
) -> (Report, T) {
    let url = format!("http://127.0.0.1:{port}/api/hello");
    load_url(container, &[&url], connections, seconds, meanwhile)
}

/// The same for any URL, with further arguments of wrk before it.
///
/// # Panics
///
/// As above.
#[track_caller]
pub fn load_url<T>(
    container: &str,
    url: &[&str],
    connections: u32,
    seconds: u32,
    meanwhile: impl FnOnce() -> T,
) -> (Report, T) {
    let network = format!("container:{container}");
    let connections = connections.to_string();
    let duration = format!("{seconds}s");
    let run = ["run", "--rm", "--network", &network, IMAGE];
    let wrk = [
        "--threads=1",
        "--connections",
        &connections,
        "--duration",
        &duration,
        // As long as a client waits; the default of 2 s counts a late response as an error.
        "--timeout=20s",
    ];
    let child = Command::new("docker")
        .args(run)
        .args(wrk)
        .args(url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker runs");
    let value = meanwhile();
    let result = child.wait_with_output().expect("docker ends");
    let text = String::from_utf8_lossy(&result.stdout);
    let report = text.lines().last().unwrap_or_default();
    let report = serde_json::from_str(report).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&result.stderr);
        panic!("wrk: {error}\n{text}{errors}")
    });
    (report, value)
}

/// Whether `/api/hello` answers on a port of a container, inside its network.
pub fn answers(container: &str, port: u16) -> bool {
    let url = format!("http://127.0.0.1:{port}/api/hello");
    let curl = ["curl", "--fail", "--silent", "--max-time", "2", &url];
    beside(container, &curl).is_ok()
}

/// Runs a program of wrk's image in the network of a container, and returns what it wrote.
///
/// # Errors
///
/// When it fails, with what it wrote.
pub fn beside(container: &str, program: &[&str]) -> Result<String, String> {
    let network = format!("container:{container}");
    let run = ["run", "--rm", "--network", &network, "--entrypoint"];
    let words = [&run[..], &[program[0], IMAGE], &program[1..]].concat();
    output(Command::new("docker").args(words))
}
