//! What a README tells its reader to do: the commands of its console blocks, and changes of files.

use snapbox::{Assert, IntoData, assert::Action as Snapbox};

/// Something that a README tells its reader to do.
#[derive(Debug)]
pub enum Action {
    Run(Step),
    /// A block such as "```yaml slow.yml": a file with this text.
    Write {
        file: String,
        text: String,
    },
    /// A block such as "```diff src/main.rs": `old` becomes `new` in this file.
    Change {
        file: String,
        old: String,
        new: String,
    },
}

/// A command of a console block, and the output below it.
#[derive(Debug)]
pub struct Step {
    /// The machine in the prompt (`machine$ `); empty if there is only one.
    pub machine: String,
    pub line: String,
    /// The number of its console block.
    pub block: usize,
    /// Whether it must fail: the last command of a block that begins with "```console fails".
    pub fails: bool,
    /// What it prints, where `...` stands for any lines and `[..]` for any text.
    pub expected: String,
}

impl Action {
    /// All actions of a README, in order. A block of another language without a file's name is none.
    ///
    /// # Panics
    ///
    /// When a console block does not begin with a command.
    pub fn all(readme: &str) -> Vec<Self> {
        let mut actions = vec![];
        let mut lines = readme.lines();
        let mut block = 0;
        while let Some(line) = lines.next() {
            let Some(kind) = line.strip_prefix("```") else {
                continue;
            };
            let content: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            match kind.split_once(' ') {
                _ if kind == "console" || kind == "console fails" => {
                    block += 1;
                    let mut steps = Step::of_block(&content, block);
                    if let Some(last) = steps.last_mut() {
                        last.fails = kind.ends_with("fails");
                    }
                    actions.extend(steps.into_iter().map(Self::Run));
                }
                Some(("diff", file)) => actions.push(Self::Change {
                    file: file.to_owned(),
                    old: without_mark(&content, '+'),
                    new: without_mark(&content, '-'),
                }),
                Some((_, file)) => actions.push(Self::Write {
                    file: file.to_owned(),
                    text: content.join("\n") + "\n",
                }),
                None => {}
            }
        }
        actions
    }
}

/// One side of a diff: the lines that `other` does not mark, without their first character.
fn without_mark(diff: &[&str], other: char) -> String {
    let side = diff.iter().filter(|line| !line.starts_with(other));
    side.flat_map(|line| [line.get(1..).unwrap_or_default(), "\n"])
        .collect()
}

impl Step {
    /// The steps of all console blocks, in order.
    pub fn all(readme: &str) -> Vec<Self> {
        let actions = Action::all(readme).into_iter();
        actions
            .filter_map(|action| match action {
                Action::Run(step) => Some(step),
                _ => None,
            })
            .collect()
    }

    fn of_block(lines: &[&str], block: usize) -> Vec<Self> {
        let mut steps: Vec<Self> = vec![];
        for line in lines {
            if let Some((machine, command)) = prompt(line) {
                steps.push(Self {
                    machine: machine.to_owned(),
                    line: command.to_owned(),
                    block,
                    fails: false,
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

    /// Compares actual output with what is expected.
    ///
    /// # Errors
    ///
    /// When they differ, with the difference.
    pub fn check(&self, actual: &str) -> Result<(), String> {
        // Not everything ends its last line, and a README shows that no more than a terminal does.
        let [actual, expected] =
            [actual, &self.expected].map(|text| text.trim_end().to_owned() + "\n");
        Assert::new()
            .action(Snapbox::Verify)
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
