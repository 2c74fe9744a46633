//! The page of the final stack, which shows the round robin.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    time::Duration,
};

use harness::{
    browser::{Browser, Key},
    project::Project,
    tools::{Tools, docker, inspect, root},
    wait,
};
use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::json;

use crate::{
    fixture::{Need, Stack, on_stack_with},
    tasks::{GREETING, HEADING, ok},
};

const PAGE: &str = "http://localhost/";
const STATUS: &str = "#status";

/// How long it may take until all replicas have had their turns, the shares are equal, and those
/// that are gone are known to be.
const TURNS: Duration = Duration::from_secs(20);

/// Longest backoff of the page, and the recovery after it.
const RECOVERY: Duration = Duration::from_secs(12);

pub fn trials(tools: Tools) -> Vec<Trial> {
    let on =
        |name, need, replicas, test| on_stack_with(tools, name, need, Stack::of(replicas), test);
    vec![
        on("the_board_shows_the_replicas", None, 2, replicas),
        on("the_board_shows_who_is_gone", None, 3, gone),
        on("the_board_says_that_nothing_answers", None, 2, silence),
        on("the_board_is_used_by_keyboard", None, 2, keyboard),
        on("the_board_sends_nothing_when_hidden", None, 2, hidden),
        on("the_board_fits_every_window", None, 1, sizes),
        on("the_board_is_accessible", Some(Need::Axe), 3, accessible),
    ]
}

/// The page in a browser.
pub struct Board {
    browser: Browser,
}

/// What the page shows for a replica.
#[derive(Debug, Deserialize)]
struct Card {
    name: String,
    state: String,
    /// As shown, in %.
    share: String,
    requests: usize,
}

/// A rectangle in the viewport, in CSS pixels.
#[derive(Debug, Deserialize)]
struct Rectangle {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Rectangle {
    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    /// Within a pixel, because positions are fractions.
    fn is_in(&self, other: &Self) -> bool {
        self.left >= other.left - 1.0
            && self.right <= other.right + 1.0
            && self.top >= other.top - 1.0
            && self.bottom <= other.bottom + 1.0
    }
}

impl Board {
    #[track_caller]
    pub fn open() -> Self {
        let browser = Browser::open(PAGE);
        browser.shows(HEADING, GREETING);
        // What moves by itself, from the opening on (https://web.dev/articles/cls).
        browser.run(
            "window.shifts = [];
             new PerformanceObserver((list) => {
               for (const shift of list.getEntries()) {
                 const nodes = shift.sources.map(({ node }) => node?.outerHTML ?? node?.data);
                 if (!shift.hadRecentInput) shifts.push([shift.value, ...nodes]);
               }
             }).observe({ type: 'layout-shift', buffered: true });",
        );
        Self { browser }
    }

