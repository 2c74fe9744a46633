//! The page of the notes, in a browser.

use std::{env, fs, time::Duration};

use harness::{
    browser::Browser,
    project::Project,
    tools::{docker, root},
    wait,
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{json, on_notes, on_notes_with_axe, send, sql};

const PAGE: &str = "http://localhost:8081/";

/// The titles of the list.
const TITLES: &str = "#notes > li > h2";

/// Time for the page to store a note, with retries.
const STORED: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        on_notes("the page stores, lists and deletes notes", stores),
        on_notes(
            "the page stores a note once, although the database was down",
            retries,
        ),
        on_notes_with_axe("the page is accessible", accessible),
    ]
}

/// Types into a field, as a user does.
#[track_caller]
fn enter(page: &Browser, field: &str, text: &str) {
    page.run(&format!("document.getElementById('{field}').focus()"));
    page.devtools("Input.insertText", json!({"text": text}));
}

#[track_caller]
fn store(page: &Browser, title: &str, text: &str) {
    enter(page, "title", title);
    enter(page, "text", text);
    page.run("document.getElementById('store').click()");
}

/// Waits for the list to have these titles.
#[track_caller]
fn lists(page: &Browser, titles: &[&str]) {
    wait::until(STORED, || match page.texts(TITLES) {
        shown if shown == titles => Ok(()),
        shown => Err(format!("{shown:?}; status: {}", page.text("#status"))),
    });
}

fn stores(project: &Project) {
    sql(project, "DELETE FROM notes");
    let page = Browser::open(PAGE);
    // A script would run here, if the page took text for HTML.
    let markup = "<img src=x onerror=alert(1)>";
    store(&page, markup, "<b>bold</b>");
    page.shows("#status", "Stored.");
    lists(&page, &[markup]);
    assert_eq!(page.text("#notes > li > p"), "<b>bold</b>");
    store(&page, "second", "");
    lists(&page, &["second", markup]);
    // The same from the API.
    page.go(PAGE);
    lists(&page, &["second", markup]);
    assert_eq!(page.console(), [""; 0]);

    store(&page, "", "");
    page.shows("#title-error", "expected 1 to 100 characters, got 0");
    assert_eq!(page.texts("[aria-invalid]").len(), 1);
    // The browser's own line about the status.
    assert_eq!(page.console().len(), 1);

    page.run("document.querySelector('#notes > li > button').click()");
    page.shows("#status", "Deleted.");
    lists(&page, &[markup]);
    assert_eq!(
        json(&send("GET", "", ""))["notes"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let insert = "INSERT INTO notes (title, text) SELECT 'many', '' FROM generate_series(1, 40)";
    sql(project, insert);
    page.go(PAGE);
    lists(&page, &["many"; 20]);
    page.run("document.getElementById('more').click()");
    lists(&page, &["many"; 40]);
    page.run("document.getElementById('more').click()");
    lists(&page, &[&["many"; 40][..], &[markup]].concat());
    assert_eq!(page.texts("#more[hidden]").len(), 1);
}

fn retries(project: &Project) {
    sql(project, "DELETE FROM notes");
    let page = Browser::open(PAGE);
    lists(&page, &[]);
    let database = project.container("database");
    docker(&["kill", &database]);
    store(&page, "once", "");
    page.shows(
        "#status",
        "The database is not available. Try again soon. Retrying.",
    );
    docker(&["start", &database]);
    page.shows_within(STORED, "#status", "Stored.");
    lists(&page, &["once"]);
    page.go(PAGE);
    lists(&page, &["once"]);

    // The list, too.
    docker(&["kill", &database]);
    page.go(PAGE);
    page.shows(
        "#status",
        "The list cannot be loaded: The database is not available. Try again soon. Retrying every second.",
    );
    docker(&["start", &database]);
    lists(&page, &["once"]);
}

fn accessible(project: &Project) {
    sql(project, "DELETE FROM notes");
    let page = Browser::open(PAGE);
    for (title, text) in [
        (
            "Groceries",
            "Bread, two litres of milk, and the good olive oil",
        ),
        ("Read", "The chapter about expand and contract"),
    ] {
        store(&page, title, text);
        page.shows("#status", "Stored.");
        page.run("document.getElementById('status').textContent = ''");
    }
    page.size(800, 720);
    let picture = page.screenshot();
    if env::var_os("UPDATE_SCREENSHOT").is_some() {
        fs::write(root().join("examples/notes/notes.png"), &picture).unwrap();
    }
    // With an error, too.
    page.run("document.getElementById('store').click()");
    page.shows("#title-error", "expected 1 to 100 characters, got 0");
    for width in [320, 1280] {
        page.size(width, 900);
        for colors in ["light", "dark"] {
            page.media(colors, "reduce");
            let violations = page.accessibility_violations();
            assert!(violations.is_empty(), "{width} {colors}: {violations:?}");
            let overflow = "return document.documentElement.scrollWidth > innerWidth";
            assert_eq!(page.run(overflow), false, "{width} {colors}");
        }
    }
}
