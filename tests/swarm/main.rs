//! The stack on a swarm of three machines: engines that run in containers of this one, and a
//! registry. What becomes of the requests while it is changed, and while machines die: nothing.
//!
//! What cannot run here is reported as ignored; with `REQUIRE_DOCKER=1` it fails.

mod cases;
mod swarm;

use std::{
    fs::File,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use harness::{
    container,
    tools::Tools,
    trial::{self, Missing},
};
use libtest_mimic::Trial;

use crate::swarm::Swarm;

/// The swarm that all cases share.
static SWARM: Mutex<Option<Swarm>> = Mutex::new(None);

fn main() -> ExitCode {
    let code = trial::run(cases::trials());
    let swarm = SWARM.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(swarm);
    code
}

/// A case on the swarm, which is first restored.
fn on_the_swarm(name: &str, test: fn(&Swarm)) -> Trial {
    trial::trial(name.to_owned(), missing, move || {
        // A failed case does not affect the others.
        let mut swarm = SWARM.lock().unwrap_or_else(PoisonError::into_inner);
        let swarm = swarm.get_or_insert_with(Swarm::from_readme);
        swarm.put_in_order();
        test(swarm);
    })
}

/// What is missing to run a swarm here, if anything.
fn missing() -> Option<Missing> {
    // The load is made inside the network of a machine. That of this one can be entered by those who
    // have the right to enter any.
    let may_enter = || container::enter(&File::open("/proc/self/ns/net")?);
    Tools::Current.missing().or_else(|| {
        may_enter()
            .is_err()
            .then_some(Missing::Installable("no right to enter a network"))
    })
}
