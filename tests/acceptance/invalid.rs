//! Responses that the proxy cannot read, and the limits of those that it can; uploads that nobody reads.

use std::time::Duration;

use harness::{
    container::{Container, Network},
    http::{self, Answer},
    project::Project,
    tools::{Tools, docker},
    wait,
};
use libtest_mimic::Trial;

use crate::{
    busy::{UPSTREAM, build_upstream, carried_out},
    fixture::{Stack, on, on_stack, with},
    stack::LOGGED,
};

const REPLICAS: usize = 3;

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![on_stack(
        tools,
        "uploads_that_nobody_reads_are_405",
        Stack::of(2),
        uploads,
    )]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    vec![
        on(tools, "16_kb_of_response_headers_arrive", UPSTREAM, headers),
        on(
            tools,
            "an_error_of_a_handler_arrives_as_it_is",
            UPSTREAM,
            own_error,
        ),
        with(tools, "invalid_responses_are_not_retried", invalid),
    ]
}

fn send(method: &str, path: &str) -> Answer {
    let url = format!("http://localhost{path}");
    http::send(&http::client(), method, &url, &[("content-length", "0")]).unwrap()
}

fn headers(project: &Project) {
    // Of 1 KB each, beside half a KB of other headers.
    for cookies in [6, 15] {
        let answer = send("GET", &format!("/api/cookies/{cookies}"));
        assert_eq!(answer.status, 200, "{cookies} cookies: {}", answer.body);
        let received = answer.headers.get_all("set-cookie").iter().count();
        assert_eq!(received, cookies);
    }
    let path = "/api/cookies/17";
    let answer = send("GET", path);
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.body.contains("invalid response"), "{answer:?}");
    assert_eq!(carried_out(project, path), 1);
}

fn own_error(_: &Project) {
    let answer = send("GET", "/api/unprocessable");
    assert_eq!(answer.status, 422);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.body, r#"{"title":"is empty: expected text"}"#);
}

/// Replicas whose responses are invalid in several ways.
fn invalid(tools: Tools) {
    build_upstream(tools);
    tools.run("stack", "docker build -t hello-proxy:stack proxy");
    let network = Network::new("invalid");
    let on_network = ["--network", &network.name];
    let alias = [&on_network[..], &["--network-alias", "api"]].concat();
    let start = |replica| {
        let name = format!("invalid-{replica}");
        Container::run_command(&name, "acceptance-upstream", &alias, &["invalid"])
    };
    let replicas: Vec<_> = (0..REPLICAS).map(start).collect();
    let publish = ["--publish", "80:80"];
    let proxy = Container::run("hello-proxy:stack", &[&on_network[..], &publish].concat());
    let reached = |path: &str| -> usize {
        let logs = replicas.iter().map(|replica| {
            let logs = docker(&["logs", &replica.name]);
            logs.lines().filter(|line| line.ends_with(path)).count()
        });
        logs.sum()
    };
    wait::until(Duration::from_secs(10), || {
        match http::get("http://localhost/api/valid") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    for kind in ["too-large", "bad-header", "early-end"] {
        for method in ["GET", "POST"] {
            // Also when all of them have just failed, and are skipped.
            for number in 0..5 {
                let path = format!("/api/{kind}/{method}-{number}");
                let answer = send(method, &path);
                assert_eq!(answer.status, 502, "{path}: {answer:?}");
                assert!(
                    answer.body.contains("sent an invalid response"),
                    "{path}: {answer:?}"
                );
                assert_eq!(answer.header("retry-after"), "", "{path}: {answer:?}");
                let id = answer.header("x-request-id");
                wait::until(LOGGED, || {
                    let logs = proxy.logs();
                    let line = logs.lines().find(|line| line.contains(id));
                    let line = line.ok_or("not logged yet")?;
                    assert!(line.contains(r#"failure="invalid response""#), "{line}");
                    Ok::<_, &str>(())
                });
                // Written before the proxy's line.
                assert_eq!(reached(&path), 1, "{path}");
            }
        }
    }
}

fn uploads(_: &Project) {
    const UPLOADS: usize = 150;
    let body = vec![b'a'; 900_000];
    let url = "http://localhost/api/hello";
    for upload in 0..UPLOADS {
        // Half of them in chunks: a reader has no length.
        let client = http::client();
        let answer = match upload % 2 {
            0 => http::send_body(&client, "POST", url, &[], &body[..]),
            _ => {
                let mut reader = &body[..];
                let body = ureq::SendBody::from_reader(&mut reader);
                http::send_body(&client, "POST", url, &[], body)
            }
        };
        let answer = answer.unwrap_or_else(|error| panic!("upload {upload}: {error}"));
        assert_eq!(answer.status, 405, "upload {upload}: {answer:?}");
    }
}
