//! This stack beside what people would use instead.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, MIB, Project, Result, docker, inspect},
    load::{Report, answers, load},
};

const CONNECTIONS: u32 = 64;
const WARM_UP_SECONDS: u32 = 1;
const SECONDS: u32 = 4;
/// Many short rounds rather than few long ones: other work on the machine then hits all alike.
const ROUNDS: usize = 9;
/// How often a container is started and stopped for its times.
const STARTS: usize = 3;
const REPLICAS: usize = 2;

/// How long a contender may take to answer after its start.
const START: Duration = Duration::from_secs(60);

/// What is compared: a proxy, and the API behind it.
struct Contender {
    name: &'static str,
    /// Its compose file, with the services `proxy` and `api`.
    file: &'static str,
    /// Where the load goes.
    target: Target,
}

#[derive(Clone, Copy, PartialEq)]
enum Target {
    Proxy,
    Api,
}

impl Target {
    fn port(self) -> u16 {
        match self {
            Self::Proxy => 80,
            Self::Api => 5252,
        }
    }
}

const IDEAL: &str = "ideal upstream (same proxy)";
const STACK: &str = "docker-compose.yml";

const CONTENDERS: [Contender; 8] = [
    Contender {
        name: "this stack",
        file: STACK,
        target: Target::Proxy,
    },
    Contender {
        name: "the classic (Flask's own server, nginx)",
        file: "bench/contenders/classic.yml",
        target: Target::Proxy,
    },
    Contender {
        name: "the classic, tuned (gunicorn, nginx)",
        file: "bench/contenders/classic-tuned.yml",
        target: Target::Proxy,
    },
    Contender {
        name: "HAProxy, same API",
        file: "bench/contenders/haproxy.yml",
        target: Target::Proxy,
    },
    Contender {
        name: "HAProxy with an access log, same API",
        file: "bench/contenders/haproxy-log.yml",
        target: Target::Proxy,
    },
    Contender {
        name: "Caddy, same API",
        file: "bench/contenders/caddy.yml",
        target: Target::Proxy,
    },
    Contender {
        name: IDEAL,
        file: "bench/contenders/ideal.yml",
        target: Target::Proxy,
    },
    Contender {
        name: "the API alone (one replica)",
        file: STACK,
        target: Target::Api,
    },
];

/// The figures of one contender; of its proxy and its API, where there are two.
pub struct Figures {
    pub name: &'static str,
    /// Requests per second.
    pub rate: f64,
    /// How many times as fast the first contender is: the median of the rounds' ratios.
    pub ratio: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// CPU time of a request, in the proxy and in the API.
    pub cpu_us: [f64; 2],
    /// Memory of the proxy and of one replica, before the load.
    pub idle_mib: [f64; 2],
    /// And under it.
    pub loaded_mib: [f64; 2],
    /// Sizes of the images.
    pub image_mb: [f64; 2],
    /// From `docker run` of the API to its first answer, and the time of its `docker stop`, in
    /// seconds.
    pub start_and_stop: Option<[f64; 2]>,
    pub errors: u64,
}

/// A contender that runs.
struct Running {
    contender: &'static Contender,
    project: Project,
    proxy: Vec<String>,
    api: Vec<String>,
    /// Memory of the proxy and of one replica, before any load, in MiB.
    idle: [f64; 2],
    rounds: Vec<Round>,
}

struct Round {
    report: Report,
    /// Of the proxy and of the replicas together, for one request.
    cpu_us: [f64; 2],
    /// Of the proxy and of one replica.
    memory: [f64; 2],
}

impl Running {
    fn start(engine: &Engine, contender: &'static Contender, number: usize) -> Result<Self> {
        let project = Project::new(&format!("contender-{number}"), contender.file);
        project.up(REPLICAS)?;
        let mut running = Self {
            proxy: project.containers("proxy")?,
            api: project.containers("api")?,
            contender,
            project,
            idle: [0.0; 2],
            rounds: vec![],
        };
        if running.proxy.is_empty() || running.api.len() < REPLICAS {
            let logs = running.project.compose(&["logs"])?;
            return Err(format!("{} does not run: {logs}", contender.name).into());
        }
        if contender.target == Target::Api {
            running.proxy.clear();
            running.api.truncate(1);
        }
        let deadline = Instant::now() + START;
        while !answers(running.target(), contender.target.port()) {
            if Instant::now() > deadline {
                return Err(format!("{}: no answer within {START:?}", contender.name).into());
            }
        }
        running.idle = running.memory(engine)?;
        running.project.pause()?;
        Ok(running)
    }

    /// The container the load goes to.
    fn target(&self) -> &str {
        match self.contender.target {
            Target::Proxy => &self.proxy[0],
            Target::Api => &self.api[0],
        }
    }

    fn memory(&self, engine: &Engine) -> Result<[f64; 2]> {
        let proxy = engine.usage(&self.proxy)?.memory;
        let api = engine.usage(&self.api)?.memory / self.api.len() as u64;
        Ok([proxy, api].map(|bytes| bytes as f64 / MIB))
    }

    fn cpu(&self, engine: &Engine) -> Result<[u64; 2]> {
        Ok([
            engine.usage(&self.proxy)?.cpu_ns,
            engine.usage(&self.api)?.cpu_ns,
        ])
    }

