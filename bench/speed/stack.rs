//! This stack by itself: more replicas, more time, more connections, and a change of its program.

use std::{
    collections::BTreeMap,
    env, fs,
    process::Command,
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    runtime,
    sync::{Barrier, Semaphore},
    time,
};

use crate::engine::{Engine, MIB, Project, Result, docker, output, root};
use crate::load::{IMAGE, load};

const PORT: u16 = 80;

/// Connections of the load.
const LOAD_CONNECTIONS: u32 = 64;

/// The stack, and where it is published.
struct Stack {
    project: Project,
    proxy: String,
    address: String,
}

impl Stack {
    fn start(replicas: usize) -> Result<Self> {
        let project = Project::new("stack", "docker-compose.yml");
        project.up(replicas)?;
        let [proxy] = <[String; 1]>::try_from(project.containers("proxy")?)
            .map_err(|proxies| format!("expected one proxy, got {proxies:?}"))?;
        let published = docker(&["port", &proxy, "80"])?;
        let port = published
            .lines()
            .next()
            .and_then(|line| line.rsplit(':').next())
            .ok_or("the proxy's port is not published")?;
        let address = format!("127.0.0.1:{port}");
        let stack = Self {
            project,
            proxy,
            address,
        };
        stack.served(replicas)?;
        Ok(stack)
    }

    /// How many requests each replica has served, asked until as many as there are have answered.
    fn served(&self, replicas: usize) -> Result<BTreeMap<String, u64>> {
        #[derive(Deserialize)]
        struct Whoami {
            replica: String,
            requests_served: u64,
        }
        const LIMIT: Duration = Duration::from_secs(30);
        let url = format!("http://{}/api/whoami", self.address);
        let deadline = Instant::now() + LIMIT;
        let mut served = BTreeMap::new();
        while served.len() < replicas {
            if Instant::now() > deadline {
                return Err(format!("expected {replicas} replicas within {LIMIT:?}").into());
            }
            if let Ok(mut response) = ureq::get(&url).call() {
                let whoami: Whoami = serde_json::from_str(&response.body_mut().read_to_string()?)?;
                served.insert(whoami.replica, whoami.requests_served);
            }
        }
        Ok(served)
    }
}

/// From 1 to 8 replicas: the rate, how far a share is from equal, and the CPU time of a request.
///
/// # Errors
///
/// When the stack cannot be run.
pub fn replicas(engine: &Engine) -> Result<String> {
    const SECONDS: u32 = 10;
    let mut table = String::from(
        "| replicas | requests/s | furthest from an equal share | CPU per request: proxy + API |\n\
         |--:|--:|--:|--:|\n",
    );
    let stack = Stack::start(1)?;
    for count in [1, 2, 4, 8] {
        eprintln!("{count} replicas");
        stack.project.up(count)?;
        stack.served(count)?;
        let proxy = slice::from_ref(&stack.proxy);
        let api = stack.project.containers("api")?;
        let cpu = || Result::Ok([engine.usage(proxy)?.cpu_ns, engine.usage(&api)?.cpu_ns]);
        load(&stack.proxy, PORT, LOAD_CONNECTIONS, 2, || ())?;
        let (before, begin) = (stack.served(count)?, cpu()?);
        let (report, ()) = load(&stack.proxy, PORT, LOAD_CONNECTIONS, SECONDS, || ())?;
        let end = cpu()?;
        let used = [0, 1].map(|i| (end[i] - begin[i]) as f64 / 1e3 / report.requests as f64);
        let after = stack.served(count)?;
        let equal = report.requests as f64 / count as f64;
        let furthest = after
            .iter()
            .map(|(name, served)| served - before.get(name).copied().unwrap_or_default())
            .map(|share| (share as f64 / equal - 1.0).abs())
            .fold(0.0, f64::max);
        table += &format!(
            "| {count} | {:.0} | {:.2} % | {:.1} + {:.1} us |\n",
            report.rate(),
            100.0 * furthest,
            used[0],
            used[1]
        );
    }
    Ok(table)
}

/// Ten minutes of load: the rate, the memory and the errors of each.
///
/// # Errors
///
/// When the stack cannot be run.
pub fn endurance(engine: &Engine) -> Result<String> {
    const MINUTES: usize = 10;
    let stack = Stack::start(2)?;
    let replicas = stack.project.containers("api")?;
    let mut table = String::from(
        "| minute | requests/s | errors | memory of the proxy | of a replica |\n|--:|--:|--:|--:|--:|\n",
    );
    load(&stack.proxy, PORT, LOAD_CONNECTIONS, 5, || ())?;
    let mut rates = vec![];
    for minute in 1..=MINUTES {
        eprintln!("minute {minute} of {MINUTES}");
        let (report, ()) = load(&stack.proxy, PORT, LOAD_CONNECTIONS, 60, || ())?;
        let mib = |bytes: u64| bytes as f64 / MIB;
        let proxy = engine.usage(slice::from_ref(&stack.proxy))?.memory;
        let replica = engine.usage(&replicas)?.memory / replicas.len() as u64;
        table += &format!(
            "| {minute} | {:.0} | {} | {:.1} MiB | {:.1} MiB |\n",
            report.rate(),
            report.errors,
            mib(proxy),
            mib(replica)
        );
        rates.push(report.rate());
    }
    let ratio = rates[MINUTES - 1] / rates[0];
    table += &format!("\nThe last minute is {ratio:.2} of the first.\n");
    Ok(table)
}

/// What became of the requests on many connections.
#[derive(Default, Deserialize, Serialize)]
struct Outcome {
    answers: u64,
    errors: u64,
    first_error: Option<String>,
    slowest_ms: u128,
}

