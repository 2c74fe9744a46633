//! deploy/README.md: its commands are run, and the queries in its links have results.

use std::{fs, time::Duration};

use harness::{
    reader::Reader,
    readme::Step,
    tools::{Tools, root},
    wait,
};
use libtest_mimic::Trial;
use url::Url;

use crate::{
    metrics::query,
    site::{Ca, HTTPS_AND_METRICS, settings},
    with,
};

/// Time until queries have results: rates need two scrapes, and the certificate is probed once a minute.
const SHOWN: Duration = Duration::from_secs(90);

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![with(tools, "deploy_readme", run)]
}

fn run(tools: Tools) {
    let text = fs::read_to_string(root().join("deploy/README.md")).unwrap();
    let mut steps = Step::all(&text);
    // Commands for several machines are tested by `--test swarm`.
    steps.retain(|step| step.machine.is_empty());
    assert!(!steps.is_empty(), "deploy/README.md has no console block");
    let ca = Ca::build(tools);
    let mut reader = Reader::new(tools, ".").with("COMPOSE_FILE", HTTPS_AND_METRICS);
    for (name, value) in settings(&ca) {
        reader = reader.with(name, value);
    }
    let mut links = links(&text);
    assert!(
        !links.is_empty(),
        "deploy/README.md has no link to Prometheus"
    );
    for mut step in steps {
        // Use the CA of the tests.
        let file = "-f deploy/https.yml";
        step.line = step
            .line
            .replace(file, &format!("{file} -f tests/deploy/pebble.yml"));
        step.line = step
            .line
            .replace("https://example.com", "--insecure https://localhost");
        reader.run(&step);
        // After Prometheus and the certificate are there.
        if step.line.contains("metrics.yml") {
            for (link, expression) in links.drain(..) {
                wait::every(Duration::from_millis(500), SHOWN, || {
                    match query(&expression) {
                        Ok(results) if !results.is_empty() => Ok(()),
                        other => Err(format!("{link}: {other:?}")),
                    }
                });
            }
        }
    }
    assert!(links.is_empty(), "no step starts Prometheus");
}

/// Links to graphs, with their queries.
fn links(text: &str) -> Vec<(String, String)> {
    let parts = text.split("(http://localhost:9090/query?").skip(1);
    let mut all = vec![];
    for part in parts {
        let end = part.find(')').expect("a link ends");
        let link = format!("http://localhost:9090/query?{}", &part[..end]);
        let url = Url::parse(&link).unwrap();
        for (name, value) in url.query_pairs() {
            if name.ends_with(".expr") {
                all.push((link.clone(), value.into_owned()));
            }
        }
    }
    all
}
