//! `./up`, the first command of the README, on a fresh machine: an engine without images, in a container.
//!
//! The cases are the steps of one story, and share the machine. Without an engine, they are reported as ignored; with
//! `REQUIRE_DOCKER=1` they fail.

use std::{
    process::{Command, ExitCode},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use harness::{
    checkout::Checkout,
    container::{Container, ENGINE_OPTIONS},
    tools::{Tools, docker, output, unique},
    trial, wait,
};
use libtest_mimic::Trial;

/// Time for the engine of the machine to start.
const START: Duration = Duration::from_secs(60);

/// The machine that all cases share.
static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

fn main() -> ExitCode {
    let code = trial::run(vec![
        on(
            "up: a missing permission for the engine is named",
            no_permission,
        ),
        on(
            "up: an interrupted first start is finished later",
            interrupted,
        ),
        on("up: scales, and starts stopped replicas again", again),
        on("up: HTTP_PORT in .env is used", env_file),
        on("up: uses the compose plugin if there is one", plugin),
    ]);
    drop(
        MACHINE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(),
    );
    code
}

fn on(name: &str, test: fn(&Machine)) -> Trial {
    let missing = || Tools::Current.missing();
    trial::trial(name.to_owned(), missing, move || {
        let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        test(machine.get_or_insert_with(Machine::start));
    })
}

/// A machine with this checkout.
struct Machine {
    container: Container,
    groups: String,
}

impl Machine {
    fn start() -> Self {
        let image = "acceptance-fresh-machine";
        let build = format!("docker build --tag {image} tests/fresh/machine");
        Tools::Current.run(".", &build);
        let sysroot =
            output(Command::new("rustc").args(["--print", "sysroot"])).expect("rustc runs");
        let rust = format!("--volume={}:/rust:ro", sysroot.trim());
        let options = ["--volume=/var/lib/docker", "--tmpfs=/run", &rust];
        let groups = unique("fresh");
        let engine = ["dockerd", "--cgroup-parent", &groups];
        let container = Container::run_command(
            "fresh-machine",
            image,
            &[&ENGINE_OPTIONS[..], &options].concat(),
            &engine,
        );
        let machine = Self { container, groups };
        wait::every(Duration::from_millis(500), START, || {
            machine.run("docker version").map(drop)
        });
        let checkout = Checkout::copy();
        let from = format!("{}/.", checkout.folder());
        docker(&[
            "cp",
            &from,
            &format!("{}:/checkout", machine.container.name),
        ]);
        machine.must("chown --recursive root:root /checkout");
        machine
    }

    /// Runs a command line in the checkout.
    fn run(&self, line: &str) -> Result<String, String> {
        let exec = ["exec", &self.container.name, "sh", "-c", line];
        output(Command::new("docker").args(exec)).map_err(|error| format!("{line}\n{error}"))
    }

    #[track_caller]
    fn must(&self, line: &str) -> String {
        let text = self.run(line).unwrap_or_else(|error| panic!("{error}"));
        println!("{line}: {}", text.lines().last().unwrap_or_default());
        text
    }

    /// The last line of a command that must succeed.
    #[track_caller]
    fn last_line(&self, line: &str) -> String {
        let text = self.must(line);
        text.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its containers have control groups of the engine below, which would outlive it.
        let end = format!(
            "docker ps --quiet | xargs --no-run-if-empty docker rm --force >/dev/null \
             && find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} +",
            self.groups
        );
        if let Err(error) = self.run(&end) {
            eprintln!("{error}");
        }
    }
}

fn no_permission(machine: &Machine) {
    let error = machine.run("setpriv --reuid=65534 --regid=65534 --clear-groups ./up");
    let error = error.expect_err("it fails");
    assert!(
        error.contains("error: no permission for the engine's socket: run 'sudo usermod"),
        "{error}"
    );
}

fn interrupted(machine: &Machine) {
    assert_eq!(machine.must("docker images --quiet"), "");
    // While it makes the base images, and while it builds the API. timeout interrupts the group, as a terminal does.
    for seconds in [15, 60] {
        let interrupt = format!("timeout --signal=INT --kill-after=20 {seconds} ./up");
        let outcome = machine.run(&interrupt);
        println!("after {seconds} s: {:?}", outcome.map(|text| text.len()));
    }
    let text = machine.must("./up");
    assert!(
        text.contains("$ docker-compose up --detach --build --scale api=2\n"),
        "{text}"
    );
    assert!(
        text.ends_with("2 replicas respond: http://localhost\n"),
        "{text}"
    );
}

fn again(machine: &Machine) {
    let last = machine.last_line("./up --scale api=3");
    assert_eq!(last, "3 replicas respond: http://localhost");
    machine.must("docker-compose stop api");
    assert_eq!(
        machine.last_line("./up"),
        "2 replicas respond: http://localhost"
    );
}

fn env_file(machine: &Machine) {
    machine.must("echo HTTP_PORT=8080 > .env");
    assert_eq!(
        machine.last_line("./up"),
        "2 replicas respond: http://localhost:8080"
    );
    machine.must("rm .env && docker-compose down");
}

fn plugin(machine: &Machine) {
    let list = "{{range .ClientInfo.Plugins}}{{.Name}} {{.Path}}\n{{end}}";
    let plugins = "/usr/libexec/docker/cli-plugins";
    machine.must(&format!("mkdir -p {plugins}"));
    for line in docker(&["info", "--format", list]).lines() {
        if let Some((_, path)) = line.split_once(' ') {
            let to = format!("{}:{plugins}/", machine.container.name);
            docker(&["cp", "--follow-link", path, &to]);
        }
    }
    let text = machine.must("./up");
    assert!(
        text.contains("$ docker compose up --detach --build --scale api=2\n"),
        "{text}"
    );
    assert!(
        text.ends_with("2 replicas respond: http://localhost\n"),
        "{text}"
    );
    machine.must("docker compose down");
}
