//! What clients should not send, byte by byte: each gets the right status, and the next client
//! its answer.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use harness::{
    http,
    load::Load,
    project::Project,
    tools::{Tools, docker},
    wait,
};
use libtest_mimic::Trial;

use crate::{
    fixture::{Stack, on_stack},
    tasks::ok,
};

/// The longest that a client may hold a connection without getting anywhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections that are opened and then say nothing.
const SILENT: usize = 2000;

pub fn trials(tools: Tools) -> Vec<Trial> {
    let on = |name, test| on_stack(tools, name, Stack::of(2), test);
    vec![
        on("bad_requests_get_the_right_status", bad_requests),
        on(
            "slow: slow_and_silent_clients_are_cut_off_and_others_are_not",
            slow_clients,
        ),
        on("what_clients_claim_is_not_passed_on", claims),
        on("errors_have_the_same_headers", errors),
    ]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    let with_folder = Stack {
        replicas: 2,
        settings: &[(
            "COMPOSE_FILE",
            "docker-compose.yml:tests/acceptance/folder.yml",
        )],
    };
    vec![on_stack(
        tools,
        "pages_are_redirected_and_cached_right",
        with_folder,
        pages,
    )]
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", 80)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and reads what comes, to the end.
fn send(request: &[u8]) -> String {
    let mut stream = connect();
    // The server may have answered and closed before it has read everything.
    let _ = stream.write_all(request);
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error} after {bytes:?}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The statuses of the responses in `text`, in their order.
fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ")
        .map(|(at, version)| &text[at + version.len()..][..3])
        .collect()
}

/// A request line and headers with what every request needs, and no other.
fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n").into()
}

fn method(method: &str, path: &str, more: &str) -> Vec<u8> {
    let get = String::from_utf8(get(path, more)).unwrap();
    get.replacen("GET", method, 1).into()
}

#[rustfmt::skip]
fn table() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let long = |length| "a".repeat(length);
    let hello = "/api/hello";
    vec![
        ("header too large", get(hello, &format!("X: {}\r\n", long(40_000))), &["431"]),
        ("headers too large together", get(hello, &format!("X: {}\r\n", long(7_000)).repeat(8)), &["431"]),
        ("a cookie of 9 KB", get(hello, &format!("Cookie: a={}\r\n", long(9_000))), &["200"]),
        ("a cookie of 9 KB to a page", get("/", &format!("Cookie: a={}\r\n", long(9_000))), &["200"]),
        ("a cookie of 40 KB to a page", get("/", &format!("Cookie: a={}\r\n", long(40_000))), &["431"]),
        ("80 headers", get(hello, &"X: a\r\n".repeat(80)), &["200"]),
        ("101 headers", get(hello, &"X: a\r\n".repeat(101)), &["431"]),
        ("too many headers", get(hello, &"X: a\r\n".repeat(2_000)), &["400", "431"]),
        ("URI too long", get(&format!("/{}", long(20_000)), ""), &["414"]),
        ("URI too long for the API", get(&format!("/api/{}", long(20_000)), ""), &["414"]),
        ("body too large", method("POST", hello, "Content-Length: 10000000\r\n"), &["413"]),
        ("length that is no number", method("POST", hello, "Content-Length: ten\r\n"), &["400"]),
        ("length that is negative", method("POST", hello, "Content-Length: -1\r\n"), &["400"]),
        ("two lengths", method("POST", hello, "Content-Length: 1\r\nContent-Length: 2\r\n"), &["400"]),
        ("length and chunks", method("POST", hello, "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"), &["400"]),
        ("malformed chunks", method("POST", hello, "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), &["400"]),
        ("unknown transfer encoding", method("POST", hello, "Transfer-Encoding: rot13\r\n"), &["501"]),
        ("POST", method("POST", hello, "Content-Length: 0\r\n"), &["405"]),
        ("POST to a page", method("POST", "/", "Content-Length: 0\r\n"), &["405"]),
        ("PUT to a page", method("PUT", "/", "Content-Length: 0\r\n"), &["405"]),
        ("OPTIONS to a page", method("OPTIONS", "/", ""), &["405"]),
        ("TRACE to a page", method("TRACE", "/", ""), &["405"]),
        ("If-Match of another version of a page", get("/", "If-Match: \"other\"\r\n"), &["412"]),
        ("a range beyond the end of a page", get("/", "Range: bytes=99999-\r\n"), &["200"]),
        ("below the folder of the proxy's own pages", get("/error/nothing", ""), &["404"]),
        ("the proxy's own page", get("/error/error.html", ""), &["404"]),
        ("DELETE", method("DELETE", hello, ""), &["405"]),
        ("TRACE", method("TRACE", hello, ""), &["405"]),
        ("CONNECT", method("CONNECT", "localhost:80", ""), &["400", "405"]),
        ("a method that does not exist", method("HELLO", hello, ""), &["405"]),
        ("a method in small letters", method("get", hello, ""), &["400"]),
        ("path traversal", get("/../../etc/passwd", ""), &["400"]),
        ("path traversal, encoded", get("/%2e%2e/%2e%2e/etc/passwd", ""), &["400"]),
        ("path traversal, encoded slash", get("/..%2f..%2fetc/passwd", ""), &["400"]),
        ("path traversal out of the API", get("/api/../healthz", ""), &["404"]),
        ("NUL in the path", get("/api/\0", ""), &["400"]),
        ("NUL in the path, encoded", get("/api/%00", ""), &["400"]),
        ("invalid UTF-8 in the path", get("/api/%ff%fe", ""), &["404"]),
        ("half an escape in the path", get("/api/%4", ""), &["400"]),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &["400"]),
        ("two Hosts", get(hello, "Host: other\r\n"), &["400"]),
        ("a Host that is none", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec(), &["400"]),
        ("obsolete line folding", get(hello, "X: a\r\n b\r\n"), &["400"]),
        ("a space before the colon", get(hello, "X : a\r\n"), &["400"]),
        ("NUL in a header", get(hello, "X: a\0b\r\n"), &["400"]),
        ("bare LF", b"GET /api/hello HTTP/1.1\nHost: localhost\nConnection: close\n\n".to_vec(), &["200"]),
        ("absolute URI", get("http://localhost/api/hello", ""), &["200"]),
        ("HTTP/0.9", b"GET /api/hello\r\n".to_vec(), &[]),
        ("HTTP/1.0", b"GET /api/hello HTTP/1.0\r\n\r\n".to_vec(), &["200"]),
        ("HTTP/3.0", b"GET /api/hello HTTP/3.0\r\nHost: localhost\r\n\r\n".to_vec(), &["505"]),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &["400", "405", "505"]),
        ("Upgrade: h2c", get(hello, "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), &["200"]),
        ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &["400"]),
        ("not HTTP at all", b"hello?\r\n\r\n".to_vec(), &["400"]),
        ("Range nonsense", get("/", "Range: bytes=9-1,x-,-\r\n"), &["200"]),
        ("Expect: 100-continue", method("POST", hello, "Expect: 100-continue\r\nContent-Length: 5\r\n"), &["405"]),
    ]
}

