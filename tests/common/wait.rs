//! Waiting for a condition, with a deadline.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// Between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `condition` until it is met, and returns what it gives.
///
/// # Panics
///
/// When it is not met within `limit`, with what it said last.
#[track_caller]
pub fn until<T, E: Display>(limit: Duration, condition: impl FnMut() -> Result<T, E>) -> T {
    every(INTERVAL, limit, condition)
}

/// The same with another time between two looks, for those that cost more.
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
