//! What happens to requests and connections when the server is told to stop.

use std::{
    future::pending,
    io::{Read, Write},
    net,
    sync::Arc,
    time::{Duration, Instant},
};

use api::server;
use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{self, timeout},
};

const DEADLINE: Duration = Duration::from_secs(5);

/// Stops a server while it works on a request, and returns what the client gets. `released` says
/// whether the handler finishes after the stop or never.
async fn stop_in_flight(grace_period: Duration, released: bool) -> String {
    let (begun, release, stop) = <(Arc<Notify>, Arc<Notify>, Arc<Notify>)>::default();
    let handler = {
        let (begun, release) = (begun.clone(), release.clone());
        async move || {
            begun.notify_one();
            release.notified().await;
            "finished"
        }
    };
    let app = Router::new().route("/", get(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stopped = stop.clone().notified_owned();
    let server = tokio::spawn(server::serve(listener, app, stopped, grace_period));

    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(request).await.unwrap();
    begun.notified().await;
    stop.notify_one();
    let refuses = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, refuses).await.unwrap();
    if released {
        release.notify_one();
    }

    timeout(DEADLINE, server).await.unwrap().unwrap().unwrap();
    if !released {
        return String::new();
    }
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn it_is_finished() {
    let response = stop_in_flight(2 * DEADLINE, true).await;
    assert!(response.ends_with("finished"), "{response}");
}

#[tokio::test]
async fn it_is_given_up_after_the_grace_period() {
    stop_in_flight(Duration::from_millis(10), false).await;
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Sends a request, and returns the response, whose body is `hello`.
async fn ask(client: &mut TcpStream) -> String {
    client.write_all(GET).await.unwrap();
    let mut response = vec![];
    while !response.ends_with(b"hello") {
        let read = client.read_buf(&mut response);
        assert_ne!(timeout(DEADLINE, read).await.unwrap().unwrap(), 0);
    }
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn open_connections_are_drained() {
    let stop = Arc::<Notify>::default();
    let app = Router::new().route("/", get("hello"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stopped = stop.clone().notified_owned();
    let server = tokio::spawn(server::serve(listener, app, stopped, DEADLINE));
    let mut used = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    for client in [&mut used, &mut idle] {
        assert!(!ask(client).await.contains("connection: close"));
    }

    stop.notify_one();
    let begin = Instant::now();
    let refuses = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, refuses).await.unwrap();
    // Another request on an open connection is the last one on it.
    assert!(ask(&mut used).await.contains("connection: close"));
    for client in [&mut used, &mut idle] {
        let end = timeout(DEADLINE, client.read_u8()).await.unwrap();
        end.expect_err("the connection is closed");
    }
    timeout(DEADLINE, server).await.unwrap().unwrap().unwrap();
    let time = begin.elapsed();
    assert!((900..1500).contains(&time.as_millis()), "{time:?}");
}

#[tokio::test]
async fn without_connections_it_stops_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begin = Instant::now();
    let server = server::serve(listener, Router::new(), async {}, DEADLINE);
    timeout(DEADLINE, server).await.unwrap().unwrap();
    assert!(begin.elapsed().as_millis() < 500, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = (0..100).map(|_| {
        let mut client = net::TcpStream::connect(address).unwrap();
        client.write_all(GET).unwrap();
        client
    });
    let clients: Vec<_> = clients.collect();
    let app = Router::new().route("/", get("hello"));
    let server = server::serve(listener, app, async {}, DEADLINE);
    timeout(DEADLINE, server).await.unwrap().unwrap();
    for mut client in clients {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }
}

// The clock stands still but for what is waited for.
#[tokio::test(start_paused = true)]
async fn idle_connections_outlive_those_of_nginx_and_then_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/", get("hello"));
    tokio::spawn(server::serve(listener, app, pending(), DEADLINE));
    let mut client = TcpStream::connect(address).await.unwrap();
    ask(&mut client).await;
    let begin = time::Instant::now();
    let end = client.read_u8().await;
    end.expect_err("the connection is closed");
    assert_eq!(begin.elapsed().as_secs(), 75);
}
