//! Busy is not broken: overload, slow handlers and streams lose nothing, and no number of clients ends
//! a replica.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use harness::{
    container::stop,
    http::{self, Answer},
    load::{Load, Requests},
    project::Project,
    tools::{Tools, docker, inspect, output, root},
    wait,
};
use hyper::{Method, StatusCode};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    fixture::{Shared, Stack, on, on_stack, with},
    logs::assert_whole_lines,
    resilience::{HUNG, RECOVERED},
    service::memory,
    stack::{LOGGED, STOP},
    tasks::ok,
};

const PORT: u16 = 80;
const HELLO: &str = "/api/hello";

/// Duration of an overload.
const CROWD: Duration = Duration::from_secs(8);

/// Duration of cases whose effects show at once.
const SHORT: Duration = Duration::from_secs(4);

/// The proxy's deadline of 11 s, and a second for the rest.
const DEADLINE: Duration = Duration::from_secs(12);

/// Time for a replica with a blocked event loop to exit and restart.
const RESTARTED: Duration = Duration::from_secs(8);

pub fn trials(tools: Tools) -> Vec<Trial> {
    let on_default = |name, replicas, test| on_stack(tools, name, Stack::of(replicas), test);
    vec![
        on_default("a_crowd_of_6000_clients_is_answered", 2, crowd),
        on_default("no_number_of_clients_ends_a_replica", 1, too_many),
    ]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    let on_upstream = |name, test| on(tools, name, UPSTREAM, test);
    vec![
        with(tools, "weak_replicas_answer_every_request", weak),
        with(tools, "a_low_limit_of_open_files_is_raised", few_files),
        with(tools, "logging_never_blocks_the_api", stopped_terminal),
        with(tools, "slow: unanswered_requests_are_504", unanswered),
        with(tools, "the_handlers_deadline_is_configurable", deadline),
        on_upstream("slow_requests_are_waited_for", slow),
        on_upstream("slow: streams_may_be_silent", streams),
        on_upstream("slow: reloads_with_web_sockets_leave_room", reloads),
        on_upstream("a_blocked_event_loop_is_restarted", blocked),
        on_upstream(
            "the_api_learns_the_truth_of_a_request",
            crate::bad_input::truth,
        ),
    ]
}

/// The final stack with two replicas of the tests' own upstream.
pub const UPSTREAM: Shared<Project> = Shared("upstream", |tools| upstream_with(tools, &[]));

/// Builds the image of the tests' own upstream, `acceptance-upstream`.
pub fn build_upstream(tools: Tools) {
    let context = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_upstream");
    fs::copy(program, context.path().join("upstream")).unwrap();
    let file = root().join("tests/upstream/Dockerfile");
    let (file, context) = (
        file.display().to_string(),
        context.path().display().to_string(),
    );
    tools.run(
        ".",
        &format!("docker build --tag acceptance-upstream --file {file} {context}"),
    );
}

