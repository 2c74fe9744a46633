//! Request bodies that no handler reads do not end the connection.

use std::{future::pending, time::Duration};

use api::{around, config::Config, metrics::Metrics, replica::Replica, router, server};
use prometheus::IntCounter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(5);

/// Serves the API, and connects to it.
async fn connect() -> TcpStream {
    let replica = Replica::new("replica-1").unwrap();
    let config = Config::from_variables(|_| None).unwrap();
    let dropped_lines = IntCounter::new("log_lines_dropped_total", "Dropped.").unwrap();
    let metrics = Metrics::new("1.0.0", &dropped_lines).unwrap();
    let app = around(router(replica.clone()), replica, &metrics, &config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server::serve(listener, app, pending(), DEADLINE));
    TcpStream::connect(address).await.unwrap()
}

/// Reads until what came ends with `end`.
async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut response = vec![];
    while !response.ends_with(end.as_bytes()) {
        let read = client.read_buf(&mut response);
        assert_ne!(timeout(DEADLINE, read).await.unwrap().unwrap(), 0);
    }
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn a_response_does_not_wait_for_the_body_and_the_connection_outlives_it() {
    const LENGTH: usize = 900_000;
    let mut client = connect().await;
    let head =
        format!("POST /api/hello HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let response = read_until(&mut client, "}").await;
    assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
    client.write_all(&vec![b'a'; LENGTH]).await.unwrap();
    let get = b"GET /api/hello HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.write_all(get).await.unwrap();
    let response = read_until(&mut client, "Hello, World!").await;
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
}

#[tokio::test]
async fn a_body_that_is_too_large_ends_the_connection() {
    let mut client = connect().await;
    let head = "POST /api/hello HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut client, "}").await;
    let block = vec![b'a'; 1 << 20];
    let write = async { while client.write_all(&block).await.is_ok() {} };
    timeout(DEADLINE, write).await.expect("the connection ends");
}
