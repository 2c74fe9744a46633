//! The programs a user types, in their two generations.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{self, Command, Output, Stdio},
};

/// A builder and a compose that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// `docker-compose` 1 and the engine's own builder: what Debian and Ubuntu package.
    Legacy,
    /// `docker compose` 2 and BuildKit.
    Current,
}

/// The settings of the stack with their defaults, which come before those of a `.env` that this machine
/// may have.
pub const SETTINGS: [(&str, &str); 10] = [
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
];

impl Tools {
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Current];

    /// Why these tools cannot be used here, if they cannot.
    pub fn missing(self) -> Option<&'static str> {
        let works = |line| output(Command::new("sh").args(["-c", line])).is_ok();
        match self {
            _ if !works("docker version") => Some("no Docker engine"),
            Self::Legacy if !works("docker-compose version") => Some("no docker-compose"),
            Self::Current if !works("docker compose version") => Some("no docker compose"),
            Self::Current if !works("docker buildx version") => Some("no docker buildx"),
            _ => None,
        }
    }

    /// A command line as a user types it in `folder`. `docker-compose` stands for either compose.
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

    /// Runs a command line in `folder` and returns what it wrote.
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
            Self::Legacy => "legacy",
            Self::Current => "current",
        })
    }
}

/// Puts the base images on the engine when there is one: pulled, or made where no registry can be
/// reached.
///
/// # Errors
///
/// When an image can be neither pulled nor made.
pub fn base_images() -> Result<(), String> {
    if output(Command::new("docker").arg("version")).is_err() {
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

/// A command line that runs `line` with a terminal, which `-it` wants.
pub fn in_terminal(line: &str) -> String {
    format!("script --quiet --return --command '{line}' /dev/null")
}

/// The top folder of the project.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests is in the project").to_owned()
}

/// Runs `command` and returns what it wrote on both streams, as an error when it failed.
pub fn output(command: &mut Command) -> Result<String, String> {
    // An input that stays open, as that of a terminal does: its end would be passed on as a key.
    let mut spawn = || {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let _input = child.stdin.take();
        child.wait_with_output()
    };
    let Output {
        status,
        stdout,
        stderr,
    } = spawn().map_err(|error| error.to_string())?;
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.success() {
        Ok(text)
    } else {
        Err(format!("{status}\n{text}"))
    }
}

/// Runs `docker` and returns what it wrote, without the last newline.
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

/// What `docker inspect` says of a container or an image, by a Go template.
#[track_caller]
pub fn inspect(name: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, name])
}

/// A name no other container or project has: of this run, and for `purpose`.
pub fn unique(purpose: &str) -> String {
    format!("acceptance-{}-{purpose}", process::id())
}
