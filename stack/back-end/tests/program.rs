//! The program as a process: its exit codes and what it writes.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

fn api(address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_api"));
    command.env("API_ADDRESS", address);
    command.env("API_METRICS_ADDRESS", "127.0.0.1:0");
    command
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_port_in_use_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = api(&address).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = format!("cannot listen on {address}: Address already in use (os error 98)\n");
    assert_eq!(stderr(&output), message);
}

#[test]
fn a_wrong_value_in_the_environment_is_one_line() {
    let output = api("nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let line = stderr(&output);
    assert!(
        line.starts_with("error: API_ADDRESS is 'nowhere': expected "),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn help_names_every_variable() {
    let output = api("127.0.0.1:0").arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = str::from_utf8(&output.stdout).unwrap();
    for variable in [
        "ADDRESS",
        "METRICS_ADDRESS",
        "LOG_FORMAT",
        "LOG_FILTER",
        "ALLOWED_ORIGINS",
        "REQUEST_TIMEOUT",
        "GRACE_PERIOD",
    ] {
        assert!(help.contains(&format!("  API_{variable}=")), "{help}");
    }
}

#[test]
fn a_wrong_argument_is_one_line() {
    let output = api("127.0.0.1:0").arg("--port").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = "error: the argument is '--port': expected none, healthcheck or --help\n";
    assert_eq!(stderr(&output), message);
}

#[test]
fn a_health_check_of_nothing_fails_and_says_why() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let output = api(&address).arg("healthcheck").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = format!("{address} is not healthy: Connection refused (os error 111)\n");
    assert_eq!(stderr(&output), message);
}
