//! Tests that need something of the machine, and say so when it is not there.

use std::{env, io::ErrorKind, net::TcpListener};

use libtest_mimic::{Completion, Failed, Trial};

/// A test that is ignored when something is `missing`; with `REQUIRE_DOCKER=1` it fails.
pub fn trial(
    name: String,
    missing: impl FnOnce() -> Option<&'static str> + Send + 'static,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match missing() {
        Some(missing) if required() => Err(Failed::from(format!(
            "{missing}: expected one, because REQUIRE_DOCKER=1"
        ))),
        Some(missing) => Ok(Completion::ignored_with(missing)),
        None => test().map(|()| Completion::Completed),
    })
}

/// The same for a test that publishes these ports of this machine, and fails when one is taken.
pub fn on_ports(
    name: String,
    ports: &'static [u16],
    missing: impl FnOnce() -> Option<&'static str> + Send + 'static,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    trial(name, missing, move || {
        if let Some(port) = ports.iter().find(|&&port| taken(port)) {
            return Err(Failed::from(format!(
                "port {port} is taken: expected it to be free, because the tests publish it"
            )));
        }
        test();
        Ok(())
    })
}

/// Whether something listens on a port. A user who may not bind it, as below 1024, cannot tell, and the
/// engine may.
fn taken(port: u16) -> bool {
    let bound = TcpListener::bind(("0.0.0.0", port));
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// How often a case is repeated whose timing differs from time to time: `REPEAT`, or once.
///
/// # Panics
///
/// When `REPEAT` is no number.
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
