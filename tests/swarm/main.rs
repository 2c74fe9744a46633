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

use common::{
    container,
    tools::{self, Tools},
    trial,
};
use libtest_mimic::{Arguments, Trial};

use crate::swarm::Swarm;

/// The swarm of all cases, made for the first of them.
static SWARM: Mutex<Option<Swarm>> = Mutex::new(None);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: they share the swarm.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = tools::base_images()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let code = libtest_mimic::run(&arguments, cases::trials()).exit_code();
    let swarm = SWARM.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(swarm);
    code
}

/// A test on the swarm, which begins with putting it in order.
fn on_the_swarm(name: &str, test: fn(&Swarm)) -> Trial {
    trial::trial(name.to_owned(), missing, move || {
        // One test that fails takes no other with it.
        let mut swarm = SWARM.lock().unwrap_or_else(PoisonError::into_inner);
        let swarm = swarm.get_or_insert_with(Swarm::from_readme);
        swarm.put_in_order();
        test(swarm);
        Ok(())
    })
}

/// Why there can be no swarm here, if so.
fn missing() -> Option<&'static str> {
    // The load is made inside the network of a machine. That of this one can be entered by those who
    // have the right to enter any.
    let may_enter = || container::enter(&File::open("/proc/self/ns/net")?);
    Tools::Current.missing().or_else(|| {
        may_enter()
            .is_err()
            .then_some("no right to enter a network")
    })
}
