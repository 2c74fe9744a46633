//! Waiting for a condition, with a deadline.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Time between two checks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Checks `condition` until it is met and returns its value.
///
/// # Panics
///
/// When it is not met within `limit`, with its last error.
#[track_caller]
pub fn until<T, E: Display>(limit: Duration, condition: impl FnMut() -> Result<T, E>) -> T {
    every(INTERVAL, limit, condition)
}

/// Checks `condition` at another interval, for expensive checks.
#[track_caller]
pub fn every<T, E: Display>(
    interval: Duration,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(error) if Instant::now() >= deadline => {
                panic!("not within {limit:?}: {error}")
            }
            Err(_) => thread::sleep(interval),
        }
    }
}