/// A request for `path` with each byte in its URI that no URI has raw (RFC 3986), but for the space
/// and the newline, which end it.
fn raw_bytes(path: &str) -> impl Iterator<Item = (String, Vec<u8>, &'static [&'static str])> {
    let all = (0..=255).filter(|byte| b"\"<>`".contains(byte) || !(b' '..=b'~').contains(byte));
    let raw = all.filter(|byte| !b"\0\n".contains(byte));
    raw.map(move |byte| {
        let mut request = get(path, "");
        request.insert("GET ".len() + path.len(), byte);
        let name = format!("byte {byte:#04x} after {path}");
        (name, request, &["400"][..])
    })
}

fn bad_requests(_: &Project) {
    let mut wrong = vec![];
    let table = table();
    let rows = table
        .into_iter()
        .map(|(name, request, expected)| (name.to_owned(), request, expected))
        .chain(raw_bytes("/api/"))
        .chain(raw_bytes("/api/hello?q="));
    for (name, request, expected) in rows {
        let answer = send(&request);
        let statuses = statuses(&answer);
        // An interim response is none.
        let last = statuses.iter().rfind(|status| !status.starts_with('1'));
        let right = match last {
            Some(status) => expected.contains(status),
            None => expected.is_empty(),
        };
        if !right {
            wrong.push(format!("{name}: expected {expected:?}, got {statuses:?}"));
        }
        if let Some(error) = last.filter(|status| **status >= "400") {
            let line = String::from_utf8_lossy(&request);
            let for_api = line
                .split(' ')
                .nth(1)
                .is_some_and(|path| path.starts_with("/api"));
            let look = match for_api {
                true => format!("\"status\":{error}}}"),
                false => "<link rel=\"stylesheet\"".to_owned(),
            };
            if !answer.contains(&look) {
                wrong.push(format!("{name}: not like other errors: {answer}"));
            }
        }
        // Of the last response, as its status.
        let response = answer.rsplit("HTTP/1.1 ").next().unwrap_or_default();
        let headers = response.split("\r\n\r\n").next().unwrap_or_default();
        let count = |header: &str| headers.to_lowercase().matches(header).count();
        if last.is_some() && count("\r\nx-request-id: ") != 1 {
            wrong.push(format!("{name}: expected one X-Request-ID: {headers}"));
        }
        if last == Some(&"405") && count("\r\nallow: get,") != 1 {
            wrong.push(format!("{name}: expected one Allow: {headers}"));
        }
        assert_eq!(
            ok("http://localhost/api/hello").body,
            "Hello, World!",
            "after {name}"
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    // Requests on one connection, before an answer to any.
    let two = b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = send(&[&two[..], &two[..], &get("/api/hello", "")].concat());
    assert_eq!(statuses(&answer), ["200", "200", "200"]);

    // A client that leaves in the middle, of its request and of the answer.
    let mut client = connect();
    client.write_all(b"GET /api/hello HTTP/1.1\r\nHo").unwrap();
    client.shutdown(Shutdown::Both).unwrap();
    let mut client = connect();
    client.write_all(&get("/", "")).unwrap();
    drop(client);
    ok("http://localhost/api/hello");
}

/// How long it takes until a client that sends `start`, then `more` once a second, is answered or
/// cut off.
fn cut_off(start: &[u8], more: &[u8]) -> Duration {
    let begin = Instant::now();
    let mut stream = connect();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    stream.write_all(start).unwrap();
    while begin.elapsed() < PATIENCE + Duration::from_secs(5) {
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes) {
            // Nothing yet.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
        if stream.write_all(more).is_err() {
            break;
        }
    }
    begin.elapsed()
}

fn slow_clients(project: &Project) {
    thread::scope(|scope| {
        let silent = scope.spawn(silent_connections);
        let reader = scope.spawn(|| slow_reader(project));
        let slow_header = scope.spawn(|| cut_off(b"GET /api/hello HTTP/1.1\r\nX: ", b"a"));
        let slow_body = scope.spawn(|| {
            let post = method("POST", "/api/hello", "Content-Length: 1000\r\n");
            cut_off(&post, b"a")
        });
        let slow_page_body = scope.spawn(|| {
            let post = method("POST", "/", "Content-Length: 1000\r\n");
            cut_off(&post, b"a")
        });
        for client in [slow_header, slow_body, slow_page_body] {
            let time = client.join().unwrap();
            assert!(time <= PATIENCE, "{time:?}");
        }
        silent.join().unwrap();
        reader.join().unwrap();
    });
    ok("http://localhost/api/hello");
}

/// Asks for as much as it can, and takes nothing, until it and all other clients are cut off.
fn slow_reader(project: &Project) {
    let mut reader = connect();
    reader
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let request = b"GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE && reader.write_all(request).is_ok() {}
    // Between the reader and nginx the engine passes on what each sends, and may keep the reader
    // when nginx has closed. So nginx's side is looked at: port 80, 0x50, in the state established, 1.
    let proxy = project.container("proxy");
    wait::every(Duration::from_secs(1), PATIENCE, || {
        let sockets = docker(&["exec", &proxy, "cat", "/proc/net/tcp"]);
        let open = sockets.lines().filter(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns.len() > 3 && columns[1].ends_with(":0050") && columns[3] == "01"
        });
        match open.count() {
            0 => Ok(()),
            open => Err(format!("{open} connections are open")),
        }
    });
}

/// Opens connections that send half a request, and asserts that other clients lose nothing until these are closed.
fn silent_connections() {
    let begin = Instant::now();
    let half_open: Vec<_> = (0..SILENT)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"GET /api/hello HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    let load = Load::start(80, "/api/hello");
    for mut stream in half_open {
        read(&mut stream);
    }
    let time = begin.elapsed();
    let report = load.stop();
    assert!(time <= PATIENCE, "closed after {time:?}");
    println!(
        "{SILENT} half-open: {} sent, {} lost, slowest {:?}",
        report.sent(),
        report.lost.len(),
        report.slowest
    );
    assert!(report.sent() > 0);
    assert!(report.lost.is_empty(), "{:?}", report.lost.first());
}

fn claims(project: &Project) {
    let forged = [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-request-id", "forged-id"),
        ("x-served-by", "forged-replica"),
    ];
    let url = "http://localhost/api/hello";
    let answer = http::send(&http::client(), "GET", url, &forged).unwrap();
    assert!(project.host_names("api").contains(&answer.served_by()));
    let id = answer.header("x-request-id");
    assert_ne!(id, "forged-id");
    let mut client = String::new();
    for service in ["proxy", "api"] {
        let logs = || -> String {
            let containers = project.containers(service);
            containers.iter().map(|id| docker(&["logs", id])).collect()
        };
        // A line may wait a second for others.
        let line = wait::until(Duration::from_secs(5), || {
            let logs = logs();
            let line = logs.lines().find(|line| line.contains(id));
            line.map(str::to_owned)
                .ok_or_else(|| format!("{service} has no {id}: {logs}"))
        });
        let logs = logs();
        assert!(
            !logs.contains("203.0.113.7") && !logs.contains("forged"),
            "{logs}"
        );
        if service == "proxy" {
            // After the time.
            client = line.split(' ').nth(1).unwrap().to_owned();
        }
        assert!(
            line.contains(&client),
            "{service} does not name {client}: {line}"
        );
    }
}

/// What the API gets to see of a client: the truth, and nothing that the client made up.
pub fn truth(_: &Project) {
    let forged = [
        ("forwarded", "for=203.0.113.7;host=forged;proto=https"),
        ("true-client-ip", "203.0.113.7"),
        ("x-client-ip", "203.0.113.7"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-host", "forged"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-prefix", "/forged"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-server", "forged"),
        ("x-forwarded-ssl", "on"),
        ("x-real-ip", "203.0.113.7"),
        ("x-request-id", "forged"),
    ];
    let url = "http://localhost/api/headers";
    for host in ["shop.example:8080", "shop.example", "[::1]:8080"] {
        let headers = [&forged[..], &[("host", host)]].concat();
        let answer = http::send(&http::client(), "GET", url, &headers).unwrap();
        let mut headers: BTreeMap<String, Vec<String>> =
            serde_json::from_str(&answer.body).unwrap();
        let mut only = |name: &str| headers.remove(name).unwrap_or_default().join(", ");
        assert_eq!(only("host"), host);
        assert_eq!(only("x-forwarded-proto"), "http");
        assert_eq!(only("x-request-id"), answer.header("x-request-id"));
        let client: IpAddr = only("x-forwarded-for").parse().expect("an address alone");
        assert_ne!(client.to_string(), "203.0.113.7");
        for (name, _) in forged {
            assert_eq!(only(name), "", "{name}");
        }
    }
    // The host of the URI counts, when there is one (RFC 9112).
    let request = get("http://real.example:81/api/headers", "");
    let answer = send(&request);
    assert!(answer.contains(r#""host":["real.example:81"]"#), "{answer}");
}

/// A folder without its slash, and what browsers keep.
fn pages(_: &Project) {
    ok("http://localhost/docs/");
    let answer = http::get("http://localhost/docs").unwrap();
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), "/docs/");

    let page = ok("http://localhost/");
    let known = [("if-none-match", page.header("etag"))];
    let url = "http://localhost/";
    let same = http::send(&http::client(), "GET", url, &known).unwrap();
    assert_eq!(same.status, 304);
    for name in ["vary", "cache-control", "etag"] {
        assert_eq!(same.header(name), page.header(name), "{name}");
    }
    assert_eq!(same.header("vary"), "Accept-Encoding");
    let zipped = [("accept-encoding", "gzip")];
    let zipped = http::send(&http::client(), "GET", url, &zipped).unwrap();
    assert_eq!(zipped.header("content-encoding"), "gzip");
    assert_eq!(zipped.headers.get_all("vary").iter().count(), 1);
}

fn errors(_: &Project) {
    let long = "a".repeat(20_000);
    for path in [
        "/",
        "/api",
        "/api/hello",
        "/api/nothing",
        "/nothing",
        "/error/style.css",
        "/error/nothing",
        &format!("/{long}"),
        &format!("/api/{long}"),
    ] {
        let answer = http::get(&format!("http://localhost{path}")).unwrap();
        assert_eq!(answer.header("server"), "nginx", "{path:.20}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(
            answer.header("x-content-type-options"),
            "nosniff",
            "{path:.20}"
        );
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path:.20}");
        assert_eq!(
            answer.header("referrer-policy"),
            "no-referrer",
            "{path:.20}"
        );
        if !path.starts_with("/api") || answer.header("x-served-by").is_empty() {
            assert_eq!(answer.header("cache-control"), "no-cache", "{path:.20}");
        }
        if answer.status.is_client_error() {
            let expected = if path.starts_with("/api") {
                "application/json"
            } else {
                "text/html"
            };
            assert_eq!(answer.header("content-type"), expected, "{path:.20}");
        }
    }
}
