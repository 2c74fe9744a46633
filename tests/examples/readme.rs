//! The guide `examples/README.md` and the README of notes: their commands print what they show, and no request is lost
//! while they roll out a version.

use std::{fs, time::Duration};

use harness::{
    load::{Load, Requests},
    reader::Reader,
    readme::{Action, Step},
    tools::{Tools, root},
};
use libtest_mimic::Trial;

use crate::{
    fixture::{PORT, alone},
    writers::while_writing,
};

/// Time until the proxy has noticed that a replica has left.
const NOTICED: Duration = Duration::from_secs(3);

/// More than a server with a thread for each connection may have of the default `pids_limit`.
const READERS: usize = 80;

pub fn trials() -> Vec<Trial> {
    vec![
        alone("the README of notes does what it says", || {
            follow("examples/notes/README.md", |roll_out| {
                let written = while_writing(roll_out);
                written.assert_there("rolled out with a migration");
                assert_eq!(written.broken(""), 0);
            });
        }),
        alone("the guide does what it says", || {
            follow("examples/README.md", |roll_out| {
                let mut requests = Requests::from("/api/orders");
                requests.clients = READERS;
                let load = Load::start(PORT, requests);
                roll_out();
                load.go_on_for(NOTICED);
                load.stop()
                    .assert_nothing_lost("rolled out in Python", Duration::from_secs(2));
            });
        }),
    ]
}

/// Follows a file in a copy of this checkout. `beside` lets clients send requests beside a roll-out.
fn follow(file: &str, beside: impl Fn(&mut dyn FnMut())) {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let mut reader = Reader::of_a_copy(Tools::Current, ".")
        .with("HTTP_PORT", PORT)
        .with("REGISTRY", "examples");
    let mut actions = Action::all(&text).into_iter().map(with_our_port).peekable();
    let mut rolled_out = 0;
    while let Some(action) = actions.next() {
        let Action::Run(Step { block, line, .. }) = &action else {
            reader.follow(&action);
            continue;
        };
        if !line.contains("--no-recreate") {
            reader.follow(&action);
            continue;
        }
        // Until the old replicas are gone.
        let block = *block;
        beside(&mut || {
            reader.follow(&action);
            while let Some(next) = actions.next_if(|next| is_up(next, block)) {
                reader.follow(&next);
            }
        });
        rolled_out += 1;
    }
    assert!(rolled_out > 0, "{file} rolls out nothing");
}

fn is_up(action: &Action, of: usize) -> bool {
    matches!(action, Action::Run(step) if step.block == of && step.line.contains(" up "))
}

/// The port of these tests instead of 80.
fn with_our_port(mut action: Action) -> Action {
    if let Action::Run(step) = &mut action {
        step.line = step
            .line
            .replace("localhost/", &format!("localhost:{PORT}/"));
    }
    action
}
