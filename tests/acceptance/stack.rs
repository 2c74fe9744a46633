//! The final stack: start, rights, round robin, scaling.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    container::stop,
    http,
    project::Project,
    tools::{Tools, docker, inspect, output},
    trial, wait,
};
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    environments::workers,
    fixture::{Stack, on_stack, with},
    tasks::{api_image, ok, unreachable},
};

/// Time for the proxy to notice a change.
const TAKEN_UP: Duration = Duration::from_secs(2);

/// The same for one that was sent a request before it listened, a failure after which it is passed over
/// for three seconds, and up to one more, because nginx counts whole seconds.
const TAKEN_UP_LATE: Duration = Duration::from_secs(5);

/// Size limit of the API's image, in bytes.
const API_SIZE: u64 = 3_500_000;

/// Time for a replica to stop. It drains for a second.
pub const STOP: SignedDuration = SignedDuration::from_millis(1500);

/// Time until a line is in the log of the engine. It is buffered for up to a second.
pub const LOGGED: Duration = Duration::from_secs(20);

/// Claims for both generations of compose.
pub fn both(tools: Tools) -> Vec<Trial> {
    let stack = Stack::of(2);
    vec![
        on_stack(
            tools,
            "the_stack_starts_in_the_order_of_health",
            stack,
            healthy,
        ),
        on_stack(tools, "containers_have_no_rights_to_spare", stack, hardened),
        on_stack(
            tools,
            "late_replicas_get_requests_within_seconds",
            stack,
            late_replicas,
        ),
        with(tools, "a_taken_port_is_named", taken_port),
    ]
}

pub fn trials(tools: Tools) -> Vec<Trial> {
    let on = |name, test| on_stack(tools, name, Stack::of(2), test);
    vec![
        on("replicas_say_who_they_are", says_who),
        on("replicas_stop_within_a_second_and_a_half", stops),
    ]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    vec![
        with(
            tools,
            "the_round_robin_is_exact_with_more_workers",
            round_robin,
        ),
        with(tools, "the_proxy_starts_alone", proxy_alone),
    ]
}

/// The number of requests that each replica answered. Asserts that all succeed.
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

/// Clients that send at once, and requests of each.
const CLIENTS: usize = 16;
const REQUESTS: usize = 100;

/// Asserts that so many replicas get the same number of requests from clients that send at once.
#[track_caller]
pub fn exact_shares(replicas: usize) {
    let url = "http://localhost/api/hello";
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
    assert_eq!(all.len(), replicas, "{all:?}");
    let equal = CLIENTS * REQUESTS / replicas;
    for answers in all.values() {
        assert!((equal..=equal + 1).contains(answers), "{all:?}");
    }
}

fn round_robin(tools: Tools) {
    const REPLICAS: usize = 3;
    // More workers than cores.
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
    exact_shares(REPLICAS);

    // And over connections that were kept, where each would have left one behind in TIME_WAIT. The
    // API's image has no shell, so another one looks, from the same network, for port 5252: 0x1484.
    for replica in project.containers("api") {
        let network = format!("container:{replica}");
        let look = ["run", "--rm", "--network", &network, "nginx:1.30"];
        // Both families, because a dual-stack socket is listed with IPv6.
        let sockets = docker(&[&look[..], &["cat", "/proc/net/tcp", "/proc/net/tcp6"]].concat());
        let connections = sockets.matches(":1484 ").count();
        let requests = CLIENTS * REQUESTS / REPLICAS;
        assert!(
            (1..requests / 2).contains(&connections),
            "{connections} for {requests} requests"
        );
    }
}

fn late_replicas(project: &Project) {
    let proxy = project.container("proxy");
    let early = project.host_names("api");

    // The time of the first response of each replica while scaling up.
    let scaled = AtomicBool::new(false);
    let mut seen = BTreeMap::new();
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeMap::new();
            let deadline = Instant::now() + Duration::from_secs(120);
            let mut after = None;
            // Continue until the last replica must have responded.
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

fn healthy(project: &Project) {
    project.run("docker-compose config");
    api_image("hello-api:stack", API_SIZE);
    // The proxy starts when the others are healthy.
    let started = inspect(&project.container("proxy"), "{{.State.StartedAt}}");
    let started: Timestamp = started.parse().unwrap();
    for service in ["api", "front-end"] {
        for id in project.containers(service) {
            let checks = inspect(
                &id,
                "{{range .State.Health.Log}}{{.ExitCode}} {{.End}}\n{{end}}",
            );
            let first = checks.lines().find_map(|line| line.strip_prefix("0 "));
            let first = first.unwrap_or_else(|| panic!("{service} was never healthy: {checks}"));
            assert!(
                ended(first) <= started,
                "{service} was healthy at {first}, after {started}"
            );
        }
    }
    wait::until(Duration::from_secs(20), || {
        match inspect(&project.container("proxy"), "{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let shares = shares("http://localhost/api/hello", 20);
    assert!(shares.values().all(|&answers| answers == 10), "{shares:?}");
    ok("http://localhost/");
    unreachable(5252);
    unreachable(9000);
    for service in ["api", "front-end", "proxy"] {
        for id in project.containers(service) {
            let policy = inspect(&id, "{{.HostConfig.RestartPolicy.Name}}");
            assert_eq!(policy, "unless-stopped", "{service}");
        }
    }
}

/// A time as Go prints it: `2026-01-31 12:34:56.789 +0000 UTC`.
#[track_caller]
fn ended(time: &str) -> Timestamp {
    let mut words = time.split(' ');
    let (Some(date), Some(time), Some(offset)) = (words.next(), words.next(), words.next()) else {
        panic!("no time: {time}");
    };
    let time = format!("{date}T{time}{offset}");
    time.parse()
        .unwrap_or_else(|error| panic!("{time}: {error}"))
}

fn hardened(project: &Project) {
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
            // The users of its processes. The first line is a heading.
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

    // Internal networks, separate from each other.
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

    // Only port 80 is published.
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

fn says_who(_: &Project) {
    let answer = ok("http://localhost/api/whoami");
    let whoami: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(whoami["replica"], answer.served_by());
    let page = ok("http://localhost/api");
    let heading = format!("<h1>Replica {}</h1>", page.served_by());
    assert!(page.body.contains(&heading), "{}", page.body);
    // For health checks only.
    let page = http::get("http://localhost/healthz").unwrap();
    assert_eq!(page.status, 404);
    assert!(page.body.contains("<h1>Error 404</h1>"), "{page:?}");
}

fn stops(project: &Project) {
    // Open connections from the proxy.
    shares("http://localhost/api/hello", 10);
    for id in project.containers("api") {
        let (code, time) = stop(&id);
        assert_eq!(code, "0");
        assert!(time <= STOP, "{time:?}");
    }
}

fn taken_port(tools: Tools) {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let project = Project::new(tools, ".").with("HTTP_PORT", port);
    let error = output(&mut project.command("docker-compose up -d --build")).unwrap_err();
    assert!(error.contains(&format!(":{port}")), "{error}");
    assert!(error.contains("address already in use"), "{error}");
}
