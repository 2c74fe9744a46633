//! Tests that are ignored, or fail, if the machine lacks something.

use std::{env, io::ErrorKind, net::TcpListener, process::ExitCode};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{shared, tools};

/// Runs tests as the command line says, after providing missing base images. Sequentially, because they publish the
/// same ports.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = tools::base_images()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    shared::end();
    code
}

/// A test that is ignored if something is `missing`; with `REQUIRE_DOCKER=1`, it fails.
pub fn trial(
    name: String,
    missing: impl FnOnce() -> Option<&'static str> + Send + 'static,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match missing() {
        Some(missing) if required() => Err(Failed::from(format!(
            "{missing}: expected one, because REQUIRE_DOCKER=1"
        ))),
        Some(missing) => Ok(Completion::ignored_with(missing)),
        None => {
            test();
            Ok(Completion::Completed)
        }
    })
}

/// Asserts that these ports of this machine are free to be published.
///
/// # Panics
///
/// When one is taken.
#[track_caller]
pub fn assert_free(ports: &[u16]) {
    if let Some(port) = ports.iter().find(|&&port| taken(port)) {
        panic!("port {port} is taken: expected it to be free, because the tests publish it");
    }
}

/// Whether something listens on a port. False if this user may not bind it, as below 1024: the engine may.
fn taken(port: u16) -> bool {
    let bound = TcpListener::bind(("0.0.0.0", port));
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// How often to repeat cases whose timing varies: `REPEAT`, or once.
///
/// # Panics
///
/// When `REPEAT` is not a number.
pub fn repeat() -> usize {
    match env::var("REPEAT") {
        Ok(value) => value
            .parse()
            .ok()
            .filter(|&times| times > 0)
            .unwrap_or_else(|| panic!("REPEAT is {value:?}: expected a number, such as 3")),
        Err(_) => 1,
    }
}

fn required() -> bool {
    env::var("REQUIRE_DOCKER").is_ok_and(|value| value == "1")
}
