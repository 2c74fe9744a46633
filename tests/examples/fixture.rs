//! The stack with notes: cases share it, or start their own.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use harness::{
    browser,
    http::{self, Answer},
    project::Project,
    shared,
    tools::{Tools, root, unique},
    trial::{self, Missing},
    wait,
};
use libtest_mimic::Trial;
use serde_json::Value;

/// The port of this machine, which no other test publishes.
pub const PORT: u16 = 8081;

/// The API of the notes.
pub const NOTES: &str = "http://localhost:8081/api/notes";

const FILES: &str = "docker-compose.yml:examples/notes/docker-compose.yml";

/// Time for replicas, database and proxy to be ready.
const READY: Duration = Duration::from_secs(30);

/// A case without a shared stack.
pub fn alone(name: &str, test: fn()) -> Trial {
    case(
        name,
        || Tools::Current.missing(),
        move || {
            shared::end();
            trial::assert_free(&[PORT]);
            test();
        },
    )
}

/// A case on the shared stack, with two replicas.
pub fn on_notes(name: &str, test: fn(&Project)) -> Trial {
    case(name, || Tools::Current.missing(), move || shared(test))
}

/// The same for a case that needs axe-core.
pub fn on_notes_with_axe(name: &str, test: fn(&Project)) -> Trial {
    let missing = || Tools::Current.missing().or_else(browser::axe_missing);
    case(name, missing, move || shared(test))
}

fn case(
    name: &str,
    missing: impl FnOnce() -> Option<Missing> + Send + 'static,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    trial::trial(format!("examples: {name}"), missing, test)
}

fn shared(test: fn(&Project)) {
    let start = || {
        trial::assert_free(&[PORT]);
        start(project(Tools::Current), 2)
    };
    shared::with("notes", start, |project| {
        ready(project, 2);
        test(project);
    });
}

/// The stack with notes. Starts nothing yet.
pub fn project(tools: Tools) -> Project {
    password();
    ours(Project::new(tools, ".")).with("COMPOSE_FILE", FILES)
}

/// With the port and the images of these tests.
pub fn ours(project: Project) -> Project {
    project.with("HTTP_PORT", PORT).with("REGISTRY", "examples")
}

/// The file with the password, which is made if it is missing, as the README says.
pub fn password() -> String {
    let path = password_file();
    if !path.exists() {
        fs::write(&path, unique("password")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::read_to_string(&path).unwrap()
}

pub fn password_file() -> PathBuf {
    root().join("examples/notes/database-password.txt")
}

/// Builds and starts it with so many replicas.
#[track_caller]
pub fn start(project: Project, replicas: usize) -> Project {
    project.run(&format!(
        "docker-compose up -d --build --scale api={replicas}"
    ));
    ready(&project, replicas);
    project
}

/// Waits until every replica responds, with the notes.
#[track_caller]
pub fn ready(project: &Project, replicas: usize) {
    let expected = project.host_names("api");
    assert_eq!(expected.len(), replicas);
    wait::until(READY, || {
        let client = http::client();
        let answers = (0..replicas).map(|_| http::send(&client, "GET", NOTES, &[]));
        let answers: Result<Vec<_>, _> = answers.collect();
        let answers = answers.map_err(|error| error.to_string())?;
        let good = answers.iter().filter(|answer| answer.status == 200);
        let found = good.map(|answer| answer.header("x-served-by").to_owned());
        match expected == found.collect() {
            true => Ok(()),
            false => Err(format!("{answers:?}, expected {expected:?}")),
        }
    });
}

/// Sends JSON, or nothing if `body` is empty.
#[track_caller]
pub fn send(method: &str, path: &str, body: &str) -> Answer {
    let headers = match body {
        "" => &[][..],
        _ => &[("content-type", "application/json")],
    };
    let url = format!("{NOTES}{path}");
    let answer = http::send_body(&http::client(), method, &url, headers, body);
    answer.unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// The body, as JSON.
#[track_caller]
pub fn json(answer: &Answer) -> Value {
    let json = serde_json::from_str(&answer.body);
    json.unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// Runs SQL in the database and returns its output, a line for each row.
#[track_caller]
pub fn sql(project: &Project, sql: &str) -> String {
    let psql = "psql --username notes --no-psqlrc --tuples-only --no-align --quiet";
    project.run(&format!(
        "docker-compose exec -T database {psql} --command \"{sql}\""
    ))
}
