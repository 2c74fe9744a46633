//! A fixture that consecutive cases share: started for the first of them, dropped when a case needs another.

use std::{
    any::Any,
    sync::{Mutex, PoisonError},
};

/// The shared value, and its name.
static SHARED: Mutex<Option<(String, Box<dyn Any + Send>)>> = Mutex::new(None);

/// Runs `case` with the value called `name`, made by `start` unless the previous case left it. Any other
/// shared value is dropped first, because it may publish the same ports. A case that panics leaves none.
///
/// # Panics
///
/// When `start` or `case` does, or `name` stands for a value of another type.
pub fn with<T: Send + 'static>(name: &str, start: impl FnOnce() -> T, case: impl FnOnce(&T)) {
    let value = match take() {
        Some((shared, value)) if shared == name => value,
        other => {
            drop(other);
            Box::new(start())
        }
    };
    case(value.downcast_ref().expect("a name stands for one type"));
    *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), value));
}

/// Drops the shared value.
pub fn end() {
    drop(take());
}

fn take() -> Option<(String, Box<dyn Any + Send>)> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).take()
}