    #[track_caller]
    fn cards(&self) -> Vec<Card> {
        let cards = self.browser.run(
            "return [...document.querySelectorAll('.replica')].map((card) => {
               const text = (selector) => card.querySelector(selector).textContent;
               return {
                 name: text('h2'),
                 state: text('.state'),
                 share: text('[data-is=share]'),
                 requests: Number(text('[data-is=requests]').replaceAll(',', '')),
               };
             })",
        );
        serde_json::from_value(cards).expect("cards")
    }

    /// Waits until just these replicas are on the board.
    #[track_caller]
    pub fn has(&self, replicas: &BTreeSet<String>) {
        wait::until(TURNS, || {
            let cards = self.cards();
            let names: BTreeSet<_> = cards.iter().map(|card| card.name.clone()).collect();
            if cards.len() == names.len() && names == *replicas {
                Ok(())
            } else {
                Err(format!("{names:?}, not {replicas:?}"))
            }
        });
    }

    /// Waits until the shares are equal.
    #[track_caller]
    pub fn is_even(&self) {
        wait::until(TURNS, || {
            let cards = self.cards();
            let equal = format!("{:.1} %", 100.0 / cards.len() as f64);
            if cards.iter().all(|card| card.share == equal) {
                Ok(())
            } else {
                Err(format!("{cards:?}"))
            }
        });
    }

    /// Waits until the replicas are in these states.
    #[track_caller]
    fn states(&self, expected: &BTreeMap<String, &str>) {
        wait::until(TURNS, || {
            let cards = self.cards();
            let states: BTreeMap<_, _> = cards
                .iter()
                .map(|card| (card.name.clone(), card.state.as_str()))
                .collect();
            if states == *expected {
                Ok(())
            } else {
                Err(format!("{states:?}, not {expected:?}"))
            }
        });
    }

    /// A figure of the proxy.
    #[track_caller]
    fn figure(&self, id: &str) -> usize {
        let text = self.browser.text(&format!("#{id}")).replace(',', "");
        text.parse().expect("a number")
    }

    /// Waits until a figure of the proxy is as it should be.
    #[track_caller]
    fn figure_is(&self, id: &str, right: impl Fn(usize) -> bool) {
        wait::until(TURNS, || match self.figure(id) {
            figure if right(figure) => Ok(()),
            figure => Err(format!("{id}: {figure}")),
        });
    }

    /// Waits for this state of the whole, in words.
    #[track_caller]
    fn says(&self, text: &str) {
        self.browser.shows_within(TURNS, STATUS, text);
    }

    /// That no request failed, nothing moved, and the console is empty.
    #[track_caller]
    fn nothing_wrong(&self) {
        assert_eq!(self.figure("errors"), 0);
        assert_eq!(self.browser.run("return shifts"), json!([]));
        assert_eq!(self.browser.console(), [""; 0]);
    }

    /// What does not fit into the window, if anything does not.
    #[track_caller]
    fn misfit(&self) -> Option<String> {
        let scrolls = self.browser.run(
            "const page = document.documentElement; return page.scrollWidth > page.clientWidth",
        );
        if scrolls != false {
            return Some("it scrolls sideways".to_owned());
        }
        let cut = self.browser.run(
            "return [...document.querySelectorAll('.replica, .replica *, #proxy *')]
               .filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth && clientWidth > 0)
               .map((element) => element.outerHTML)",
        );
        if cut != json!([]) {
            return Some(format!("cut off: {cut}"));
        }
        let places = self.rectangles("#proxy, .replica");
        let board = &self.rectangles("#board")[0];
        places.iter().enumerate().find_map(|(i, place)| {
            let over = places[..i].iter().find(|other| place.overlaps(other));
            match over {
                Some(other) => Some(format!("{place:?} is over {other:?}")),
                None if !place.is_in(board) => Some(format!("{place:?} is not in {board:?}")),
                None => None,
            }
        })
    }

    #[track_caller]
    fn rectangles(&self, selector: &str) -> Vec<Rectangle> {
        let rectangles = self.browser.run(&format!(
            "return [...document.querySelectorAll('{selector}')]
               .map((element) => element.getBoundingClientRect())"
        ));
        serde_json::from_value(rectangles).expect("rectangles")
    }
}

fn scale(project: &Project, replicas: usize) -> BTreeSet<String> {
    project.run(&format!(
        "docker-compose up -d --no-recreate --scale api={replicas}"
    ));
    project.host_names("api")
}

