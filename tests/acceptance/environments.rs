//! Machines that differ from this one: networks, engines, name servers, and the settings in `.env`.

use std::{
    env, fs, io::Write, net::TcpStream, os::unix::fs::symlink, path::PathBuf, process::Command,
    time::Duration,
};

use harness::{
    checkout::Checkout,
    container::{Container, ENGINE_OPTIONS},
    http,
    project::Project,
    tools::{SETTINGS, Tools, docker, inspect, output, root, unique},
    wait,
};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::{
    fixture::with,
    tasks::{ok, ok_within},
};

/// Time for the engine to run a health check.
const HEALTHY: Duration = Duration::from_secs(30);

/// Time for Podman, in a container, to build and start the stack.
const PODMAN: Duration = Duration::from_secs(180);

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "health_checks_ignore_an_http_proxy", http_proxy),
        with(tools, "both_families_are_listened_on", ipv6),
        with(tools, "the_api_needs_no_ipv6", no_ipv6),
        with(tools, "reloads_fit_into_the_limits", reloads),
        with(
            tools,
            "slow: replicas_are_found_while_dns_is_down",
            dns_down,
        ),
        with(tools, "slow: podman_runs_the_final_stack", podman),
    ]
}

/// Claims for both generations of compose.
pub fn both(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "settings_are_read_from_env", env_file),
        with(tools, "a_checkout_may_have_a_strict_umask", strict_umask),
    ]
}

/// Images whose files are read by a user that is not root, their folders, and a command that reads them.
const READ_WITHOUT_ROOT: [(&str, &str, &[&str]); 6] = [
    ("front-end2", "task2/front-end", &["nginx"]),
    ("front-end", "stack/front-end", &["nginx", "-t"]),
    ("proxy", "stack/proxy", &["nginx", "-t"]),
    (
        "certbot",
        "deploy/https/certbot",
        &[
            "--entrypoint=cat",
            "/renew.sh",
            "/config/letsencrypt/cli.ini",
        ],
    ),
    (
        "prometheus",
        "deploy/metrics/prometheus",
        &[
            "--entrypoint=promtool",
            "check",
            "config",
            "/etc/prometheus/prometheus.yml",
        ],
    ),
    (
        "blackbox",
        "deploy/metrics/blackbox-exporter",
        &[
            "--config.check",
            "--config.file=/etc/blackbox_exporter/config.yml",
        ],
    ),
];

fn strict_umask(tools: Tools) {
    let checkout = Checkout::with_strict_umask();
    for (name, folder, command) in READ_WITHOUT_ROOT {
        let image = unique(&format!("umask-{name}"));
        let line = format!("docker build --tag {image} {folder}");
        let built = output(&mut tools.command(checkout.path(), &line));
        built.unwrap_or_else(|error| panic!("{line}\n{error}"));
        let _removed = Image(&image);
        if let ["nginx"] = command {
            // As root, whose workers are not.
            let front_end = Container::run(&image, &["--publish=9000:9000"]);
            for path in ["", "style.css", "icon.svg"] {
                ok(&format!("http://localhost:9000/{path}"));
            }
            drop(front_end);
            continue;
        }
        let (options, words) = match command {
            [entry_point, words @ ..] if entry_point.starts_with("--entrypoint") => {
                (&command[..1], words)
            }
            words => (&command[..0], words),
        };
        let run = [&["run", "--rm"], options, &[&*image], words].concat();
        docker(&run);
    }
}

/// An image that is removed when dropped.
struct Image<'a>(&'a str);

impl Drop for Image<'_> {
    fn drop(&mut self) {
        docker(&["rmi", self.0]);
    }
}

/// A Docker configuration with an HTTP proxy for containers that does not exist.
fn config_with_proxy() -> TempDir {
    let proxies = r#"{"proxies": {"default": {"httpProxy": "http://127.0.0.1:9", "httpsProxy": "http://127.0.0.1:9"}}}"#;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), proxies).unwrap();
    let own = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let own = own.or_else(|| env::home_dir().map(|home| home.join(".docker")));
    let plugins = own.unwrap().join("cli-plugins");
    if plugins.exists() {
        symlink(plugins, folder.path().join("cli-plugins")).unwrap();
    }
    folder
}

fn http_proxy(tools: Tools) {
    let config = config_with_proxy();
    let built = Project::new(tools, ".");
    built.run("docker-compose build");
    let project = Project::new(tools, ".").with("DOCKER_CONFIG", config.path().display());
    // --wait returns once all are healthy.
    project.run("docker-compose up -d --wait");
    for service in ["front-end", "proxy"] {
        let id = project.container(service);
        let environment = inspect(&id, "{{.Config.Env}}");
        assert!(
            environment.contains("http_proxy=http://127.0.0.1:9"),
            "{environment}"
        );
    }
    // The images' own health checks are the same.
    for image in ["hello-front-end:stack", "hello-proxy:stack"] {
        let check = inspect(image, "{{json .Config.Healthcheck.Test}}");
        let compose = inspect(
            &project.container(if image.contains("proxy") {
                "proxy"
            } else {
                "front-end"
            }),
            "{{json .Config.Healthcheck.Test}}",
        );
        assert_eq!(check, compose, "{image}");
    }
    ok("http://localhost/api/hello");
}

