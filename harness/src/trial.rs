//! Tests that are ignored, or fail, if the machine lacks something.

use std::{
    collections::BTreeMap,
    env,
    io::ErrorKind,
    net::TcpListener,
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{shared, tools};

/// Names and durations of the cases that have run.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(vec![]);

/// How many cases were ignored, by the reason.
static IGNORED: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());

/// What a machine lacks for a case, which is then ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Could be installed. With `REQUIRE_DOCKER=1`, the case fails.
    Installable(&'static str),
    /// Cannot work on this machine.
    Impossible(&'static str),
}

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
    print_slowest();
    print_ignored();
    code
}

/// Prints what was ignored, why, and how to get it.
fn print_ignored() {
    let ignored = IGNORED.lock().expect("nobody panics with it");
    for (reason, count) in ignored.iter() {
        println!("{count} ignored: {reason}");
    }
    if ignored.keys().any(|reason| reason.starts_with("no ")) {
        println!("on Debian, .ci/install installs what is missing, as root");
    }
}

/// Prints the ten slowest cases, in seconds.
fn print_slowest() {
    let mut took = TOOK.lock().expect("nobody panics with it");
    took.sort();
    if took.len() < 2 {
        return;
    }
    println!("the slowest cases, in seconds:");
    for (time, name) in took.iter().rev().take(10) {
        println!("{:6.1} {name}", time.as_secs_f64());
    }
}

/// A test that is ignored if something is `missing`.
pub fn trial(
    name: String,
    missing: impl FnOnce() -> Option<Missing> + Send + 'static,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    let case = name.clone();
    Trial::ignorable_test(name, move || match missing() {
        Some(Missing::Installable(missing)) if required() => Err(Failed::from(format!(
            "{missing}: expected one, because REQUIRE_DOCKER=1"
        ))),
        Some(Missing::Installable(missing) | Missing::Impossible(missing)) => {
            let mut ignored = IGNORED.lock().expect("nobody panics with it");
            *ignored.entry(missing).or_default() += 1;
            Ok(Completion::ignored_with(missing))
        }
        None => {
            let begin = Instant::now();
            test();
            let mut took = TOOK.lock().expect("nobody panics with it");
            took.push((begin.elapsed(), case));
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
