//! task0 to task5, each as somebody tries it who types the usual commands.

use std::{fs, net::TcpStream, process::Command, time::Duration};

use jiff::SignedDuration;
use libtest_mimic::Trial;

use crate::{browser::Browser, project::Project, with, with_browser};
use common::{
    container::{Container, stop},
    http::{self, Answer},
    tools::{Tools, docker, in_terminal, inspect, output, unique},
    wait,
};

/// How long a service may take to answer after its start.
pub const START: Duration = Duration::from_secs(10);

/// How long a program may take to end after SIGTERM.
pub const STOP: SignedDuration = SignedDuration::from_millis(500);

/// The most bytes that an image with the API of task 1, 2 or 3 has.
const API_SIZE: u64 = 3_000_000;

/// The heading of the pages, which is what the API says.
pub const HEADING: &str = "#dynamic-content";
pub const GREETING: &str = "Hello, World!";

/// And when it cannot be reached.
const UNREACHABLE: &str = "The API cannot be reached";

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        with(tools, "task0", task0),
        with(tools, "task1", task1),
        with(
            tools,
            "task1_compiles_only_what_changed",
            compiles_only_what_changed,
        ),
        with(tools, "task2_back_end", |tools| {
            drop(back_end(tools, "task2"))
        }),
        with(tools, "task2_front_end", task2_front_end),
        with(tools, "task3_back_end", task3_back_end),
        with_browser(tools, "task3_page", task3_page),
        with_browser(tools, "task4", task4),
        with_browser(tools, "task5", task5),
    ]
}

/// Waits for an answer that is a success, as long as a service may take to start.
#[track_caller]
pub fn ok(url: &str) -> Answer {
    ok_within(START, url)
}

/// Waits for an answer that is a success.
#[track_caller]
pub fn ok_within(limit: Duration, url: &str) -> Answer {
    wait::until(limit, || match http::get(url) {
        Ok(answer) if answer.status == 200 => Ok(answer),
        other => Err(format!("{url}: {other:?}")),
    })
}

/// That nothing listens on a port of this machine.
#[track_caller]
pub fn unreachable(port: u16) {
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "{port} can be reached"
    );
}

/// That a path answers with a page of the front-end that says it is not there.
#[track_caller]
pub fn no_page(url: &str) {
    let answer = http::get(url).unwrap();
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("<h1>Nothing here</h1>"), "{answer:?}");
    assert!(answer.body.contains("/style.css"), "{answer:?}");
}

/// Asserts that an image of an API has at most `limit` bytes and does not run as root.
#[track_caller]
pub fn api_image(image: &str, limit: u64) {
    let size: u64 = inspect(image, "{{.Size}}").parse().unwrap();
    assert!(size <= limit, "{image}: {size} bytes");
    assert_eq!(inspect(image, "{{.Config.User}}"), "65534:65534");
}

fn task0(tools: Tools) {
    tools.run(".", "docker build task0");
    tools.run("task0", "docker build -f ./Dockerfile -t hello:task0 .");
    let run = in_terminal("docker run -it --rm hello:task0");
    // A terminal ends a line with both.
    assert_eq!(tools.run("task0", &run), "Hello, World!\r\n");
    assert_eq!(docker(&["run", "--rm", "hello:task0"]), "Hello, World!");
    assert_eq!(inspect("hello:task0", "{{.Config.User}}"), "65534:65534");
}

fn task1(tools: Tools) {
    tools.run(".", "docker build task1");
    tools.run("task1", "docker build -f ./Dockerfile -t hello-api:task1 .");
    let image = "hello-api:task1";
    api_image(image, API_SIZE);

    let api = Container::run(image, &["--publish", "5252:5252"]);
    hello();
    let log = api.logs();
    assert!(log.contains("listening on 0.0.0.0:5252"), "{log}");
    assert!(log.contains("method=GET uri=/api/hello"), "{log}");

    // Another one, that finds the port in use.
    let same_network = format!("container:{}", api.name);
    let mut second = Command::new("docker");
    second.args(["run", "--rm", "--network", &same_network, image]);
    let error = output(&mut second).unwrap_err();
    assert_eq!(
        error,
        "exit status: 1
cannot listen on 0.0.0.0:5252: Address already in use (os error 98)
"
    );

    let (code, time) = stop(&api.name);
    assert_eq!(code, "0");
    assert!(time <= STOP, "{time:?}");
    drop(api);

    let api = Container::run(image, &["--publish", "5252:5252"]);
    hello();
    assert_eq!(api.signal("INT"), "0");
}

/// That an API on port 5252 answers as it should.
#[track_caller]
fn hello() {
    let answer = ok("http://localhost:5252/api/hello");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.body, "Hello, World!");
    let answer = http::get("http://localhost:5252/api/nothing").unwrap();
    assert_eq!(answer.status, 404);
    let url = "http://localhost:5252/api/hello";
    let answer = http::send(&http::client(), "POST", url, &[]).unwrap();
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

