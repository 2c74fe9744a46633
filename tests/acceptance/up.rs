//! `./up`, the first command of the README: it starts the stack with either compose, and says what is missing.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use harness::{
    container::Container,
    http,
    project::Project,
    tools::{Tools, output, root},
    wait,
};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::fixture::with;

/// Claims for both generations of compose.
pub fn both(tools: Tools) -> Vec<Trial> {
    vec![with(tools, "up: starts the stack, and again", starts)]
}

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "up: an interrupted start is finished later", resumes),
        with(tools, "up: missing or outdated software is named", missing),
        with(tools, "up: a taken port is named, and by what", taken),
        with(tools, "up: a full disk is named", full),
    ]
}

/// The path of a program.
fn which(program: &str) -> String {
    let path = output(Command::new("sh").args(["-c", &format!("command -v {program}")]));
    path.unwrap_or_else(|_| panic!("{program}: expected it in PATH"))
        .trim()
        .to_owned()
}

/// A folder with a shell script of this name, to be put in front of PATH.
fn script(name: &str, lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    add_script(folder.path(), name, lines);
    folder
}

fn add_script(folder: &Path, name: &str, lines: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// PATH with this folder in front.
fn in_front(folder: &TempDir) -> String {
    let path = env::var("PATH").unwrap();
    format!("{}:{path}", folder.path().display())
}

/// A `docker` without the compose plugin, unless `tools` have it.
fn docker_of(tools: Tools) -> TempDir {
    let docker = which("docker");
    let hidden = match tools {
        Tools::Legacy => "[ \"$1\" != compose ] || exit 1\n",
        Tools::Current => "",
    };
    script("docker", &format!("{hidden}exec {docker} \"$@\""))
}

/// Asserts that so many replicas answer through the proxy.
#[track_caller]
fn replicas(project: &Project, expected: usize) {
    assert_eq!(project.containers("api").len(), expected);
    let answer = http::get("http://localhost/api/hello").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn starts(tools: Tools) {
    let docker = docker_of(tools);
    let project = Project::new(tools, ".").with("PATH", in_front(&docker));
    let text = project.run("./up");
    let command = match tools {
        Tools::Legacy => "$ docker-compose up --detach --build --scale api=2\n",
        Tools::Current => "$ docker compose up --detach --build --scale api=2\n",
    };
    assert!(text.contains(command), "{text}");
    assert!(
        text.ends_with("2 replicas respond: http://localhost\n"),
        "{text}"
    );
    replicas(&project, 2);
    // While it runs, with an argument of its own.
    let text = project.run("./up --scale api=3");
    assert!(text.contains("3 replicas respond"), "{text}");
    replicas(&project, 3);
}

fn resumes(tools: Tools) {
    let project = Project::new(tools, ".");
    for _ in 0..2 {
        let up = project.spawn("./up");
        // In its middle: the first containers are there, and the proxy is not.
        wait::until(Duration::from_secs(120), || {
            match project.containers("front-end").len() {
                1 => Ok(()),
                none => Err(format!("{none} containers")),
            }
        });
        up.interrupt();
    }
    project.run("./up");
    replicas(&project, 2);
}

/// The error of `./up` with these variables: its last line.
#[track_caller]
fn error(variables: &[(&str, &str)]) -> String {
    let mut up = Command::new(root().join("up"));
    up.envs(variables.iter().copied());
    let text = output(&mut up).expect_err("it fails");
    text.lines().last().unwrap_or_default().to_owned()
}

fn missing(_: Tools) {
    // Nothing but what a system has.
    let bare = tempfile::tempdir().unwrap();
    for program in ["sh", "dirname", "id", "tail", "sed"] {
        symlink(which(program), bare.path().join(program)).unwrap();
    }
    let path = bare.path().display().to_string();
    assert_eq!(
        error(&[("PATH", &path)]),
        "error: docker is not installed: expected Docker Engine 20.10.10 or newer"
    );
    let no_engine = error(&[("DOCKER_HOST", "tcp://127.0.0.1:1")]);
    assert!(
        no_engine.starts_with("error: no Docker engine responds: expected one that runs."),
        "{no_engine}"
    );

    let denied =
        "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1";
    let denied = error(&[("PATH", &in_front(&script("docker", denied)))]);
    assert!(
        denied.starts_with("error: no permission for the engine's socket: run 'sudo usermod"),
        "{denied}"
    );
    for (version, old) in [
        ("19.03.15", true),
        ("20.10.9", true),
        ("20.10.5+dfsg1", true),
        ("20.10.10", false),
        ("20.10.24+dfsg1", false),
        ("28.5.2", false),
    ] {
        let lines = format!("[ $1 = version ] && echo {version}");
        add_script(bare.path(), "docker", &lines);
        let expected = match old {
            true => format!("error: the Docker engine is {version}: expected 20.10.10 or newer"),
            false => {
                "error: neither 'docker compose' nor 'docker-compose' is installed: expected one, \
                      such as Debian's and Ubuntu's package docker-compose"
                    .to_owned()
            }
        };
        assert_eq!(error(&[("PATH", &path)]), expected);
    }
}

fn taken(_: Tools) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let message = error(&[("HTTP_PORT", &port)]);
    drop(listener);
    let cure = "stop that, or choose another port: HTTP_PORT=8080 ./up";
    assert!(
        message.starts_with(&format!("error: port {port} is taken by acceptance")),
        "{message}"
    );
    assert!(message.ends_with(cure), "{message}");
    let container = Container::run("nginx:1.30", &["--publish", "80:80"]);
    let name = &container.name;
    assert_eq!(
        error(&[("HTTP_PORT", "80")]),
        format!("error: port 80 is taken by the container {name}: {cure}")
    );
}

fn full(_: Tools) {
    let docker = which("docker");
    let folder = script(
        "docker",
        &format!("[ \"$1 $2\" != \"compose up\" ] || exit 17\nexec {docker} \"$@\""),
    );
    let plain = error(&[("PATH", &in_front(&folder))]);
    assert_eq!(
        plain,
        "error: docker compose ended with 17. OPERATING.md says what to do when something does not work"
    );
    add_script(
        folder.path(),
        "df",
        "echo heading; echo disk 1000000 999000 1024 99% /",
    );
    let message = error(&[("PATH", &in_front(&folder))]);
    assert!(
        message.starts_with("error: no disk space: 1 MB are free in "),
        "{message}"
    );
}
