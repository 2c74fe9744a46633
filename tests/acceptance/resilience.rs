//! No request is lost while replicas come, go, die and hang.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{
    container::{Container, Network},
    http,
    load::{Load, Report, Requests},
    project::Project,
    tools::{Tools, docker, inspect},
    trial, wait,
};
use hyper::{Method, StatusCode};
use libtest_mimic::Trial;

use crate::{
    fixture::{Stack, healthy, on_stack, with},
    stack::shares,
    tasks::{ok, ok_within},
};

/// Time after a change until every replica gets an equal share again.
const SETTLED: Duration = Duration::from_secs(2);

/// Within this time a replica that has failed, and recovered, gets its share again: it is passed over
/// for 3 s, by a clock of whole seconds.
pub const RECOVERED: Duration = Duration::from_secs(4);

/// The slowest 503: for a second or two after the replicas have ended, their addresses are tried, and
/// the last tries wait for 2 s each.
const NOBODY: Duration = Duration::from_secs(5);

/// Slowest response while a replica hangs: the first try of 1.1 s, and the retry.
pub const HUNG: Duration = Duration::from_millis(1300);

const PORT: u16 = 80;
const HELLO: &str = "/api/hello";

pub fn trials(tools: Tools) -> Vec<Trial> {
    let on = |name, replicas, test| on_stack(tools, name, Stack::of(replicas), test);
    vec![
        on("nothing_is_lost_when_scaled", 2, scaled),
        on("nothing_is_lost_when_a_replica_is_killed", 3, killed),
        on("nothing_is_lost_when_a_replica_is_stopped", 3, stopped),
        on("nothing_is_lost_when_a_replica_hangs", 3, hangs),
        on("slow: no_post_is_lost_when_replicas_are_stopped", 1, posts),
        on("nothing_is_lost_when_the_proxy_is_reloaded", 2, reloaded),
        on("the_front_end_may_be_recreated", 2, front_end),
        on("the_proxy_may_be_recreated", 2, recreated),
        on("all_replicas_may_be_gone", 2, all_gone),
        on(
            "nothing_is_lost_when_a_new_version_is_rolled_out",
            2,
            new_version,
        ),
    ]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    vec![with(
        tools,
        "non_idempotent_requests_are_never_retried",
        repeated,
    )]
}

/// Asserts that exactly the running replicas have equal shares since `settled`.
#[track_caller]
fn equal_shares(project: &Project, report: &Report, settled: Instant) {
    report.assert_equal_shares(&project.host_names("api"), settled);
}

fn scaled(project: &Project) {
    for _ in 0..trial::repeat() {
        for replicas in [5, 1, 3] {
            let load = Load::start(PORT, HELLO);
            project.run(&format!(
                "docker-compose up -d --no-recreate --scale api={replicas}"
            ));
            let settled = load.go_on(SETTLED);
            let report = load.stop();
            report
                .assert_nothing_lost(&format!("scaled to {replicas}"), Duration::from_millis(500));
            equal_shares(project, &report, settled);
        }
    }
}

/// Asserts that nothing is lost when something happens to one of three replicas.
#[track_caller]
fn one_of_three(
    project: &Project,
    case: &str,
    requests: impl Into<Requests>,
    limit: Duration,
    happens: fn(&str),
) {
    let requests = requests.into();
    for _ in 0..trial::repeat() {
        // One that was paused is not healthy for the engine until its next check, and the proxy is
        // not started before it is.
        for id in project.containers("api") {
            healthy(&id);
        }
        project.run("docker-compose up -d --no-recreate --scale api=3");
        wait::until(RECOVERED, || {
            match shares("http://localhost/api/hello", 3).len() {
                3 => Ok(()),
                less => Err(format!("{less} replicas")),
            }
        });
        let victim = project.containers("api").into_iter().next().expect("three");
        let load = Load::start(PORT, requests.clone());
        happens(&victim);
        let settled = load.go_on(RECOVERED);
        let report = load.stop();
        report.assert_nothing_lost(case, limit);
        equal_shares(project, &report, settled);
        // The watchdog must not take a pause for a blocked event loop.
        for id in project.containers("api") {
            assert_eq!(inspect(&id, "{{.RestartCount}}"), "0");
        }
    }
}

