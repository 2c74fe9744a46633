//! What clients get while the database is down, hangs, or is full.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{
    http::{self, Answer},
    project::Project,
    tools::{Tools, docker, inspect},
    wait,
};
use libtest_mimic::Trial;

use crate::fixture::{NOTES, alone, json, on_notes, project, send, sql, start};

/// A client waits no longer to be told that the database is not available.
const TOLD: Duration = Duration::from_secs(2);

/// The service is back after the database is.
const BACK: Duration = Duration::from_secs(2);

const NOTE: &str = r#"{"title":"a","text":"b"}"#;

const ID: &str = "/9d1f7c52-6f0b-4c63-8d3c-0d6f3b0c9a11";

pub fn trials() -> Vec<Trial> {
    vec![
        on_notes(
            "while the database is down or hangs, clients get 503 at once",
            outages,
        ),
        on_notes("a query that waits for a lock is ended", locked),
    ]
}

/// Cases with stacks of their own.
pub fn others() -> Vec<Trial> {
    vec![
        alone("a full disk is 503, and reads go on", full),
        alone("replicas may start before the database", late),
    ]
}

/// Asserts that a request is 503 with `Retry-After`, in time. Returns the time.
#[track_caller]
fn not_available(method: &str, path: &str) -> Duration {
    let body = if method == "GET" { "" } else { NOTE };
    let begin = Instant::now();
    let answer = send(method, path, body);
    let time = begin.elapsed();
    assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
    assert!(time < TOLD, "{method} {path}: {time:?}");
    assert_eq!(answer.headers.get_all("retry-after").iter().count(), 1);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(
        json(&answer)["error"],
        "The database is not available. Try again soon."
    );
    time
}

/// Waits until the notes are there again. Returns the time since `begin`.
#[track_caller]
fn back(begin: Instant) -> Duration {
    wait::until(BACK.saturating_sub(begin.elapsed()), || {
        match send("GET", "", "") {
            Answer { status, .. } if status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    begin.elapsed()
}

fn outages(project: &Project) {
    let database = project.container("database");
    let starts = || -> Vec<_> {
        let replicas = project.containers("api");
        replicas
            .iter()
            .map(|id| inspect(id, "{{.State.StartedAt}}"))
            .collect()
    };
    let started = starts();
    send("PUT", ID, NOTE);
    for (down, up) in [("stop", "start"), ("kill", "start"), ("pause", "unpause")] {
        docker(&[down, &database]);
        let mut slowest = Duration::ZERO;
        // Twice with each replica.
        for (method, path) in [("GET", ""), ("POST", ""), ("PUT", ID), ("DELETE", ID)].repeat(4) {
            slowest = slowest.max(not_available(method, path));
        }
        // The database is no reason to restart a replica.
        for replica in project.containers("api") {
            docker(&["exec", &replica, "/api", "healthcheck"]);
        }
        docker(&[up, &database]);
        println!(
            "{down}: 503 after {slowest:?} at most; back {:?} after {up}",
            back(Instant::now())
        );
    }
    assert_eq!(send("GET", ID, "").status, 200);
    assert_eq!(starts(), started);
}

fn locked(project: &Project) {
    thread::scope(|scope| {
        let lock = scope.spawn(|| sql(project, "BEGIN; LOCK notes; SELECT pg_sleep(6)"));
        wait::until(Duration::from_secs(3), || {
            let held = sql(
                project,
                "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'notes'::regclass",
            );
            match held.trim() {
                "1" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        for (method, path) in [("GET", ""), ("PUT", ID), ("POST", "")] {
            not_available(method, path);
        }
        lock.join().unwrap();
    });
    back(Instant::now());
    // Neither replica has queries that still wait.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND client_addr IS NOT NULL";
    assert_eq!(sql(project, waiting).trim(), "0");
}

fn full() {
    // Two files that the database cannot do without fill the disk: a volume of 200 MB in memory.
    let files = "docker-compose.yml:examples/notes/docker-compose.yml:tests/examples/full.yml";
    let project = start(project(Tools::Current).with("COMPOSE_FILE", files), 2);
    assert_eq!(send("PUT", ID, NOTE).status, 201);
    let fill = "docker-compose exec -T database sh -c 'dd if=/dev/zero of=/var/lib/postgresql/filler bs=1M 2>&1 | tail -n 1'";
    project.run(fill);
    // Until the pages that it has are full, too.
    let text = "x".repeat(9_000);
    let refused = wait::until(Duration::from_secs(20), || {
        let note = format!(r#"{{"title":"a","text":"{text}"}}"#);
        match send("POST", "", &note) {
            Answer { status, .. } if status == 201 => Err("stored".to_owned()),
            answer => Ok::<_, String>(answer),
        }
    });
    assert!(matches!(refused.status.as_u16(), 503 | 504), "{refused:?}");
    // If the log is full, the server restarts, and recovers when there is space.
    project.run("docker-compose exec -T database rm /var/lib/postgresql/filler || docker-compose restart database");
    wait::until(Duration::from_secs(30), || match send("GET", ID, "") {
        Answer { status, .. } if status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(send("POST", "", NOTE).status, 201);
}

fn late() {
    let project = project(Tools::Current);
    project.run("docker-compose up -d --build --no-deps api front-end proxy");
    wait::until(Duration::from_secs(20), || match http::get(NOTES) {
        Ok(answer) if answer.status == 503 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait::until(Duration::from_secs(20), || {
        let replicas = project.containers("api");
        let health = replicas
            .iter()
            .map(|id| inspect(id, "{{.State.Health.Status}}"));
        match health.collect::<Vec<_>>() {
            health if health == ["healthy", "healthy"] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    not_available("GET", "");
    project.run("docker-compose up -d --no-recreate database");
    wait::until(Duration::from_secs(20), || match send("POST", "", NOTE) {
        Answer { status, .. } if status == 201 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for id in project.containers("api") {
        assert_eq!(inspect(&id, "{{.RestartCount}}"), "0");
    }
}
