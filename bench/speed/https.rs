//! HTTPS of this stack, of HAProxy with the same certificate, and of Caddy with one of the same CA.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    compare::median,
    engine::{Engine, Project, Result, docker, root},
    load::{Report, beside, load_url},
};

/// The host name, which each proxy has in its network. The port, because wrk looks for others' names in a
/// file that its image lacks.
const URL: &str = "https://stack.test:443/api/hello";
const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 4;
/// In turn, so that a machine that becomes slower becomes so for all.
const ROUNDS: usize = 5;
const REPLICAS: usize = 2;
/// How long a contender may take to get its certificate.
const START: Duration = Duration::from_secs(60);

const CONTENDERS: [(&str, &str); 3] = [
    (
        "this stack",
        "docker-compose.yml:deploy/https.yml:tests/deploy/pebble.yml",
    ),
    (
        "HAProxy with an access log, same API and certificate",
        "bench/contenders/haproxy-https.yml",
    ),
    (
        "Caddy with an access log, same API",
        "bench/contenders/caddy-https.yml",
    ),
];

/// What a round sends, and with which further arguments of wrk.
const CASES: [(&str, &[&str]); 2] = [
    ("kept connections", &[URL]),
    (
        "a handshake for each request",
        &["--header", "Connection: close", URL],
    ),
];

struct Running {
    name: &'static str,
    project: Project,
    proxy: String,
}

/// One round of a case, and the proxy's CPU for one request.
struct Round {
    report: Report,
    cpu_us: f64,
}

impl Running {
    fn round(&self, engine: &Engine, arguments: &[&str]) -> Result<Round> {
        let proxy = [self.proxy.clone()];
        self.project.unpause()?;
        let before = engine.usage(&proxy)?.cpu_ns;
        let (report, ()) = load_url(&self.proxy, arguments, CONNECTIONS, SECONDS, || ())?;
        let used = engine.usage(&proxy)?.cpu_ns - before;
        self.project.pause()?;
        let cpu_us = used as f64 / 1e3 / report.requests as f64;
        Ok(Round { report, cpu_us })
    }
}

/// Both cases, with all contenders in turn, as a table.
///
/// # Errors
///
/// When a contender cannot be built, started or asked.
pub fn https(engine: &Engine) -> Result<String> {
    let pebble = root().join("tests/deploy/pebble").display().to_string();
    docker(&["build", "--tag", "acceptance-pebble", &pebble])?;
    let files = tempfile::tempdir()?;
    let ca = files.path().join("ca.pem");
    let cat = [
        "run",
        "--rm",
        "--entrypoint=cat",
        "acceptance-pebble",
        "certificate.pem",
    ];
    fs::write(&ca, docker(&cat)?)?;
    let certificate = files.path().join("site.pem");
    let mut all: Vec<Running> = vec![];
    for (number, (name, compose)) in CONTENDERS.into_iter().enumerate() {
        eprintln!("starting {name}");
        let project = Project::new(&format!("https-{number}"), compose)
            .with("DOMAIN", "stack.test")
            .with("EMAIL", "admin@stack.test")
            .with("ACME_SERVER", "https://pebble:14000/dir")
            .with("PEBBLE_CERTIFICATE", ca.display())
            .with("CERTIFICATE", certificate.display());
        project.up(REPLICAS)?;
        let [proxy] = <[String; 1]>::try_from(project.containers("proxy")?)
            .map_err(|proxies| format!("{name}: expected one proxy, got {proxies:?}"))?;
        let running = Running {
            name,
            project,
            proxy,
        };
        let curl = [
            "curl",
            "--fail",
            "--silent",
            "--insecure",
            "--max-time",
            "2",
            URL,
        ];
        let deadline = Instant::now() + START;
        while beside(&running.proxy, &curl).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{name}: no answer within {START:?}").into());
            }
        }
        if all.is_empty() {
            let live = "/certificates/live/stack.test";
            let cat = format!("cat {live}/fullchain.pem {live}/privkey.pem");
            let pem = docker(&["exec", &running.proxy, "sh", "-c", &cat])?;
            fs::write(&certificate, pem + "\n")?;
        }
        running.project.pause()?;
        all.push(running);
    }
    let mut table = String::from(
        "| | | requests/s | this stack is | p50 | p99 | CPU per request: proxy | errors |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for (case, arguments) in CASES {
        let mut rounds: Vec<Vec<Round>> = all.iter().map(|_| vec![]).collect();
        for round in 1..=ROUNDS {
            eprintln!("{case}: round {round} of {ROUNDS}");
            for (running, rounds) in all.iter().zip(&mut rounds) {
                rounds.push(running.round(engine, arguments)?);
            }
        }
        for (running, own) in all.iter().zip(&rounds) {
            let over = |figure: &dyn Fn(&Round) -> f64| median(own.iter().map(figure));
            let ratios = rounds[0].iter().zip(own);
            let ratio = median(ratios.map(|(first, own)| first.report.rate() / own.report.rate()));
            table += &format!(
                "| {case} | {} | {:.0} | {ratio:.2}x | {:.1} ms | {:.1} ms | {:.1} us | {} |\n",
                running.name,
                over(&|round| round.report.rate()),
                over(&|round| round.report.p50_us as f64 / 1e3),
                over(&|round| round.report.p99_us as f64 / 1e3),
                over(&|round| round.cpu_us),
                own.iter().map(|round| round.report.errors).sum::<u64>(),
            );
        }
    }
    Ok(table)
}