/// The final stack with these settings and two replicas of the tests' own upstream.
pub fn upstream_with(tools: Tools, settings: &[(&'static str, &str)]) -> Project {
    build_upstream(tools);
    let mut project = Project::new(tools, ".").with(
        "COMPOSE_FILE",
        "docker-compose.yml:tests/acceptance/upstream.yml",
    );
    for (name, value) in settings {
        project = project.with(name, value);
    }
    project.run("docker-compose build front-end proxy");
    project.run("docker-compose up -d");
    ok("http://localhost/api/hello");
    project
}

fn clients(clients: usize) -> Requests {
    Requests {
        clients,
        ..HELLO.into()
    }
}

/// Asserts that the containers of these services still are those that were started, with room in their
/// memory limits.
#[track_caller]
fn unharmed(project: &Project) {
    for service in ["api", "proxy"] {
        for id in project.containers(service) {
            let state = inspect(&id, "{{.State.OOMKilled}} {{.RestartCount}}");
            assert_eq!(state, "false 0", "{service}");
        }
    }
}

/// Asserts that every container uses at most half of its memory limit.
#[track_caller]
pub fn has_room(project: &Project) {
    for service in ["api", "proxy"] {
        for id in project.containers(service) {
            let limit: f64 = inspect(&id, "{{.HostConfig.Memory}}").parse().unwrap();
            let (used, limit) = (memory(&id), limit / 1024.0 / 1024.0);
            println!("{service}: {used} of {limit} MiB");
            assert!(used <= limit / 2.0, "{service}: {used} of {limit} MiB");
        }
    }
}

fn crowd(project: &Project) {
    let load = Load::start_in(&project.container("proxy"), PORT, clients(6000));
    load.go_on_for(CROWD);
    has_room(project);
    load.stop()
        .assert_nothing_lost("6,000 clients", Duration::MAX);
    unharmed(project);
    assert_whole_lines(project);
    let load = Load::start(PORT, HELLO);
    load.go_on_for(Duration::from_secs(2));
    load.stop()
        .assert_nothing_lost("after the crowd", Duration::from_millis(500));
}

fn too_many(project: &Project) {
    let replica = project.container("api");
    // 1.5 times as many as it accepts. Asserts only that it survives.
    let load = Load::start_in(&replica, 5252, clients(12_000));
    load.go_on_for(SHORT);
    has_room(project);
    load.stop();
    unharmed(project);
    wait::until(Duration::from_secs(5), || {
        http::get("http://localhost/api/hello").map(|answer| assert_eq!(answer.status, 200))
    });
}

fn weak(tools: Tools) {
    let project = Stack::of(2).start(tools);
    for id in project.containers("api") {
        docker(&["update", "--cpus", "0.05", &id]);
    }
    for count in [16, 1000] {
        let load = Load::start_in(&project.container("proxy"), PORT, clients(count));
        load.go_on_for(SHORT);
        load.stop()
            .assert_nothing_lost(&format!("weak replicas, {count} clients"), Duration::MAX);
    }
    unharmed(&project);
}

fn few_files(tools: Tools) {
    let project = Project::new(tools, ".").with(
        "COMPOSE_FILE",
        "docker-compose.yml:tests/acceptance/few-files.yml",
    );
    project.run("docker-compose up -d --build");
    ok("http://localhost/api/hello");
    let load = Load::start_in(&project.container("proxy"), PORT, clients(3000));
    load.go_on_for(SHORT);
    load.stop()
        .assert_nothing_lost("1,024 open files", Duration::MAX);
    unharmed(&project);
}

/// Sends a request through the proxy. Returns the response and how long it took.
fn send(method: &str, path: &str, headers: &[(&str, &str)]) -> (Answer, Duration) {
    let client = http::patient_client(2 * DEADLINE);
    let begin = Instant::now();
    let answer = http::send(&client, method, &format!("http://localhost{path}"), headers);
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    (answer, begin.elapsed())
}

/// How often a request for `path` was carried out by all replicas.
pub fn carried_out(project: &Project, path: &str) -> usize {
    // Logs are in order: once a later request is logged, all earlier ones are.
    let replicas = project.containers("api");
    let marker = format!("/api/slow/0?after={path}");
    let logs = replicas.iter().map(|id| {
        wait::until(LOGGED, || {
            // Repeat until every replica gets one: some are passed over after a failure.
            send("GET", &marker, &[]);
            let logs = docker(&["logs", id]);
            match logs.contains(&format!("uri={marker}}}")) {
                true => Ok(logs),
                false => Err("not logged yet"),
            }
        })
    });
    let uri = format!("uri={path}}}");
    logs.map(|logs| {
        let lines = logs.lines();
        lines
            .filter(|line| line.contains(&uri) && line.contains("carried out"))
            .count()
    })
    .sum()
}

fn slow(project: &Project) {
    // Quick requests beside slow ones on every replica. Few, because each is logged, and the logs are searched.
    let quick = [Method::GET, Method::POST].map(|method| {
        Load::start(
            PORT,
            Requests {
                method,
                clients: 2,
                ..Requests::from("/api/slow/0")
            },
        )
    });
    thread::scope(|scope| {
        for (method, milliseconds, most) in [
            ("GET", 700, 1),
            ("POST", 700, 1),
            ("GET", 5000, 2),
            ("POST", 5000, 1),
        ] {
            for number in 0..4 {
                scope.spawn(move || {
                    let path = format!("/api/slow/{milliseconds}?{method}{number}");
                    let (answer, time) = send(method, &path, &[]);
                    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
                    let times = carried_out(project, &path);
                    println!("{method} {path}: carried out {times} times, answered after {time:?}");
                    assert!(
                        (1..=most).contains(&times),
                        "{method} {path}: {times} times"
                    );
                });
            }
        }
    });
    for load in quick {
        load.stop()
            .assert_nothing_lost("quick beside slow", Duration::from_millis(2500));
    }
}

fn unanswered(tools: Tools) {
    // The API's deadline is longer than the proxy's, as if its machine were cut off.
    let project = upstream_with(tools, &[("API_REQUEST_TIMEOUT", "60")]);
    thread::scope(|scope| {
        for (method, most) in [("POST", 1), ("PUT", 1), ("GET", 2)] {
            let project = &project;
            scope.spawn(move || {
                let path = format!("/api/never?{method}");
                let (answer, time) = send(method, &path, &[]);
                assert_eq!(answer.status, 504, "{method}: {answer:?}");
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.header("retry-after"), "", "{answer:?}");
                let error: Value = serde_json::from_str(&answer.body).unwrap();
                assert_eq!(error["status"], 504);
                let sentence = error["error"].as_str().unwrap();
                assert!(sentence.contains("may have been carried out"), "{sentence}");
                let times = carried_out(project, &path);
                println!("{method}: carried out {times} times, 504 after {time:?}");
                assert!((1..=most).contains(&times), "{method}: {times} times");
                assert!(
                    time <= DEADLINE + Duration::from_secs(2),
                    "{method}: {time:?}"
                );
            });
        }
    });
}

fn deadline(tools: Tools) {
    let project = upstream_with(tools, &[("API_REQUEST_TIMEOUT", "2")]);
    let (answer, time) = send("POST", "/api/never?deadline", &[]);
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(!answer.served_by().is_empty());
    let error: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        error["error"],
        "/api/never did not answer within 2 seconds. The request may have been carried out."
    );
    assert!((2..4).contains(&time.as_secs()), "{time:?}");
    assert_eq!(carried_out(&project, "/api/never?deadline"), 1);
    let error = output(&mut tools.command(
        &root(),
        "docker run --rm -e API_REQUEST_TIMEOUT=0 acceptance-upstream",
    ));
    assert_eq!(
        error.unwrap_err(),
        "exit status: 2\nerror: API_REQUEST_TIMEOUT is '0': \
         expected a whole number of seconds, at least 1\n"
    );
}

