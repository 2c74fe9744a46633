//! task0 to task6, with the usual commands: a case for each requirement of a task.

use std::{
    collections::BTreeSet,
    env, fs,
    net::TcpStream,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use harness::{
    browser::Browser,
    container::{Container, stop},
    http::{self, Answer},
    load::Load,
    project::{Attached, Project},
    tools::{Tools, docker, in_terminal, inspect, output, root, unique},
    wait,
};
use jiff::SignedDuration;
use libtest_mimic::Trial;

use crate::{
    fixture::{Shared, on, with},
    stack::{exact_shares, shares},
};

/// Time for a service to respond after its start.
pub const START: Duration = Duration::from_secs(10);

/// Time for `docker-compose up` in the foreground.
const UP: Duration = Duration::from_secs(60);

/// Time for a program to exit after SIGTERM.
pub const STOP: SignedDuration = SignedDuration::from_millis(500);

/// Size limit of the API images of task 1 to 3, in bytes.
const API_SIZE: u64 = 3_000_000;

/// Selector and text of the heading, which comes from the API.
pub const HEADING: &str = "#dynamic-content";
pub const GREETING: &str = "Hello, World!";

/// The heading when the API cannot be reached.
const UNREACHABLE: &str = "The API cannot be reached";

const PAGE: &str = "http://localhost:9000/";
const PROXY: &str = "http://localhost/";
const API: &str = "http://localhost/api/hello";

/// Time for task 6's proxy to notice a change: a DNS query a second, and three seconds, by a clock of whole seconds, for
/// a replica that was asked before it listened.
const FOUND: Duration = Duration::from_secs(6);

pub fn trials(tools: Tools) -> Vec<Trial> {
    let task0 = Shared("task0", build_task0);
    let task1 = Shared("task1", |tools| api(tools, "task1", "."));
    let task2_back_end = Shared("task2 back-end", |tools| api(tools, "task2", "back-end"));
    let task2_front_end = Shared("task2 front-end", |tools| front_end(tools, "task2"));
    let task3 = Shared("task3", |tools| {
        (api(tools, "task3", "back-end"), front_end(tools, "task3"))
    });
    let task4 = Shared("task4", |tools| up(tools, "task4"));
    let task5 = Shared("task5", |tools| up(tools, "task5"));
    let task6 = Shared("task6", task6_up);
    let detached = Shared("task6 detached", |tools| up(tools, "task6"));
    vec![
        on(
            tools,
            "task0: the image is built on ubuntu:latest, with apt-get update and upgrade -y",
            task0,
            |()| built_on_ubuntu(),
        ),
        on(
            tools,
            "task0: the image prints Hello, World!",
            task0,
            |()| prints_hello(),
        ),
        on(
            tools,
            "task0: the image does not run as root",
            task0,
            |()| {
                assert_eq!(inspect("hello:task0", "{{.Config.User}}"), "65534:65534");
            },
        ),
        on(
            tools,
            "task1: the API says Hello, World! on port 5252",
            task1,
            |_| hello(),
        ),
        on(
            tools,
            "task1: the image is below 3 MB and does not run as root",
            task1,
            |_| {
                api_image("hello-api:task1", API_SIZE);
            },
        ),
        on(tools, "task1: each request is in the log", task1, logged),
        on(
            tools,
            "task1: a port that is taken is an error that names it",
            task1,
            names_the_port,
        ),
        with(
            tools,
            "task1: docker stop and Ctrl-C end the API within 0.5 s, with exit code 0",
            stops,
        ),
        with(
            tools,
            "task1: a change of the program compiles only the program",
            compiles_only_what_changed,
        ),
        on(
            tools,
            "task2: back-end/ is the API on port 5252",
            task2_back_end,
            |_| {
                hello();
                api_image("hello-api:task2", API_SIZE);
            },
        ),
        on(
            tools,
            "task2: front-end/ is a page served by nginx on port 9000",
            task2_front_end,
            serves_a_page,
        ),
        on(
            tools,
            "task3: the API allows pages of other origins (CORS)",
            task3,
            |_| cors(),
        ),
        on(
            tools,
            "task3: the page shows what the API says, across origins",
            task3,
            |_| greets(PAGE),
        ),
        on(
            tools,
            "task3: the page asks the host that it comes from, which may be another machine",
            task3,
            |_| asks_its_host(),
        ),
        on(
            tools,
            "task3: the page says when the API cannot be reached, and how to start it",
            task3,
            misses_its_api,
        ),
        on(
            tools,
            "task3: without CORS (the API of task 2), the browser blocks the response and says why",
            task3,
            is_blocked,
        ),
        on(
            tools,
            "task4: docker-compose starts the API on port 5252 and the page on port 9000",
            task4,
            |_| {
                hello();
                ok(PAGE);
            },
        ),
        on(
            tools,
            "task4: the page shows what the API says",
            task4,
            |_| greets(PAGE),
        ),
        on(
            tools,
            "task5: the proxy on port 80 serves the page on / and the API on /api",
            task5,
            |_| {
                assert_eq!(ok(API).body, GREETING);
                ok(PROXY);
                no_page("http://localhost/no/such/page");
            },
        ),
        on(tools, "task5: port 80 alone is published", task5, |_| {
            unreachable(5252);
            unreachable(9000);
        }),
        on(tools, "task5: the page shows what /api says", task5, |_| {
            greets(PROXY)
        }),
        on(
            tools,
            "task5: the page says when the API cannot be reached",
            task5,
            |project| {
                project.run("docker-compose stop api");
                misses_the_api(PROXY);
                project.run("docker-compose start api");
            },
        ),
        on(
            tools,
            "task6: docker-compose up --scale api=2, the command in 2-api-servers.txt, starts two replicas",
            task6,
            |task6| assert_eq!(task6.project.host_names("api").len(), 2),
        ),
        on(
            tools,
            "task6: the replicas answer in turn (round robin), from the first request on",
            task6,
            |_| assert_eq!(Vec::from_iter(shares(API, 10).into_values()), [5, 5]),
        ),
        on(
            tools,
            "task6: the round robin is exact over all workers of the proxy",
            task6,
            |_| exact_shares(2),
        ),
        on(tools, "task6: the page shows what /api says", task6, |_| {
            greets(PROXY)
        }),
        on(
            tools,
            "task6: the images are as small as those of task 5",
            task6,
            |_| {
                api_image("hello-api:task3", API_SIZE);
                let size = |image| inspect(image, "{{.Size}}").parse::<u64>().unwrap();
                let (proxy, base) = (size("hello-proxy:task6"), size("nginx:1.30"));
                assert!(proxy - base < 10_000, "{proxy} bytes, {base} of nginx");
            },
        ),
        on(tools, "task6: port 80 alone is published", task6, |_| {
            unreachable(5252);
            unreachable(9000);
        }),
        on(tools, "task6: Ctrl-C ends everything", task6, |task6| {
            let up = task6
                .up
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            up.expect("it runs").interrupt();
            assert_eq!(task6.project.containers("api"), BTreeSet::new());
        }),
        on(
            tools,
            "task6: no GET fails when a replica is stopped or killed",
            detached,
            loses_a_replica,
        ),
        on(
            tools,
            "task6: scaled while it runs, without a restart of the proxy",
            detached,
            scaled,
        ),
    ]
}

/// Waits for a 200, for as long as a service may take to start.
#[track_caller]
pub fn ok(url: &str) -> Answer {
    ok_within(START, url)
}

/// Waits for a 200.
#[track_caller]
pub fn ok_within(limit: Duration, url: &str) -> Answer {
    wait::until(limit, || match http::get(url) {
        Ok(answer) if answer.status == 200 => Ok(answer),
        other => Err(format!("{url}: {other:?}")),
    })
}

/// Asserts that nothing listens on a port of this machine.
#[track_caller]
pub fn unreachable(port: u16) {
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "{port} can be reached"
    );
}

