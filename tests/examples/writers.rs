//! Every note that was acknowledged is there, once, whatever happens to replicas and database while clients write.

use std::{
    collections::{HashMap, HashSet},
    env, process,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    http,
    project::Project,
    tools::{Tools, docker, inspect},
    wait,
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{NOTES, alone, json as body, project, ready, send, start};

const WRITERS: usize = 16;

/// How long a replica is gone, under load.
const ONE_IS_GONE: Duration = Duration::from_secs(2);

/// How long replicas fail, and then the database, too.
const REPLICAS_FAIL: Duration = Duration::from_secs(60);
const DATABASE_FAILS: Duration = Duration::from_secs(30);

/// A client waits longer than the proxy.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    vec![alone("every acknowledged note is there, once", all)]
}

/// What clients have written, and what they were told.
#[derive(Debug, Default)]
pub struct Written {
    /// Titles of notes that were acknowledged.
    acknowledged: HashSet<String>,
    /// Titles of notes that may have been stored: 502, 504, or no response.
    unknown: HashSet<String>,
    /// Responses that were no success, by their status, with the method.
    failures: HashMap<String, usize>,
}

impl Written {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }

    /// The number of failures of this method, or of all if it is empty, without 503: a busy machine may take too long to
    /// open a connection to the database, and then nothing was carried out.
    pub fn broken(&self, method: &str) -> usize {
        let broken = self
            .failures
            .iter()
            .filter(|(failure, _)| failure.starts_with(method) && !failure.ends_with(" 503"));
        broken.map(|(_, count)| count).sum()
    }

    /// Prints the outcome, and asserts that each acknowledged note is there once, and no other note twice.
    #[track_caller]
    pub fn assert_there(&self, what: &str) {
        let mut stored = HashMap::<String, usize>::new();
        let mut query = "?limit=100".to_owned();
        loop {
            let page = body(&send("GET", &query, ""));
            for note in page["notes"].as_array().unwrap() {
                let title = note["title"].as_str().unwrap().to_owned();
                *stored.entry(title).or_default() += 1;
            }
            match page["next"].as_str() {
                Some(next) => query = next.to_owned(),
                None => break,
            }
        }
        let missing = self
            .acknowledged
            .iter()
            .filter(|&title| !stored.contains_key(title));
        let missing: Vec<_> = missing.collect();
        let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
        let kept = self
            .unknown
            .iter()
            .filter(|&title| stored.contains_key(title));
        println!(
            "{what}: {} acknowledged, {} missing, {} twice; {} unknown, {} of them stored; failures {:?}",
            self.acknowledged.len(),
            missing.len(),
            twice.len(),
            self.unknown.len(),
            kept.count(),
            self.failures
        );
        assert!(!self.acknowledged.is_empty());
        assert!(missing.is_empty(), "{what}: missing {missing:?}");
        assert!(twice.is_empty(), "{what}: twice {twice:?}");
    }
}

