//! The API of the final stack in a container by itself.

use harness::{
    container::Container,
    load::Load,
    tools::{Tools, output, root},
    usage::{Engine, MIB},
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
    tools.run("task6", "docker build -t hello-api:task6 back-end");
    // Without health checks, which are a second process in the container.
    let options = ["--publish", "5252:5252", "--no-healthcheck"];
    let api = Container::run("hello-api:task6", &options);
    ok("http://localhost:5252/api/hello");
    let idle = memory(&api.name);
    assert!(idle <= 2.0, "{idle} MiB idle");
    let load = Load::start(5252, "/api/hello");
    // Measured while the load goes on.
    let loaded = memory(&api.name);
    let report = load.stop();
    assert_eq!(report.lost.len(), 0);
    assert!(report.sent() > 1000, "{} requests", report.sent());
    assert!(loaded <= 8.0, "{loaded} MiB under load");
}

fn wrong_value(tools: Tools) {
    tools.run("task6", "docker build -t hello-api:task6 back-end");
    let run = |variable: &str| {
        let line = format!("docker run --rm -e {variable} hello-api:task6");
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
