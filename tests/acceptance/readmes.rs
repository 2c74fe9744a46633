//! The READMEs: every console block is run, and what it shows is what comes.

use std::{collections::BTreeSet, fs};

use libtest_mimic::Trial;

use crate::{trial, with};
use common::{
    reader::Reader,
    readme::Step,
    tools::{Tools, root},
};

pub fn trials(tools: Tools) -> Vec<Trial> {
    vec![
        // It shows both generations, whichever the rest of it is run with.
        trial(
            format!("{tools}::readme"),
            || Tools::ALL.into_iter().find_map(Tools::missing),
            move || run(tools, "."),
        ),
        with(tools, "task0_readme", |tools| run(tools, "task0")),
        with(tools, "task1_readme", |tools| run(tools, "task1")),
        with(tools, "task2_readme", |tools| run(tools, "task2")),
        with(tools, "task3_readme", |tools| run(tools, "task3")),
        with(tools, "task4_readme", |tools| run(tools, "task4")),
        with(tools, "task5_readme", |tools| run(tools, "task5")),
        with(tools, "task6_readme", |tools| run(tools, "task6")),
    ]
}

/// Does what the README in `folder` says, from there.
fn run(tools: Tools, folder: &str) {
    let text = fs::read_to_string(root().join(folder).join("README.md")).unwrap();
    let mut reader = Reader::new(tools, folder);
    let steps = Step::all(&text);
    assert!(!steps.is_empty(), "{folder}/README.md has no console block");
    // Version 1 of compose has no --wait, and is not for the blocks that need it.
    let current_only: BTreeSet<_> = steps
        .iter()
        .filter(|step| step.line.contains(" --wait"))
        .map(|step| step.block)
        .collect();
    for mut step in steps {
        if tools == Tools::Legacy && !current_only.contains(&step.block) {
            step.line = step.line.replace("docker compose ", "docker-compose ");
        }
        reader.follow(&step);
    }
}
