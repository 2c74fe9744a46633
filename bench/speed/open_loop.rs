//! A fixed rate of requests, whatever becomes of those before: nobody waits for a slow response before the
//! next request is sent, as with wrk, whose figures hide what a pause does to clients that come meanwhile.

use std::{thread, time::Duration};

use harness::{
    load::{self, Latencies},
    tools::docker,
};

use crate::contender::{CADDY_LOG, HAPROXY_LOG, Running, STACK, in_turns, median};

/// Requests per second.
const RATE: u32 = 5000;
const TIME: Duration = Duration::from_secs(30);
/// When something happens.
const BEGIN: Duration = Duration::from_secs(10);
/// For how long a replica hangs.
const HANGS: Duration = Duration::from_secs(5);
const ROUNDS: usize = 1;
/// Replicas, so that with one of them gone the others can carry the rate.
const REPLICAS: usize = 3;

/// What happens to a contender.
type Happens = fn(&Running);

/// What happens while the requests come.
const CASES: [(&str, Happens); 4] = [
    ("nothing", |_| ()),
    ("a replica is killed", |running| {
        docker(&["kill", &first(running)]);
    }),
    ("a replica hangs for 5 s", |running| {
        let victim = first(running);
        docker(&["pause", &victim]);
        thread::sleep(HANGS);
        docker(&["unpause", &victim]);
    }),
    ("a new version is rolled out", |running| {
        let old: Vec<_> = running.project.containers("api").into_iter().collect();
        scale(running, 2 * REPLICAS);
        // As compose does: the old ones are stopped once the new ones are there.
        docker(
            &[
                &["stop"],
                &old.iter().map(String::as_str).collect::<Vec<_>>()[..],
            ]
            .concat(),
        );
        docker(
            &[
                &["rm"],
                &old.iter().map(String::as_str).collect::<Vec<_>>()[..],
            ]
            .concat(),
        );
    }),
];

fn first(running: &Running) -> String {
    let replicas = running.project.containers("api");
    replicas.into_iter().next().expect("a replica runs")
}

fn scale(running: &Running, replicas: usize) {
    running.project.run(&format!(
        "docker-compose up --detach --no-recreate --no-deps --scale api={replicas} api"
    ));
}

/// All cases, as a table in Markdown.
pub fn open_loop() -> String {
    let mut table = String::from(
        "| What happens | | p50 | p99 | p99.9 | slowest | lost |\n|---|---|--:|--:|--:|--:|--:|\n",
    );
    let all = [STACK, HAPROXY_LOG, CADDY_LOG].map(Running::start);
    for (case, happens) in CASES {
        let rounds = in_turns(case, ROUNDS, &all, |running| {
            scale(running, REPLICAS);
            // Found by DNS, and warm.
            load::at_rate(&running.proxy, 80, RATE / 5, Duration::from_secs(5), || ());
            load::at_rate(&running.proxy, 80, RATE, TIME, || {
                thread::sleep(BEGIN);
                happens(running);
            })
        });
        for (running, own) in all.iter().zip(&rounds) {
            let at = |quantile: f64| {
                let over = own.iter().map(|latencies| latencies.quantile(quantile));
                median(over.map(|latency| latency.as_secs_f64() * 1e3))
            };
            table += &format!(
                "| {case} | {} | {:.1} ms | {:.1} ms | {:.0} ms | {:.0} ms | {} |\n",
                running.name,
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0),
                own.iter().map(Latencies::lost).sum::<usize>(),
            );
        }
    }
    table
}