fn streams(_: &Project) {
    thread::scope(|scope| {
        // The second exceeds the deadline of other requests.
        for milliseconds in [2000, 12_000] {
            scope.spawn(move || events(milliseconds));
        }
        scope.spawn(web_socket);
    });
}

/// Asserts that server-sent events arrive one by one, with silence between them.
fn events(milliseconds: u64) {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    let request = format!(
        "GET /api/events/{milliseconds} HTTP/1.1\r\nHost: localhost\r\n\
         Accept: text/event-stream\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let begin = Instant::now();
    let mut received = vec![];
    for line in BufReader::new(stream).lines() {
        if let Some(data) = line.unwrap().strip_prefix("data: ") {
            let silences = begin.elapsed().as_millis() as u64 / milliseconds;
            received.push((data.to_owned(), silences));
        }
    }
    let expected = [("0", 0), ("1", 1), ("2", 2)].map(|(data, at)| (data.to_owned(), at));
    assert_eq!(received, expected, "{milliseconds} ms of silence");
}

/// Asserts that a WebSocket is upgraded, and may be silent.
fn web_socket() {
    let stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    let (mut socket, _) = tungstenite::client("ws://localhost/api/echo", stream).unwrap();
    for message in ["before", "after"] {
        socket.send(message.into()).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), message);
        // Longer than a hurried request may be silent.
        thread::sleep(Duration::from_secs(3));
    }
    socket.close(None).unwrap();
}

