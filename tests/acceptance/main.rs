//! The tasks and the final stack on a real Docker engine, as a user runs them.
//!
//! Without an engine, what needs one is reported as ignored; with `REQUIRE_DOCKER=1` it fails.

mod bad_input;
mod board;
mod browser;
mod busy;
mod cross_origin;
mod environments;
mod logs;
mod readmes;
mod resilience;
mod stack;
mod tasks;

use std::{
    env,
    net::TcpListener,
    process::{Command, ExitCode},
};

use common::{
    project,
    tools::{self, Tools},
    trial,
};
use libtest_mimic::{Arguments, Trial};

/// The ports that the tasks publish on this machine.
const PORTS: [u16; 3] = [80, 5252, 9000];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: they publish the same ports.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = tools::base_images()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
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
    for tools in Tools::ALL {
        trials.extend(environments::settings(tools));
        trials.push(with(tools, "a_taken_port_fails_the_tests", taken_port));
        trials.extend(tasks::trials(tools));
        trials.extend(stack::trials(tools));
        trials.extend(readmes::trials(tools));
    }
    // The same containers whichever tools make them.
    trials.extend(resilience::trials(Tools::Current));
    trials.extend(busy::trials(Tools::Current));
    trials.extend(bad_input::trials(Tools::Current));
    trials.extend(cross_origin::trials(Tools::Current));
    trials.extend(environments::trials(Tools::Current));
    trials.extend(logs::trials(Tools::Current));
    trials.extend(board::trials(Tools::Current));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test that needs `tools`, and the ports of the tasks.
fn with(tools: Tools, name: &str, test: fn(Tools)) -> Trial {
    trial(
        format!("{tools}::{name}"),
        move || tools.missing(),
        move || test(tools),
    )
}

/// A test that needs a browser besides.
fn with_browser(tools: Tools, name: &str, test: fn(Tools)) -> Trial {
    trial(
        format!("{tools}::{name}"),
        move || browser::missing().or_else(|| tools.missing()),
        move || test(tools),
    )
}

/// A test that needs a browser, and axe-core in it.
fn with_axe(tools: Tools, name: &str, test: fn(Tools)) -> Trial {
    trial(
        format!("{tools}::{name}"),
        move || {
            browser::axe_missing()
                .or_else(browser::missing)
                .or_else(|| tools.missing())
        },
        move || test(tools),
    )
}

fn trial(
    name: String,
    missing: impl FnOnce() -> Option<&'static str> + Send + 'static,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    trial::on_ports(name, &PORTS, missing, test)
}

/// These tests, on a machine that has no engine.
fn without_an_engine(required: bool) {
    let this = env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command
        .args(["legacy::task0", "--color=never"])
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
fn taken_port(tools: Tools) {
    let _taken = TcpListener::bind(("0.0.0.0", 9000)).expect("it is free");
    let this = env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command.arg(format!("{tools}::task0"));
    let text = tools::output(&mut command).expect_err("it fails");
    let message = "port 9000 is taken: expected it to be free, because the tests publish it";
    assert!(text.contains(message), "{text}");
}
