//! The READMEs: the commands of every console block print what the block shows.

use std::{collections::BTreeSet, fs};

use harness::{
    reader::Reader,
    readme::Action,
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
    let break_it = with_need(
        tools,
        &format!("stack: {}", claim.replace("the README", "break-it.md")),
        Some(Need::Curl),
        |tools| run(tools, ".", "stack/break-it.md"),
    );
    tasks.chain([stack, break_it, top]).collect()
}

/// Its updates need Compose 2.
pub fn operating(tools: Tools) -> Vec<Trial> {
    let name = "slow: the commands of OPERATING.md print what it shows";
    vec![with_need(tools, name, Some(Need::Curl), |tools| {
        run(tools, ".", "OPERATING.md")
    })]
}

/// Does what a file says in `folder`, in a copy of this checkout.
fn run(tools: Tools, folder: &str, file: &str) {
    let text = fs::read_to_string(root().join(folder).join(file)).unwrap();
    let mut reader = Reader::of_a_copy(tools, folder);
    let actions = Action::all(&text);
    let steps = actions.iter().filter_map(|action| match action {
        Action::Run(step) => Some(step),
        _ => None,
    });
    // Version 1 of compose has no --wait, and is not for the blocks that need it.
    let current_only: BTreeSet<_> = steps
        .filter(|step| step.line.contains(" --wait"))
        .map(|step| step.block)
        .collect();
    assert!(!actions.is_empty(), "{folder}/{file} says nothing to do");
    for mut action in actions {
        if let Action::Run(step) = &mut action
            && tools == Tools::Legacy
            && !current_only.contains(&step.block)
        {
            step.line = as_version_1(&step.line);
            let expected = step.expected.lines().map(as_version_1);
            step.expected = expected.collect::<Vec<_>>().join("\n");
        }
        reader.follow(&action);
    }
}

/// A line for version 1 of compose, whose containers are named `task6_api_1` and not `task6-api-1`.
fn as_version_1(line: &str) -> String {
    let line = line.replace("docker compose ", "docker-compose ");
    let words = line.split(' ').map(|word| {
        let parts: Vec<_> = word.split('-').collect();
        match parts[..] {
            [project, .., number] if parts.len() > 2 && number.parse::<u8>().is_ok() => {
                let service = &word[project.len() + 1..word.len() - number.len() - 1];
                format!("{project}_{service}_{number}")
            }
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
