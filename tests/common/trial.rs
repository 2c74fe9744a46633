//! Tests that need something of the machine, and say so when it is not there.

use std::env;

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

fn required() -> bool {
    env::var("REQUIRE_DOCKER").is_ok_and(|value| value == "1")
}
