//! HTTPS of this stack, of HAProxy with the same certificate, and of Caddy with one of the same CA. All of
//! them write a line of log for each request.

use std::{fs, time::Duration};

use harness::{
    tools::{docker, root},
    usage::Engine,
    wait,
    wrk::{self, Report},
};

use crate::{
    Result,
    contender::{CADDY_HTTPS, HAPROXY_HTTPS, Running, STACK_HTTPS, in_turns, median, ratio},
};

/// The host name, which each proxy has in its network. The port, because wrk looks for others' names in a
/// file that its image lacks.
const URL: &str = "https://stack.test:443/api/hello";
const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 4;
const ROUNDS: usize = 5;
/// How long a contender may take to get its certificate.
const START: Duration = Duration::from_secs(60);

/// What a round sends, and with which further arguments of wrk.
const CASES: [(&str, &[&str]); 2] = [
    ("kept connections", &[URL]),
    (
        "a handshake for each request",
        &["--header", "Connection: close", URL],
    ),
];

/// One round of a case, and the proxy's CPU for one request.
struct Round {
    report: Report,
    cpu_us: f64,
}

/// Both cases, as a table in Markdown.
///
/// # Errors
///
/// When the files with certificates cannot be written.
pub fn https(engine: &Engine) -> Result<String> {
    let pebble = root().join("tests/deploy/pebble").display().to_string();
    docker(&["build", "--tag", "acceptance-pebble", &pebble]);
    let files = tempfile::tempdir()?;
    let ca = files.path().join("ca.pem");
    let run = ["run", "--rm", "--entrypoint=cat", "acceptance-pebble"];
    fs::write(&ca, docker(&[&run[..], &["certificate.pem"]].concat()))?;
    let certificate = files.path().join("site.pem");
    let mut all: Vec<Running> = vec![];
    for contender in [STACK_HTTPS, HAPROXY_HTTPS, CADDY_HTTPS] {
        let running = Running::start_with(
            contender,
            &[
                ("DOMAIN", "stack.test".to_owned()),
                ("EMAIL", "admin@stack.test".to_owned()),
                ("ACME_SERVER", "https://pebble:14000/dir".to_owned()),
                ("PEBBLE_CERTIFICATE", ca.display().to_string()),
                ("CERTIFICATE", certificate.display().to_string()),
            ],
        );
        let curl = [
            "curl",
            "--fail",
            "--silent",
            "--insecure",
            "--max-time",
            "2",
        ];
        wait::until(START, || {
            wrk::beside(&running.proxy, &[&curl[..], &[URL]].concat())
        });
        if all.is_empty() {
            let live = "/certificates/live/stack.test";
            let cat = format!("cat {live}/fullchain.pem {live}/privkey.pem");
            let pem = docker(&["exec", &running.proxy, "sh", "-c", &cat]);
            fs::write(&certificate, pem + "\n")?;
        }
        running.project.pause();
        all.push(running);
    }
    let mut table = String::from(
        "| | | requests/s | this stack is | p50 | p99 | CPU per request: proxy | errors |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (case, arguments) in CASES {
        let rounds = in_turns(case, ROUNDS, &all, |running| {
            let proxy = [running.proxy.clone()];
            let before = engine.usage(&proxy).cpu_ns;
            let (report, ()) =
                wrk::load_url(&running.proxy, arguments, CONNECTIONS, SECONDS, || ());
            let used = engine.usage(&proxy).cpu_ns - before;
            Round {
                cpu_us: used as f64 / 1e3 / report.requests as f64,
                report,
            }
        });
        for (running, own) in all.iter().zip(&rounds) {
            let over = |figure: &dyn Fn(&Round) -> f64| median(own.iter().map(figure));
            table += &format!(
                "| {case} | {} | {:.0} | {:.2}x | {:.1} ms | {:.1} ms | {:.1} us | {} |\n",
                running.name,
                over(&|round| round.report.rate()),
                ratio(&rounds[0], own, |round| round.report.rate()),
                over(&|round| round.report.p50_us as f64 / 1e3),
                over(&|round| round.report.p99_us as f64 / 1e3),
                over(&|round| round.cpu_us),
                own.iter().map(|round| round.report.errors).sum::<u64>(),
            );
        }
    }
    Ok(table)
}
