//! What stands in front of the stack: trusted proxies, load balancers with idle connections and old health checks, and
//! a prefix that an outer proxy strips.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use harness::{
    browser::Browser,
    container::{self, Container, network_of},
    http,
    project::Project,
    tools::{Tools, docker, output},
    wait,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    busy::{has_room, upstream_with},
    fixture::{Shared, Stack, on, on_stack, with},
    stack::LOGGED,
    tasks::{GREETING, HEADING},
};

/// nginx's own default is 75 s.
const IDLE: Duration = Duration::from_secs(80);

pub fn trials(tools: Tools) -> Vec<Trial> {
    let on = |name, test| on_stack(tools, name, Stack::of(2), test);
    vec![
        on("slow: idle_connections_of_a_balancer_are_kept", idle),
        on("health_checks_may_be_http_1_0_without_host", old_checks),
        on("the_stack_works_below_a_prefix", prefix),
    ]
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    vec![
        on(
            tools,
            "trusted_proxies_tell_who_the_client_is",
            TRUSTED,
            trusted,
        ),
        with(tools, "a_wrong_setting_of_the_proxy_ends_it", wrong),
    ]
}

/// The final stack with the tests' upstream, which trusts every private address: those of the engine, too.
const TRUSTED: Shared<Project> = Shared("trusted", |tools| {
    upstream_with(
        tools,
        &[(
            "TRUSTED_PROXIES",
            "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.1,::1",
        )],
    )
});

fn trusted(project: &Project) {
    let ask = |headers: &[(&str, &str)]| -> (Value, String) {
        let url = "http://localhost/api/headers";
        let answer = http::send(&http::client(), "GET", url, headers).unwrap();
        let id = answer.header("x-request-id").to_owned();
        (serde_json::from_str(&answer.body).unwrap(), id)
    };
    // The outer proxies append: the client claimed the first, and the last is one of the trusted.
    let claimed = [
        ("x-forwarded-for", "203.0.113.7, 198.51.100.9, 10.1.2.3"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example:8443"),
    ];
    let (headers, id) = ask(&claimed);
    assert_eq!(headers["x-forwarded-for"][0], "198.51.100.9", "{headers}");
    assert_eq!(headers["x-forwarded-proto"][0], "https", "{headers}");
    assert_eq!(headers["host"][0], "shop.example:8443", "{headers}");
    assert_eq!(headers["x-forwarded-host"], Value::Null, "{headers}");
    let proxy = project.container("proxy");
    wait::until(LOGGED, || {
        let logs = docker(&["logs", "--tail", "20", &proxy]);
        let line = logs.lines().find(|line| line.contains(&id));
        match line {
            Some(line) if line.contains(" 198.51.100.9 \"GET /api/headers ") => Ok(()),
            Some(line) => panic!("{line}"),
            None => Err("not logged yet"),
        }
    });
    // What is no scheme or host is not believed.
    let (headers, _) = ask(&[
        ("x-forwarded-proto", "javascript"),
        ("x-forwarded-host", "a b"),
    ]);
    assert_eq!(headers["x-forwarded-proto"][0], "http", "{headers}");
    assert_eq!(headers["host"][0], "localhost", "{headers}");
}

fn wrong(tools: Tools) {
    tools.run("stack", "docker build -t hello-proxy:stack proxy");
    for (name, value, expected) in [
        ("SITE", "ftp", "http or https"),
        ("REQUEST_BUFFERING", "yes", "on or off"),
        (
            "TRUSTED_PROXIES",
            "balancer",
            "IP addresses or networks separated by commas, such as 192.0.2.1,2001:db8::/32",
        ),
        (
            "TRUSTED_PROXIES",
            "192.0.2.300",
            "IP addresses or networks separated by commas, such as 192.0.2.1,2001:db8::/32",
        ),
        (
            "TRUSTED_PROXIES",
            "192.0.2.1, 192.0.2.2",
            "IP addresses or networks separated by commas, such as 192.0.2.1,2001:db8::/32",
        ),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/33",
            "IP addresses or networks separated by commas, such as 192.0.2.1,2001:db8::/32",
        ),
    ] {
        let variable = format!("{name}={value}");
        let mut run = Command::new("docker");
        run.args(["run", "--rm", "--env", &variable, "hello-proxy:stack"]);
        assert_eq!(
            output(&mut run).unwrap_err(),
            format!("exit status: 1\n{name} is '{value}': expected {expected}\n")
        );
    }
}

/// Sends `GET /api/hello` on an open connection, and asserts that the response is good.
#[track_caller]
fn ask_on(stream: &TcpStream) {
    let mut writer = stream;
    writer
        .write_all(b"GET /api/hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0);
    }
    let mut body = [0; GREETING.len()];
    reader.read_exact(&mut body).unwrap();
    assert_eq!(body, GREETING.as_bytes());
}

fn idle(project: &Project) {
    const CONNECTIONS: usize = 10_000;
    // Inside the proxy's network: the engine's own proxy of published ports would need memory, too.
    let network = network_of(&project.container("proxy"));
    let streams = thread::spawn(move || {
        container::enter(&network).expect("the right to, which root has");
        let open = |_| {
            let stream = TcpStream::connect(("127.0.0.1", 80)).unwrap();
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
            ask_on(&stream);
            stream
        };
        (0..CONNECTIONS).map(open).collect::<Vec<_>>()
    });
    let streams = streams.join().unwrap();
    let begin = Instant::now();
    has_room(project);
    thread::sleep(IDLE.saturating_sub(begin.elapsed()));
    for stream in &streams {
        ask_on(stream);
    }
}

fn old_checks(_: &Project) {
    for path in ["/", "/style.css", "/api/hello"] {
        let mut stream = TcpStream::connect(("127.0.0.1", 80)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {text}");
    }
}

/// An outer proxy, which strips `/shop/`.
const OUTER: &str = "server {
    listen 9080;
    location /shop/ {
        proxy_pass http://host.docker.internal:80/;
        proxy_set_header Host $http_host;
    }
}
";

fn prefix(_: &Project) {
    let start =
        format!("echo '{OUTER}' > /etc/nginx/conf.d/default.conf && exec nginx -g 'daemon off;'");
    let outer = Container::run_command(
        "outer",
        "nginx:1.30",
        &[
            "--publish=9080:9080",
            "--add-host=host.docker.internal:host-gateway",
        ],
        &["sh", "-c", &start],
    );
    let site = "http://localhost:9080/shop/";
    wait::until(Duration::from_secs(10), || http::get(site).map(drop));
    let browser = Browser::open(site);
    browser.shows(HEADING, GREETING);
    assert_eq!(browser.console(), [""; 0]);
    // The ground of the style sheet, in light colours.
    let styled = |path: &str| {
        browser.go(&format!("{site}{path}"));
        let ground = browser.run("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground, "rgb(244, 246, 245)", "{path}");
        browser.run("return document.querySelector('a[href$=\"/\"], a:last-of-type').href")
    };
    for path in ["api", "api/", "nothing", "no/such", "no/such/page"] {
        assert_eq!(styled(path), site, "{path}");
    }
    // A page that is not there is an error in the console, and all else is none.
    let console = browser.console();
    let not_found = |line: &String| line.contains("/shop/no") && line.contains("404");
    assert!(console.iter().all(not_found), "{console:?}");
    drop(outer);
}
