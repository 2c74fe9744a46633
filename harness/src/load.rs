//! Load: clients that send requests without pause, or at a fixed rate, while something happens to the stack.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{interval, timeout},
};
use tokio_rustls::TlsConnector;

use crate::container;

/// Timeout of a client. Its request is then lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time before anything happens to the stack, in which the machine's own slowness is measured.
const CALM: Duration = Duration::from_secs(1);

/// A response may take the limit of its case, and in addition this many times the slowest response of the calm
/// second. On an idle machine that is some 20 ms; when other programs take its cores, they delay what is tested, too.
const ALLOWANCE: u32 = 4;

/// How much later than on an idle machine a change may have taken effect, at most: half of the shortest time in which
/// shares are counted.
const MOST_LATE: Duration = Duration::from_millis(500);

/// What is sent, by how many clients, each over its own connection.
#[derive(Clone)]
pub struct Requests {
    pub method: Method,
    pub path: &'static str,
    pub clients: usize,
    /// The status of a good response.
    pub status: StatusCode,
    /// For HTTPS: the host name, and the certificates that clients trust.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    /// Whether connections are kept alive.
    pub keep_alive: bool,
}

impl Requests {
    fn host(&self) -> String {
        match &self.tls {
            Some((host, _)) => host.to_str().into_owned(),
            None => "localhost".to_owned(),
        }
    }
}

/// `GET` of this path by 16 clients.
impl From<&'static str> for Requests {
    fn from(path: &'static str) -> Self {
        Self {
            method: Method::GET,
            path,
            clients: 16,
            status: StatusCode::OK,
            tls: None,
            keep_alive: true,
        }
    }
}

/// Load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    /// Until it is stopped.
    clients: Option<JoinHandle<Report>>,
}

/// The outcome of all requests.
#[derive(Default)]
pub struct Report {
    /// Good responses: when they came, and from which replica.
    pub answers: Vec<(Instant, String)>,
    /// Requests without a good response, and what came instead.
    pub lost: Vec<(Instant, String)>,
    /// Idle connections that the server had closed when a client reused them.
    pub closed: usize,
    /// The longest response time of requests that were answered after the calm second.
    pub slowest: Duration,
    /// The longest response time of the calm second.
    calm: Duration,
}

impl Report {
    /// The number of requests.
    pub fn sent(&self) -> usize {
        self.answers.len() + self.lost.len()
    }

    /// The number of good responses of each replica since `begin`.
    pub fn shares(&self, begin: Instant) -> BTreeMap<&str, usize> {
        let mut shares = BTreeMap::new();
        for (_, replica) in self.answers.iter().filter(|(when, _)| *when >= begin) {
            *shares.entry(replica.as_str()).or_default() += 1;
        }
        shares
    }

    /// Prints the outcome, and asserts that no request was lost and none took longer than `limit`, and what this
    /// machine adds to it.
    #[track_caller]
    pub fn assert_nothing_lost(&self, case: &str, limit: Duration) {
        let limit = limit.saturating_add(self.calm * ALLOWANCE);
        println!(
            "{case}: {} sent, {} lost, {} idle connections closed, slowest {:?} of {limit:?}, {:?} when calm",
            self.sent(),
            self.lost.len(),
            self.closed,
            self.slowest,
            self.calm
        );
        assert!(self.sent() > 0);
        let (count, some) = (self.lost.len(), self.lost.iter().take(5));
        assert!(
            count == 0,
            "{case}: {count} lost: {:?}",
            some.collect::<Vec<_>>()
        );
        assert!(
            self.slowest <= limit,
            "{case}: slowest {:?}, limit {limit:?}, slowest when calm {:?}",
            self.slowest,
            self.calm
        );
    }

    /// Asserts that exactly these replicas have equal shares since `settled`, and what this machine adds to it: within
    /// 2%, because clients do not start and end with a full round.
    #[track_caller]
    pub fn assert_equal_shares(&self, replicas: &BTreeSet<String>, settled: Instant) {
        let settled = settled + (self.calm * ALLOWANCE).min(MOST_LATE);
        let shares = self.shares(settled);
        assert!(
            shares.keys().copied().eq(replicas),
            "{shares:?} of {replicas:?}"
        );
        let (least, most) = (shares.values().min(), shares.values().max());
        let (Some(least), Some(most)) = (least, most) else {
            panic!("no answers");
        };
        assert!(most - least <= 2 + most / 50, "{shares:?}");
    }

    fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.lost.extend(other.lost);
        self.closed += other.closed;
        self.slowest = self.slowest.max(other.slowest);
        self.calm = self.calm.max(other.calm);
    }
}

impl Drop for Load {
    /// Stops it, so that a case that fails leaves no load to the next one.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Load {
    /// Sends `requests` to a port of this machine. Returns after a calm second.
    pub fn start(port: u16, requests: impl Into<Requests>) -> Self {
        Self::start_after(|| (), port, requests.into())
    }

    /// Sends `requests` to a port inside the network of a container.
    pub fn start_in(container: &str, port: u16, requests: impl Into<Requests>) -> Self {
        let network = container::network_of(container);
        let enter = move || container::enter(&network).expect("the right to, which root has");
        Self::start_after(enter, port, requests.into())
    }

    fn start_after(enter: impl FnOnce() + Send + 'static, port: u16, requests: Requests) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answered = Arc::<AtomicUsize>::default();
        let counter = answered.clone();
        let calm_until = Instant::now() + CALM;
        // Thousands of connections need more than the soft limit of 1,024.
        rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be read");
        let clients = thread::spawn(move || {
            enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let clients: Vec<_> = (0..requests.clients)
                    .map(|_| {
                        tokio::spawn(client(
                            port,
                            requests.clone(),
                            stopped.clone(),
                            counter.clone(),
                            calm_until,
                        ))
                    })
                    .collect();
                let mut all = Report::default();
                for client in clients {
                    all.add(client.await.expect("a client does not panic"));
                }
                all
            })
        });
        thread::sleep(calm_until.saturating_duration_since(Instant::now()));
        Self {
            stop,
            answered,
            clients: Some(clients),
        }
    }

    /// Goes on until a change must have taken effect, and half as long again, to count the shares. Returns the
    /// time from which on they must be equal.
    pub fn go_on(&self, effect: Duration) -> Instant {
        let settled = Instant::now() + effect;
        thread::sleep(effect + effect / 2);
        settled
    }

    /// Goes on for this time.
    pub fn go_on_for(&self, time: Duration) {
        thread::sleep(time);
    }

    /// The number of good responses so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops the load and returns the outcome.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.take().expect("it is stopped once");
        clients.join().expect("the load does not panic")
    }
}

type Connection = SendRequest<Empty<Bytes>>;

async fn client(
    port: u16,
    requests: Requests,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    calm_until: Instant,
) -> Report {
    let mut report = Report::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let result = timeout(
            PATIENCE,
            ask(&mut connection, port, &requests, &mut report.closed),
        )
        .await;
        let now = Instant::now();
        match result.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))) {
            Ok(replica) => {
                if !requests.keep_alive {
                    connection = None;
                }
                answered.fetch_add(1, Ordering::Relaxed);
                let slowest = match now < calm_until {
                    true => &mut report.calm,
                    false => &mut report.slowest,
                };
                *slowest = (*slowest).max(now - begin);
                report.answers.push((now, replica));
            }
            Err(error) => {
                connection = None;
                report.lost.push((now, error));
            }
        }
    }
    report
}

