//! Compression and caching of the pages.

use std::{fs, thread, time::Duration};

use harness::{
    browser::Browser,
    container::{Container, Network},
    http,
    load::Load,
    project::Project,
    tools::{Tools, docker, root},
    wait,
};
use libtest_mimic::Trial;

use crate::{
    fixture::{Stack, on_stack, with},
    tasks::ok,
};

const PAGE: &str = "http://localhost/";

/// Time for a new version of the front-end to be seen after `up`.
const UPDATED: Duration = Duration::from_secs(2);

/// How long the front-end is gone or hangs.
const GONE: Duration = Duration::from_secs(3);

pub fn trials(tools: Tools) -> Vec<Trial> {
    let name = "the_page_is_compressed_and_never_stale";
    vec![
        on_stack(tools, name, Stack::of(1), cached),
        on_stack(
            tools,
            "no_page_is_lost_without_the_front_end",
            Stack::of(1),
            without_front_end,
        ),
        on_stack(
            tools,
            "pages_of_hosts_and_encodings_are_kept_apart",
            Stack::of(1),
            apart,
        ),
    ]
}

/// Asserts that no page is lost while something happens to the front-end.
#[track_caller]
fn nothing_lost(case: &str, limit: Duration, happens: impl FnOnce()) {
    let load = Load::start(80, "/");
    happens();
    load.stop().assert_nothing_lost(case, limit);
}

fn without_front_end(project: &Project) {
    ok(PAGE);
    let front_end = || project.container("front-end");
    nothing_lost("front-end recreated", Duration::from_millis(1500), || {
        project.run("docker-compose up -d --no-deps --force-recreate front-end");
    });
    ok(PAGE);
    let killed = front_end();
    nothing_lost("front-end killed", Duration::from_millis(1500), || {
        docker(&["kill", &killed]);
        thread::sleep(GONE);
        docker(&["start", &killed]);
    });
    // The proxy waits for 2 s, and serves the page that it has.
    let paused = front_end();
    nothing_lost("front-end hangs", Duration::from_millis(2500), || {
        docker(&["pause", &paused]);
        thread::sleep(GONE);
        docker(&["unpause", &paused]);
    });
}

fn apart(_: &Project) {
    let ask = |host: &str, path: &str, encoding: &str| {
        let headers = [("host", host), ("accept-encoding", encoding)];
        let url = format!("{PAGE}{path}");
        http::send(&http::client(), "GET", &url, &headers).unwrap()
    };
    for _ in 0..2 {
        for host in ["one.example", "two.example"] {
            let plain = ask(host, "style.css", "identity");
            assert_eq!(plain.header("content-encoding"), "");
            assert!(plain.body.starts_with(":root"), "{plain:?}");
            let compressed = ask(host, "style.css", "gzip");
            assert_eq!(compressed.header("content-encoding"), "gzip");
            assert!(ask(host, "board.js", "identity").body.starts_with("//"));
            assert_eq!(ask(host, "no/such/page", "gzip").status, 404);
        }
    }
}

/// Cases with fixtures of their own.
pub fn others(tools: Tools) -> Vec<Trial> {
    vec![with(tools, "the_cache_knows_hosts_and_schemes", keys)]
}

/// A front-end whose pages depend on the host and the scheme that the client used.
fn keys(tools: Tools) {
    tools.run("stack", "docker build -t hello-proxy:stack proxy");
    let network = Network::new("keys");
    let echo = "echo 'server { listen 9000; return 200 \"$http_host $http_x_forwarded_proto\"; }' \
                > /etc/nginx/conf.d/default.conf && exec nginx -g 'daemon off;'";
    let on_network = ["--network", &network.name];
    let alias = [&on_network[..], &["--network-alias", "front-end"]].concat();
    let _front_end =
        Container::run_command("echo-front-end", "nginx:1.30", &alias, &["sh", "-c", echo]);
    let options = [
        &on_network[..],
        &["--publish", "80:80", "--env", "TRUSTED_PROXIES=0.0.0.0/0"],
    ];
    let _proxy = Container::run("hello-proxy:stack", &options.concat());
    wait::until(Duration::from_secs(10), || match http::get(PAGE) {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for _ in 0..2 {
        for host in ["one.example", "two.example:81"] {
            for scheme in ["http", "https"] {
                let headers = [("host", host), ("x-forwarded-proto", scheme)];
                let answer = http::send(&http::client(), "GET", PAGE, &headers).unwrap();
                assert_eq!(answer.body, format!("{host} {scheme}"));
            }
        }
    }
}

fn cached(project: &Project) {
    let ask = |path: &str, headers: &[(&str, &str)]| {
        http::send(&http::client(), "GET", &format!("{PAGE}{path}"), headers).unwrap()
    };
    let html = root().join("stack/front-end/html");
    for (path, file, content_type) in [
        ("", "index.html", "text/html"),
        ("board.js", "board.js", "application/javascript"),
        ("style.css", "style.css", "text/css"),
        ("icon.svg", "icon.svg", "image/svg+xml"),
    ] {
        let whole = ask(path, &[]);
        assert_eq!(whole.body, fs::read_to_string(html.join(file)).unwrap());
        assert_eq!(whole.header("content-type"), content_type);
        assert_eq!(whole.header("cache-control"), "no-cache", "{path}");
        let compressed = ask(path, &[("accept-encoding", "gzip")]);
        assert_eq!(compressed.header("content-encoding"), "gzip", "{path}");
        assert_eq!(compressed.header("vary"), "Accept-Encoding", "{path}");

        // A cached page is revalidated.
        let tag = compressed.header("etag").to_owned();
        assert!(!tag.is_empty(), "{path}");
        let same = ask(path, &[("if-none-match", &tag)]);
        assert_eq!(same.status, 304, "{path}");
        assert_eq!(same.header("cache-control"), "no-cache", "{path}");
    }

    // After an update, a browser with the old script in its cache runs the new one.
    let browser = Browser::open(PAGE);
    browser.shows("title", "Round robin");
    browser.go("about:blank");
    project.run(
        "printf 'FROM hello-front-end:stack\\nUSER root\\nRUN echo \\047document.title = \"New\"\\047 >> /var/www/html/board.js\\nUSER 101:101\\n' \
         | docker build -t hello-front-end:stack -",
    );
    project.run("docker-compose up -d --no-deps front-end");
    wait::until(UPDATED, || {
        browser.go(PAGE);
        match browser.text("title") {
            title if title == "New" => Ok(()),
            title => Err(format!("the old script: {title}")),
        }
    });
    project.run("docker-compose build front-end");
    project.run("docker-compose up -d --no-deps front-end");
    ok(PAGE);
}
