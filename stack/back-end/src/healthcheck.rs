//! The health check: the image contains no other HTTP client.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::middleware::HEALTH;

/// Timeout of each step. A healthy replica responds within a millisecond.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checks the health of the API that listens on `address`. One request, written by hand: nothing else in the image
/// needs an HTTP client.
///
/// # Errors
///
/// When it does not respond with 200 in time. The error names the address.
pub fn ask(address: SocketAddr) -> io::Result<()> {
    let target = SocketAddr::new(reachable(address.ip()), address.port());
    let failed = |reason: String| io::Error::other(format!("{target} is not healthy: {reason}"));
    let line = status_line(target).map_err(|error| match error.kind() {
        // The first when connecting, the second when reading.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            failed(format!("no answer within {TIMEOUT:?}"))
        }
        _ => failed(error.to_string()),
    })?;
    match line.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(failed(format!("{HEALTH} answered {:?}", line.trim_end()))),
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

/// The first line of the response.
fn status_line(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {HEALTH} HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n"
    )?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}
