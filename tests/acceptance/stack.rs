//! task6 and the final stack: the round robin, and replicas that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    board::Board,
    environments::workers,
    project::Project,
    tasks::{api_image, no_page, ok, ok_within, unreachable},
    with, with_browser,
};
use common::{
    container::{Container, stop},
    http,
    load::Load,
    tools::{Tools, docker, inspect, output, root},
    trial, wait,
};

/// Within this time the proxy takes up a change.
const TAKEN_UP: Duration = Duration::from_secs(2);

/// The same for one that was sent a request before it listened, a failure after which it is passed over
/// for three seconds, and up to one more, because nginx counts whole seconds.
const TAKEN_UP_LATE: Duration = Duration::from_secs(5);

/// The most bytes that the image of the API has.
const API_SIZE: u64 = 3_500_000;

/// The longest that a replica may take to stop: it drains for a second.
pub const STOP: SignedDuration = SignedDuration::from_millis(1500);

/// How long a line may wait until it is written to the log, and the engine has taken it.
pub const LOGGED: Duration = Duration::from_secs(5);

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with_browser(tools, "task6", task6),
        with(tools, "the_round_robin_is_exact", round_robin),
        with(tools, "late_replicas_are_taken_up", late_replicas),
        with(tools, "the_proxy_starts_alone", proxy_alone),
        with(tools, "the_final_stack", final_stack),
        with(tools, "the_final_stack_has_no_rights_to_spare", hardened),
        with(tools, "the_api_takes_little_memory", small),
        with(tools, "stop_times_and_exit_codes", stops),
        with(tools, "the_api_names_a_wrong_value", wrong_value),
        with(tools, "a_taken_port_is_named", taken_port),
    ]
}

/// How many of `requests` each replica answered. Every answer is a success.
#[track_caller]
pub fn shares(url: &str, requests: usize) -> BTreeMap<String, usize> {
    let client = http::client();
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = http::send(&client, "GET", url, &[]).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        *shares.entry(answer.served_by()).or_default() += 1;
    }
    shares
}

fn task6(tools: Tools) {
    let command = fs::read_to_string(root().join("task6/2-api-servers.txt")).unwrap();
    assert_eq!(command, "docker-compose up --scale api=2\n");
    let project = Project::new(tools, "task6");
    project.run("docker-compose build");
    let up = project.spawn(command.trim_end());
    let replicas = wait::until(Duration::from_secs(60), || {
        let replicas = project.host_names("api");
        if replicas.len() == 2 {
            Ok(replicas)
        } else {
            Err(format!("{replicas:?}"))
        }
    });
    let url = "http://localhost/api/whoami";
    ok_within(Duration::from_secs(20), url);
    // From the first answer on: the proxy is started last, and so finds both.
    let expected = replicas.iter().map(|name| (name.clone(), 5)).collect();
    assert_eq!(shares(url, 10), expected);

    let answer = ok(url);
    let whoami: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(whoami["replica"], answer.served_by());
    let page = ok("http://localhost/api");
    let heading = format!("<h1>Replica {}</h1>", page.served_by());
    assert!(page.body.contains(&heading), "{}", page.body);
    let board = Board::open();
    board.has(&replicas);
    board.is_even();
    unreachable(5252);
    unreachable(9000);
    no_page("http://localhost/healthz");

    up.interrupt();
    assert_eq!(project.containers("api"), BTreeSet::new());
}

fn round_robin(tools: Tools) {
    const CLIENTS: usize = 16;
    const REPLICAS: usize = 3;
    const REQUESTS: usize = 100;
    // More workers than this machine has cores.
    let project = Project::new(tools, ".").with("PROXY_WORKERS", 4);
    project.run(&format!(
        "docker-compose up -d --build --scale api={REPLICAS}"
    ));
    let url = "http://localhost/api/hello";
    ok(url);
    assert_eq!(workers(&project.container("proxy")), 4);
    wait::until(TAKEN_UP, || match shares(url, REPLICAS).len() {
        REPLICAS => Ok(()),
        less => Err(format!("{less} replicas")),
    });

    let mut all = BTreeMap::<String, usize>::new();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| shares(url, REQUESTS)))
            .collect();
        for client in clients {
            for (replica, answers) in client.join().unwrap() {
                *all.entry(replica).or_default() += answers;
            }
        }
    });
    assert_eq!(all.len(), REPLICAS);
    let equal = CLIENTS * REQUESTS / REPLICAS;
    for answers in all.values() {
        assert!((equal..=equal + 1).contains(answers), "{all:?}");
    }

    // And over connections that were kept, where each would have left one behind in TIME_WAIT. The
    // API's image has no shell, so another one looks, from the same network, for port 5252: 0x1484.
    for replica in project.containers("api") {
        let network = format!("container:{replica}");
        let look = ["run", "--rm", "--network", &network, "nginx:1.30"];
        // Of both families, because a socket for both lists its connections with those of IPv6.
        let sockets = docker(&[&look[..], &["cat", "/proc/net/tcp", "/proc/net/tcp6"]].concat());
        let connections = sockets.matches(":1484 ").count();
        assert!(
            (1..equal / 2).contains(&connections),
            "{connections} for {equal} requests"
        );
    }
}