fn killed(project: &Project) {
    // The restart policy does not apply to docker kill.
    one_of_three(
        project,
        "killed",
        HELLO,
        Duration::from_millis(500),
        |victim| {
            docker(&["kill", victim]);
        },
    );
}

fn stopped(project: &Project) {
    one_of_three(
        project,
        "stopped",
        HELLO,
        Duration::from_millis(500),
        |victim| {
            docker(&["stop", victim]);
        },
    );
}

fn hangs(project: &Project) {
    for clients in [16, 200] {
        let requests = Requests {
            clients,
            ..HELLO.into()
        };
        one_of_three(project, "hangs", requests, HUNG, |victim| {
            docker(&["pause", victim]);
            thread::sleep(Duration::from_secs(5));
            docker(&["unpause", victim]);
        });
    }
}

/// Asserts that no POST meets a closing connection, because it could not be retried.
fn posts(project: &Project) {
    const STOPS: usize = 20;
    let posts = Requests {
        method: Method::POST,
        // The API's response to a POST.
        status: StatusCode::METHOD_NOT_ALLOWED,
        ..HELLO.into()
    };
    for _ in 0..STOPS / 4 {
        project.run("docker-compose up -d --no-recreate --scale api=5");
        wait::until(SETTLED, || {
            match shares("http://localhost/api/hello", 5).len() {
                5 => Ok(()),
                less => Err(format!("{less} replicas")),
            }
        });
        let load = Load::start(PORT, posts.clone());
        project.run("docker-compose up -d --no-recreate --scale api=1");
        let settled = load.go_on(SETTLED);
        let report = load.stop();
        report.assert_nothing_lost("POSTs, scaled from 5 to 1", Duration::from_millis(500));
        equal_shares(project, &report, settled);
        assert!(
            report
                .answers
                .iter()
                .all(|(_, replica)| !replica.is_empty())
        );
    }
}

fn new_version(project: &Project) {
    for version in 0..trial::repeat() {
        let load = Load::start(PORT, HELLO);
        // Stands for docker-compose build after a change of the program.
        project.run(&format!(
            "printf 'FROM hello-api:stack\\nLABEL test={version}\\n' | docker build -t hello-api:stack -"
        ));
        let image = inspect("hello-api:stack", "{{.Id}}");
        project.run("docker-compose up -d --no-recreate --scale api=4 api");
        wait::until(Duration::from_secs(20), || {
            let replicas = project.containers("api");
            let health: Vec<_> = replicas
                .iter()
                .map(|id| inspect(id, "{{.State.Health.Status}}"))
                .collect();
            if health == ["healthy"; 4] {
                Ok(())
            } else {
                Err(format!("{health:?}"))
            }
        });
        project.run("docker-compose up -d --scale api=2");
        let settled = load.go_on(SETTLED);
        let report = load.stop();
        report.assert_nothing_lost("new version", Duration::from_millis(500));
        equal_shares(project, &report, settled);
        let replicas = project.containers("api");
        assert_eq!(replicas.len(), 2);
        for id in replicas {
            assert_eq!(inspect(&id, "{{.Image}}"), image);
        }
    }
    project.run("docker-compose build api");
    project.run("docker-compose up -d --scale api=2");
}

fn recreated(project: &Project) {
    for _ in 0..trial::repeat() {
        project.run("docker-compose up -d --no-deps --force-recreate proxy");
        ok_within(SETTLED, "http://localhost/api/hello");
    }
}