fn replicas(project: &Project) {
    let board = Board::open();
    board.has(&project.host_names("api"));
    board.is_even();
    board.says("2 replicas answer in turn.");
    // It runs by itself, at the rate it says.
    board.figure_is("per-second", |rate| rate == 5);

    let more = scale(project, 5);
    board.has(&more);
    board.is_even();
    board.says("5 replicas answer in turn.");
    let cards = board.cards();
    assert!(
        cards
            .iter()
            .all(|card| card.requests > 0 && card.state == "answers"),
        "{cards:?}"
    );
    let latency = board.browser.texts("[data-is=now], [data-is=median]");
    assert!(
        latency.iter().all(|text| text
            .strip_suffix(" ms")
            .and_then(|number| number.parse().ok())
            .is_some_and(|ms: f64| ms > 0.0)),
        "{latency:?}"
    );
    board.nothing_wrong();

    // As fast as it can, for the picture in the README.
    board.browser.run(
        "const rate = document.getElementById('rate');
         rate.value = 50;
         rate.dispatchEvent(new Event('input'));",
    );
    board.figure_is("per-second", |rate| rate >= 40);
    for _ in 0..10 {
        board
            .browser
            .run("document.getElementById('burst').click()");
    }
    board.figure_is("requests", |requests| requests >= 1000);
    board.is_even();
    board.nothing_wrong();
    let picture = board.browser.screenshot();
    if env::var_os("UPDATE_SCREENSHOT").is_some() {
        fs::write(root().join("stack/board.png"), &picture).unwrap();
    }
}

fn gone(project: &Project) {
    let board = Board::open();
    let names = project.host_names("api");
    board.has(&names);
    let victim = project.containers("api").into_iter().next().expect("three");
    let victim_name = inspect(&victim, "{{.Config.Hostname}}");
    docker(&["kill", &victim]);
    let mut states: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), "answers")).collect();
    states.insert(victim_name.clone(), "gone");
    board.states(&states);
    board.says("2 replicas answer in turn. 1 gone.");
    board.nothing_wrong();

    docker(&["start", &victim]);
    states.insert(victim_name, "answers");
    board.states(&states);
    board.is_even();
    board.says("3 replicas answer in turn.");
    board.nothing_wrong();
}

fn silence(project: &Project) {
    let board = Board::open();
    board.is_even();
    for (service, what) in [
        ("api", "No replica answers."),
        ("proxy", "The proxy does not answer."),
    ] {
        project.run(&format!("docker-compose stop {service}"));
        board.says(&format!(
            "{what} This page keeps trying and recovers by itself."
        ));
        let errors = board.figure("errors");
        assert!(errors > 0);
        assert_eq!(board.browser.text(HEADING), GREETING);

        // It asks less and less often: of the last requests, each came later after the one before,
        // once those are answered that were on their way.
        wait::until(TURNS, || {
            let pauses = board.browser.run(
                "const asked = performance.getEntriesByType('resource')
                   .filter(({ name }) => name.endsWith('/api/hello'))
                   .map(({ startTime }) => startTime).slice(-4);
                 return asked.slice(1).map((time, i) => time - asked[i]);",
            );
            let pauses: Vec<f64> = serde_json::from_value(pauses).unwrap();
            match pauses.len() == 3 && pauses.is_sorted_by(|one, next| 1.5 * one < *next) {
                true => Ok(()),
                false => Err(format!("{pauses:?}")),
            }
        });

        project.run(&format!("docker-compose start {service}"));
        board
            .browser
            .shows_within(RECOVERY, STATUS, "2 replicas answer in turn.");
        let errors = board.figure("errors");
        board.is_even();
        assert_eq!(board.figure("errors"), errors);
    }
    let console = board.browser.console();
    assert!(
        console
            .iter()
            .all(|line| line.contains("Failed to load resource")),
        "{console:?}"
    );
    assert_eq!(board.browser.run("return shifts"), json!([]));
}

