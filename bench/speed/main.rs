//! How fast the stack is, beside what people would use instead: `cargo bench --bench speed`.
//!
//! Prints each table. A run of all cases also writes them to `bench/README.md`; the steady case draws
//! `bench/speed.svg`.

mod builds;
mod chart;
mod compare;
mod contender;
mod https;
mod instructions;
mod machine;
mod notes;
mod open_loop;
mod overload;
mod stack;

use std::{error::Error, fs, process::ExitCode, result};

use clap::{Parser, ValueEnum};
use harness::{
    tools::{self, root},
    usage::Engine,
    wrk,
};

/// What goes wrong with files and programs. What goes wrong with containers ends the benchmark.
pub type Result<T> = result::Result<T, Box<dyn Error + Send + Sync>>;

/// The beginning of bench/README.md.
const INTRODUCTION: &str = "\
# How fast it is

The output of `cargo bench --bench speed`. Other users share the machine, so compare figures of one table only. Contenders take
turns, and each is paused while another is measured. Unless their name says otherwise, all proxies write a line of log for each
request, as this stack does: a proxy that writes none does less work.

";

/// Measures how fast the stack is, beside what people would use instead.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench speed --")]
struct Arguments {
    /// What to measure; everything when nothing is named.
    cases: Vec<Case>,
    /// What cargo bench adds.
    #[arg(long, hide = true)]
    bench: bool,
    /// What `instructions` counts.
    #[arg(long, hide = true, requires = "requests")]
    in_process: Option<String>,
    #[arg(long, hide = true)]
    requests: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 64 connections that are kept: this stack and the others, in turns
    Steady,
    /// More than this stack and HAProxy can do
    Overload,
    /// A fixed rate, also while a replica is killed or hangs, and a version is rolled out
    OpenLoop,
    /// One request a connection
    NewConnections,
    /// The front page and its files
    Pages,
    /// Notes in PostgreSQL, written and read: this stack and Flask
    Notes,
    /// HTTPS: requests on kept connections, and handshakes
    Https,
    /// CPU instructions of a request in the API (needs valgrind)
    Instructions,
    /// Builds with nothing cached, and after a change of one line
    Builds,
    /// From 1 to 8 replicas
    Replicas,
    /// 10,000 open connections
    Connections,
    /// Ten minutes of load
    Endurance,
}

impl Case {
    /// What a reader needs to know about the figures.
    fn note(self) -> &'static str {
        match self {
            Self::OpenLoop => {
                "No request waits for the response to another one, so the latencies include what a pause does to \
                 clients that come meanwhile.\n\n"
            }
            Self::Notes => {
                "The API is that of `examples/notes`, and in the classic the same in Flask with psycopg and its pool. Each \
                 has its own PostgreSQL, with the same image and settings. A new note has 100 characters of text.\n\n"
            }
            Self::Instructions => {
                "Counted by valgrind in-process, so the figures do not depend on the load of the machine.\n\n"
            }
            _ => "",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Steady => "Steady: `GET /api/hello`, 64 connections, 2 replicas",
            Self::Overload => "Overload",
            Self::OpenLoop => "Open loop: 5,000 requests a second for 30 s, 3 replicas",
            Self::NewConnections => "New connections",
            Self::Pages => "Pages",
            Self::Notes => "Notes in PostgreSQL: 16 connections, 2 replicas",
            Self::Https => "HTTPS",
            Self::Instructions => "Instructions",
            Self::Builds => "Builds",
            Self::Replicas => "From 1 to 8 replicas",
            Self::Connections => "Many connections",
            Self::Endurance => "Ten minutes",
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (arguments.in_process, arguments.requests) {
        (Some(case), Some(requests)) => instructions::run(&case, requests),
        _ => run(&arguments.cases),
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
    tools::base_images()?;
    let engine = Engine::connect();
    wrk::build();
    let all = Case::value_variants();
    let cases = if cases.is_empty() { all } else { cases };
    let mut report = INTRODUCTION.to_owned() + &machine::describe()?;
    for case in cases {
        let text = match case {
            Case::Steady => {
                let figures = compare::steady(&engine);
                // Without the last two, which are no alternatives to this stack.
                let (alternatives, _) = figures.split_at(figures.len() - 2);
                chart::write(&root().join("bench/speed.svg"), alternatives)?;
                format!("{}\n{}", compare::table(&figures), machine::versions())
            }
            Case::Overload => overload::overload(),
            Case::OpenLoop => open_loop::open_loop(),
            Case::NewConnections => compare::new_connections(),
            Case::Pages => compare::pages(),
            Case::Notes => notes::notes()?,
            Case::Https => https::https(&engine)?,
            Case::Instructions => instructions::instructions()?,
            Case::Builds => builds::builds()?,
            Case::Replicas => stack::replicas(&engine),
            Case::Connections => stack::connections()?,
            Case::Endurance => stack::endurance(&engine),
        };
        println!("{text}");
        report += &format!("\n## {}\n\n{}{text}", case.title(), case.note());
    }
    if cases == all {
        fs::write(root().join("bench/README.md"), report)?;
    }
    Ok(())
}