/// Time for an old worker to end: its `worker_shutdown_timeout` of 15 s, and room.
const SHUT_DOWN: Duration = Duration::from_secs(20);

fn reloads(project: &Project) {
    const RELOADS: usize = 15;
    let proxy = project.container("proxy");
    let processes = || docker(&["top", &proxy, "-o", "pid,args"]);
    let mut sockets = vec![];
    let mut most = 0;
    for _ in 0..RELOADS {
        for _ in 0..3 {
            let stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
            let (socket, _) = tungstenite::client("ws://localhost/api/echo", stream).unwrap();
            sockets.push(socket);
        }
        docker(&["exec", &proxy, "nginx", "-s", "reload"]);
        most = most.max(processes().lines().count() - 1);
        // Slower than a person reloads, and faster than old workers end.
        thread::sleep(Duration::from_secs(2));
    }
    let limit: usize = inspect(&proxy, "{{.HostConfig.PidsLimit}}")
        .parse()
        .unwrap();
    println!("{most} of {limit} processes");
    assert!(most <= limit / 2, "{most} of {limit} processes");
    has_room(project);
    wait::until(SHUT_DOWN, || {
        match processes().matches("is shutting down").count() {
            0 => Ok(()),
            old => Err(format!("{old} old workers")),
        }
    });
    unharmed(project);
}

fn stopped_terminal(tools: Tools) {
    const REQUESTS: usize = 200_000;
    let project = Project::new(tools, ".");
    project.run("docker-compose build");
    let mut up = project.spawn_stopped("docker-compose up");
    let replicas = wait::until(Duration::from_secs(60), || {
        match http::get("http://localhost/api/hello") {
            Ok(answer) if answer.status == 200 => Ok(project.containers("api")),
            other => Err(format!("{other:?}")),
        }
    });
    let one = replicas.first().expect("two");
    let load = Load::start_in(one, 5252, HELLO);
    wait::until(Duration::from_secs(120), || match load.answered() {
        REQUESTS.. => Ok(()),
        less => Err(format!("{less} of {REQUESTS} requests answered")),
    });
    load.stop()
        .assert_nothing_lost("stopped terminal", Duration::from_millis(500));
    // The output was really blocked: lines were dropped.
    up.resume();
    wait::until(LOGGED, || {
        let logs = docker(&["logs", "--tail", "5", one]);
        match logs.contains("log lines dropped since the start dropped=") {
            true => Ok(()),
            false => Err(logs),
        }
    });
    let (code, time) = stop(one);
    assert_eq!(code, "0");
    assert!(time <= STOP, "{time:?}");
    up.interrupt();
}

fn blocked(project: &Project) {
    let before = project.containers("api");
    let load = Load::start(PORT, HELLO);
    thread::scope(|scope| {
        // A POST is sent once, so it blocks one replica. When that exits, the connection breaks.
        let block = scope.spawn(|| send("POST", "/api/block", &[]));
        let ended = wait::until(RESTARTED, || {
            let ended = before
                .iter()
                .find(|id| inspect(id, "{{.RestartCount}} {{.State.Running}}") == "1 true");
            ended.ok_or("no replica was restarted")
        });
        let (answer, time) = block.join().unwrap();
        println!("the replica ended after {time:?}");
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
        assert!(
            answer.body.contains("may have been carried out"),
            "{answer:?}"
        );
        let logs = docker(&["logs", ended]);
        assert!(logs.contains("the event loop is blocked"), "{logs}");
    });
    let settled = load.go_on(RECOVERED);
    let report = load.stop();
    report.assert_nothing_lost("blocked event loop", HUNG);
    report.assert_equal_shares(&project.host_names("api"), settled);
}