const CONNECTIONS: usize = 10_000;
const ASKING: usize = 1_000;
const ASKING_SECONDS: u32 = 30;

/// 10,000 open connections, of which 1,000 ask once a second.
///
/// # Errors
///
/// When the stack cannot be run, or the clients cannot open as many files.
pub fn connections() -> Result<String> {
    let stack = Stack::start(2)?;
    // This program once more, inside the proxy's network: outside, the engine's own proxy of
    // published ports needs six open files for each connection, and would be what is measured.
    let program = env::current_exe()?;
    let volume = format!("{}:/speed:ro", program.display());
    let network = format!("container:{}", stack.proxy);
    let run = ["run", "--rm", "--network", &network, "--volume", &volume];
    let clients = ["--entrypoint", "/speed", IMAGE, "--clients"];
    let outcome = docker(&[&run[..], &clients].concat())?;
    let outcome: Outcome = serde_json::from_str(&outcome)?;
    Ok(format!(
        "{CONNECTIONS} open connections, of which {ASKING} asked once a second for \
         {ASKING_SECONDS} s: {} answers, {} errors, the slowest answer after {} ms. {}\n",
        outcome.answers,
        outcome.errors,
        outcome.slowest_ms,
        outcome.first_error.unwrap_or_default()
    ))
}

/// The clients of [`connections`], who ask this host and write what became of it as JSON.
///
/// # Errors
///
/// When they may not open as many files.
pub fn clients() -> Result<String> {
    // Some of them at a time, as they would come.
    const OPENING: usize = 100;
    let files = rlimit::increase_nofile_limit(2 * CONNECTIONS as u64)?;
    if files < CONNECTIONS as u64 + 100 {
        return Err(format!("at most {files} open files: expected {CONNECTIONS} and some").into());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let opening = Arc::new(Semaphore::new(OPENING));
        let all_open = Arc::new(Barrier::new(CONNECTIONS));
        let tasks: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let (opening, all_open) = (opening.clone(), all_open.clone());
                let times = if number < ASKING { ASKING_SECONDS } else { 0 };
                tokio::spawn(async move {
                    let turn = opening.acquire().await;
                    let mut outcome = Outcome::default();
                    let connection = connect().await;
                    let mut connection = match connection {
                        Ok(connection) => connection,
                        Err(error) => {
                            outcome.errors += 1;
                            outcome.first_error = Some(error.to_string());
                            drop(turn);
                            all_open.wait().await;
                            return outcome;
                        }
                    };
                    ask(&mut connection, &mut outcome).await;
                    drop(turn);
                    all_open.wait().await;
                    // Each of those that ask does so at its own moment of a second.
                    time::sleep(
                        Duration::from_secs(1) * ((number % ASKING) as u32) / ASKING as u32,
                    )
                    .await;
                    let mut second = time::interval(Duration::from_secs(1));
                    for _ in 0..times {
                        second.tick().await;
                        ask(&mut connection, &mut outcome).await;
                    }
                    if times == 0 {
                        time::sleep(Duration::from_secs(ASKING_SECONDS.into())).await;
                    }
                    // It is still open.
                    ask(&mut connection, &mut outcome).await;
                    outcome
                })
            })
            .collect();
        let mut all = Outcome::default();
        for task in tasks {
            let one = task.await?;
            all.answers += one.answers;
            all.errors += one.errors;
            all.first_error = all.first_error.or(one.first_error);
            all.slowest_ms = all.slowest_ms.max(one.slowest_ms);
        }
        Result::Ok(all)
    })?;
    Ok(serde_json::to_string(&outcome)?)
}

type Connection = http1::SendRequest<Empty<Bytes>>;

async fn connect() -> Result<Connection> {
    let stream = TcpStream::connect(("127.0.0.1", PORT)).await?;
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

/// Asks once, on this connection and on no other.
async fn ask(connection: &mut Connection, outcome: &mut Outcome) {
    let begin = Instant::now();
    let answer = async {
        let request = Request::get("/api/hello").header("host", "localhost");
        connection.ready().await?;
        let response = connection.send_request(request.body(Empty::new())?).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Result::Ok(status)
    };
    match answer.await {
        Ok(StatusCode::OK) => outcome.answers += 1,
        other => {
            outcome.errors += 1;
            outcome.first_error.get_or_insert(format!("{other:?}"));
        }
    }
    outcome.slowest_ms = outcome.slowest_ms.max(begin.elapsed().as_millis());
}

/// The time of an image's build after a change of one line of the program, and after none.
///
/// # Errors
///
/// When the image cannot be built.
pub fn rebuild() -> Result<String> {
    let copy = tempfile::tempdir()?;
    let program = root().join("task6/back-end");
    output(
        Command::new("cp")
            .arg("-r")
            .arg(program.join("."))
            .arg(copy.path()),
    )?;
    let build = || -> Result<Duration> {
        let begin = Instant::now();
        docker(&[
            "build",
            "--tag",
            "bench-rebuild",
            &copy.path().display().to_string(),
        ])?;
        Ok(begin.elapsed())
    };
    build()?;
    let routes = copy.path().join("src/routes.rs");
    let text = fs::read_to_string(&routes)?;
    // New each time, or the engine would have it from the last.
    let greeting = format!("Hello at {}", Timestamp::now());
    fs::write(&routes, text.replace("Hello, World!", &greeting))?;
    let changed = build()?;
    let unchanged = build()?;
    docker(&["rmi", "bench-rebuild"])?;
    Ok(format!(
        "The API's image after a change of one line: {:.1} s; after none: {:.1} s\n",
        changed.as_secs_f64(),
        unchanged.as_secs_f64()
    ))
}
