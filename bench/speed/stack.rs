//! This stack by itself: more replicas, more time, more connections.

use std::{
    collections::BTreeMap,
    slice,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use harness::{
    container,
    project::Project,
    tools::{Tools, docker},
    usage::{Engine, MIB},
    wait, wrk,
};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    runtime,
    sync::{Barrier, Semaphore},
    time,
};

use crate::Result;

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
    fn start(replicas: usize) -> Self {
        let project = Project::new(Tools::Current, ".").with("HTTP_PORT", 0);
        project.run(&format!(
            "docker-compose up --detach --build --scale api={replicas}"
        ));
        let proxy = project.container("proxy");
        let published = docker(&["port", &proxy, "80"]);
        let port = published.rsplit(':').next().expect("a port");
        let address = format!("127.0.0.1:{port}");
        let stack = Self {
            project,
            proxy,
            address,
        };
        stack.served(replicas);
        stack
    }

    fn scale(&self, replicas: usize) {
        self.project.run(&format!(
            "docker-compose up --detach --no-recreate --scale api={replicas}"
        ));
    }

    /// How many requests each replica has served, asked until as many as there are have answered.
    fn served(&self, replicas: usize) -> BTreeMap<String, u64> {
        #[derive(Deserialize)]
        struct Whoami {
            replica: String,
            requests_served: u64,
        }
        let url = format!("http://{}/api/whoami", self.address);
        let mut served = BTreeMap::new();
        wait::until(Duration::from_secs(30), || -> Result<()> {
            for _ in 0..replicas {
                let text = ureq::get(&url).call()?.body_mut().read_to_string()?;
                let whoami: Whoami = serde_json::from_str(&text)?;
                served.insert(whoami.replica, whoami.requests_served);
            }
            match served.len() == replicas {
                true => Ok(()),
                false => Err(format!("{} of {replicas} replicas answer", served.len()).into()),
            }
        });
        served
    }
}

/// From 1 to 8 replicas: the rate, how far a share is from equal, and the CPU time of a request.
pub fn replicas(engine: &Engine) -> String {
    const SECONDS: u32 = 10;
    let mut table = String::from(
        "| replicas | requests/s | furthest from an equal share | CPU per request: proxy + API |\n\
         |--:|--:|--:|--:|\n",
    );
    let stack = Stack::start(1);
    for count in [1, 2, 4, 8] {
        eprintln!("{count} replicas");
        stack.scale(count);
        stack.served(count);
        let proxy = slice::from_ref(&stack.proxy);
        let api: Vec<_> = stack.project.containers("api").into_iter().collect();
        let cpu = || [engine.usage(proxy).cpu_ns, engine.usage(&api).cpu_ns];
        wrk::load(&stack.proxy, PORT, LOAD_CONNECTIONS, 2, || ());
        let (before, begin) = (stack.served(count), cpu());
        let (report, ()) = wrk::load(&stack.proxy, PORT, LOAD_CONNECTIONS, SECONDS, || ());
        let end = cpu();
        let used = [0, 1].map(|i| (end[i] - begin[i]) as f64 / 1e3 / report.requests as f64);
        let after = stack.served(count);
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
    table
}

/// Ten minutes of load: the rate, the memory and the errors of each.
pub fn endurance(engine: &Engine) -> String {
    const MINUTES: usize = 10;
    let stack = Stack::start(2);
    let replicas: Vec<_> = stack.project.containers("api").into_iter().collect();
    let mut table = String::from(
        "| minute | requests/s | errors | memory of the proxy | of a replica |\n|--:|--:|--:|--:|--:|\n",
    );
    wrk::load(&stack.proxy, PORT, LOAD_CONNECTIONS, 5, || ());
    let mut rates = vec![];
    for minute in 1..=MINUTES {
        eprintln!("minute {minute} of {MINUTES}");
        let (report, ()) = wrk::load(&stack.proxy, PORT, LOAD_CONNECTIONS, 60, || ());
        let mib = |bytes: u64| bytes as f64 / MIB;
        let proxy = engine.usage(slice::from_ref(&stack.proxy)).memory;
        let replica = engine.usage(&replicas).memory / replicas.len() as u64;
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
    table
}

/// What became of the requests on many connections.
#[derive(Default)]
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
/// When the clients cannot open as many files.
pub fn connections() -> Result<String> {
    let stack = Stack::start(2);
    // Inside the proxy's network: outside, the engine's own proxy of published ports needs six open
    // files for each connection, and would be what is measured.
    let network = container::network_of(&stack.proxy);
    let clients = thread::spawn(move || {
        container::enter(&network)?;
        clients()
    });
    let outcome = clients.join().expect("the clients do not panic")?;
    Ok(format!(
        "{CONNECTIONS} open connections, of which {ASKING} asked once a second for \
         {ASKING_SECONDS} s: {} responses, {} errors, the slowest response after {} ms. {}\n",
        outcome.answers,
        outcome.errors,
        outcome.slowest_ms,
        outcome.first_error.unwrap_or_default()
    ))
}

/// The clients of [`connections`].
fn clients() -> Result<Outcome> {
    // Some of them at a time, as they would come.
    const OPENING: usize = 100;
    let files = rlimit::increase_nofile_limit(2 * CONNECTIONS as u64)?;
    if files < CONNECTIONS as u64 + 100 {
        return Err(format!("at most {files} open files: expected {CONNECTIONS} and some").into());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
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
        Ok(all)
    })
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
