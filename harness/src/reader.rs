//! Runs the commands of a README and compares their output.

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use tempfile::TempDir;

use crate::{
    checkout::Checkout,
    readme::{Action, Step},
    tools::{Tools, in_terminal, output, root, unique},
    wait,
};

/// How long a command that only looks is repeated: a service that was just started may not listen yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs commands in a folder and compares their output with the README. Whatever they start is removed when this
/// is dropped.
pub struct Reader {
    tools: Tools,
    folder: PathBuf,
    /// The name of the compose project; the folder's if none.
    project: Option<String>,
    /// What `folder` is in, unless it is this checkout.
    checkout: Option<Checkout>,
    environment: Vec<(String, String)>,
    /// The folder of `.curlrc`.
    curl_home: TempDir,
    /// Containers and networks to remove in the end.
    containers: Vec<String>,
    networks: Vec<String>,
}

impl Reader {
    /// A reader in `folder` of this checkout, who changes no files.
    pub fn new(tools: Tools, folder: &str) -> Self {
        let purpose = format!("readme-{}", folder.replace('.', "top"));
        Self::at(tools, root().join(folder), Some(unique(&purpose)), None)
    }

    /// A reader in `folder` of a copy of this checkout, committed to a repository of its own.
    pub fn of_a_copy(tools: Tools, folder: &str) -> Self {
        let checkout = Checkout::copy();
        let path = checkout.path().join(folder);
        let reader = Self::at(tools, path, None, Some(checkout));
        let commit = "git init --quiet && git add --all && \
                      git -c user.name=reader -c user.email=reader@example.com commit --quiet --message start";
        let mut command = reader.command(commit);
        command.current_dir(reader.checkout.as_ref().expect("just made").path());
        output(&mut command).unwrap_or_else(|error| panic!("{commit}\n{error}"));
        reader
    }

    fn at(
        tools: Tools,
        folder: PathBuf,
        project: Option<String>,
        checkout: Option<Checkout>,
    ) -> Self {
        let curl_home = tempfile::tempdir().unwrap();
        // As on a terminal, where curl shows no progress of an answer that it prints.
        fs::write(curl_home.path().join(".curlrc"), "silent\nshow-error\n").unwrap();
        Self {
            tools,
            folder,
            project,
            checkout,
            environment: vec![],
            curl_home,
            containers: vec![],
            networks: vec![],
        }
    }

    /// Sets a variable for every command.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    fn command(&self, line: &str) -> Command {
        let line = match line.contains(" -it ") {
            true => in_terminal(line),
            false => line.to_owned(),
        };
        let mut command = self.tools.command(&self.folder, &line);
        command
            .envs((self.project.iter()).map(|name| ("COMPOSE_PROJECT_NAME", name)))
            .env("CURL_HOME", self.curl_home.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Does what the README says.
    ///
    /// # Panics
    ///
    /// When a command fails or succeeds and should not, or its output differs; when a file cannot be changed so.
    #[track_caller]
    pub fn follow(&mut self, action: &Action) {
        match action {
            Action::Run(step) => self.run(step),
            Action::Write { file, text } => {
                self.write(file, text);
                if file == ".env" {
                    self.apply(text);
                }
            }
            Action::Change { file, old, new } => {
                let path = self.folder.join(file);
                let text =
                    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
                assert_eq!(
                    text.matches(old).count(),
                    1,
                    "{file}: expected once:\n{old}"
                );
                self.write(file, &text.replace(old, new));
            }
        }
    }

    /// The tests set every variable, and so override `.env`: set these, too.
    fn apply(&mut self, settings: &str) {
        let settings = settings.lines().filter_map(|line| line.split_once('='));
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.extend(settings);
    }

    #[track_caller]
    fn write(&self, file: &str, text: &str) {
        assert!(
            self.checkout.is_some(),
            "{file} of this checkout would be changed"
        );
        let path = self.folder.join(file);
        let folder = path.parent().expect("it is in a folder");
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{file}: {error}"));
        fs::write(path, text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Runs one command.
    ///
    /// # Panics
    ///
    /// When it fails or succeeds and should not, or its output differs.
    #[track_caller]
    pub fn run(&mut self, step: &Step) {
        let line = step.line.as_str();
        let only_looks =
            line.starts_with("curl ") || line.contains(" logs ") || line.contains(" ps ");
        let patience = match only_looks {
            true => PATIENCE,
            false => Duration::ZERO,
        };
        wait::until(patience, || self.once(step));
        let mut words = line.split_whitespace();
        if line.starts_with("docker run ") && words.any(|word| word == "--name") {
            self.containers.extend(words.next().map(str::to_owned));
        } else if let Some(network) = line.strip_prefix("docker network create ") {
            self.networks.push(network.to_owned());
        }
    }

    fn once(&self, step: &Step) -> Result<(), String> {
        let line = &step.line;
        let actual = match (output(&mut self.command(line)), step.fails) {
            (Ok(text), false) => text,
            // Without the first line, which is the status.
            (Err(error), true) => error.split_once('\n').unwrap_or_default().1.to_owned(),
            (Ok(text), true) => return Err(format!("{line}\nexpected it to fail\n{text}")),
            (Err(error), false) => return Err(format!("{line}\n{error}")),
        };
        step.check(&actual)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let compose = self.folder.join("docker-compose.yml").exists();
        if compose && thread::panicking() {
            for line in ["docker-compose ps --all", "docker-compose logs --tail 20"] {
                let text = output(&mut self.command(line));
                eprintln!("== {line}\n{}", text.unwrap_or_else(|error| error));
            }
        }
        let containers =
            (self.containers.iter()).map(|name| format!("docker rm --force --volumes {name}"));
        // It fails when the README has removed it.
        let networks =
            (self.networks.iter()).map(|name| format!("docker network rm {name} || true"));
        for remove in containers.chain(networks) {
            if let Err(error) = output(&mut self.command(&remove)) {
                eprintln!("{remove}\n{error}");
            }
        }
        if compose {
            let down = "docker-compose down --volumes --remove-orphans --timeout 2";
            if let Err(error) = output(&mut self.command(down)) {
                eprintln!("{down}\n{error}");
            }
        }
    }
}
