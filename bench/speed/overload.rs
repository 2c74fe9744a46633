//! More than this stack and HAProxy can do.

use std::{thread, time::Duration};

use harness::{
    tools::{docker, inspect},
    wrk::{self, Report},
};

use crate::contender::{HAPROXY, HAPROXY_LOG, Running, STACK, in_turns, median, ratio};

const PORT: u16 = 80;
const SECONDS: u32 = 8;
const ROUNDS: usize = 3;
/// After this time the throughput is to be that of before.
const RECOVERY: Duration = Duration::from_secs(3);
/// Connections and seconds of the load before and after.
const USUAL: (u32, u32) = (64, 4);
/// CPU of a weak replica, in cores.
const WEAK: &str = "0.05";

/// The connections, and whether the replicas are weak.
const CASES: [(u32, bool); 4] = [(2000, false), (6000, false), (16, true), (1000, true)];

/// One round of a case: under overload, and the rates before and after.
struct Round {
    overload: Report,
    before: f64,
    after: f64,
}

fn limit_cpu(running: &Running, cores: &str) {
    for replica in &running.api {
        docker(&["update", "--cpus", cores, replica]);
    }
}

fn round(running: &Running, connections: u32, weak: bool) -> Round {
    let usual = || {
        let (connections, seconds) = USUAL;
        wrk::load(&running.proxy, PORT, connections, seconds, || ())
            .0
            .rate()
    };
    let before = usual();
    if weak {
        limit_cpu(running, WEAK);
    }
    let (overload, ()) = wrk::load(&running.proxy, PORT, connections, SECONDS, || ());
    if weak {
        // A limit once set cannot be removed.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        limit_cpu(running, &cores.to_string());
    }
    thread::sleep(RECOVERY);
    Round {
        overload,
        before,
        after: usual(),
    }
}

/// The containers that were killed for memory, or started again.
fn harmed(running: &Running) -> usize {
    let containers = running.api.iter().chain([&running.proxy]);
    containers
        .filter(|id| inspect(id, "{{.State.OOMKilled}} {{.RestartCount}}") != "false 0")
        .count()
}

/// All cases, as a table in Markdown.
pub fn overload() -> String {
    let mut table = String::from(
        "| | | good responses/s | this stack is | p50 | p99 | bad responses | throughput 3 s later |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    let all = [STACK, HAPROXY_LOG, HAPROXY].map(Running::start);
    for (connections, weak) in CASES {
        let case = match weak {
            true => format!("replicas with 5% of a core, {connections} connections"),
            false => format!("{connections} connections"),
        };
        let rounds = in_turns(&case, ROUNDS, &all, |running| {
            round(running, connections, weak)
        });
        for (running, own) in all.iter().zip(&rounds) {
            let over = |figure: &dyn Fn(&Round) -> f64| median(own.iter().map(figure));
            table += &format!(
                "| {case} | {} | {:.0} | {:.2}x | {:.0} ms | {:.0} ms | {} | {:.2} |\n",
                running.name,
                over(&|round| round.overload.good_rate()),
                ratio(&rounds[0], own, |round| round.overload.good_rate()),
                over(&|round| round.overload.p50_us as f64 / 1e3),
                over(&|round| round.overload.p99_us as f64 / 1e3),
                own.iter().map(|round| round.overload.errors).sum::<u64>(),
                over(&|round| round.after / round.before),
            );
        }
    }
    for running in &all {
        table += &format!(
            "\nContainers of {} that were killed for memory or restarted: {}.\n",
            running.name,
            harmed(running)
        );
    }
    table
}
