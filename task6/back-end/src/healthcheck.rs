//! The health check: the image contains no other HTTP client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::routes::HEALTH;

/// Timeout. A healthy replica responds within a millisecond.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checks the health of the API that listens on `address`.
///
/// # Errors
///
/// When it does not respond with 200 in time. The error names the address.
pub async fn ask(address: SocketAddr) -> io::Result<()> {
    let target = SocketAddr::new(reachable(address.ip()), address.port());
    let failed = |reason: String| io::Error::other(format!("{target} is not healthy: {reason}"));
    match timeout(TIMEOUT, status(target)).await {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("{HEALTH} answered {status}"))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {TIMEOUT:?}"))),
    }
}

/// The loopback address, if `address` is unspecified. IPv4, because Docker disables IPv6 in containers whose
/// networks have none.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        any if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        one => one,
    }
}

async fn status(target: SocketAddr) -> io::Result<StatusCode> {
    let stream = TcpStream::connect(target).await?;
    let (mut client, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // The connection does the reading and writing, and ends when the client is dropped.
    tokio::spawn(connection);
    let request = Request::get(HEALTH)
        .header(header::HOST, target.to_string())
        .body(Body::empty())
        .map_err(io::Error::other)?;
    let response = client
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    Ok(response.status())
}
