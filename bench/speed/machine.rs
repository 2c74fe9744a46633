//! What it was measured on.

use std::{fs, thread};

use harness::tools::docker;
use jiff::Zoned;

use crate::Result;

/// What is compared, by the image that has it and a command that names its version.
const VERSIONS: [(&str, &str); 5] = [
    ("nginx:1.30", "nginx -v 2>&1"),
    (
        "bench-flask",
        "python3 -c 'from importlib.metadata import version; \
         print(\"Flask\", version(\"flask\"), \"on Werkzeug\", version(\"werkzeug\"))'",
    ),
    ("bench-flask", "gunicorn --version"),
    ("bench-haproxy", "haproxy -v | head -n 1"),
    ("bench-caddy", "echo Caddy \"$(caddy version)\""),
];

/// The date and the machine, as a line of text.
///
/// # Errors
///
/// When the engine does not answer.
pub fn describe() -> Result<String> {
    let date = Zoned::now().date();
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let processor = processor.unwrap_or_else(|| "an unknown processor".to_owned());
    let cores = thread::available_parallelism()?;
    let version = "{{.Server.Version}}, {{.Server.KernelVersion}}";
    let engine = docker(&["version", "--format", version]);
    Ok(format!(
        "Measured on {date}, on {cores} cores of {processor}, with Docker Engine and Linux {engine}.\n"
    ))
}

/// The versions of what was compared.
pub fn versions() -> String {
    let mut versions = vec![];
    for (image, command) in VERSIONS {
        let run = ["run", "--rm", "--entrypoint", "sh", image, "-c", command];
        versions.push(docker(&run));
    }
    format!("Versions: {}.\n", versions.join("; "))
}