/// Asserts that a URL gives the front-end's 404 page.
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

fn build_task0(tools: Tools) {
    tools.run(".", "docker build task0");
    tools.run("task0", "docker build -f ./Dockerfile -t hello:task0 .");
}

fn built_on_ubuntu() {
    let layers = |image| inspect(image, "{{json .RootFS.Layers}}");
    let (ours, base) = (layers("hello:task0"), layers("ubuntu:latest"));
    let base = base.trim_end_matches(']');
    assert!(ours.starts_with(base), "{ours} does not begin with {base}");
    let history = docker(&["history", "--no-trunc", "hello:task0"]);
    for command in ["apt-get update", "apt-get upgrade -y"] {
        assert!(history.contains(command), "{history}");
    }
}

fn prints_hello() {
    let run = in_terminal("docker run -it --rm hello:task0");
    // A terminal ends lines with CRLF.
    assert_eq!(Tools::Legacy.run("task0", &run), "Hello, World!\r\n");
    assert_eq!(docker(&["run", "--rm", "hello:task0"]), "Hello, World!");
}

/// Builds and starts the API of a task on port 5252.
fn api(tools: Tools, task: &str, folder: &str) -> Container {
    let image = format!("hello-api:{task}");
    tools.run(
        task,
        &format!("docker build -f {folder}/Dockerfile -t {image} {folder}"),
    );
    let api = Container::run(&image, &["--publish", "5252:5252"]);
    ok("http://localhost:5252/api/hello");
    api
}