fn reloaded(project: &Project) {
    for _ in 0..trial::repeat() {
        let load = Load::start(PORT, HELLO);
        docker(&["exec", &project.container("proxy"), "nginx", "-s", "reload"]);
        let settled = load.go_on(SETTLED);
        let report = load.stop();
        report.assert_nothing_lost("proxy reloaded", Duration::from_millis(500));
        assert_eq!(report.closed, 0, "idle connections closed");
        equal_shares(project, &report, settled);
    }
}

fn front_end(project: &Project) {
    for _ in 0..trial::repeat() {
        let load = Load::start(PORT, HELLO);
        let before = project.container("front-end");
        project.run("docker-compose up -d --no-deps --force-recreate front-end");
        let after = project.container("front-end");
        assert_ne!(before, after);
        ok_within(SETTLED, "http://localhost/");
        load.stop()
            .assert_nothing_lost("front-end recreated", Duration::from_millis(500));
    }
}

fn all_gone(project: &Project) {
    let proxy = inspect(&project.container("proxy"), "{{.State.StartedAt}}");
    for _ in 0..trial::repeat() {
        project.run("docker-compose stop api");
        for _ in 0..20 {
            let begin = Instant::now();
            let answer = http::get("http://localhost/api/hello").unwrap();
            assert_eq!(answer.status, 503, "{answer:?}");
            let time = begin.elapsed();
            assert!(time <= NOBODY, "{time:?}");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
            assert_eq!(answer.header("content-type"), "application/json");
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body["status"], 503);
            ok("http://localhost/");
        }
        project.run("docker-compose start api");
        ok_within(SETTLED, "http://localhost/api/hello");
    }
    let same = inspect(&project.container("proxy"), "{{.State.StartedAt}}");
    assert_eq!(same, proxy, "the proxy was not touched");
}

/// Replicas that accept every request and close the connection without a response.
fn repeated(tools: Tools) {
    const REPLICAS: usize = 3;
    let network = Network::new("repeated");
    let closes = "echo 'server { listen 5252; return 444; }' > /etc/nginx/conf.d/default.conf \
                  && exec nginx -g 'daemon off;'";
    let on_network = ["--network", &network.name];
    let replicas: Vec<_> = (0..REPLICAS)
        .map(|replica| {
            let alias = ["--network-alias", "api"];
            let options = [on_network, alias].concat();
            let name = format!("closes-{replica}");
            Container::run_command(&name, "nginx:1.30", &options, &["sh", "-c", closes])
        })
        .collect();
    tools.run("stack", "docker build -t hello-proxy:stack proxy");
    let publish = ["--publish", "80:80"];
    let _proxy = Container::run("hello-proxy:stack", &[on_network, publish].concat());
    let ask = |method: &str, path: &str| {
        let url = format!("http://localhost{path}");
        http::send(&http::client(), method, &url, &[("content-length", "0")])
    };
    // How often a request reached a replica.
    let logs = || -> String { replicas.iter().map(Container::logs).collect() };
    let reached =
        |logs: &str, method: &str, path: &str| logs.matches(&format!("\"{method} {path} ")).count();

    // Safe requests are retried on every replica.
    wait::until(SETTLED, || match ask("GET", "/api/get") {
        Ok(answer) if answer.status == 503 => match reached(&logs(), "GET", "/api/get") {
            REPLICAS.. => Ok(()),
            less => Err(format!("sent {less} times")),
        },
        other => Err(format!("{other:?}")),
    });

    // Even when all replicas have just failed and are passed over.
    for number in 0..10 {
        let path = format!("/api/post-{number}");
        let answer = ask("POST", &path).unwrap();
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(answer.header("retry-after"), "", "{answer:?}");
        assert!(
            answer.body.contains("may have been carried out"),
            "{answer:?}"
        );
        wait::until(SETTLED, || match reached(&logs(), "POST", &path) {
            0 => Err("not logged yet"),
            times => {
                assert_eq!(times, 1, "{path}");
                Ok(())
            }
        });
    }
}
