//! What `deploy/` adds to the final stack, on a real Docker engine: HTTPS from a real ACME server, metrics
//! and alerts.
//!
//! Without an engine, the tests are reported as ignored; with `REQUIRE_DOCKER=1` they fail.

mod https;
mod metrics;
mod readme;
mod site;

use std::process::ExitCode;

use common::{
    tools::{self, Tools},
    trial,
};
use libtest_mimic::{Arguments, Trial};

/// The ports that the deployment publishes on this machine.
const PORTS: [u16; 3] = [80, 443, 9090];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after the other: they publish the same ports.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = tools::base_images()
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let mut trials = vec![];
    for tools in Tools::ALL {
        trials.extend(https::settings(tools));
        trials.extend(metrics::both_tools(tools));
    }
    trials.extend(https::trials(Tools::Current));
    trials.extend(metrics::trials(Tools::Current));
    trials.extend(readme::trials(Tools::Current));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test that needs `tools`, and the ports of the deployment.
fn with(tools: Tools, name: &str, test: fn(Tools)) -> Trial {
    trial::on_ports(
        format!("{tools}::{name}"),
        &PORTS,
        move || tools.missing(),
        move || test(tools),
    )
}