fn front_end(tools: Tools, task: &str) -> Container {
    let image = format!("hello-front-end:{task}");
    tools.run(task, &format!("docker build -t {image} front-end"));
    let front_end = Container::run(&image, &["--publish", "9000:9000"]);
    ok(PAGE);
    front_end
}

fn up(tools: Tools, task: &'static str) -> Project {
    let project = Project::new(tools, task);
    project.run("docker-compose build");
    project.run("docker-compose up -d");
    project
}

/// Asserts that an API on port 5252 answers as it should.
#[track_caller]
fn hello() {
    let url = "http://localhost:5252/api/hello";
    let answer = ok(url);
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.body, GREETING);
    let answer = http::get("http://localhost:5252/api/nothing").unwrap();
    assert_eq!(answer.status, 404);
    let answer = http::send(&http::client(), "POST", url, &[]).unwrap();
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

fn logged(api: &Container) {
    let log = api.logs();
    assert!(log.contains("listening on 0.0.0.0:5252"), "{log}");
    assert!(log.contains("method=GET uri=/api/hello"), "{log}");
}

fn names_the_port(api: &Container) {
    let same_network = format!("container:{}", api.name);
    let mut second = Command::new("docker");
    second.args(["run", "--rm", "--network", &same_network, "hello-api:task1"]);
    let error = output(&mut second).unwrap_err();
    assert_eq!(
        error,
        "exit status: 1
cannot listen on 0.0.0.0:5252: Address already in use (os error 98)
"
    );
}

fn stops(tools: Tools) {
    let to_stop = api(tools, "task1", ".");
    let (code, time) = stop(&to_stop.name);
    assert_eq!(code, "0");
    assert!(time <= STOP, "{time:?}");
    drop(to_stop);
    assert_eq!(api(tools, "task1", ".").signal("INT"), "0");
}

fn compiles_only_what_changed(tools: Tools) {
    tools.run("task1", "docker build -t hello-api:task1 .");
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().to_str().unwrap();
    tools.run(".", &format!("cp -r task1/. {folder}"));
    let program = copy.path().join("src/main.rs");
    let text = fs::read_to_string(&program).unwrap();
    // Unique, so that no layer is cached.
    let greeting = unique("greeting");
    fs::write(&program, text.replace("Hello, World!", &greeting)).unwrap();

    let log = tools.run(".", &format!("docker build -t hello-api:changed {folder}"));
    // The engine's own builder colours what cargo writes, in pieces of any length.
    let log = log.replace("\x1b[91m", "").replace("\x1b[0m", "");
    assert!(!log.contains("Compiling axum"), "{log}");
    assert!(log.contains("Compiling hello-api"), "{log}");
    let api = Container::run("hello-api:changed", &["--publish", "5252:5252"]);
    let answer = ok("http://localhost:5252/api/hello");
    assert_eq!(answer.body, greeting);
    drop(api);
    docker(&["rmi", "hello-api:changed"]);
}

fn serves_a_page(front_end: &Container) {
    let page = ok(PAGE);
    assert_eq!(page.header("content-type"), "text/html");
    assert!(
        page.body.contains("<h1>Hello from the front-end</h1>"),
        "{page:?}"
    );
    no_page("http://localhost:9000/no/such/page");
    let style = ok("http://localhost:9000/style.css");
    assert_eq!(style.header("content-type"), "text/css");
    let list = docker(&["exec", &front_end.name, "ls", "/var/www/html"]);
    assert_eq!(list, "404.html\nicon.svg\nindex.html\nstyle.css");
}

fn cors() {
    hello();
    let send = |method| {
        let page = [
            ("origin", "http://localhost:9000"),
            ("access-control-request-method", "GET"),
        ];
        let url = "http://localhost:5252/api/hello";
        http::send(&http::client(), method, url, &page).unwrap()
    };
    assert_eq!(send("GET").header("access-control-allow-origin"), "*");
    let preflight = send("OPTIONS");
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert_eq!(preflight.header("access-control-allow-methods"), "GET");
}

/// Asserts that the page shows the greeting, without an error in the console.
#[track_caller]
fn greets(url: &str) {
    let page = Browser::open(url);
    page.shows(HEADING, GREETING);
    assert_eq!(page.console(), [""; 0]);
}

fn asks_its_host() {
    let page = Browser::open("http://127.0.0.1:9000/");
    page.shows(HEADING, GREETING);
    let names = page.run("return performance.getEntriesByType('resource').map(({ name }) => name)");
    let names: Vec<String> = serde_json::from_value(names).unwrap();
    assert!(
        names.contains(&"http://127.0.0.1:5252/api/hello".to_owned()),
        "{names:?}"
    );
    let from_here = |name: &String| name.starts_with("http://127.0.0.1:");
    assert!(names.iter().all(from_here), "{names:?}");
}