fn keyboard(_: &Project) {
    let board = Board::open();
    let browser = &board.browser;
    let focused = || browser.run("return document.activeElement.id");
    // The rate is 0 until requests are answered too, and in `still` that means paused.
    board.figure_is("per-second", |rate| rate > 0);

    // The first control of the page, and what it has to say.
    browser.press(Key::Tab);
    assert_eq!(focused(), "run");
    assert_eq!(browser.text("#run"), "Pause");
    browser.press(Key::Enter);
    assert_eq!(browser.text("#run"), "Start");
    board.says("Paused.");
    let paused = still(&board);

    browser.press(Key::Tab);
    assert_eq!(focused(), "rate");
    browser.press(Key::Right);
    assert_eq!(browser.text("#rate-value"), "6");
    browser.press(Key::End);
    assert_eq!(browser.text("#rate-value"), "50");
    browser.press(Key::Home);
    assert_eq!(browser.text("#rate-value"), "1");
    browser.press(Key::Right);
    browser.press(Key::Right);

    browser.press(Key::Tab);
    assert_eq!(focused(), "burst");
    browser.press(Key::Space);
    board.figure_is("requests", |requests| requests == paused + 100);
    // Still paused, but for these.
    assert_eq!(still(&board), paused + 100);

    browser.press(Key::Tab);
    assert_eq!(focused(), "reset");
    browser.press(Key::Space);
    board.figure_is("requests", |requests| requests == 0);
    assert!(board.cards().is_empty());

    browser.run("document.getElementById('run').focus()");
    browser.press(Key::Space);
    board.figure_is("per-second", |rate| rate == 3);
    board.is_even();
    board.nothing_wrong();
}

/// Waits until the page has asked nothing for as long as it takes its rate over, and returns how
/// often it has.
#[track_caller]
fn still(board: &Board) -> usize {
    board.figure_is("per-second", |rate| rate == 0);
    board.figure("requests")
}

fn hidden(_: &Project) {
    let board = Board::open();
    board.is_even();
    let browser = &board.browser;
    browser.minimize();
    assert_eq!(browser.run("return document.visibilityState"), "hidden");
    still(&board);
    browser.restore();
    assert_eq!(browser.run("return document.visibilityState"), "visible");
    let requests = board.figure("requests");
    board.figure_is("requests", |now| now >= requests + 10);
    // Nobody was gone meanwhile.
    board.says("2 replicas answer in turn.");
    board.is_even();
    board.nothing_wrong();
}

/// How long a replica may take to move to another place.
const MOVED: Duration = Duration::from_secs(3);

/// The widths of a small and of a usual phone, a tablet, and wide screens.
const WIDTHS: [u32; 5] = [320, 390, 800, 1280, 1920];

fn sizes(project: &Project) {
    let board = Board::open();
    board.says("1 replica answers.");
    for count in [1, 3, 8, 12] {
        board.has(&scale(project, count));
        for width in WIDTHS {
            board.browser.size(width, 900);
            // Once they have moved to their places.
            wait::until(MOVED, || match board.misfit() {
                None => Ok(()),
                Some(misfit) => Err(format!("{count} replicas, {width} wide: {misfit}")),
            });
        }
    }
}

fn accessible(project: &Project) {
    let board = Board::open();
    board.has(&project.host_names("api"));
    let browser = &board.browser;
    let no_violations = |what: &str| {
        for scheme in ["light", "dark"] {
            browser.media(scheme, "no-preference");
            let violations = browser.accessibility_violations();
            assert!(violations.is_empty(), "{what}, {scheme}: {violations:#?}");
        }
    };
    no_violations("the board");

    // Who wants no motion sees none.
    let moving = "return document.getAnimations().length";
    wait::until(TURNS, || match browser.run(moving).as_u64() {
        Some(1..) => Ok(()),
        other => Err(format!("{other:?} animations")),
    });
    browser.media("light", "reduce");
    wait::until(TURNS, || match browser.run(moving).as_u64() {
        Some(0) => Ok(()),
        other => Err(format!("{other:?} animations")),
    });
    let requests = board.figure("requests");
    while board.figure("requests") < requests + 10 {
        assert_eq!(browser.run(moving), 0);
    }

    let victim = project.containers("api").into_iter().next().expect("three");
    docker(&["kill", &victim]);
    board.says("2 replicas answer in turn. 1 gone.");
    no_violations("with one gone");
    project.run("docker-compose stop api");
    board.says("No replica answers. This page keeps trying and recovers by itself.");
    no_violations("with no replica");

    project.run("docker-compose start api");
    ok("http://localhost/api/hello");
    for path in ["api", "no/such/page"] {
        browser.go(&format!("{PAGE}{path}"));
        no_violations(path);
    }
}
