//! The usual load: 64 connections that are kept, a new connection for each request, and pages.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{
    tools::{docker, inspect},
    usage::{Engine, MIB},
    wait,
    wrk::{self, Report},
};
use jiff::Timestamp;

use crate::contender::{
    CADDY, CADDY_LOG, CADDY_PAGES, CLASSIC, CLASSIC_TUNED, Contender, HAPROXY, HAPROXY_LOG, IDEAL,
    Running, STACK, in_turns, median, ratio,
};

const CONNECTIONS: u32 = 64;
const WARM_UP_SECONDS: u32 = 1;
const SECONDS: u32 = 4;
/// Many short rounds rather than few long ones: other work on the machine then hits all alike.
const ROUNDS: usize = 7;
/// Of cases with fewer contenders.
const FEWER_ROUNDS: usize = 5;
/// How often a container is started and stopped for its times.
const STARTS: usize = 3;
/// How long an API may take to start.
const START: Duration = Duration::from_secs(60);

/// The proxies that write a line of log for each request, as this stack does, come first.
const CONTENDERS: [Contender; 8] = [
    STACK,
    HAPROXY_LOG,
    CADDY_LOG,
    CLASSIC_TUNED,
    CLASSIC,
    HAPROXY,
    CADDY,
    IDEAL,
];

const API_ALONE: &str = "the API alone (one replica)";

/// The figures of one contender; of its proxy and of its API, where there are two.
pub struct Figures {
    pub name: &'static str,
    /// Requests per second.
    pub rate: f64,
    /// How many times as fast this stack is.
    ratio: f64,
    p50_ms: f64,
    pub p99_ms: f64,
    p999_ms: f64,
    /// CPU time of a request, in the proxy and in the API.
    cpu_us: [f64; 2],
    /// Memory of the proxy and of one replica, before the load and under it.
    idle_mib: [f64; 2],
    loaded_mib: [f64; 2],
    /// Sizes of the images.
    image_mb: [f64; 2],
    /// From `docker run` of the API to its first response, and the time its program takes to stop, in seconds.
    start_and_stop: Option<[f64; 2]>,
    errors: u64,
}

struct Round {
    report: Report,
    /// Of the proxy and of the replicas together, for one request.
    cpu_us: [f64; 2],
    /// Of the proxy and of one replica.
    memory: [f64; 2],
}

/// A proxy and its replicas, or one replica alone.
struct Containers {
    proxy: Vec<String>,
    api: Vec<String>,
}

impl Containers {
    fn memory(&self, engine: &Engine) -> [f64; 2] {
        let proxy = engine.usage(&self.proxy).memory;
        let api = engine.usage(&self.api).memory / self.api.len() as u64;
        [proxy, api].map(|bytes| bytes as f64 / MIB)
    }

    fn round(&self, engine: &Engine) -> Round {
        let (target, port) = match self.proxy.first() {
            Some(proxy) => (proxy, 80),
            None => (&self.api[0], 5252),
        };
        let cpu = || [&self.proxy, &self.api].map(|containers| engine.usage(containers).cpu_ns);
        wrk::load(target, port, CONNECTIONS, WARM_UP_SECONDS, || ());
        let before = cpu();
        let (report, memory) = wrk::load(target, port, CONNECTIONS, SECONDS, || {
            // Near the end, when everything is as large as it gets.
            thread::sleep(Duration::from_secs(SECONDS.into()) * 4 / 5);
            self.memory(engine)
        });
        let after = cpu();
        let used = |i: usize| (after[i] - before[i]) as f64 / 1e3 / report.requests as f64;
        Round {
            cpu_us: [used(0), used(1)],
            memory,
            report,
        }
    }

    fn figures(
        &self,
        name: &'static str,
        idle: [f64; 2],
        first: &[Round],
        own: &[Round],
    ) -> Figures {
        let over = |figure: &dyn Fn(&Round) -> f64| median(own.iter().map(figure));
        let image = |containers: &[String]| {
            containers.first().map_or(0.0, |container| {
                let size = inspect(&inspect(container, "{{.Image}}"), "{{.Size}}");
                size.parse::<f64>().expect("a number of bytes") / 1e6
            })
        };
        // The replicas of the ideal upstream are no API.
        let times = (name != IDEAL.name).then(|| {
            let times: Vec<_> = (0..STARTS).map(|_| start_and_stop(&self.api[0])).collect();
            [0, 1].map(|i| median(times.iter().map(|times| times[i])))
        });
        Figures {
            name,
            rate: over(&|round| round.report.rate()),
            ratio: ratio(first, own, |round| round.report.rate()),
            p50_ms: over(&|round| round.report.p50_us as f64 / 1e3),
            p99_ms: over(&|round| round.report.p99_us as f64 / 1e3),
            p999_ms: over(&|round| round.report.p999_us as f64 / 1e3),
            cpu_us: [0, 1].map(|i| over(&|round| round.cpu_us[i])),
            idle_mib: idle,
            loaded_mib: [0, 1].map(|i| over(&|round| round.memory[i])),
            image_mb: [image(&self.proxy), image(&self.api)],
            start_and_stop: times,
            errors: own.iter().map(|round| round.report.errors).sum(),
        }
    }
}