fn compiles_only_what_changed(tools: Tools) {
    tools.run("task1", "docker build -t hello-api:task1 .");
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().to_str().unwrap();
    tools.run(".", &format!("cp -r task1/. {folder}"));
    let program = copy.path().join("src/main.rs");
    let text = fs::read_to_string(&program).unwrap();
    // New in each run, or the engine would have the image from the last.
    let greeting = unique("greeting");
    fs::write(&program, text.replace("Hello, World!", &greeting)).unwrap();

    let log = tools.run(".", &format!("docker build -t hello-api:changed {folder}"));
    assert!(!log.contains("Compiling axum"), "{log}");
    assert!(log.contains("Compiling task1-api"), "{log}");
    let api = Container::run("hello-api:changed", &["--publish", "5252:5252"]);
    let answer = ok("http://localhost:5252/api/hello");
    assert_eq!(answer.body, greeting);
    drop(api);
    docker(&["rmi", "hello-api:changed"]);
}

fn back_end(tools: Tools, task: &str) -> Container {
    let image = format!("hello-api:{task}");
    let build = format!("docker build -t {image} back-end");
    tools.run(task, &build);
    api_image(&image, API_SIZE);
    let api = Container::run(&image, &["--publish", "5252:5252"]);
    hello();
    api
}

fn front_end(tools: Tools, task: &str) -> Container {
    let image = format!("hello-front-end:{task}");
    let build = format!("docker build -t {image} front-end");
    tools.run(task, &build);
    let front_end = Container::run(&image, &["--publish", "9000:9000"]);
    let answer = ok("http://localhost:9000/");
    assert_eq!(answer.header("content-type"), "text/html");
    no_page("http://localhost:9000/no/such/page");
    assert_eq!(
        ok("http://localhost:9000/style.css").header("content-type"),
        "text/css"
    );
    front_end
}

fn task2_front_end(tools: Tools) {
    let front_end = front_end(tools, "task2");
    let page = ok("http://localhost:9000/").body;
    assert!(page.contains("<h1>Hello from the front-end</h1>"), "{page}");
    let list = docker(&["exec", &front_end.name, "ls", "/var/www/html"]);
    assert_eq!(list, "404.html\nicon.svg\nindex.html\nstyle.css");
}

fn task3_back_end(tools: Tools) {
    let _api = back_end(tools, "task3");
    let ask = |method| {
        let page = [
            ("origin", "http://localhost:9000"),
            ("access-control-request-method", "GET"),
        ];
        let url = "http://localhost:5252/api/hello";
        http::send(&http::client(), method, url, &page).unwrap()
    };
    assert_eq!(ask("GET").header("access-control-allow-origin"), "*");
    let preflight = ask("OPTIONS");
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(preflight.header("access-control-allow-methods"), "GET");
}

/// That the page says hello, and nothing is wrong with it.
#[track_caller]
fn greets(url: &str) {
    let page = Browser::open(url);
    page.shows(HEADING, GREETING);
    assert_eq!(page.console(), [""; 0]);
}

/// That the page says that the API cannot be reached, and the browser why.
#[track_caller]
fn misses_the_api(url: &str) -> Browser {
    let page = Browser::open(url);
    page.shows(HEADING, UNREACHABLE);
    let console = page.console();
    let failed = |line: &String| line.contains("Failed to load resource");
    assert!(console.iter().all(failed), "{console:?}");
    page
}

fn task3_page(tools: Tools) {
    let api = back_end(tools, "task3");
    let _front_end = front_end(tools, "task3");
    let url = "http://localhost:9000/";
    greets(url);

    drop(api);
    let page = misses_the_api(url);
    let help = "Start it, then reload this page: docker run --rm -p 5252:5252 hello-api:task3";
    page.shows("#help:not([hidden])", help);
    let _api = back_end(tools, "task3");
    page.go(url);
    page.shows(HEADING, GREETING);
    page.shows("#help[hidden]", help);
}

fn task4(tools: Tools) {
    let project = Project::new(tools, "task4");
    project.run("docker-compose build");
    project.run("docker-compose up -d");
    hello();
    greets("http://localhost:9000/");
}

fn task5(tools: Tools) {
    let project = Project::new(tools, "task5");
    project.run("docker-compose build");
    project.run("docker-compose up -d");
    assert_eq!(ok("http://localhost/api/hello").body, GREETING);
    greets("http://localhost/");
    no_page("http://localhost/no/such/page");
    unreachable(5252);
    unreachable(9000);

    project.run("docker-compose stop api");
    misses_the_api("http://localhost/");
}
