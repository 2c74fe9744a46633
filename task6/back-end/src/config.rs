//! Configuration, read once at the start from the environment or the command line.

use std::{ffi::OsString, net::SocketAddr, process, time::Duration};

use axum::http::{HeaderValue, Uri};
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// An HTTP API that says hello and which replica it is.
#[derive(Clone, Debug, Parser)]
#[command(name = "api", version)]
pub struct Config {
    /// IP address and port to listen on. [::] is every address, of IPv4 too.
    #[arg(
        long,
        env = "API_ADDRESS",
        value_name = "IP:PORT",
        default_value = "[::]:5252",
        value_parser = address
    )]
    pub address: SocketAddr,

    /// IP address and port of the metrics, for Prometheus. Not for clients: no proxy passes it on.
    #[arg(
        long,
        env = "API_METRICS_ADDRESS",
        value_name = "IP:PORT",
        default_value = "[::]:5253",
        value_parser = address
    )]
    pub metrics_address: SocketAddr,

    /// How a log line is written.
    #[arg(
        long,
        env = "API_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// What is logged: a level, or TARGET=LEVEL, or several of them separated by commas.
    #[arg(
        long,
        env = "API_LOG_FILTER",
        value_name = "FILTER",
        default_value = "info",
        value_parser = log_filter
    )]
    pub log_filter: Targets,

    /// Origins whose pages may read the answers, separated by commas; * for any. A page that comes
    /// from the same proxy needs none.
    #[arg(
        long,
        env = "API_ALLOWED_ORIGINS",
        value_name = "ORIGINS",
        default_value = "",
        hide_default_value = true,
        value_parser = allowed_origins
    )]
    pub allowed_origins: AllowedOrigins,

    /// Seconds a handler may take; then the client gets 504. Keep the proxy's proxy_read_timeout a
    /// second longer.
    #[arg(
        long,
        env = "API_REQUEST_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10",
        value_parser = timeout
    )]
    pub request_timeout: Duration,

    /// Seconds that requests in flight get to finish when the program is told to stop. Docker
    /// kills after 10.
    #[arg(
        long,
        env = "API_GRACE_PERIOD",
        value_name = "SECONDS",
        default_value = "5",
        value_parser = seconds
    )]
    pub grace_period: Duration,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do instead of serving.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Exit with 0 when the API at the configured address is healthy, else say why not.
    Healthcheck,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// The origins whose pages may read the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every origin.
    Any,
    /// These, as a browser sends them in the header `Origin`.
    Only(Vec<HeaderValue>),
}

impl Config {
    /// The configuration of this process. A wrong value ends it, with a line that names the value
    /// and what was expected.
    pub fn from_args() -> Self {
        match Self::try_parse() {
            Ok(config) => config,
            // --help and --version are no errors, and have many lines.
            Err(error) if !error.use_stderr() => error.exit(),
            Err(error) => {
                eprintln!("{}", one_line(&error));
                process::exit(error.exit_code());
            }
        }
    }

    /// The configuration in `args`, of which the first is the name of the program.
    ///
    /// # Errors
    ///
    /// A line that names the value and what was expected.
    pub fn from_list(args: &[&str]) -> Result<Self, String> {
        Self::try_parse_from(args.iter().map(OsString::from)).map_err(|error| one_line(&error))
    }
}

/// The first paragraph of a message, which says what is wrong; the others say where to find help.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn address(value: &str) -> Result<SocketAddr, String> {
    value
        .parse()
        .map_err(|_| "expected an IP address and a port, such as [::]:5252".to_owned())
}

fn log_filter(value: &str) -> Result<Targets, String> {
    let expected =
        "expected off, error, warn, info, debug or trace, or such as info,tower_http=debug";
    // A lone word that is no level would be taken for a target, and a misspelt level pass unseen.
    // The empty word is a level to the parser.
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let is_directive = |part: &str| part.contains('=') || is_level(part);
    match value.parse() {
        Ok(targets) if value.split(',').all(is_directive) => Ok(targets),
        _ => Err(expected.to_owned()),
    }
}

/// No origin when `value` is empty, as a variable that a compose file passes on may be.
fn allowed_origins(value: &str) -> Result<AllowedOrigins, String> {
    match value {
        "" => Ok(AllowedOrigins::Only(vec![])),
        "*" => Ok(AllowedOrigins::Any),
        list => {
            let origins: Option<_> = list.split(',').map(origin).collect();
            origins.map(AllowedOrigins::Only).ok_or_else(|| {
                "expected * or origins separated by commas, such as http://localhost:9000"
                    .to_owned()
            })
        }
    }
}

/// An origin is a scheme, a host and a port, and a browser sends no slash after them.
fn origin(value: &str) -> Option<HeaderValue> {
    let uri: Uri = value.parse().ok()?;
    let (scheme, authority) = (uri.scheme()?, uri.authority()?);
    let is_origin = value == format!("{scheme}://{authority}");
    is_origin.then(|| value.parse().ok()).flatten()
}

fn timeout(value: &str) -> Result<Duration, String> {
    match seconds(value) {
        Ok(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err("expected a whole number of seconds, at least 1".to_owned()),
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    value
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| "expected a whole number of seconds".to_owned())
}
