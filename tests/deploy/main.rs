//! What `deploy/` adds to the final stack, on a real Docker engine: HTTPS from a real ACME server, metrics
//! and alerts.
//!
//! Without an engine, the tests are reported as ignored; with `REQUIRE_DOCKER=1` they fail.

mod https;
mod metrics;
mod readme;
mod site;

use std::process::ExitCode;

use harness::{shared, tools::Tools, trial};
use libtest_mimic::Trial;

use crate::site::{HTTPS, Site};

/// Ports that a deployment publishes on this machine.
const PORTS: [u16; 3] = [80, 443, 9090];

fn main() -> ExitCode {
    let mut trials = vec![];
    for tools in Tools::ALL {
        trials.extend(https::settings(tools));
        trials.extend(metrics::both_tools(tools));
    }
    trials.extend(https::trials(Tools::Current));
    trials.extend(metrics::trials(Tools::Current));
    trials.extend(readme::trials(Tools::Current));
    trial::run(trials)
}

/// A case without a shared fixture.
fn with(tools: Tools, name: &str, test: fn(Tools)) -> Trial {
    case(tools, name, move || {
        shared::end();
        trial::assert_free(&PORTS);
        test(tools);
    })
}

/// A case on a shared site.
fn on_site(tools: Tools, name: &str, test: fn(&Site)) -> Trial {
    case(tools, name, move || {
        let start = || {
            trial::assert_free(&PORTS);
            Site::up(tools, HTTPS)
        };
        shared::with(&format!("site {tools}"), start, test);
    })
}

fn case(tools: Tools, name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    trial::trial(format!("{name} [{tools}]"), move || tools.missing(), test)
}