    /// One round, with nothing else running.
    fn round(&mut self, engine: &Engine) -> Result<()> {
        self.project.unpause()?;
        let port = self.contender.target.port();
        load(self.target(), port, CONNECTIONS, WARM_UP_SECONDS, || ())?;
        let before = self.cpu(engine)?;
        let (report, memory) = load(self.target(), port, CONNECTIONS, SECONDS, || {
            // Near the end, when everything is as large as it gets.
            thread::sleep(Duration::from_secs(SECONDS.into()) * 4 / 5);
            self.memory(engine)
        })?;
        let after = self.cpu(engine)?;
        self.project.pause()?;
        let used = |i: usize| (after[i] - before[i]) as f64 / 1e3 / report.requests as f64;
        self.rounds.push(Round {
            cpu_us: [used(0), used(1)],
            memory: memory?,
            report,
        });
        Ok(())
    }

    fn figures(&self, first: &Self) -> Result<Figures> {
        let over = |figure: &dyn Fn(&Round) -> f64| median(self.rounds.iter().map(figure));
        let image = |containers: &[String]| -> Result<f64> {
            let Some(container) = containers.first() else {
                return Ok(0.0);
            };
            let size = inspect(&inspect(container, "{{.Image}}")?, "{{.Size}}")?;
            Ok(size.parse::<f64>()? / 1e6)
        };
        // The replicas of the ideal upstream are no API.
        let times = match self.contender.name {
            IDEAL => None,
            _ => {
                let times: Result<Vec<_>> =
                    (0..STARTS).map(|_| start_and_stop(&self.api[0])).collect();
                let times = times?;
                Some([0, 1].map(|i| median(times.iter().map(|times| times[i].as_secs_f64()))))
            }
        };
        Ok(Figures {
            name: self.contender.name,
            rate: over(&|round| round.report.rate()),
            ratio: median(
                first
                    .rounds
                    .iter()
                    .zip(&self.rounds)
                    .map(|(first, round)| first.report.rate() / round.report.rate()),
            ),
            p50_ms: over(&|round| round.report.p50_us as f64 / 1e3),
            p99_ms: over(&|round| round.report.p99_us as f64 / 1e3),
            p999_ms: over(&|round| round.report.p999_us as f64 / 1e3),
            cpu_us: [0, 1].map(|i| over(&|round| round.cpu_us[i])),
            idle_mib: self.idle,
            loaded_mib: [0, 1].map(|i| over(&|round| round.memory[i])),
            image_mb: [image(&self.proxy)?, image(&self.api)?],
            start_and_stop: times,
            errors: self.rounds.iter().map(|round| round.report.errors).sum(),
        })
    }
}

/// Runs the API of a container once more, and returns the time from `docker run` to its first
/// answer, and that of `docker stop`.
fn start_and_stop(api: &str) -> Result<[Duration; 2]> {
    let image = inspect(api, "{{.Image}}")?;
    let command = inspect(api, "{{json .Config.Cmd}}")?;
    let command: Option<Vec<String>> = serde_json::from_str(&command)?;
    let command = command.unwrap_or_default();
    let mut run = vec![
        "run",
        "--detach",
        "--rm",
        "--publish",
        "127.0.0.1:0:5252",
        &image,
    ];
    run.extend(command.iter().map(String::as_str));
    let begin = Instant::now();
    let container = docker(&run)?;
    let address = docker(&["port", &container, "5252"])?;
    let url = format!("http://{address}/api/hello");
    while ureq::get(&url).call().is_err() {
        if begin.elapsed() > START {
            docker(&["kill", &container])?;
            return Err(format!("{url}: no answer within {START:?}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let start = begin.elapsed();
    let begin = Instant::now();
    docker(&["stop", &container])?;
    Ok([start, begin.elapsed()])
}

/// The median.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs all contenders in turn, so that a machine that becomes slower becomes so for all.
///
/// # Errors
///
/// When a contender cannot be built, started or asked.
pub fn compare(engine: &Engine) -> Result<Vec<Figures>> {
    let mut all = vec![];
    for (number, contender) in CONTENDERS.iter().enumerate() {
        eprintln!("starting {}", contender.name);
        all.push(Running::start(engine, contender, number)?);
    }
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for running in &mut all {
            running.round(engine)?;
        }
    }
    all.iter().map(|running| running.figures(&all[0])).collect()
}

/// The figures as a table in Markdown.
pub fn table(all: &[Figures]) -> String {
    let mut table = String::from(
        "| | requests/s | this stack is | p50 | p99 | p99.9 | CPU per request: proxy + API \
         | memory of the proxy, idle and loaded | of a replica | images: proxy + API | start | stop | errors |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for figures in all {
        let Figures {
            name,
            rate,
            ratio,
            p50_ms,
            p99_ms,
            p999_ms,
            cpu_us: [proxy_cpu, api_cpu],
            idle_mib: [proxy_idle, api_idle],
            loaded_mib: [proxy_loaded, api_loaded],
            image_mb: [proxy_image, api_image],
            start_and_stop,
            errors,
        } = figures;
        let times = start_and_stop.map_or("| ".to_owned(), |[start, stop]| {
            format!("{start:.2} s | {stop:.2} s")
        });
        table += &format!(
            "| {name} | {rate:.0} | {ratio:.2}x | {p50_ms:.1} ms | {p99_ms:.1} ms | {p999_ms:.1} ms \
             | {proxy_cpu:.1} + {api_cpu:.1} us | {proxy_idle:.1}, {proxy_loaded:.1} MiB \
             | {api_idle:.1}, {api_loaded:.1} MiB | {proxy_image:.0} + {api_image:.1} MB \
             | {times} | {errors} |\n"
        );
    }
    table
}
