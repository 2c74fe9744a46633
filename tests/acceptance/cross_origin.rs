//! CORS: pages of allowed origins can read every response, including the proxy's own errors.

use std::time::Duration;

use harness::{
    http::{self, Answer},
    project::Project,
    tools::Tools,
    wait,
};
use libtest_mimic::Trial;

use crate::fixture::{Stack, on_stack};

const HELLO: &str = "http://localhost/api/hello";

const ALLOWED: &str = "http://shop.example";
const ALSO_ALLOWED: &str = "https://other.example:8443";
const FORBIDDEN: &str = "http://shop.example.evil.example";

pub fn trials(tools: Tools) -> Vec<Trial> {
    let name = "no_origin_is_allowed_by_default";
    vec![on_stack(tools, name, Stack::of(2), none)]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    let origins = |settings| Stack {
        replicas: 2,
        settings,
    };
    let two = origins(&[(
        "API_ALLOWED_ORIGINS",
        "http://shop.example,https://other.example:8443",
    )]);
    let every = origins(&[("API_ALLOWED_ORIGINS", "*")]);
    vec![
        on_stack(tools, "allowed_origins_read_every_response", two, allowed),
        on_stack(tools, "any_origin_may_be_allowed", every, any),
    ]
}

fn send(method: &str, origin: &str, more: &[(&str, &str)]) -> Answer {
    let headers = [&[("origin", origin)], more].concat();
    http::send(&http::client(), method, HELLO, &headers).unwrap()
}

/// The items of a list in a header, in lower case.
fn list(answer: &Answer, header: &str) -> Vec<String> {
    let values = answer.header(header).to_lowercase();
    values
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect()
}

#[track_caller]
fn assert_readable(answer: &Answer, origin: &str) {
    let allowed: Vec<_> = answer
        .headers
        .get_all("access-control-allow-origin")
        .iter()
        .collect();
    assert_eq!(allowed, [origin], "{answer:?}");
    let exposed = list(answer, "access-control-expose-headers");
    assert!(exposed.contains(&"x-request-id".to_owned()), "{answer:?}");
}

#[track_caller]
fn assert_not_readable(answer: &Answer) {
    let allowed = answer.headers.get("access-control-allow-origin");
    assert_eq!(allowed, None, "{answer:?}");
}

/// The proxy's own 413, and its 503 without a replica.
fn own_errors(project: &Project, origin: &str) -> [Answer; 2] {
    // Twice what nginx accepts by default.
    let body = [0; 2 << 20];
    let headers = [("origin", origin)];
    let too_large = http::send_body(&http::client(), "POST", HELLO, &headers, &body[..]).unwrap();
    assert_eq!(too_large.status, 413);
    project.run("docker-compose up -d --no-recreate --scale api=0");
    let none = wait::until(Duration::from_secs(10), || {
        let answer = send("GET", origin, &[]);
        match answer.status.as_u16() {
            503 => Ok(answer),
            _ => Err(format!("{answer:?}")),
        }
    });
    [too_large, none]
}

fn allowed(project: &Project) {
    for origin in [ALLOWED, ALSO_ALLOWED] {
        assert_readable(&send("GET", origin, &[]), origin);
        // A browser's preflight for these headers.
        let preflight = send(
            "OPTIONS",
            origin,
            &[
                ("access-control-request-method", "GET"),
                (
                    "access-control-request-headers",
                    "content-type,x-request-id",
                ),
            ],
        );
        assert_eq!(preflight.status, 200);
        assert_eq!(preflight.header("access-control-allow-origin"), origin);
        let headers = list(&preflight, "access-control-allow-headers");
        for header in ["content-type", "x-request-id"] {
            assert!(headers.contains(&header.to_owned()), "{preflight:?}");
        }
    }
    assert_not_readable(&send("GET", FORBIDDEN, &[]));
    for answer in own_errors(project, ALSO_ALLOWED) {
        assert_readable(&answer, ALSO_ALLOWED);
        assert!(list(&answer, "vary").contains(&"origin".to_owned()));
    }
    for origin in [FORBIDDEN, "null", "*", ""] {
        assert_not_readable(&send("GET", origin, &[]));
    }
}

fn any(project: &Project) {
    assert_readable(&send("GET", FORBIDDEN, &[]), "*");
    for answer in own_errors(project, FORBIDDEN) {
        assert_readable(&answer, "*");
    }
}

fn none(project: &Project) {
    assert_not_readable(&send("GET", ALLOWED, &[]));
    for answer in own_errors(project, ALLOWED) {
        assert_not_readable(&answer);
    }
}
