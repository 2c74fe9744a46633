//! Compression and caching of the pages.

use std::fs;

use harness::{
    http,
    project::Project,
    tools::{Tools, root},
};
use libtest_mimic::Trial;

use crate::{
    browser::Browser,
    fixture::{Need, Stack, on_stack_with},
    tasks::ok,
};

const PAGE: &str = "http://localhost/";

pub fn trials(tools: Tools) -> Vec<Trial> {
    let name = "the_page_is_compressed_and_never_stale";
    vec![on_stack_with(
        tools,
        name,
        Some(Need::Browser),
        Stack::of(1),
        cached,
    )]
}

fn cached(project: &Project) {
    let ask = |path: &str, headers: &[(&str, &str)]| {
        http::send(&http::client(), "GET", &format!("{PAGE}{path}"), headers).unwrap()
    };
    let html = root().join("task6/front-end/html");
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
        "printf 'FROM hello-front-end:task6\\nUSER root\\nRUN echo \\047document.title = \"New\"\\047 >> /var/www/html/board.js\\nUSER 101:101\\n' \
         | docker build -t hello-front-end:task6 -",
    );
    project.run("docker-compose up -d --no-deps front-end");
    ok(PAGE);
    browser.go(PAGE);
    browser.shows("title", "New");
    project.run("docker-compose build front-end");
    project.run("docker-compose up -d --no-deps front-end");
    ok(PAGE);
}
