//! Clients that send requests without pause while something happens to the stack.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
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
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::container;

/// After this time a client gives up, and the request is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent, and by how many clients at the same time, each on a connection of its own.
#[derive(Clone)]
pub struct Requests {
    pub method: Method,
    pub path: &'static str,
    pub clients: usize,
    /// The status of a good answer.
    pub status: StatusCode,
    /// Over HTTPS to this host, with what a client trusts.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    /// Whether each connection is kept for the next request.
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

/// 16 clients that get this path.
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

/// The load, until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinHandle<Report>,
}

/// What became of the requests.
#[derive(Default)]
pub struct Report {
    /// Requests that got a good answer: when, and from which replica.
    pub answers: Vec<(Instant, String)>,
    /// Requests with another answer, or with none, and what came instead.
    pub lost: Vec<(Instant, String)>,
    /// Connections that the server closed while they were idle, found when they were used again.
    pub closed: usize,
    /// The time of the slowest answer.
    pub slowest: Duration,
}

impl Report {
    /// The number of requests.
    pub fn sent(&self) -> usize {
        self.answers.len() + self.lost.len()
    }

    /// The answers of each replica since `begin`.
    pub fn shares(&self, begin: Instant) -> BTreeMap<&str, usize> {
        let mut shares = BTreeMap::new();
        for (_, replica) in self.answers.iter().filter(|(when, _)| *when >= begin) {
            *shares.entry(replica.as_str()).or_default() += 1;
        }
        shares
    }

    /// That nothing was lost, and no answer took longer than `limit`. Says how it was.
    #[track_caller]
    pub fn assert_nothing_lost(&self, case: &str, limit: Duration) {
        println!(
            "{case}: {} sent, {} lost, {} idle connections closed, slowest {:?}",
            self.sent(),
            self.lost.len(),
            self.closed,
            self.slowest
        );
        assert!(self.sent() > 0);
        let (count, some) = (self.lost.len(), self.lost.iter().take(5));
        assert!(
            count == 0,
            "{case}: {count} lost: {:?}",
            some.collect::<Vec<_>>()
        );
        assert!(self.slowest <= limit, "{case}: slowest {:?}", self.slowest);
    }

    /// That since `settled` these replicas, and no others, have equal shares: within 2%, since the
    /// clients do not start and end on a full turn.
    #[track_caller]
    pub fn assert_equal_shares(&self, replicas: &BTreeSet<String>, settled: Instant) {
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
    }
}

impl Load {
    /// Sends `requests` to a port of this machine.
    pub fn start(port: u16, requests: impl Into<Requests>) -> Self {
        Self::start_after(|| (), port, requests.into())
    }

    /// The same inside the network of a container.
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
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Goes on for as long as a change may take to be taken up, and half of it more, for the shares
    /// to be counted in. Returns when the change must have been taken up.
    pub fn go_on(&self, taken_up: Duration) -> Instant {
        let settled = Instant::now() + taken_up;
        thread::sleep(taken_up + taken_up / 2);
        settled
    }

    /// Goes on for this time.
    pub fn go_on_for(&self, time: Duration) {
        thread::sleep(time);
    }

    /// Good answers so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the load, and says what became of the requests.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join().expect("the load does not panic")
    }
}

type Connection = SendRequest<Empty<Bytes>>;

async fn client(
    port: u16,
    requests: Requests,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
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
                report.slowest = report.slowest.max(now - begin);
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

/// Asks once, and as HTTP clients do, once more on a new connection when the server has closed the
/// one that was open (RFC 9112, section 9.3.1).
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
