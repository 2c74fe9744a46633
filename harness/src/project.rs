//! Compose projects that are taken down when dropped.

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    tools::{Tools, docker, inspect, output, root, unique},
    wait,
};

/// The number of the next project of this run.
static NUMBER: AtomicUsize = AtomicUsize::new(1);

/// A compose project with its own name, taken down when dropped.
pub struct Project {
    tools: Tools,
    folder: String,
    name: String,
    environment: Vec<(&'static str, String)>,
}

impl Project {
    /// The project in `folder`, which is relative to the top folder. Starts nothing yet.
    pub fn new(tools: Tools, folder: &str) -> Self {
        Self {
            tools,
            folder: folder.to_owned(),
            name: unique(&format!(
                "project-{}",
                NUMBER.fetch_add(1, Ordering::Relaxed)
            )),
            environment: vec![],
        }
    }

    /// Sets a variable for every command.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    /// A command line in the folder, with the project's name and variables.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.tools.command(&root().join(&self.folder), line);
        command
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command line and returns its output.
    ///
    /// # Panics
    ///
    /// When it fails, or warns.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        match output(&mut self.command(line)) {
            Ok(text) => {
                assert!(!text.to_lowercase().contains("warn"), "{line}\n{text}");
                text
            }
            Err(error) => panic!("{line}\n{error}"),
        }
    }

    /// Starts a command line in the foreground, until it is interrupted.
    pub fn spawn(&self, line: &str) -> Attached {
        self.spawn_with(line, Stdio::null())
    }

    /// Starts a command line on a stopped terminal, which takes no output until it is resumed.
    pub fn spawn_stopped(&self, line: &str) -> Attached {
        self.spawn_with(line, Stdio::piped())
    }

    fn spawn_with(&self, line: &str, stdout: Stdio) -> Attached {
        let child = self
            .command(line)
            // A group of its own, to be interrupted as a whole, as a terminal does.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        Attached(child)
    }

    /// The full ids of a service's running containers.
    pub fn containers(&self, service: &str) -> BTreeSet<String> {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        let list = ["ps", "--quiet", "--no-trunc"];
        let of = ["--filter", &project, "--filter", &service];
        let ids = docker(&[&list[..], &of[..]].concat());
        ids.lines().map(str::to_owned).collect()
    }

    /// The id of a service's only container.
    #[track_caller]
    pub fn container(&self, service: &str) -> String {
        let ids = self.containers(service);
        assert_eq!(ids.len(), 1, "containers of {service}");
        ids.into_iter().next().expect("one")
    }

    /// Pauses all containers, so that they use no CPU.
    #[track_caller]
    pub fn pause(&self) {
        self.all("running", "pause");
    }

    /// Resumes paused containers.
    #[track_caller]
    pub fn unpause(&self) {
        self.all("paused", "unpause");
    }

    /// Runs a command of `docker` on all containers in this state.
    #[track_caller]
    fn all(&self, state: &str, command: &str) {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let state = format!("status={state}");
        let ids = docker(&["ps", "--quiet", "--filter", &project, "--filter", &state]);
        if !ids.is_empty() {
            docker(&[&[command], &ids.lines().collect::<Vec<_>>()[..]].concat());
        }
    }

    /// The host names of the containers of a service.
    #[track_caller]
    pub fn host_names(&self, service: &str) -> BTreeSet<String> {
        let ids = self.containers(service);
        ids.iter()
            .map(|id| inspect(id, "{{.Config.Hostname}}"))
            .collect()
    }
}

/// Prints states and last log lines of the containers of a project.
fn explain(project: &str) {
    let label = format!("label=com.docker.compose.project={project}");
    let list = ["ps", "--all", "--format", "{{.Names}}\t{{.Status}}"];
    let Ok(containers) = output(Command::new("docker").args(list).args(["--filter", &label]))
    else {
        return;
    };
    for line in containers.lines() {
        let name = line.split('\t').next().unwrap_or_default();
        let logs = output(Command::new("docker").args(["logs", "--tail", "20", name]));
        eprintln!("== {line}\n{}", logs.unwrap_or_else(|error| error));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if thread::panicking() {
            explain(&self.name);
        }
        // Killed, not stopped: draining takes seconds, and has cases of its own.
        let remove = format!(
            "docker ps --all --quiet --filter label=com.docker.compose.project={} \
             | xargs --no-run-if-empty docker rm --force --volumes",
            self.name
        );
        // No panic here: the test may be failing already.
        for line in [&remove, "docker-compose down --volumes --remove-orphans"] {
            if let Err(error) = output(&mut self.command(line)) {
                eprintln!("{}: {line}\n{error}", Path::new(&self.folder).display());
            }
        }
    }
}

/// A command that runs in the foreground of a terminal.
pub struct Attached(Child);

impl Attached {
    /// Takes its output from now on, as a resumed terminal does.
    pub fn resume(&mut self) {
        let mut output = self.0.stdout.take().expect("it was stopped");
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
    }

    /// Sends Ctrl-C and waits for the command to exit.
    #[track_caller]
    pub fn interrupt(mut self) {
        let group = format!("-{}", self.0.id());
        let kill = Command::new("kill").args(["-INT", "--", &group]).status();
        assert!(kill.is_ok_and(|status| status.success()));
        wait::until(Duration::from_secs(60), || match self.0.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // It fails when the command has ended, as it should have.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