/// Sends one request. Like any HTTP client, retries it over a new connection if the server has closed the old
/// one (RFC 9112, section 9.3.1).
async fn ask(
    connection: &mut Option<Connection>,
    port: u16,
    requests: &Requests,
    closed: &mut usize,
) -> Result<String, String> {
    let mut response = None;
    if let Some(open) = connection.as_mut().filter(|open| !open.is_closed()) {
        match send(open, requests).await {
            Ok(answer) => response = Some(answer),
            Err(_) => *closed += 1,
        }
    }
    let response = match response {
        Some(response) => response,
        None => {
            let stream = TcpStream::connect(("127.0.0.1", port)).await;
            let stream = stream.map_err(|error| format!("no connection: {error}"))?;
            let new = match &requests.tls {
                None => handshake(stream).await?,
                Some((host, config)) => {
                    let connector = TlsConnector::from(config.clone());
                    let stream = connector.connect(host.clone(), stream).await;
                    handshake(stream.map_err(|error| format!("no TLS: {error}"))?).await?
                }
            };
            let new = connection.insert(new);
            send(new, requests)
                .await
                .map_err(|error| format!("{error:?}"))?
        }
    };
    let status = response.status();
    let replica = response.headers().get("x-served-by").cloned();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| format!("{error:?}"))?.to_bytes();
    if status == requests.status {
        let replica = replica.as_ref().and_then(|name| name.to_str().ok());
        Ok(replica.unwrap_or_default().to_owned())
    } else {
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)))
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Connection, String> {
    let (connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(driver);
    Ok(connection)
}

async fn send(
    connection: &mut Connection,
    requests: &Requests,
) -> Result<hyper::Response<Incoming>, hyper::Error> {
    connection.ready().await?;
    let request = Request::builder()
        .method(&requests.method)
        .uri(requests.path)
        .header("host", requests.host())
        .body(Empty::new())
        .expect("a path");
    connection.send_request(request).await
}

/// How long the responses to requests at a fixed rate took, from the time at which each was due.
pub struct Latencies {
    /// Of good responses, in ascending order.
    good: Vec<Duration>,
    lost: usize,
}

impl Latencies {
    /// The latency that this share of the good responses did not exceed, such as 0.99.
    ///
    /// # Panics
    ///
    /// When there is no good response.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.good.len() - 1;
        self.good[(last as f64 * share).ceil() as usize]
    }

    /// Requests without a good response.
    pub fn lost(&self) -> usize {
        self.lost
    }
}

/// Sends `rate` requests per second for this time, however long the responses take, inside the network of
/// a container. `meanwhile` runs beside it.
///
/// # Panics
///
/// Without the right to enter the network, which root has.
pub fn at_rate(
    container: &str,
    port: u16,
    rate: u32,
    time: Duration,
    meanwhile: impl FnOnce(),
) -> Latencies {
    let network = container::network_of(container);
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be read");
    let clients = thread::spawn(move || {
        container::enter(&network).expect("the right to, which root has");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(send_at_rate(port, rate, time))
    });
    meanwhile();
    clients.join().expect("the load does not panic")
}

async fn send_at_rate(port: u16, rate: u32, time: Duration) -> Latencies {
    let requests = Requests::from("/api/hello");
    // Connections that are free; a request that finds none opens one.
    let free: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let begin = Instant::now();
    let total = (rate as f64 * time.as_secs_f64()) as u32;
    let mut clients = Vec::with_capacity(total as usize);
    let mut sent = 0;
    let mut tick = interval(Duration::from_millis(1));
    while sent < total {
        tick.tick().await;
        let due_now = (begin.elapsed().as_secs_f64() * rate as f64) as u32;
        for number in sent..due_now.min(total) {
            let due = begin + time.mul_f64(f64::from(number) / f64::from(total));
            let (requests, free) = (requests.clone(), free.clone());
            clients.push(tokio::spawn(async move {
                let mut connection = pop(&free);
                let mut closed = 0;
                let answer = ask(&mut connection, port, &requests, &mut closed);
                let good = matches!(timeout(PATIENCE, answer).await, Ok(Ok(_)));
                push(&free, connection.filter(|_| good));
                good.then(|| due.elapsed())
            }));
        }
        sent = sent.max(due_now.min(total));
    }
    let mut good = vec![];
    for client in clients {
        good.extend(client.await.expect("a client does not panic"));
    }
    good.sort();
    Latencies {
        lost: total as usize - good.len(),
        good,
    }
}

fn pop(free: &Mutex<Vec<Connection>>) -> Option<Connection> {
    free.lock().expect("nobody panics").pop()
}

fn push(free: &Mutex<Vec<Connection>>, connection: Option<Connection>) {
    free.lock().expect("nobody panics").extend(connection);
}
