//! How fast the stack is, beside what people would use instead: `cargo bench`.
//!
//! What is measured is printed, and when it is everything, also written to `bench/README.md`. The
//! comparison is drawn in `bench/speed.svg`.

mod chart;
mod compare;
mod engine;
mod https;
mod load;
mod machine;
mod overload;
mod stack;

use std::{fs, process::ExitCode};

use clap::{Parser, ValueEnum};

use crate::engine::{Engine, Result, root};

/// Measures how fast the stack is, beside what people would use instead.
#[derive(Parser)]
#[command(bin_name = "cargo bench --")]
struct Arguments {
    /// What to measure; everything when nothing is named.
    cases: Vec<Case>,
    /// What cargo bench adds.
    #[arg(long, hide = true)]
    bench: bool,
    /// The part of `connections` that runs inside the proxy's network.
    #[arg(long, hide = true)]
    clients: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// The stack and the others, in turn
    Compare,
    /// More than the stack and HAProxy can do
    Overload,
    /// HTTPS: requests on kept connections, and handshakes
    Https,
    /// From 1 to 8 replicas
    Replicas,
    /// 10,000 open connections
    Connections,
    /// An image after a change of one line
    Rebuild,
    /// Ten minutes of load
    Endurance,
}

impl Case {
    fn title(self) -> &'static str {
        match self {
            Self::Compare => "Beside others: `GET /api/hello`, 64 connections, 2 replicas",
            Self::Overload => "Overload",
            Self::Https => "HTTPS",
            Self::Replicas => "From 1 to 8 replicas",
            Self::Connections => "Many connections",
            Self::Rebuild => "A change of the program",
            Self::Endurance => "Ten minutes",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.clients {
        stack::clients().map(|outcome| println!("{outcome}"))
    } else {
        run(&arguments.cases)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cases: &[Case]) -> Result<()> {
    let engine = Engine::connect()?;
    load::build()?;
    let all = Case::value_variants();
    let cases = if cases.is_empty() { all } else { cases };
    let mut report = String::from("# How fast it is\n\nThe output of `cargo bench`.\n\n");
    report += &machine::describe()?;
    for case in cases {
        let text = match case {
            Case::Compare => {
                let figures = compare::compare(&engine)?;
                chart::write(&root().join("bench/speed.svg"), &figures)?;
                format!("{}\n{}", compare::table(&figures), machine::versions()?)
            }
            Case::Overload => overload::overload()?,
            Case::Https => https::https(&engine)?,
            Case::Replicas => stack::replicas(&engine)?,
            Case::Connections => stack::connections()?,
            Case::Rebuild => stack::rebuild()?,
            Case::Endurance => stack::endurance(&engine)?,
        };
        println!("{text}");
        report += &format!("\n## {}\n\n{text}", case.title());
    }
    if cases == all {
        fs::write(root().join("bench/README.md"), report)?;
    }
    Ok(())
}
