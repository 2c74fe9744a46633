//! The edit loop: a change of a page or a handler is served, and a program that does not compile leaves the old one.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use harness::{
    checkout::Checkout,
    http,
    project::Project,
    tools::{Tools, inspect, root, unique},
    wait,
};
use libtest_mimic::Trial;

use crate::fixture::{PORT, alone, ours};

/// A change of a page is served after some milliseconds, and one of a handler after five seconds, the compiler's. Beside other
/// tests it takes longer; the times are printed.
const PAGE: Duration = Duration::from_secs(5);
const HANDLER: Duration = Duration::from_secs(60);

/// Time for all health checks.
const READY: Duration = Duration::from_secs(30);

/// Time for the first build without optimization.
const BUILD: Duration = Duration::from_secs(300);

pub fn trials() -> Vec<Trial> {
    vec![
        alone("a change is served as it is saved", watched),
        alone(
            "the API and the pages run without a container",
            without_container,
        ),
    ]
}

/// A command in the foreground, and what it has printed.
struct Foreground {
    child: Child,
    text: Arc<Mutex<String>>,
}

impl Foreground {
    fn start(mut command: Command) -> Self {
        let mut child = command
            // A group of its own, to be interrupted as a whole, as a terminal does.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let text = Arc::<Mutex<String>>::default();
        collect(child.stdout.take().expect("piped"), text.clone());
        collect(child.stderr.take().expect("piped"), text.clone());
        Self { child, text }
    }

    fn text(&self) -> String {
        self.text.lock().expect("nobody panics").clone()
    }

    /// Waits until it has printed something.
    #[track_caller]
    fn prints(&self, limit: Duration, expected: &str) {
        wait::until(limit, || match self.text() {
            text if text.contains(expected) => Ok(()),
            text => Err(text),
        });
    }
}

fn collect(mut from: impl Read + Send + 'static, text: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let part = String::from_utf8_lossy(&buffer[..count]);
            text.lock().expect("nobody panics").push_str(&part);
        }
    });
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.text());
        }
        let group = format!("-{}", self.child.id());
        // It fails when the command has ended, as it should have.
        let _ = Command::new("kill").args(["-INT", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// Waits until a path is served with this text in it, and returns the time.
#[track_caller]
fn serves(limit: Duration, url: &str, expected: &str) -> Duration {
    let begin = Instant::now();
    wait::until(limit, || match http::get(url) {
        Ok(answer) if answer.status == 200 && answer.body.contains(expected) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    begin.elapsed()
}

/// Replaces text in a file, as an editor that writes into it.
#[track_caller]
fn edit(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{}: no {old}", file.display());
    fs::write(file, text.replace(old, new)).unwrap();
}

/// The same, as an editor that writes a new file and renames it.
#[track_caller]
fn edit_by_renaming(file: &Path, old: &str, new: &str) {
    let copy = file.with_extension("new");
    fs::copy(file, &copy).unwrap();
    edit(&copy, old, new);
    fs::rename(copy, file).unwrap();
}

/// Waits until compose is done with the last change: it waits for health checks.
#[track_caller]
fn settled(project: &Project) {
    wait::until(READY, || {
        let containers = ["api", "front-end", "proxy"].map(|service| project.containers(service));
        let health = containers.map(|ids| match ids.into_iter().next() {
            Some(id) => inspect(&id, "{{.State.Health.Status}}"),
            None => "missing".to_owned(),
        });
        match health.iter().all(|health| health == "healthy") {
            true => Ok(()),
            false => Err(format!("{health:?}")),
        }
    });
}

fn watched() {
    let checkout = Checkout::copy();
    let project = ours(Project::new(Tools::Current, &checkout.folder()))
        .with("COMPOSE_FILE", "docker-compose.yml:deploy/develop.yml")
        .with("REGISTRY", "develop");
    // What the README says, with the files in COMPOSE_FILE.
    let up = Foreground::start(project.command("docker-compose up --build --watch"));
    let hello = format!("http://localhost:{PORT}/api/hello");
    let page = format!("http://localhost:{PORT}/");
    serves(BUILD, &hello, "Hello, World!");
    up.prints(Duration::from_secs(20), "Watch enabled");
    serves(BUILD, &page, "<title>Round robin</title>");

    // The proxy keeps no page, not even for a second.
    let head = "docker-compose exec -T front-end curl --silent --head http://127.0.0.1:9000/";
    assert!(project.run(head).contains("X-Accel-Expires: 0"));

    let html = checkout.path().join("stack/front-end/html/index.html");
    edit(&html, "Round robin", "Edited");
    let first = serves(PAGE, &page, "<title>Edited</title>");
    edit_by_renaming(&html, "Edited", "Renamed");
    let second = serves(PAGE, &page, "<title>Renamed</title>");

    let handlers = checkout.path().join("stack/back-end/src/routes.rs");
    // Unique, so that no build is cached.
    let [edited, renamed] = ["edited", "renamed"].map(unique);
    settled(&project);
    edit(&handlers, "Hello, World!", &edited);
    let third = serves(HANDLER, &hello, &edited);
    settled(&project);
    edit_by_renaming(&handlers, &edited, &renamed);
    let fourth = serves(HANDLER, &hello, &renamed);
    println!("a page after {first:?} and {second:?}, a handler after {third:?} and {fourth:?}");

    settled(&project);
    edit(&handlers, &format!("\"{renamed}\""), "no_such_name");
    up.prints(HANDLER, "cannot find value `no_such_name` in this scope");
    serves(PAGE, &hello, &renamed);
    edit(&handlers, "no_such_name", "\"Hello, again!\"");
    serves(HANDLER, &hello, "Hello, again!");
}

fn without_container() {
    let checkout = Checkout::copy();
    let folder = checkout.path().join("stack/back-end");
    let free = |_| {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let [address, metrics] = [0, 1].map(free);
    let settings = format!("API_ADDRESS={address}\nAPI_METRICS_ADDRESS={metrics}\n");
    fs::write(checkout.path().join(".env"), settings).unwrap();
    let command = || {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["run", "--quiet", "--example", "develop"])
            .current_dir(&folder)
            // The dependencies are compiled already.
            .env("CARGO_TARGET_DIR", root().join("target"));
        command
    };
    let program = Foreground::start(command());
    program.prints(BUILD, "listening");
    let url = format!("http://{address}");
    serves(PAGE, &format!("{url}/api/hello"), "Hello, World!");
    serves(PAGE, &format!("{url}/"), "<title>Round robin</title>");
    serves(PAGE, &format!("{url}/board.js"), "fetch");
    let html = checkout.path().join("stack/front-end/html/index.html");
    edit(&html, "Round robin", "Edited");
    serves(PAGE, &format!("{url}/"), "<title>Edited</title>");
    drop(program);

    fs::write(checkout.path().join(".env"), "API_ADDRESS=here\n").unwrap();
    let wrong = Foreground::start(command());
    wrong.prints(
        BUILD,
        "API_ADDRESS is 'here': expected an IP address and a port",
    );
}
