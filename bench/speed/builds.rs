//! What a build costs: of everything, with nothing cached, and after a change of one line.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use harness::{
    project::Project,
    tools::{Tools, output, root},
};
use jiff::Timestamp;

use crate::Result;

/// What is built cold: by which command, in which folder.
const COLD: [(&str, &str, &str); 6] = [
    ("the final stack", ".", "docker-compose build --no-cache"),
    ("task 1", "task1", "docker build --no-cache ."),
    (
        "task 3, back-end",
        "task3",
        "docker build --no-cache back-end",
    ),
    ("task 4", "task4", "docker-compose build --no-cache"),
    ("task 5", "task5", "docker-compose build --no-cache"),
    ("task 6", "task6", "docker-compose build --no-cache"),
];

/// All builds, with both builders, as tables in Markdown.
///
/// # Errors
///
/// When a file cannot be changed.
pub fn builds() -> Result<String> {
    let mut table = String::from("| | BuildKit | the engine's own builder |\n|---|--:|--:|\n");
    let builders = [Tools::Current, Tools::Legacy];
    for (name, folder, line) in COLD {
        eprintln!("building {name}");
        let [current, legacy] = builders.map(|tools| time(tools, folder, line).as_secs_f64());
        table += &format!("| {name}, cold | {current:.1} s | {legacy:.1} s |\n");
    }
    let [current, legacy] = builders.map(rebuild);
    let ([changed, unchanged], [legacy_changed, legacy_unchanged]) = (current?, legacy?);
    table += &format!(
        "| the API, one line changed | {changed:.1} s | {legacy_changed:.1} s |\n\
         | the API, unchanged | {unchanged:.1} s | {legacy_unchanged:.1} s |\n"
    );
    Ok(table)
}

/// How long a command line takes.
fn time(tools: Tools, folder: &'static str, line: &str) -> Duration {
    let project = Project::new(tools, folder);
    let begin = Instant::now();
    project.run(line);
    begin.elapsed()
}

/// Seconds to build the API after a change of one line of it, and after none.
fn rebuild(tools: Tools) -> Result<[f64; 2]> {
    let copy = tempfile::tempdir()?;
    let folder = copy.path().display();
    let build = format!("docker build --tag bench-rebuild {folder}");
    let build = || -> Result<f64> {
        let begin = Instant::now();
        output(&mut tools.command(copy.path(), &build))?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let program = root().join("stack/back-end/.");
    output(Command::new("cp").arg("-r").args([&program, copy.path()]))?;
    build()?;
    let routes = copy.path().join("src/routes.rs");
    let text = fs::read_to_string(&routes)?;
    // New each time, or the engine would have it from the last.
    let greeting = format!("Hello at {}", Timestamp::now());
    fs::write(&routes, text.replace("Hello, World!", &greeting))?;
    let times = [build()?, build()?];
    output(&mut tools.command(copy.path(), "docker rmi bench-rebuild"))?;
    Ok(times)
}
