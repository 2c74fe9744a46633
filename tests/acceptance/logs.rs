//! The logs of the final stack: one line a request, in all of them under one id, and nothing in them
//! that a client wrote there.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use harness::{
    http,
    project::Project,
    tools::{Tools, docker, inspect},
    wait,
};
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    fixture::{Stack, on_stack},
    stack::LOGGED,
    tasks::ok,
};

const SERVICES: [&str; 3] = ["proxy", "front-end", "api"];

/// How long three health checks of the proxy may take, which come every 10 seconds.
const IDLE: Duration = Duration::from_secs(40);

/// What ends a line, controls a terminal or turns the direction of a text.
const HOSTILE: [&str; 9] = [
    "\n",
    "\r",
    "\x1b[31m",
    "\x07",
    "\x08",
    "\u{9b}31m",
    "\u{2028}",
    "\u{202e}",
    "\u{7f}",
];

pub fn trials(tools: Tools) -> Vec<Trial> {
    let text = Stack::of(2);
    vec![
        on_stack(tools, "a_request_has_one_id_in_all_logs", text, joined),
        on_stack(
            tools,
            "clients_cannot_forge_lines_of_the_logs",
            text,
            |project| {
                hostile(project, "text");
            },
        ),
        on_stack(tools, "an_idle_stack_logs_nothing", text, idle),
    ]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    let json = Stack {
        replicas: 2,
        settings: &[("LOG_FORMAT", "json")],
    };
    vec![
        on_stack(tools, "logs_are_json_when_asked_for", json, is_json),
        on_stack(
            tools,
            "clients_cannot_forge_lines_of_json_logs",
            json,
            |project| {
                hostile(project, "json");
            },
        ),
    ]
}

/// The logs of the containers of a service.
fn log(project: &Project, service: &str) -> String {
    let containers = project.containers(service);
    containers
        .iter()
        .map(|id| docker(&["logs", id]) + "\n")
        .collect()
}

/// Waits for a log line that contains `text`.
#[track_caller]
fn line(project: &Project, service: &str, text: &str) -> String {
    wait::until(LOGGED, || {
        let log = log(project, service);
        let line = log.lines().find(|line| line.contains(text));
        line.map(str::to_owned)
            .ok_or_else(|| format!("{service} has no {text}: {log}"))
    })
}

/// Asserts that each line of the proxy's log, which must be text, is whole.
#[track_caller]
pub fn assert_whole_lines(project: &Project) {
    let log = log(project, "proxy");
    // nginx's own messages begin with such as 2026/11/28.
    let requests = log
        .lines()
        .filter(|line| !line.is_empty() && line.get(4..5) != Some("/"));
    let lines: Vec<_> = requests.collect();
    assert!(!lines.is_empty());
    for line in lines {
        let id = line.rsplit_once(" id=").map(|(_, id)| id);
        let whole = line.starts_with("20") && id.is_some_and(|id| id.len() == 32);
        assert!(whole, "{line:?}");
    }
}

/// Sends a request for a page and one to the API. Returns their ids.
fn two_requests() -> [String; 2] {
    [&new_page("icon.svg"), "http://localhost/api/hello"]
        .map(|url| ok(url).header("x-request-id").to_owned())
}

/// The URL of a page that is not in the proxy's cache, so that the front-end is asked.
fn new_page(path: &str) -> String {
    let now = Timestamp::now().as_microsecond();
    format!("http://localhost/{path}?{now}")
}

fn joined(project: &Project) {
    let [page, api] = two_requests();
    let of_proxy = line(project, "proxy", &api);
    let words: Vec<_> = of_proxy.split(' ').collect();
    let ["GET /api/hello HTTP/1.1", ..] = of_proxy.split('"').skip(1).collect::<Vec<_>>()[..]
    else {
        panic!("no request: {of_proxy}");
    };
    let [time, client, ..] = words[..] else {
        panic!("too short: {of_proxy}");
    };
    for part in [" 200 bytes=", " seconds=0.0", " upstream=\""] {
        assert!(of_proxy.contains(part), "{of_proxy}");
    }
    assert!(of_proxy.contains(":5252\""), "{of_proxy}");

    let of_api = line(project, "api", &api);
    let latency = of_api.split("latency_us=").nth(1).and_then(|rest| {
        let number = rest.split(' ').next()?;
        number.parse::<u64>().ok()
    });
    assert!(latency.is_some_and(|us| us > 0), "{of_api}");

    let of_front_end = line(project, "front-end", &page);
    for line in [&of_proxy, &of_api, &of_front_end] {
        let time = line.split(' ').next().unwrap();
        assert!(is_recent(time), "{line}");
        assert!(line.contains(client), "expected {client}: {line}");
    }
    assert!(is_recent(time));
    line(project, "proxy", &page);
}

/// Whether `time` is RFC 3339 with milliseconds, and of the last minute.
fn is_recent(time: &str) -> bool {
    let fraction = time.split('.').nth(1).unwrap_or_default();
    let digits = fraction.chars().take_while(char::is_ascii_digit).count();
    let age = time
        .parse::<Timestamp>()
        .map(|time| Timestamp::now().duration_since(time).abs().as_secs());
    digits >= 3 && age.is_ok_and(|age| age < 60)
}

