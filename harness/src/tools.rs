//! The command-line tools of Docker, in their two generations.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
};

use crate::trial::Missing;

/// A builder, and the compose that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// `docker-compose` 1 and the legacy builder, as in the packages of Debian and Ubuntu.
    Legacy,
    /// `docker compose` 2 and BuildKit.
    Current,
}

/// Settings of the stack with their defaults. Set for every command, they override a `.env` on this machine.
pub const SETTINGS: [(&str, &str); 12] = [
    (
        "ACME_SERVER",
        "https://acme-v02.api.letsencrypt.org/directory",
    ),
    ("API_ALLOWED_ORIGINS", ""),
    ("API_REQUEST_TIMEOUT", "10"),
    ("COMPOSE_FILE", "docker-compose.yml"),
    ("DOMAIN", ""),
    ("EMAIL", ""),
    ("HTTP_PORT", "80"),
    ("HTTPS_PORT", "443"),
    ("LOG_FORMAT", "text"),
    ("PROXY_WORKERS", "2"),
    ("REQUEST_BUFFERING", "off"),
    ("TRUSTED_PROXIES", ""),
];

impl Tools {
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Current];

    /// What is missing to use these tools, if anything.
    pub fn missing(self) -> Option<Missing> {
        let works = |line| output(Command::new("sh").args(["-c", line])).is_ok();
        let missing = match self {
            _ if !has_engine() => "no Docker engine",
            Self::Legacy if !works("docker-compose version") => "no docker-compose",
            Self::Legacy if engine_major().is_some_and(|major| major >= 26) => {
                return Some(Missing::Impossible(
                    "docker-compose 1 cannot recreate containers on Engine 26 and newer",
                ));
            }
            Self::Current if !works("docker compose version") => "no docker compose",
            Self::Current if !works("docker buildx version") => "no docker buildx",
            _ => return None,
        };
        Some(Missing::Installable(missing))
    }

    /// A command line in `folder`. `docker-compose` is replaced by the compose of these tools.
    pub fn command(self, folder: &Path, line: &str) -> Command {
        let mut command = Command::new("sh");
        let (line, buildkit) = match self {
            Self::Legacy => (line.to_owned(), "0"),
            Self::Current => (line.replace("docker-compose ", "docker compose "), "1"),
        };
        command
            .args(["-c", &line])
            .current_dir(folder)
            .env("DOCKER_BUILDKIT", buildkit)
            .env("COMPOSE_DOCKER_CLI_BUILD", buildkit)
            .envs(SETTINGS)
            // Whole lines to read when a build fails.
            .env("BUILDKIT_PROGRESS", "plain");
        command
    }

    /// Runs a command line in `folder` and returns its output.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn run(self, folder: &str, line: &str) -> String {
        match output(&mut self.command(&root().join(folder), line)) {
            Ok(text) => text,
            Err(error) => panic!("{line}\n{error}"),
        }
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "docker-compose 1",
            Self::Current => "docker compose 2",
        })
    }
}

/// Whether a Docker engine responds.
pub fn has_engine() -> bool {
    output(Command::new("docker").arg("version")).is_ok()
}

/// The first number of the engine's version.
fn engine_major() -> Option<u32> {
    let mut version = Command::new("docker");
    version.args(["version", "--format", "{{.Server.Version}}"]);
    let version = output(&mut version).ok()?;
    version.split('.').next()?.parse().ok()
}

/// Runs `.ci/base-images` if there is an engine: pulls missing base images, or builds stand-ins.
///
/// # Errors
///
/// When an image can be neither pulled nor built.
pub fn base_images() -> Result<(), String> {
    if !has_engine() {
        return Ok(());
    }
    // It says which image is a stand-in, and takes minutes when there is none.
    let status = Command::new(root().join(".ci/base-images")).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!(".ci/base-images: {status}")),
        Err(error) => Err(format!(".ci/base-images: {error}")),
    }
}

/// A command line that runs `line` on a terminal, for `-it`.
pub fn in_terminal(line: &str) -> String {
    format!("script --quiet --return --command '{line}' /dev/null")
}

/// The top folder of the project.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests is in the project").to_owned()
}

/// Runs `command` and returns its output and error output, in the order in which they were written.
///
/// # Errors
///
/// When it fails, with its exit status and output.
pub fn output(command: &mut Command) -> Result<String, String> {
    let mut run = || -> io::Result<(ExitStatus, Vec<u8>)> {
        let (mut reader, writer) = io::pipe()?;
        let mut child = command
            // An input that stays open, as that of a terminal does: its end would be passed on as a key.
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        let _input = child.stdin.take();
        // The command's own copies of the writer, without which the reader finds its end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut text = vec![];
        reader.read_to_end(&mut text)?;
        Ok((child.wait()?, text))
    };
    let (status, text) = run().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.success() {
        Ok(text)
    } else {
        Err(format!("{status}\n{text}"))
    }
}

/// Runs `docker` and returns its output without the last newline.
///
/// # Panics
///
/// When it fails.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    match output(Command::new("docker").args(arguments)) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => panic!("docker {}: {error}", arguments.join(" ")),
    }
}

/// The output of `docker inspect` with a Go template.
#[track_caller]
pub fn inspect(name: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, name])
}

/// A name for `purpose` that no other run uses.
pub fn unique(purpose: &str) -> String {
    format!("harness-{}-{purpose}", process::id())
}
