//! What happens to a request in flight when the server is told to stop.

use std::{sync::Arc, time::Duration};

use api::server;
use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
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
