//! This stack and HAProxy when they are asked for more than they can do.

use std::{thread, time::Duration};

use crate::{
    compare::median,
    engine::{Project, Result, docker, inspect},
    load::{Report, answers, load},
};

const PORT: u16 = 80;
const REPLICAS: usize = 2;
const SECONDS: u32 = 8;
/// In turn, so that a machine that becomes slower becomes so for both.
const ROUNDS: usize = 3;
/// After this time the throughput is to be that of before.
const RECOVERY: Duration = Duration::from_secs(3);
/// Connections and seconds of the load before and after.
const USUAL: (u32, u32) = (64, 4);
/// CPU of a weak replica, in cores.
const WEAK: &str = "0.05";

/// The connections, and whether the replicas are weak.
const CASES: [(u32, bool); 4] = [(2000, false), (6000, false), (16, true), (1000, true)];

const CONTENDERS: [(&str, &str); 2] = [
    ("this stack", "docker-compose.yml"),
    ("HAProxy, same API", "bench/contenders/haproxy.yml"),
];

struct Running {
    name: &'static str,
    project: Project,
    proxy: String,
    replicas: Vec<String>,
}

/// One round of a case: under overload, and the rates before and after.
struct Round {
    overload: Report,
    before: f64,
    after: f64,
}

impl Running {
    fn start(name: &'static str, file: &str, number: usize) -> Result<Self> {
        let project = Project::new(&format!("overload-{number}"), file);
        project.up(REPLICAS)?;
        let [proxy] = <[String; 1]>::try_from(project.containers("proxy")?)
            .map_err(|proxies| format!("{name}: expected one proxy, got {proxies:?}"))?;
        let replicas = project.containers("api")?;
        let running = Self {
            name,
            project,
            proxy,
            replicas,
        };
        const ATTEMPTS: usize = 60;
        if !(0..ATTEMPTS).any(|_| answers(&running.proxy, PORT)) {
            return Err(format!("{name}: no answer after {ATTEMPTS} attempts").into());
        }
        running.project.pause()?;
        Ok(running)
    }

    fn limit_cpu(&self, cores: &str) -> Result<()> {
        for replica in &self.replicas {
            docker(&["update", "--cpus", cores, replica])?;
        }
        Ok(())
    }

    fn usual(&self) -> Result<f64> {
        let (connections, seconds) = USUAL;
        Ok(load(&self.proxy, PORT, connections, seconds, || ())?
            .0
            .rate())
    }

    /// One round, with nothing else running.
    fn round(&self, connections: u32, weak: bool) -> Result<Round> {
        self.project.unpause()?;
        let before = self.usual()?;
        if weak {
            self.limit_cpu(WEAK)?;
        }
        let (overload, ()) = load(&self.proxy, PORT, connections, SECONDS, || ())?;
        if weak {
            // A limit once set cannot be removed.
            self.limit_cpu(&thread::available_parallelism()?.to_string())?;
        }
        thread::sleep(RECOVERY);
        let after = self.usual()?;
        self.project.pause()?;
        Ok(Round {
            overload,
            before,
            after,
        })
    }

    /// The containers that were killed for memory, or started again.
    fn harmed(&self) -> Result<usize> {
        let mut harmed = 0;
        for container in self.replicas.iter().chain([&self.proxy]) {
            let state = inspect(container, "{{.State.OOMKilled}} {{.RestartCount}}")?;
            harmed += usize::from(state != "false 0");
        }
        Ok(harmed)
    }
}

/// All cases, each with both contenders in turn, as a table.
///
/// # Errors
///
/// When a contender cannot be built, started or asked.
pub fn overload() -> Result<String> {
    let mut table = String::from(
        "| | | good answers/s | this stack is | p50 | p99 | bad answers | throughput 3 s later |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut all = vec![];
    for (number, (name, file)) in CONTENDERS.into_iter().enumerate() {
        eprintln!("starting {name}");
        all.push(Running::start(name, file, number)?);
    }
    for (connections, weak) in CASES {
        let case = match weak {
            true => format!("replicas with 5% of a core, {connections} connections"),
            false => format!("{connections} connections"),
        };
        let mut rounds: Vec<Vec<Round>> = all.iter().map(|_| vec![]).collect();
        for round in 1..=ROUNDS {
            eprintln!("{case}: round {round} of {ROUNDS}");
            for (running, rounds) in all.iter().zip(&mut rounds) {
                rounds.push(running.round(connections, weak)?);
            }
        }
        for (running, own) in all.iter().zip(&rounds) {
            let over = |figure: &dyn Fn(&Round) -> f64| median(own.iter().map(figure));
            let ratios = rounds[0].iter().zip(own);
            let ratio = median(
                ratios.map(|(first, own)| first.overload.good_rate() / own.overload.good_rate()),
            );
            table += &format!(
                "| {case} | {} | {:.0} | {ratio:.2}x | {:.0} ms | {:.0} ms | {} | {:.2} |\n",
                running.name,
                over(&|round| round.overload.good_rate()),
                over(&|round| round.overload.p50_us as f64 / 1e3),
                over(&|round| round.overload.p99_us as f64 / 1e3),
                own.iter().map(|round| round.overload.errors).sum::<u64>(),
                over(&|round| round.after / round.before),
            );
        }
    }
    for running in &all {
        table += &format!(
            "\nContainers of {} that were killed for memory or started again: {}.\n",
            running.name,
            running.harmed()?
        );
    }
    Ok(table)
}
