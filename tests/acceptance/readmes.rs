//! The READMEs: every console block is run, and what it shows is what comes.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::{trial, with};
use common::{
    readme::Step,
    tools::{Tools, in_terminal, output, root, unique},
    wait,
};

/// How long a `curl` may be asked again: what was started just before it may not listen yet.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        // It shows both generations, whichever the rest of it is run with.
        trial(
            format!("{tools}::readme"),
            || Tools::ALL.into_iter().find_map(Tools::missing),
            move || run(tools, "."),
        ),
        with(tools, "task0_readme", |tools| run(tools, "task0")),
        with(tools, "task1_readme", |tools| run(tools, "task1")),
        with(tools, "task2_readme", |tools| run(tools, "task2")),
        with(tools, "task3_readme", |tools| run(tools, "task3")),
        with(tools, "task4_readme", |tools| run(tools, "task4")),
        with(tools, "task5_readme", |tools| run(tools, "task5")),
        with(tools, "task6_readme", |tools| run(tools, "task6")),
    ]
}

/// Does what the README in `folder` says, from there.
fn run(tools: Tools, folder: &str) {
    let text = fs::read_to_string(root().join(folder).join("README.md")).unwrap();
    let mut reader = Reader::new(tools, folder);
    let mut steps = Step::all(&text);
    // Several machines have tests of their own.
    steps.retain(|step| step.machine.is_empty());
    assert!(!steps.is_empty(), "{folder}/README.md has no console block");
    for step in steps {
        reader.follow(&step);
    }
}

/// Somebody who types what a README shows.
struct Reader {
    tools: Tools,
    folder: PathBuf,
    project: String,
    /// Where curl looks for its configuration.
    curl_home: TempDir,
    /// The containers started by name, which are to be removed in the end.
    containers: Vec<String>,
}

impl Reader {
    fn new(tools: Tools, folder: &str) -> Self {
        let curl_home = tempfile::tempdir().unwrap();
        // As on a terminal, where curl shows no progress of an answer that it prints.
        fs::write(curl_home.path().join(".curlrc"), "silent\nshow-error\n").unwrap();
        let purpose = format!("readme-{}", folder.replace('.', "top"));
        Self {
            tools,
            folder: root().join(folder),
            project: unique(&purpose),
            curl_home,
            containers: vec![],
        }
    }

    fn command(&self, line: &str) -> Command {
        let line = match line.contains(" -it ") {
            true => in_terminal(line),
            false => line.to_owned(),
        };
        let mut command = self.tools.command(&self.folder, &line);
        command
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("CURL_HOME", self.curl_home.path());
        command
    }

    fn follow(&mut self, step: &Step) {
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
            let down = "docker-compose down --remove-orphans --timeout 2";
            if let Err(error) = output(&mut self.command(down)) {
                eprintln!("{down}\n{error}");
            }
        }
    }
}
