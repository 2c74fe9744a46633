//! What is compared: this stack, and what people would use instead.

use std::time::Duration;

use harness::{
    project::Project,
    tools::{Tools, output},
    wait, wrk,
};

/// Replicas of every API.
pub const REPLICAS: usize = 2;

/// How long a contender may take to answer after its start.
const START: Duration = Duration::from_secs(60);

/// A compose project with the services `proxy` and `api`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    pub name: &'static str,
    /// Where its compose files are, from the top of the project.
    folder: &'static str,
    /// For `COMPOSE_FILE`.
    files: &'static str,
}

const fn contender(name: &'static str, files: &'static str) -> Contender {
    let folder = "bench/contenders";
    Contender {
        name,
        folder,
        files,
    }
}

pub const STACK: Contender = Contender {
    name: "this stack",
    folder: ".",
    files: "docker-compose.yml",
};
pub const STACK_HTTPS: Contender = Contender {
    name: "this stack",
    folder: ".",
    files: "docker-compose.yml:deploy/https.yml:tests/deploy/pebble.yml",
};
pub const NOTES: Contender = Contender {
    name: "this stack",
    folder: ".",
    files: "docker-compose.yml:examples/notes/docker-compose.yml",
};
pub const CLASSIC: Contender = contender("the classic (Flask's own server, nginx)", "classic.yml");
pub const CLASSIC_TUNED: Contender =
    contender("the classic, tuned (gunicorn, nginx)", "classic-tuned.yml");
pub const NOTES_CLASSIC: Contender = contender(
    "the classic, tuned (psycopg, gunicorn, nginx)",
    "notes-classic.yml",
);
pub const HAPROXY: Contender = contender("HAProxy, no access log", "haproxy.yml");
pub const HAPROXY_LOG: Contender = contender("HAProxy", "haproxy.yml:haproxy-log.yml");
pub const HAPROXY_HTTPS: Contender = contender("HAProxy", "haproxy-https.yml");
pub const CADDY: Contender = contender("Caddy, no access log", "caddy.yml");
pub const CADDY_LOG: Contender = contender("Caddy", "caddy.yml:caddy-log.yml");
pub const CADDY_HTTPS: Contender = contender("Caddy", "caddy-https.yml");
pub const CADDY_PAGES: Contender = contender("Caddy's file server, same proxy", "caddy-pages.yml");
pub const IDEAL: Contender = contender("ideal upstream, same proxy", "ideal.yml");

/// A contender that runs, paused unless it is measured.
pub struct Running {
    pub name: &'static str,
    pub project: Project,
    /// The id of the proxy's container.
    pub proxy: String,
    /// Those of the replicas.
    pub api: Vec<String>,
}

impl Running {
    /// Starts a contender, and pauses it once it answers over HTTP.
    pub fn start(contender: Contender) -> Self {
        let running = Self::start_with(contender, &[]);
        wait::until(START, || match wrk::answers(&running.proxy, 80) {
            true => Ok(()),
            false => Err(format!("{} does not answer", contender.name)),
        });
        running.project.pause();
        running
    }

    /// Starts a contender with these variables set, and neither waits for it nor pauses it.
    pub fn start_with(contender: Contender, variables: &[(&'static str, String)]) -> Self {
        eprintln!("starting {}", contender.name);
        let mut project = Project::new(Tools::Current, contender.folder)
            .with("COMPOSE_FILE", contender.files)
            // Any free one: the ports of this machine are not measured.
            .with("HTTP_PORT", 0)
            .with("HTTPS_PORT", 0);
        for (name, value) in variables {
            project = project.with(name, value);
        }
        let up = format!("docker-compose up --detach --build --scale api={REPLICAS}");
        // Not Project::run: apt-get warns while some of the images are built.
        output(&mut project.command(&up)).unwrap_or_else(|error| panic!("{up}\n{error}"));
        Self {
            name: contender.name,
            proxy: project.container("proxy"),
            api: project.containers("api").into_iter().collect(),
            project,
        }
    }

    /// Runs `measure` with nothing else running.
    pub fn alone<T>(&self, measure: impl FnOnce() -> T) -> T {
        self.project.unpause();
        let measured = measure();
        self.project.pause();
        measured
    }
}

/// What each of `all` measures in `rounds` rounds. They take turns, so that a machine that becomes slower
/// does so for all.
pub fn in_turns<T>(
    case: &str,
    rounds: usize,
    all: &[Running],
    mut measure: impl FnMut(&Running) -> T,
) -> Vec<Vec<T>> {
    let mut results: Vec<Vec<T>> = all.iter().map(|_| vec![]).collect();
    for round in 1..=rounds {
        eprintln!("{case}: round {round} of {rounds}");
        for (running, results) in all.iter().zip(&mut results) {
            results.push(running.alone(|| measure(running)));
        }
    }
    results
}

/// The median.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many times the rate of `own` the rate of `first` is: the median of the rounds' ratios.
pub fn ratio<T>(first: &[T], own: &[T], rate: impl Fn(&T) -> f64) -> f64 {
    let rounds = first.iter().zip(own);
    median(rounds.map(|(first, own)| rate(first) / rate(own)))
}