/// Runs the API of a container once more. Returns the seconds from `docker run` to its first response, and
/// those that its program takes to stop, by the engine's clock.
fn start_and_stop(api: &str) -> [f64; 2] {
    let image = inspect(api, "{{.Image}}");
    let command = inspect(api, "{{json .Config.Cmd}}");
    let command: Option<Vec<String>> = serde_json::from_str(&command).expect("a list of words");
    let command = command.unwrap_or_default();
    let mut run = vec!["run", "--detach", "--publish", "127.0.0.1:0:5252", &image];
    run.extend(command.iter().map(String::as_str));
    let begin = Instant::now();
    let container = docker(&run);
    let address = docker(&["port", &container, "5252"]);
    let url = format!("http://{address}/api/hello");
    wait::every(Duration::from_millis(1), START, || {
        ureq::get(&url).call().map(drop)
    });
    let start = begin.elapsed();
    let asked = Timestamp::now();
    docker(&["stop", &container]);
    let finished: Timestamp = inspect(&container, "{{.State.FinishedAt}}")
        .parse()
        .expect("a time");
    docker(&["rm", &container]);
    [
        start.as_secs_f64(),
        finished.duration_since(asked).as_secs_f64(),
    ]
}

/// Compares all contenders: 64 connections that are kept.
pub fn steady(engine: &Engine) -> Vec<Figures> {
    let all: Vec<_> = CONTENDERS.into_iter().map(Running::start).collect();
    let containers = |running: &Running| Containers {
        proxy: vec![running.proxy.clone()],
        api: running.api.clone(),
    };
    let idle: Vec<_> = all
        .iter()
        .map(|running| containers(running).memory(engine))
        .collect();
    let one_replica = Containers {
        proxy: vec![],
        api: all[0].api[..1].into(),
    };
    let mut alone = vec![];
    let rounds = in_turns("steady", ROUNDS, &all, |running| {
        if running.name == STACK.name {
            alone.push(one_replica.round(engine));
        }
        containers(running).round(engine)
    });
    let mut figures: Vec<_> = (all.iter().zip(&rounds).zip(idle))
        .map(|((running, own), idle)| {
            containers(running).figures(running.name, idle, &rounds[0], own)
        })
        .collect();
    let idle = [0.0, figures[0].idle_mib[1]];
    figures.push(one_replica.figures(API_ALONE, idle, &rounds[0], &alone));
    figures
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

/// Compares some contenders by what wrk reports, as rows below [`HEADING`].
pub fn reports(case: &str, all: &[Running], connections: u32, arguments: &[&str]) -> String {
    let rounds = in_turns(case, FEWER_ROUNDS, all, |running| {
        wrk::load_url(&running.proxy, arguments, connections, SECONDS, || ()).0
    });
    let rows = all.iter().zip(&rounds).map(|(running, own)| {
        let over = |figure: &dyn Fn(&Report) -> f64| median(own.iter().map(figure));
        format!(
            "| {case} | {} | {:.0} | {:.2}x | {:.1} ms | {:.1} ms | {} |\n",
            running.name,
            over(&Report::rate),
            ratio(&rounds[0], own, Report::rate),
            over(&|report| report.p50_us as f64 / 1e3),
            over(&|report| report.p99_us as f64 / 1e3),
            own.iter().map(|report| report.errors).sum::<u64>(),
        )
    });
    rows.collect()
}

pub const HEADING: &str = "| | | requests/s | this stack is | p50 | p99 | errors |\n\
                           |---|---|--:|--:|--:|--:|--:|\n";

/// A new connection for each request.
pub fn new_connections() -> String {
    let all = [STACK, HAPROXY_LOG, CADDY_LOG].map(Running::start);
    let url = "http://127.0.0.1:80/api/hello";
    let arguments = ["--header", "Connection: close", url];
    HEADING.to_owned() + &reports("one request a connection", &all, CONNECTIONS, &arguments)
}

/// The front page with its files, to browsers that have none of them and to those that have all.
pub fn pages() -> String {
    let all = [STACK, CADDY_PAGES].map(Running::start);
    let mut table = HEADING.to_owned();
    for (case, script) in [("empty cache", "cold.lua"), ("warm cache", "warm.lua")] {
        let script = format!("/{script}");
        let arguments = ["--script", &script, "http://127.0.0.1:80/"];
        table += &reports(case, &all, CONNECTIONS, &arguments);
    }
    table
}
