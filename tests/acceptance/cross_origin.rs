//! Pages of other origins: those that are allowed read every response, the proxy's own errors too.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::{project::Project, tasks::ok, with};
use common::{
    http::{self, Answer},
    tools::Tools,
    wait,
};

const HELLO: &str = "http://localhost/api/hello";

const ALLOWED: &str = "http://shop.example";
const ALSO_ALLOWED: &str = "https://other.example:8443";
const FORBIDDEN: &str = "http://shop.example.evil.example";

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "allowed_origins_read_every_response", allowed),
        with(tools, "any_origin_may_be_allowed", any),
        with(tools, "no_origin_is_allowed_by_default", none),
    ]
}

fn stack(tools: Tools, origins: &str) -> Project {
    let project = Project::new(tools, ".").with("API_ALLOWED_ORIGINS", origins);
    project.run("docker-compose up -d --build");
    ok(HELLO);
    project
}

fn send(method: &str, origin: &str, more: &[(&str, &str)]) -> Answer {
    let headers = [&[("origin", origin)], more].concat();
    http::send(&http::client(), method, HELLO, &headers).unwrap()
}

/// A list in a header, in lower case, since names of headers are equal in any.
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

/// The proxy's own 413 and 503, the latter when there is no replica.
fn own_errors(project: &Project, origin: &str) -> [Answer; 2] {
    // Twice of what nginx accepts by default.
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

fn allowed(tools: Tools) {
    let project = stack(tools, &format!("{ALLOWED},{ALSO_ALLOWED}"));
    for origin in [ALLOWED, ALSO_ALLOWED] {
        assert_readable(&send("GET", origin, &[]), origin);
        // What a browser asks before it sends these headers.
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
    for answer in own_errors(&project, ALSO_ALLOWED) {
        assert_readable(&answer, ALSO_ALLOWED);
        assert!(list(&answer, "vary").contains(&"origin".to_owned()));
    }
    for origin in [FORBIDDEN, "null", "*", ""] {
        assert_not_readable(&send("GET", origin, &[]));
    }
}

fn any(tools: Tools) {
    let project = stack(tools, "*");
    assert_readable(&send("GET", FORBIDDEN, &[]), "*");
    for answer in own_errors(&project, FORBIDDEN) {
        assert_readable(&answer, "*");
    }
}

fn none(tools: Tools) {
    let project = stack(tools, "");
    assert_not_readable(&send("GET", ALLOWED, &[]));
    for answer in own_errors(&project, ALLOWED) {
        assert_not_readable(&answer);
    }
}
