//! The Docker engine: its commands, and what it measures of a container.

use std::{error::Error, path::Path, process::Command};

use bollard::{Docker, query_parameters::StatsOptionsBuilder};
use futures_util::StreamExt;
use tokio::runtime::{self, Runtime};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Runs a program and returns its output, without the last newline.
///
/// # Errors
///
/// When it fails, with what it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{text}{error}", output.status).into());
    }
    Ok(text.trim_end().to_owned())
}

/// Runs `docker`.
///
/// # Errors
///
/// When it fails.
pub fn docker(arguments: &[&str]) -> Result<String> {
    output(Command::new("docker").args(arguments))
}

/// What `docker inspect` says by a Go template.
///
/// # Errors
///
/// When there is no container or image of this name.
pub fn inspect(name: &str, template: &str) -> Result<String> {
    docker(&["inspect", "--format", template, name])
}

/// A MiB, in bytes.
pub const MIB: f64 = 1024.0 * 1024.0;

/// What a container has used.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory now, in bytes, as `docker stats` counts it: without the cache of files that are not
    /// in use.
    pub memory: u64,
}

/// The engine's own figures, over its API: there it hides which version of cgroups it has.
pub struct Engine {
    runtime: Runtime,
    docker: Docker,
}

impl Engine {
    /// Connects to the engine that `docker` uses.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn connect() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let docker = runtime.block_on(async {
            Docker::connect_with_local_defaults()?
                .negotiate_version()
                .await
        })?;
        Ok(Self { runtime, docker })
    }

    /// What these containers have used, together.
    ///
    /// # Errors
    ///
    /// When one of them does not run.
    pub fn usage(&self, containers: &[String]) -> Result<Usage> {
        let mut sum = Usage::default();
        for container in containers {
            let options = StatsOptionsBuilder::default()
                .stream(false)
                .one_shot(true)
                .build();
            let mut stats = Box::pin(self.docker.stats(container, Some(options)));
            let stats = self.runtime.block_on(stats.next());
            let stats = stats.ok_or("the engine gives no figures")??;
            let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage);
            let memory = stats.memory_stats.ok_or("the engine gives no memory")?;
            let unused = memory.stats.as_ref().and_then(|stats| {
                // The first is cgroup v1's name, the second v2's.
                let names = ["total_inactive_file", "inactive_file"];
                names.iter().find_map(|name| stats.get(*name))
            });
            sum.cpu_ns += cpu.ok_or("the engine gives no CPU time")?;
            sum.memory += memory.usage.ok_or("the engine gives no memory")?
                - unused.copied().unwrap_or_default();
        }
        Ok(sum)
    }
}

/// A compose project, taken down at the end.
pub struct Project {
    compose: &'static [&'static str],
    files: Vec<String>,
    name: String,
    environment: Vec<(&'static str, String)>,
}

impl Project {
    /// The compose file at this path from the top of the repository, or several, with a colon between
    /// them.
    pub fn new(name: &str, files: &str) -> Self {
        let plugin = output(Command::new("docker").args(["compose", "version"])).is_ok();
        Self {
            compose: if plugin {
                &["docker", "compose"]
            } else {
                &["docker-compose"]
            },
            files: files
                .split(':')
                .flat_map(|file| ["--file".to_owned(), root().join(file).display().to_string()])
                .collect(),
            name: format!("bench-{name}"),
            environment: vec![],
        }
    }

    /// With a variable set for every command.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// Runs compose with these arguments.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn compose(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.compose[0]);
        command
            .args(&self.compose[1..])
            .args(["--project-name", &self.name])
            .args(&self.files)
            .args(arguments)
            // Any free one: the port on this machine is not what is measured.
            .envs([("HTTP_PORT", "0"), ("HTTPS_PORT", "0")])
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        output(&mut command)
    }

    /// Builds and starts it.
    ///
    /// # Errors
    ///
    /// When something cannot be built, or does not start.
    pub fn up(&self, replicas: usize) -> Result<()> {
        let scale = format!("api={replicas}");
        let up = [
            "up",
            "--detach",
            "--build",
            "--no-recreate",
            "--scale",
            &scale,
        ];
        self.compose(&up).map(drop)
    }

    /// Runs a command of `docker` on all containers.
    fn all(&self, command: &str) -> Result<()> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let ids = docker(&["ps", "--quiet", "--filter", &project])?;
        let ids: Vec<_> = ids.lines().collect();
        docker(&[&[command], ids.as_slice()].concat()).map(drop)
    }

    /// The containers of a service.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    pub fn containers(&self, service: &str) -> Result<Vec<String>> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        let ids = docker(&[
            "ps",
            "--quiet",
            "--no-trunc",
            "--filter",
            &project,
            "--filter",
            &service,
        ])?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// Stops the time for all its containers, so that they take none from others.
    ///
    /// # Errors
    ///
    /// When one does not run.
    pub fn pause(&self) -> Result<()> {
        self.all("pause")
    }

    /// Lets the time of its containers go on.
    ///
    /// # Errors
    ///
    /// When one is not paused.
    pub fn unpause(&self) -> Result<()> {
        self.all("unpause")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // What is paused cannot be stopped; it fails when nothing is.
        let _ = self.unpause();
        if let Err(error) = self.compose(&["down", "--timeout", "2", "--remove-orphans"]) {
            eprintln!("{error}");
        }
    }
}

/// The top folder of the repository.
pub fn root() -> &'static Path {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.parent().unwrap_or(bench)
}