fn ipv6(tools: Tools) {
    let project = Project::new(tools, ".").with(
        "COMPOSE_FILE",
        "docker-compose.yml:tests/acceptance/ipv6.yml",
    );
    project.run("docker-compose up -d --build");
    for host in ["127.0.0.1", "[::1]"] {
        ok(&format!("http://{host}/"));
        ok(&format!("http://{host}/api/hello"));
    }
    // The API and the front-end, from their own networks.
    for (service, port, path) in [("api", 5252, "/healthz"), ("front-end", 9000, "/")] {
        for id in project.containers(service) {
            let network = format!("container:{id}");
            for host in ["127.0.0.1", "[::1]"] {
                let url = format!("http://{host}:{port}{path}");
                let curl = ["curl", "--fail", "--silent", "--show-error", &url];
                let run = ["run", "--rm", "--network", &network, "nginx:1.30"];
                docker(&[&run[..], &curl].concat());
            }
        }
    }
}

/// A kernel that was started with `ipv6.disable=1`.
fn no_ipv6(tools: Tools) {
    tools.run("stack", "docker build -t hello-api:stack back-end");
    let profile = root().join("tests/acceptance/no-ipv6.json");
    let seccomp = format!("--security-opt=seccomp={}", profile.display());
    let api = Container::run("hello-api:stack", &["--publish=5252:5252", &seccomp]);
    ok("http://localhost:5252/api/hello");
    wait::until(HEALTHY, || {
        match inspect(&api.name, "{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}

/// The number of nginx workers in a container that are not shutting down.
pub fn workers(id: &str) -> usize {
    let processes = docker(&["top", id, "-o", "pid,args"]);
    let workers = processes
        .lines()
        .filter(|line| line.contains("nginx: worker process"));
    workers
        .filter(|line| !line.contains("shutting down"))
        .count()
}

fn reloads(tools: Tools) {
    const RELOADS: usize = 8;
    let project = Project::new(tools, ".");
    project.run("docker-compose up -d --build");
    ok("http://localhost/api/hello");
    // Regardless of the number of cores.
    let proxy = project.container("proxy");
    assert_eq!(workers(&proxy), 2);
    assert_eq!(workers(&project.container("front-end")), 2);
    let mut slow = vec![];
    for reload in 1..=RELOADS {
        // Clients in the middle of a request keep old workers alive.
        for _ in 0..16 {
            let mut stream = TcpStream::connect(("127.0.0.1", 80)).unwrap();
            stream.write_all(b"GET /api/hello HTTP/1.1\r\nX: ").unwrap();
            slow.push(stream);
        }
        docker(&["exec", &proxy, "nginx", "-s", "reload"]);
        wait::until(Duration::from_secs(10), || {
            let text = docker(&["top", &proxy, "-o", "pid,args"]);
            let old = text.matches("worker process is shutting down").count();
            match (workers(&proxy), old) {
                (2, 1..) => Ok(()),
                state => Err(format!("after {reload} reloads: {state:?}")),
            }
        });
        ok("http://localhost/api/hello");
    }
    // There is room for a health check, too.
    let checks = || inspect(&proxy, "{{range .State.Health.Log}}{{.End}} {{end}}");
    let before = checks();
    wait::until(HEALTHY, || match checks() {
        after if after != before => Ok(()),
        _ => Err("no health check"),
    });
    assert_eq!(inspect(&proxy, "{{.State.Health.Status}}"), "healthy");
    let limit: u64 = inspect(&proxy, "{{.HostConfig.PidsLimit}}")
        .parse()
        .unwrap();
    let processes = docker(&["top", &proxy, "-o", "pid"]).lines().count() as u64 - 1;
    println!("{processes} of {limit} processes after {RELOADS} reloads");
    assert!(processes < limit);
    let log = docker(&["logs", &proxy]);
    assert!(!log.contains("[alert]") && !log.contains("fork"), "{log}");
}

/// The outside DNS, to which the engine forwards unknown names, never responds.
fn dns_down(tools: Tools) {
    let project = Project::new(tools, ".").with(
        "COMPOSE_FILE",
        "docker-compose.yml:tests/acceptance/dns-down.yml",
    );
    project.run("docker-compose build");
    project.run("docker-compose up -d --no-deps proxy");
    wait::until(Duration::from_secs(10), || {
        match http::get("http://localhost/api/hello") {
            Ok(answer) if answer.status == 503 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // Wait for a failed DNS query.
    let proxy = project.container("proxy");
    wait::until(Duration::from_secs(40), || {
        let log = docker(&["logs", &proxy]);
        match log.contains("api could not be resolved") {
            true => Ok(()),
            false => Err(format!("no failed look-up: {log}")),
        }
    });
    project.run("docker-compose up -d --no-recreate api");
    ok_within(Duration::from_secs(4), "http://localhost/api/hello");
}

fn env_file(tools: Tools) {
    const STACK: &str = "docker-compose.yml";
    const HTTPS: &str = "docker-compose.yml:deploy/https.yml";
    let folder = tempfile::tempdir().unwrap();
    // Compose 1 requires the build folders to exist.
    for context in [
        "deploy/https/certbot",
        "stack/back-end",
        "stack/front-end",
        "stack/proxy",
    ] {
        fs::create_dir_all(folder.path().join(context)).unwrap();
    }
    for file in [STACK, "deploy/https.yml", ".env.example"] {
        fs::copy(root().join(file), folder.path().join(file)).unwrap();
    }
    let config = |files: &str, settings: &str| {
        fs::write(folder.path().join(".env"), settings).unwrap();
        let mut command = tools.command(folder.path(), "docker-compose config");
        for (name, _) in SETTINGS {
            command.env_remove(name);
        }
        command.env("COMPOSE_FILE", files);
        output(&mut command).unwrap_or_else(|error| panic!("{error}"))
    };
    let example = fs::read_to_string(folder.path().join(".env.example")).unwrap();
    // Both as copied, and with every setting uncommented.
    let shown: String = example
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(shown.lines().count(), 13, "{shown}");
    assert_eq!(config(STACK, &example), config(STACK, ""));
    assert_eq!(config(STACK, &shown), config(STACK, ""));
    let required = "DOMAIN=example.com\nEMAIL=admin@example.com\n";
    assert_eq!(config(HTTPS, &shown), config(HTTPS, required));
    // Each setting has an effect.
    for setting in shown.lines() {
        let (name, _) = setting.split_once('=').unwrap();
        let changed = config(HTTPS, &format!("{required}{name}=8888\n"));
        assert!(changed.contains("8888"), "{name}: {changed}");
    }
}

/// A machine with Podman, in a container.
struct Machine(Container);

impl Machine {
    fn run(&self, line: &str) -> Result<String, String> {
        output(Command::new("docker").args(["exec", &self.0.name, "sh", "-ec", line]))
    }

    #[track_caller]
    fn must(&self, line: &str) -> String {
        self.run(line)
            .unwrap_or_else(|error| panic!("{line}\n{error}"))
    }
}

fn podman(tools: Tools) {
    tools.run(
        "tests/acceptance",
        "docker build --tag acceptance-podman podman",
    );
    Project::new(tools, ".").run("docker-compose build");
    let source = format!("--volume={}:/source:ro", root().display());
    let machine = Machine(Container::run_command(
        "podman",
        "acceptance-podman",
        &[
            &ENGINE_OPTIONS[..],
            &["--volume=/var/lib/containers", &source],
        ]
        .concat(),
        &[
            "podman",
            "system",
            "service",
            "--time=0",
            "unix:///run/podman/podman.sock",
        ],
    ));
    wait::until(PODMAN, || machine.run("test -S /run/podman/podman.sock"));
    // Build only the images based on nginx, which shows that OCI images have no health check.
    for image in ["hello-api:stack", "nginx:1.30"] {
        let pipe = format!(
            "docker save {image} | docker exec --interactive {name} podman load --quiet",
            name = machine.0.name
        );
        output(Command::new("sh").args(["-c", &pipe])).unwrap();
        machine.must(&format!(
            "podman tag localhost/{image} docker.io/library/{image}"
        ));
        machine.must(&format!("podman rmi localhost/{image}"));
    }
    machine.must(
        "mkdir /stack && cd /source && cp --recursive docker-compose.yml stack /stack \
         && cd /stack && podman compose build front-end proxy",
    );
    // On a real machine, systemd runs the health checks.
    machine.must(
        "(while :; do for id in $(podman ps --quiet); do podman healthcheck run $id || true; done; sleep 1; done) \
         >/dev/null 2>&1 &",
    );
    machine.must("cd /stack && timeout 120 podman compose up --detach");
    // Inside the proxy: from the container that is this machine, its published port and its address
    // refused a connection in some runs, while the proxy was healthy and answered there.
    let curl = "podman exec stack-proxy-1 curl --fail --silent --show-error http://127.0.0.1/";
    let replicas = |expected: usize| {
        wait::until(Duration::from_secs(10), || {
            let curl = format!("{curl}api/whoami");
            let mut all: Vec<_> = (0..expected)
                .map(|_| {
                    machine
                        .run(&curl)
                        .map(|text| text.chars().take(30).collect::<String>())
                })
                .collect::<Result<_, _>>()
                .map_err(|error| {
                    let state =
                        machine.run("podman ps --all; podman logs stack-proxy-1 2>&1 | tail");
                    format!("{error}\n{state:?}")
                })?;
            all.sort();
            all.dedup();
            match all.len() == expected {
                true => Ok(()),
                false => Err(format!("{all:?}")),
            }
        });
    };
    replicas(2);
    machine.must(&format!("{curl} > /dev/null"));
    machine.must("cd /stack && podman compose up --detach --no-recreate --scale api=4");
    replicas(4);
    machine.must("cd /stack && podman compose down");
}