/// Asserts that the page reports an unreachable API and that the console names the cause.
#[track_caller]
fn misses_the_api(url: &str) -> Browser {
    let page = Browser::open(url);
    page.shows(HEADING, UNREACHABLE);
    let console = page.console();
    let failed = |line: &String| line.contains("Failed to load resource");
    assert!(console.iter().all(failed), "{console:?}");
    page
}

fn misses_its_api((api, _): &(Container, Container)) {
    stop(&api.name);
    let page = misses_the_api(PAGE);
    let help = "Start it, then reload this page: docker run --rm -p 5252:5252 hello-api:task3";
    page.shows("#help:not([hidden])", help);
    docker(&["start", &api.name]);
    ok("http://localhost:5252/api/hello");
    page.go(PAGE);
    page.shows(HEADING, GREETING);
    page.shows("#help[hidden]", help);
}

/// The API of task 2 under the page of task 3.
fn is_blocked((api, _): &(Container, Container)) {
    stop(&api.name);
    let folder = root().join("task2/back-end").display().to_string();
    docker(&["build", "--quiet", "--tag", "hello-api:task2", &folder]);
    let task2 = Container::run("hello-api:task2", &["--publish", "5252:5252"]);
    ok("http://localhost:5252/api/hello");
    let page = Browser::open(PAGE);
    page.size(800, 300);
    page.shows(HEADING, UNREACHABLE);
    let console = page.console().join("\n");
    let readme = fs::read_to_string(root().join("task3/README.md")).unwrap();
    let shown = readme
        .split("```")
        .find(|block| block.contains("CORS policy"));
    let shown = shown.expect("the README shows what the console says");
    let message = shown.trim_start_matches("text").trim().replace('\n', " ");
    assert!(console.contains(&message), "{console}");
    let picture = page.screenshot();
    if env::var_os("UPDATE_SCREENSHOT").is_some() {
        fs::write(root().join("task3/blocked.png"), &picture).unwrap();
    }
    drop(task2);
    docker(&["start", &api.name]);
    ok("http://localhost:5252/api/hello");
}

/// Task 6, started in the foreground by its command.
struct Task6 {
    // Dropped before the project is taken down.
    up: Mutex<Option<Attached>>,
    project: Project,
}

fn task6_up(tools: Tools) -> Task6 {
    let command = fs::read_to_string(root().join("task6/2-api-servers.txt")).unwrap();
    assert_eq!(command, "docker-compose up --scale api=2\n");
    let project = Project::new(tools, "task6");
    project.run("docker-compose build");
    let up = project.spawn(command.trim_end());
    ok_within(UP, API);
    Task6 {
        up: Mutex::new(Some(up)),
        project,
    }
}

/// Stops one replica under load, starts it again, and kills it.
fn loses_a_replica(project: &Project) {
    all_answer(2);
    let victim = project.containers("api").into_iter().next();
    let victim = victim.expect("two replicas");
    for happens in ["stop", "kill"] {
        let load = Load::start(80, "/api/hello");
        docker(&[happens, &victim]);
        // Until the engine's DNS and the proxy have forgotten it.
        load.go_on(FOUND);
        let report = load.stop();
        // The API takes half a second to stop, and a connection to a dead address a second to fail.
        report.assert_nothing_lost(happens, Duration::from_secs(3));
        docker(&["start", &victim]);
        all_answer(2);
    }
}

fn scaled(project: &Project) {
    let proxy = inspect(&project.container("proxy"), "{{.State.StartedAt}}");
    for replicas in [3, 1, 2] {
        let scale = format!("docker-compose up -d --no-recreate --scale api={replicas}");
        project.run(&scale);
        all_answer(replicas);
    }
    let same = inspect(&project.container("proxy"), "{{.State.StartedAt}}");
    assert_eq!(same, proxy, "the proxy was restarted");
}

/// Waits until exactly so many replicas answer, and every request is answered.
#[track_caller]
fn all_answer(replicas: usize) {
    wait::until(FOUND, || {
        let mut found = BTreeSet::new();
        for _ in 0..4 * replicas {
            let answer = http::get(API).map_err(|error| error.to_string())?;
            if answer.status != 200 {
                return Err(format!("{answer:?}"));
            }
            found.insert(answer.served_by());
        }
        match found.len() == replicas {
            true => Ok(()),
            false => Err(format!("{found:?}: expected {replicas}")),
        }
    });
}
