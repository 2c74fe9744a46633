//! The load: wrk, in the network of what it asks.

use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::engine::{Result, docker, output, root};

pub const IMAGE: &str = "bench-wrk";

/// What wrk reports.
#[derive(Clone, Deserialize)]
pub struct Report {
    pub requests: u64,
    pub duration_us: u64,
    /// Connections that failed, answers that are no success, and those that never came.
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

    /// Good answers per second.
    pub fn good_rate(&self) -> f64 {
        self.requests.saturating_sub(self.errors) as f64 * 1e6 / self.duration_us as f64
    }
}

/// Builds wrk's image.
///
/// # Errors
///
/// When it cannot be built.
pub fn build() -> Result<()> {
    let folder = root().join("bench/contenders/wrk");
    let folder = folder.display().to_string();
    docker(&["build", "--tag", IMAGE, &folder]).map(drop)
}

/// Asks for `/api/hello` on a port of a container for some seconds, on these many connections. It runs
/// inside the container's network, so that the engine's own proxy of published ports has no part
/// in it. `meanwhile` runs while it does.
///
/// # Errors
///
/// When wrk cannot be run, or its report cannot be read.
pub fn load<T>(
    container: &str,
    port: u16,
    connections: u32,
    seconds: u32,
    meanwhile: impl FnOnce() -> T,
) -> Result<(Report, T)> {
    let url = format!("http://127.0.0.1:{port}/api/hello");
    load_url(container, &[&url], connections, seconds, meanwhile)
}

/// The same for any address, after which may follow other arguments of wrk.
///
/// # Errors
///
/// As above.
pub fn load_url<T>(
    container: &str,
    url: &[&str],
    connections: u32,
    seconds: u32,
    meanwhile: impl FnOnce() -> T,
) -> Result<(Report, T)> {
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
        // As long as a client waits; the default of 2 s counts a late answer as an error.
        "--timeout=20s",
    ];
    let child = Command::new("docker")
        .args(run)
        .args(wrk)
        .args(url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let value = meanwhile();
    let result = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&result.stdout);
    let report = text.lines().last().unwrap_or_default();
    let report = serde_json::from_str(report).map_err(|error| {
        let errors = String::from_utf8_lossy(&result.stderr);
        format!("wrk: {error}\n{text}{errors}")
    })?;
    Ok((report, value))
}

/// Whether `/api/hello` answers on a port of a container, inside its network.
pub fn answers(container: &str, port: u16) -> bool {
    let url = format!("http://127.0.0.1:{port}/api/hello");
    beside(
        container,
        &["curl", "--fail", "--silent", "--max-time", "2", &url],
    )
    .is_ok()
}

/// What a program in wrk's image writes, in the network of a container.
///
/// # Errors
///
/// When it fails.
pub fn beside(container: &str, program: &[&str]) -> Result<String> {
    let network = format!("container:{container}");
    let run = [
        "run",
        "--rm",
        "--network",
        &network,
        "--entrypoint",
        program[0],
        IMAGE,
    ];
    output(Command::new("docker").args(run).args(&program[1..]))
}
