//! The API of the final stack in a container by itself.

use std::time::Duration;

use harness::{
    container::Container,
    load::Load,
    tools::{Tools, output, root},
    usage::{Engine, MIB},
    wait,
};
use libtest_mimic::Trial;

use crate::{fixture::with, tasks::ok};

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "the_api_takes_little_memory", small),
        with(tools, "the_api_names_a_wrong_value", wrong_value),
    ]
}

/// The memory of a container, in MiB.
#[track_caller]
pub fn memory(id: &str) -> f64 {
    Engine::connect().usage(&[id.to_owned()]).memory as f64 / MIB
}

fn small(tools: Tools) {
    tools.run("stack", "docker build -t hello-api:stack back-end");
    // Without health checks, which are a second process in the container.
    let options = ["--publish", "5252:5252", "--no-healthcheck"];
    let api = Container::run("hello-api:stack", &options);
    ok("http://localhost:5252/api/hello");
    let idle = memory(&api.name);
    assert!(idle <= 2.0, "{idle} MiB idle");
    let load = Load::start(5252, "/api/hello");
    const REQUESTS: usize = 1000;
    wait::until(Duration::from_secs(60), || match load.answered() {
        REQUESTS.. => Ok(()),
        less => Err(format!("{less} of {REQUESTS} requests answered")),
    });
    // Measured while the load goes on.
    let loaded = memory(&api.name);
    let report = load.stop();
    assert_eq!(report.lost.len(), 0);
    assert!(loaded <= 8.0, "{loaded} MiB under load");
}

fn wrong_value(tools: Tools) {
    tools.run("stack", "docker build -t hello-api:stack back-end");
    let run = |variable: &str| {
        let line = format!("docker run --rm -e {variable} hello-api:stack");
        output(&mut tools.command(&root(), &line)).unwrap_err()
    };
    assert_eq!(
        run("API_ADDRESS=localhost"),
        "exit status: 2\nerror: API_ADDRESS is 'localhost': \
         expected an IP address and a port, such as [::]:5252\n"
    );
    assert_eq!(
        run("API_LOG_FORMAT=xml"),
        "exit status: 2\nerror: API_LOG_FORMAT is 'xml': \
         expected text or json\n"
    );
}
