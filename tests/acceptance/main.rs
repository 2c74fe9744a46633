//! The tasks and the final stack on a real Docker engine, as a user runs them.
//!
//! Each line of the output is a claim, and ends with the tools that it was checked with; `cargo test task3`
//! is the checklist of task 3. Without an engine, what needs one is reported as ignored; with
//! `REQUIRE_DOCKER=1` it fails.

mod bad_input;
mod board;
mod busy;
mod cross_origin;
mod environments;
mod fixture;
mod in_front;
mod invalid;
mod logs;
mod pages;
mod readmes;
mod resilience;
mod service;
mod stack;
mod tasks;
mod up;

use std::{
    env,
    net::TcpListener,
    process::{Command, ExitCode},
};

use harness::{
    tools::{self, Tools},
    trial,
};
use libtest_mimic::Trial;

use crate::fixture::with;

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("without_an_engine_tests_are_ignored", || {
            without_an_engine(false);
            Ok(())
        }),
        Trial::test("without_a_required_engine_tests_fail", || {
            without_an_engine(true);
            Ok(())
        }),
    ];
    let name = "a_taken_port_fails_the_tests";
    trials.push(with(Tools::Current, name, |_| taken_port()));
    for tools in Tools::ALL {
        trials.extend(tasks::trials(tools));
        trials.extend(readmes::trials(tools));
        trials.extend(up::both(tools));
        trials.extend(stack::both(tools));
        trials.extend(environments::both(tools));
    }
    // The containers are the same, whichever tools start them. First the cases on the stack with its defaults, which
    // is started once for all of them.
    let tools = Tools::Current;
    trials.extend(stack::trials(tools));
    trials.extend(resilience::trials(tools));
    trials.extend(bad_input::trials(tools));
    trials.extend(cross_origin::trials(tools));
    trials.extend(logs::trials(tools));
    trials.extend(board::trials(tools));
    trials.extend(pages::trials(tools));
    trials.extend(in_front::trials(tools));
    trials.extend(invalid::trials(tools));
    trials.extend(busy::trials(tools));
    trials.extend(busy::others(tools));
    trials.extend(invalid::others(tools));
    trials.extend(in_front::others(tools));
    trials.extend(pages::others(tools));
    trials.extend(stack::others(tools));
    trials.extend(service::trials(tools));
    trials.extend(resilience::others(tools));
    trials.extend(bad_input::others(tools));
    trials.extend(cross_origin::others(tools));
    trials.extend(logs::others(tools));
    trials.extend(environments::trials(tools));
    trials.extend(up::trials(tools));
    trials.extend(readmes::operating(tools));
    trial::run(trials)
}

/// These tests, on a machine that has no engine.
fn without_an_engine(required: bool) {
    let this = env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command
        .args(["task0: the image", "--color=never"])
        .env("DOCKER_HOST", "tcp://127.0.0.1:1")
        .env("REQUIRE_DOCKER", if required { "1" } else { "0" });
    let output = tools::output(&mut command);
    if required {
        let text = output.expect_err("it fails");
        assert!(
            text.contains("no Docker engine: expected one, because REQUIRE_DOCKER=1"),
            "{text}"
        );
    } else {
        let text = output.expect("it does not fail");
        assert!(text.contains("ignored (no Docker engine)"), "{text}");
        assert!(text.contains(" 0 passed; 0 failed;"), "{text}");
    }
}

/// These tests, when another program listens on a port they publish.
fn taken_port() {
    let _taken = TcpListener::bind(("0.0.0.0", 9000)).expect("it is free");
    let this = env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command.args(["task0: the image", "--color=never"]);
    let text = tools::output(&mut command).expect_err("it fails");
    let message = "port 9000 is taken: expected it to be free, because the tests publish it";
    assert!(text.contains(message), "{text}");
}
