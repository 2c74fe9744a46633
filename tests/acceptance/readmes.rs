//! The READMEs: the commands of every console block print what the block shows.

use std::{collections::BTreeSet, fs};

use harness::{
    reader::Reader,
    readme::Step,
    tools::{Tools, root},
};
use libtest_mimic::Trial;

use crate::fixture::{Need, with_need};

const README: &str = "README.md";

pub fn trials(tools: Tools) -> Vec<Trial> {
    let claim = "the commands of the README print what it shows";
    let tasks = [
        |tools| run(tools, "task0", README),
        |tools| run(tools, "task1", README),
        |tools| run(tools, "task2", README),
        |tools| run(tools, "task3", README),
        |tools| run(tools, "task4", README),
        |tools| run(tools, "task5", README),
        |tools| run(tools, "task6", README),
    ];
    let tasks = (tasks.into_iter().enumerate()).map(|(number, run)| {
        with_need(
            tools,
            &format!("task{number}: {claim}"),
            Some(Need::Curl),
            run,
        )
    });
    let stack = with_need(
        tools,
        &format!("stack: {claim}"),
        Some(Need::Curl),
        |tools| run(tools, "stack", README),
    );
    let top = with_need(
        tools,
        &format!("README.md: {claim}"),
        Some(Need::Curl),
        |tools| run(tools, ".", README),
    );
    tasks.chain([stack, top]).collect()
}

/// Its updates need Compose 2.
pub fn operating(tools: Tools) -> Vec<Trial> {
    let name = "slow: the commands of OPERATING.md print what it shows";
    vec![with_need(tools, name, Some(Need::Curl), |tools| {
        run(tools, ".", "OPERATING.md")
    })]
}

/// Runs the commands of a file in `folder`, there.
fn run(tools: Tools, folder: &str, file: &str) {
    let text = fs::read_to_string(root().join(folder).join(file)).unwrap();
    let mut reader = Reader::new(tools, folder);
    let steps = Step::all(&text);
    assert!(!steps.is_empty(), "{folder}/{file} has no console block");
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