/// Asserts that each line of a log is a JSON object, and returns them. nginx's messages on its own
/// state, which begin with the date, are text always.
#[track_caller]
fn objects(log: &str) -> Vec<Value> {
    let parse = |line| match serde_json::from_str::<Value>(line) {
        Ok(object @ Value::Object(_)) => object,
        other => panic!("{line}: {other:?}"),
    };
    log.lines()
        .filter(|line| !line.is_empty() && !line.starts_with("20"))
        .map(parse)
        .collect()
}

fn is_json(project: &Project) {
    let [page, api] = two_requests();
    // HTTP/0.9 has no status.
    TcpStream::connect(("127.0.0.1", 80))
        .and_then(|mut stream| {
            stream.write_all(b"GET /nothing\r\n")?;
            stream.read_to_end(&mut vec![])
        })
        .unwrap();
    line(project, "proxy", "GET /nothing");
    for (service, id, status, request) in [
        ("proxy", &api, "/status", "/request"),
        ("front-end", &page, "/status", "/request"),
        ("api", &api, "/fields/status", "/span/uri"),
    ] {
        let last = line(project, service, id);
        assert_eq!(service == "api", last.contains("latency_us\":"), "{last}");
        assert!(!last.contains("latency_us\":\""), "no number: {last}");
        let objects = objects(&log(project, service));
        let object = objects
            .iter()
            .find(|object| object.to_string().contains(id));
        let object = object.unwrap();
        assert_eq!(object.pointer(status), Some(&Value::from(200)), "{object}");
        assert!(
            object.pointer(request).is_some_and(Value::is_string),
            "{object}"
        );
        let time = object.get("time").or(object.get("timestamp"));
        assert!(
            time.and_then(Value::as_str).is_some_and(is_recent),
            "{object}"
        );
    }
}

/// Sends bytes and reads until the connection closes.
fn send(request: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", 80)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(request);
    let _ = stream.read_to_end(&mut vec![]);
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn hostile(project: &Project, format: &str) {
    let forged = "FORGED";
    for hostile in HOSTILE {
        let encoded = percent_encoded(hostile) + forged;
        let raw = format!("{hostile}{forged}");
        for path in ["/", "/index.html/", "/api/"] {
            for uri in [
                format!("{path}{encoded}"),
                format!("{path}{raw}"),
                format!("{path}?{encoded}"),
                format!("{path}?{raw}"),
            ] {
                send(
                    format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                        .as_bytes(),
                );
            }
            for header in [
                "User-Agent",
                "Referer",
                "X-Request-ID",
                "X-Forwarded-For",
                "Host",
            ] {
                send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}: a{raw}\r\n\r\n").as_bytes());
            }
        }
    }
    // Escaped, each of these bytes is two to four.
    for path in ["/", "/api/hello"] {
        let long = "\"".repeat(12_000);
        send(
            format!(
                "GET {path}?{forged}{long} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        );
    }
    // Messages about failed upstreams must not quote the client either.
    project.run("docker-compose stop --timeout 1 api front-end");
    for hostile in HOSTILE {
        for path in ["/", "/api/hello"] {
            let request = format!(
                "POST {path}?{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\
                 Referer: a{hostile}{forged}\r\n\r\n",
                percent_encoded(hostile)
            );
            send(request.as_bytes());
        }
    }
    let last = http::get("http://localhost/last").unwrap();
    line(project, "proxy", last.header("x-request-id"));
    project.run("docker-compose start api front-end");
    for service in SERVICES {
        let log = log(project, service);
        assert!(log.contains(forged), "{service} logged nothing");
        for line in log.lines() {
            let printable = line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            assert!(printable, "{service}: {line:?}");
            // nginx writes more in pieces. The API has one thread that writes.
            let in_one_piece = line.len() < 4096 || service == "api";
            assert!(in_one_piece, "{service}: {line:?}");
            // No line begins with text from a client.
            assert!(
                line.is_empty() || line.starts_with("20") || line.starts_with("{\""),
                "{service}: {line:?}"
            );
        }
        if format == "json" {
            objects(&log);
        }
    }
}

fn idle(project: &Project) {
    let healthy = |id: &str| inspect(id, "{{.State.Health.Status}}") == "healthy";
    let proxy = project.container("proxy");
    wait::until(Duration::from_secs(30), || match healthy(&proxy) {
        true => Ok(()),
        false => Err("the proxy is not healthy"),
    });
    // What was asked before is in the log by then.
    let asked = ok(&new_page("")).header("x-request-id").to_owned();
    line(project, "proxy", &asked);
    line(project, "front-end", &asked);
    let before = SERVICES.map(|service| log(project, service));
    let checks = || inspect(&proxy, "{{range .State.Health.Log}}{{.End}}\n{{end}}");
    let first = checks();
    // A line of the first of two has been written when the second ends. The other services have their
    // checks twice as often.
    wait::until(IDLE, || {
        let all = checks();
        let new = all.lines().filter(|end| !first.contains(end)).count();
        match new {
            2.. => Ok(()),
            less => Err(format!("{less} health checks")),
        }
    });
    for (service, before) in SERVICES.into_iter().zip(before) {
        assert_eq!(log(project, service), before, "{service}");
    }
}