fn late_replicas(tools: Tools) {
    let project = Project::new(tools, ".");
    project.run("docker-compose up -d --build");
    ok("http://localhost/api/hello");
    let proxy = project.container("proxy");
    let early = project.host_names("api");

    // When each replica answers for the first time, while more of them are started.
    let scaled = AtomicBool::new(false);
    let mut seen = BTreeMap::new();
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeMap::new();
            let deadline = Instant::now() + Duration::from_secs(120);
            let mut after = None;
            // On until the last replica has had its time.
            while after.is_none_or(|end| Instant::now() < end) {
                assert!(Instant::now() < deadline, "scaling takes too long");
                let answer = http::get("http://localhost/api/hello").unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
                seen.entry(answer.served_by())
                    .or_insert_with(Timestamp::now);
                if after.is_none() && scaled.load(Ordering::Relaxed) {
                    after = Some(Instant::now() + TAKEN_UP_LATE);
                }
            }
            seen
        });
        project.run("docker-compose up -d --no-recreate --scale api=5");
        scaled.store(true, Ordering::Relaxed);
        seen = watch.join().unwrap();
    });
    let late: Vec<_> = project
        .containers("api")
        .into_iter()
        .map(|id| inspect(&id, "{{.Config.Hostname}} {{.State.StartedAt}}"))
        .filter(|line| !early.iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(late.len(), 3, "{late:?}");
    for line in late {
        let (name, started) = line.split_once(' ').unwrap();
        let started: Timestamp = started.parse().unwrap();
        let answered = seen
            .get(name)
            .unwrap_or_else(|| panic!("{name} got nothing"));
        let took = answered.duration_since(started);
        assert!(
            took.unsigned_abs() <= TAKEN_UP_LATE,
            "{name} after {took:?}"
        );
    }

    project.run("docker-compose up -d --no-recreate --scale api=1");
    let remaining = project.host_names("api");
    wait::until(TAKEN_UP, || {
        let answers: Result<Vec<_>, _> = (0..20)
            .map(|_| http::get("http://localhost/api/hello"))
            .collect();
        match answers {
            Ok(answers) if answers.iter().all(|answer| answer.status == 200) => {
                let names: BTreeSet<_> = answers.iter().map(|answer| answer.served_by()).collect();
                if names == remaining {
                    Ok(())
                } else {
                    Err(format!("{names:?}"))
                }
            }
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(project.container("proxy"), proxy, "the proxy is the same");
}

fn proxy_alone(tools: Tools) {
    for _ in 0..trial::repeat() {
        let project = Project::new(tools, ".");
        project.run("docker-compose build");
        project.run("docker-compose up -d --no-deps proxy");
        let proxy = project.container("proxy");
        let answer = wait::until(TAKEN_UP, || http::get("http://localhost/api/hello"));
        assert_eq!(answer.status, 503, "{answer:?}");
        project.run("docker-compose up -d --no-recreate");
        for path in ["/api/hello", "/"] {
            wait::until(TAKEN_UP, || {
                match http::get(&format!("http://localhost{path}")) {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        assert_eq!(project.container("proxy"), proxy, "the proxy is the same");
    }
}

fn final_stack(tools: Tools) {
    let project = Project::new(tools, ".").with("HTTP_PORT", 9000);
    project.run("docker-compose config");
    project.run("docker-compose up -d --build");
    api_image("hello-api:task6", API_SIZE);
    // The proxy is started when the others are healthy.
    for service in ["api", "front-end"] {
        for id in project.containers(service) {
            assert_eq!(
                inspect(&id, "{{.State.Health.Status}}"),
                "healthy",
                "{service}"
            );
        }
    }
    wait::until(Duration::from_secs(20), || {
        match inspect(&project.container("proxy"), "{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let replicas = project.host_names("api");
    assert_eq!(replicas.len(), 2);
    let shares = shares("http://localhost:9000/api/hello", 20);
    assert!(shares.values().all(|&answers| answers == 10), "{shares:?}");
    ok("http://localhost:9000/");
    unreachable(80);
    unreachable(5252);

    for service in ["api", "front-end", "proxy"] {
        for id in project.containers(service) {
            let policy = inspect(&id, "{{.HostConfig.RestartPolicy.Name}}");
            assert_eq!(policy, "unless-stopped", "{service}");
        }
    }

    // What the proxy logs of a request, the API logs under the same id.
    let answer = ok("http://localhost:9000/api/hello");
    let id = answer.header("x-request-id").to_owned();
    for service in ["api", "proxy"] {
        wait::until(LOGGED, || {
            let logs = project.run(&format!("docker-compose logs {service}"));
            match logs.contains(&id) {
                true => Ok(()),
                false => Err(format!("{service} has no {id}: {logs}")),
            }
        });
    }
}

fn hardened(tools: Tools) {
    let project = Project::new(tools, ".");
    project.run("docker-compose up -d --build");
    ok("http://localhost/api/hello");
    for service in ["api", "front-end", "proxy"] {
        for id in project.containers(service) {
            let host = |field: &str| inspect(&id, &format!("{{{{.HostConfig.{field}}}}}"));
            assert_eq!(host("ReadonlyRootfs"), "true", "{service}");
            assert_eq!(host("CapDrop"), "[ALL]", "{service}");
            assert_eq!(host("CapAdd"), "[]", "{service}");
            assert_eq!(host("SecurityOpt"), "[no-new-privileges:true]", "{service}");
            assert_eq!(
                host("LogConfig.Config"),
                "map[max-file:3 max-size:10m]",
                "{service}"
            );
            for limit in ["Memory", "PidsLimit"] {
                let value: u64 = host(limit).parse().unwrap();
                assert!(value > 0, "{service} has no limit: {limit}");
            }
            // As what its processes run, seen from outside; the first line is the heading.
            let users = docker(&["top", &id, "-o", "uid,pid"]);
            let users = users
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().next());
            assert!(users.clone().count() > 0);
            for user in users {
                assert!(matches!(user, Some("101" | "65534")), "{service}: {user:?}");
            }
        }
    }

    // No way out, and no way to each other.
    for service in ["api", "front-end"] {
        for id in project.containers(service) {
            let networks = "{{range .NetworkSettings.Networks}}{{.NetworkID}} {{end}}";
            let networks = inspect(&id, networks);
            let internal = networks
                .split_whitespace()
                .map(|id| inspect(id, "{{.Internal}}"));
            assert_eq!(internal.collect::<Vec<_>>(), ["true"], "{service}");
        }
    }
    let front_end = project.container("front-end");
    let exec = |command: &str| docker(&["exec", &front_end, "sh", "-c", command]);
    let reached = exec("curl --silent --max-time 2 http://api:5252/healthz || echo unreachable");
    assert_eq!(reached, "unreachable");
    let reached = exec("curl --silent --max-time 2 http://proxy/api/hello");
    assert_eq!(reached, "Hello, World!");

    // And one port alone is published.
    for service in ["api", "front-end"] {
        for id in project.containers(service) {
            assert_eq!(docker(&["port", &id]), "", "{service}");
        }
    }
    let published = docker(&["port", &project.container("proxy")]);
    assert!(
        published.lines().all(|line| line.starts_with("80/tcp -> ")),
        "{published}"
    );
}

/// The memory of a replica, as `docker stats` counts it, in MiB.
#[track_caller]
pub fn memory(id: &str) -> f64 {
    let usage = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", id]);
    let used = usage.split(" / ").next().and_then(|used| {
        let kib = used.strip_suffix("KiB").and_then(|kib| kib.parse().ok());
        let mib = used.strip_suffix("MiB").and_then(|mib| mib.parse().ok());
        kib.map(|kib: f64| kib / 1024.0).or(mib)
    });
    used.unwrap_or_else(|| panic!("memory: {usage}"))
}

fn small(tools: Tools) {
    tools.run("task6", "docker build -t hello-api:task6 back-end");
    // Without a health check, of which each is a second process in the container.
    let options = ["--publish", "5252:5252", "--no-healthcheck"];
    let api = Container::run("hello-api:task6", &options);
    ok("http://localhost:5252/api/hello");
    let idle = memory(&api.name);
    assert!(idle <= 2.0, "{idle} MiB idle");
    let load = Load::start(5252, "/api/hello");
    // What takes a moment is the measurement, and the load goes on meanwhile.
    let loaded = memory(&api.name);
    let report = load.stop();
    assert_eq!(report.lost.len(), 0);
    assert!(report.sent() > 1000, "{} requests", report.sent());
    assert!(loaded <= 8.0, "{loaded} MiB under load");
}

fn stops(tools: Tools) {
    let project = Project::new(tools, ".");
    project.run("docker-compose up -d --build");
    ok("http://localhost/api/hello");
    // With connections of the proxy open to it.
    shares("http://localhost/api/hello", 10);
    for id in project.containers("api") {
        let (code, time) = stop(&id);
        assert_eq!(code, "0");
        assert!(time <= STOP, "{time:?}");
    }
}

fn wrong_value(tools: Tools) {
    tools.run("task6", "docker build -t hello-api:task6 back-end");
    let run = |variable: &str| {
        let line = format!("docker run --rm -e {variable} hello-api:task6");
        output(&mut tools.command(&root(), &line)).unwrap_err()
    };
    assert_eq!(
        run("API_ADDRESS=localhost"),
        "exit status: 2\nerror: invalid value 'localhost' for '--address <IP:PORT>': \
         expected an IP address and a port, such as [::]:5252\n"
    );
    assert_eq!(
        run("API_LOG_FORMAT=xml"),
        "exit status: 2\nerror: invalid value 'xml' for '--log-format <FORMAT>' \
         [possible values: text, json]\n"
    );
}

fn taken_port(tools: Tools) {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let project = Project::new(tools, ".").with("HTTP_PORT", port);
    let error = output(&mut project.command("docker-compose up -d --build")).unwrap_err();
    assert!(error.contains(&format!(":{port}")), "{error}");
    assert!(error.contains("address already in use"), "{error}");
}
