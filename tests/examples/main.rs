//! The example `examples/notes`, the guide `examples/README.md`, and the edit loop, on a real engine.
//!
//! On a port and with images of their own, so that they can run beside the other tests. Without an engine, they are
//! reported as ignored; with `REQUIRE_DOCKER=1` they fail.

mod develop;
mod fixture;
mod notes;
mod outage;
mod page;
mod readme;
mod writers;

use std::process::ExitCode;

use harness::trial;

fn main() -> ExitCode {
    let mut trials = notes::trials();
    trials.extend(outage::trials());
    trials.extend(page::trials());
    trials.extend(notes::others());
    trials.extend(outage::others());
    trials.extend(writers::trials());
    trials.extend(readme::trials());
    trials.extend(develop::trials());
    trial::run(trials)
}