/// Writes notes with 16 clients while something happens, half of them with `POST`, half with `PUT`.
pub fn while_writing(happens: impl FnOnce()) -> Written {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| scope.spawn(|| write(number(), stop)))
            .collect();
        // Also when it panics: the scope waits for the writers.
        let stopped = Stop(stop);
        happens();
        drop(stopped);
        let mut all = Written::default();
        for writer in writers {
            all.add(writer.join().expect("a writer does not panic"));
        }
        all
    })
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The number of the next writer, so that all have different ids and titles.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn write(writer: u32, stop: &AtomicBool) -> Written {
    let client = http::patient_client(PATIENCE);
    let mut written = Written::default();
    for number in 0_u64.. {
        let title = format!("{writer}-{number}");
        let note = json!({"title": title, "text": "a note"}).to_string();
        let (method, url) = match number % 2 {
            0 => ("POST", NOTES.to_owned()),
            _ => (
                "PUT",
                format!("{NOTES}/{:08x}-0000-4000-8000-{number:012x}", writer),
            ),
        };
        loop {
            let headers = [("content-type", "application/json")];
            let status = match http::send_body(&client, method, &url, &headers, note.as_str()) {
                Ok(answer) => answer.status.as_u16(),
                Err(_) => 0,
            };
            if matches!(status, 200 | 201) {
                written.acknowledged.insert(title);
                break;
            }
            *written
                .failures
                .entry(format!("{method} {status}"))
                .or_default() += 1;
            // Only 503 says that a POST was not carried out. A PUT may be sent again in any case.
            if method == "POST" && status != 503 {
                written.unknown.insert(title);
                break;
            }
            if stop.load(Ordering::Relaxed) {
                written.unknown.insert(title);
                break;
            }
            // As a client that heeds Retry-After, but sooner.
            thread::sleep(Duration::from_millis(50));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    written
}

/// Random numbers, for the order of events (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn all() {
    let seed = match env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED: expected a number"),
        Err(_) => u64::from(process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
    };
    println!("SEED={seed}");
    let mut random = Random(seed);
    let project = start(project(Tools::Current), 3);

    // The other replicas work, so the proxy finds one for each PUT, and its body with it.
    let victim = any(&project, &mut random);
    let written = while_writing(|| {
        docker(&["kill", &victim]);
        thread::sleep(ONE_IS_GONE);
    });
    written.assert_there("a replica is killed");
    assert_eq!(written.broken("PUT"), 0, "the proxy repeats PUT");
    docker(&["start", &victim]);
    ready_again(&project);

    // Here a PUT may get 502, too, when every replica has just failed.
    let mut events = HashMap::new();
    let written = while_writing(|| {
        let end = Instant::now() + REPLICAS_FAIL;
        while Instant::now() < end {
            *events
                .entry(replica_fails(&project, &mut random))
                .or_insert(0) += 1;
        }
    });
    println!("{events:?}");
    ready_again(&project);
    written.assert_there("replicas fail");

    let mut events = HashMap::new();
    let written = while_writing(|| {
        let end = Instant::now() + DATABASE_FAILS;
        while Instant::now() < end {
            let event = match random.below(4) {
                0 => replica_fails(&project, &mut random),
                _ => database_fails(&project, &mut random),
            };
            *events.entry(event).or_insert(0) += 1;
        }
    });
    println!("{events:?}");
    ready_again(&project);
    written.assert_there("replicas and database fail");
}

#[track_caller]
fn ready_again(project: &Project) {
    let replicas = project.containers("api").len();
    ready(project, replicas);
}

/// One of the replicas.
fn any(project: &Project, random: &mut Random) -> String {
    let replicas: Vec<_> = project.containers("api").into_iter().collect();
    replicas[random.below(replicas.len())].clone()
}

#[track_caller]
fn healthy(project: &Project) {
    wait::until(Duration::from_secs(30), || {
        let replicas = project.containers("api");
        let health = replicas
            .iter()
            .map(|id| inspect(id, "{{.State.Health.Status}}"));
        let health: Vec<_> = health.filter(|health| health != "healthy").collect();
        match health.is_empty() {
            true => Ok(()),
            false => Err(format!("{health:?}")),
        }
    });
}

/// Lets something happen to the replicas, of which at least one is left.
fn replica_fails(project: &Project, random: &mut Random) -> &'static str {
    // A roll-out takes as long as the others together.
    match random.below(7) {
        0 | 1 => {
            let victim = any(project, random);
            docker(&["kill", &victim]);
            docker(&["start", &victim]);
            "kill"
        }
        2 | 3 => {
            let victim = any(project, random);
            docker(&["stop", &victim]);
            docker(&["start", &victim]);
            "stop"
        }
        4 | 5 => {
            let replicas = 2 + random.below(4);
            project.run(&format!(
                "docker-compose up -d --no-recreate --scale api={replicas}"
            ));
            "scale"
        }
        _ => {
            // Stands for docker-compose build after a change of the program.
            let version = random.below(1_000_000);
            project.run(&format!(
                "printf 'FROM examples/hello-notes:stack\\nLABEL test={version}\\n' | docker build -t examples/hello-notes:stack -"
            ));
            let replicas = project.containers("api").len();
            let both = 2 * replicas;
            project.run(&format!(
                "docker-compose up -d --no-recreate --scale api={both} api"
            ));
            healthy(project);
            project.run(&format!("docker-compose up -d --scale api={replicas}"));
            "roll out"
        }
    }
}

fn database_fails(project: &Project, random: &mut Random) -> &'static str {
    let database = project.container("database");
    match random.below(3) {
        0 => {
            docker(&["kill", &database]);
            docker(&["start", &database]);
            "kill the database"
        }
        1 => {
            docker(&["restart", &database]);
            "restart the database"
        }
        _ => {
            docker(&["pause", &database]);
            // The hang itself.
            thread::sleep(Duration::from_secs(2));
            docker(&["unpause", &database]);
            "hang the database"
        }
    }
}
