//! Runs the commands of a README and compares their output.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{
    readme::Step,
    tools::{Tools, in_terminal, output, root, unique},
    wait,
};

/// How long a `curl` is retried: a service that was just started may not listen yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs commands in a folder and compares their output with the README. Whatever they start is removed when this
/// is dropped.
pub struct Reader {
    tools: Tools,
    folder: PathBuf,
    project: String,
    environment: Vec<(&'static str, String)>,
    /// The folder of `.curlrc`.
    curl_home: TempDir,
    /// Containers to remove in the end.
    containers: Vec<String>,
}

impl Reader {
    /// A reader in `folder`.
    pub fn new(tools: Tools, folder: &str) -> Self {
        let curl_home = tempfile::tempdir().unwrap();
        // As on a terminal, where curl shows no progress of an answer that it prints.
        fs::write(curl_home.path().join(".curlrc"), "silent\nshow-error\n").unwrap();
        let purpose = format!("readme-{}", folder.replace('.', "top"));
        Self {
            tools,
            folder: root().join(folder),
            project: unique(&purpose),
            environment: vec![],
            curl_home,
            containers: vec![],
        }
    }

    /// Sets a variable for every command.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    fn command(&self, line: &str) -> Command {
        let line = match line.contains(" -it ") {
            true => in_terminal(line),
            false => line.to_owned(),
        };
        let mut command = self.tools.command(&self.folder, &line);
        command
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("CURL_HOME", self.curl_home.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs one command.
    ///
    /// # Panics
    ///
    /// When it fails, or its output differs.
    #[track_caller]
    pub fn follow(&mut self, step: &Step) {
        let patience = match step.line.starts_with("curl ") {
            true => PATIENCE,
            false => Duration::ZERO,
        };
        wait::until(patience, || self.once(step));
        let mut words = step.line.split_whitespace();
        if step.line.starts_with("docker run ") && words.any(|word| word == "--name") {
            self.containers.extend(words.next().map(str::to_owned));
        }
    }

    fn once(&self, step: &Step) -> Result<(), String> {
        let line = &step.line;
        let actual = output(&mut self.command(line)).map_err(|error| format!("{line}\n{error}"))?;
        step.check(&actual)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for container in &self.containers {
            let remove = format!("docker rm --force --volumes {container}");
            if let Err(error) = output(&mut self.command(&remove)) {
                eprintln!("{remove}\n{error}");
            }
        }
        if self.folder.join("docker-compose.yml").exists() {
            let down = "docker-compose down --volumes --remove-orphans --timeout 2";
            if let Err(error) = output(&mut self.command(down)) {
                eprintln!("{down}\n{error}");
            }
        }
    }
}
