//! CPU instructions of a request in the API, in-process: a figure that does not depend on how busy the
//! machine is.

use std::{env, hint::black_box, process::Command};

use api::{config::Config, log, metrics::Metrics, replica::Replica};
use axum::{
    Router,
    body::Body,
    http::{Request, header::HOST},
    routing::get,
};
use harness::tools::output;
use http_body_util::BodyExt;
use tokio::runtime;
use tower::Service;

use crate::Result;

/// What is counted, by the name that selects it.
const CASES: [(&str, &str); 2] = [
    (
        "handler",
        "a handler that returns a constant, in axum's router",
    ),
    (
        "api",
        "the same in the API: id, log, metrics, headers, deadline, panics",
    ),
];

/// Requests of two runs, whose difference has no start in it.
const REQUESTS: [u64; 2] = [2000, 4000];

/// Counts both cases with valgrind, as a table in Markdown.
///
/// # Errors
///
/// When valgrind is missing or fails.
pub fn instructions() -> Result<String> {
    let mut table = String::from("| | instructions per request |\n|---|--:|\n");
    let mut counts = vec![];
    for (case, description) in CASES {
        let [few, many] = REQUESTS.map(|requests| count(case, requests));
        let each = (many? - few?) / (REQUESTS[1] - REQUESTS[0]);
        table += &format!("| {description} | {each} |\n");
        counts.push(each);
    }
    table += &format!("| the API's own | {} |\n", counts[1] - counts[0]);
    Ok(table)
}

/// The instructions of this program for so many requests.
fn count(case: &str, requests: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--in-process", case, "--requests", &requests.to_string()]);
    let text = output(&mut command).map_err(|error| format!("valgrind: {error}"))?;
    let collected = text.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.parse().ok()
    });
    Ok(collected.ok_or("valgrind: expected a line with `Collected`")?)
}

/// Sends so many requests to one of the cases.
///
/// # Errors
///
/// When the API cannot be made, or `case` is none of them.
pub fn run(case: &str, requests: u64) -> Result<()> {
    let config = Config::from_variables(|_| None)?;
    let log = log::init(config.log_format, config.log_filter.clone())?;
    let replica = Replica::new("0123456789ab")?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), log.dropped_lines())?;
    let mut app = match case {
        "handler" => Router::new().route("/api/hello", get(async || "Hello, World!")),
        "api" => api::around(api::router(replica.clone()), replica, &metrics, &config),
        other => return Err(format!("{other}: expected handler or api").into()),
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for _ in 0..requests {
            // As the proxy sends it.
            let request = Request::get("/api/hello")
                .header(HOST, "localhost")
                .header("x-forwarded-for", "172.18.0.1")
                .header("x-forwarded-proto", "http")
                .header("x-request-id", "0123456789abcdef0123456789abcdef")
                .body(Body::empty())?;
            let response = app.call(request).await?;
            black_box(response.into_body().collect().await?.to_bytes());
        }
        log.close();
        Ok(())
    })
}
