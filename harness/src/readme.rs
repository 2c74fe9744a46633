//! The console blocks of a README: commands and their output.

use snapbox::{Assert, IntoData, assert::Action};

/// A command of a console block, and the output below it.
#[derive(Debug)]
pub struct Step {
    /// The machine in the prompt (`machine$ `); empty if there is only one.
    pub machine: String,
    pub line: String,
    /// The number of its console block.
    pub block: usize,
    expected: String,
}

impl Step {
    /// The steps of all console blocks, in order.
    pub fn all(readme: &str) -> Vec<Self> {
        let mut steps: Vec<Self> = vec![];
        let mut in_block = false;
        let mut block = 0;
        for line in readme.lines() {
            if line.starts_with("```") {
                in_block = line == "```console";
                block += usize::from(in_block);
            } else if !in_block {
            } else if let Some((machine, command)) = prompt(line) {
                steps.push(Self {
                    machine: machine.to_owned(),
                    line: command.to_owned(),
                    block,
                    expected: String::new(),
                });
            } else {
                let step = steps.last_mut().expect("a block begins with a command");
                step.expected += line;
                step.expected += "\n";
            }
        }
        steps
    }

    /// Compares actual output with the README, where `...` stands for any lines and `[..]` for any text.
    ///
    /// # Errors
    ///
    /// When they differ, with the difference.
    pub fn check(&self, actual: &str) -> Result<(), String> {
        // Not everything ends its last line, and a README shows that no more than a terminal does.
        let (actual, expected) = (actual.trim_end(), self.expected.trim_end());
        Assert::new()
            .action(Action::Verify)
            .try_eq(None, actual.into_data(), expected.into_data())
            .map_err(|error| format!("{}\n{error}", self.line))
    }
}

/// Splits a line with a prompt into machine and command.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (machine, command) = line.split_once("$ ")?;
    let is_name = machine.chars().all(|c| c.is_ascii_alphanumeric());
    is_name.then_some((machine, command))
}
