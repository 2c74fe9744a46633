//! Configuration, from environment variables.

use std::{env, ffi::OsString, net::SocketAddr, time::Duration};

use axum::http::{HeaderValue, Uri};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// How the API is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// IP address and port to listen on.
    pub address: SocketAddr,
    /// IP address and port of the metrics.
    pub metrics_address: SocketAddr,
    pub log_format: LogFormat,
    /// Levels and targets that are logged.
    pub log_filter: Targets,
    pub allowed_origins: AllowedOrigins,
    /// Deadline of a handler. Then the client gets 504.
    pub request_timeout: Duration,
    /// Time for requests in flight to finish after SIGTERM.
    pub grace_period: Duration,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Origins whose pages may read responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every origin.
    Any,
    /// These, as a browser sends them in the header `Origin`.
    Only(Vec<HeaderValue>),
}

/// Usage and variables, for `--help`.
pub const HELP: &str = "
Usage: api              serve until SIGTERM or SIGINT
       api healthcheck  exit with 0 when the API at API_ADDRESS is healthy, else say why not

Environment variables, with their defaults:
  API_ADDRESS=[::]:5252          IP address and port to listen on; [::] includes IPv4
  API_METRICS_ADDRESS=[::]:5253  IP address and port of the metrics, for Prometheus; no proxy forwards it
  API_LOG_FORMAT=text            text, for people, or json, for programs
  API_LOG_FILTER=info            a level, or TARGET=LEVEL, or several of them separated by commas
  API_ALLOWED_ORIGINS=           origins whose pages may read responses, separated by commas; * for any
  API_REQUEST_TIMEOUT=10         seconds that a handler may take; then the client gets 504
  API_GRACE_PERIOD=5             seconds that requests in flight get to finish after SIGTERM
";

impl Config {
    /// The configuration in the environment of this process.
    ///
    /// # Errors
    ///
    /// A line that names the variable, its value, and what was expected.
    pub fn from_env() -> Result<Self, String> {
        Self::from_variables(env::var_os)
    }

    /// The configuration in these variables.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn from_variables(
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Self, String> {
        // Invalid UTF-8 becomes U+FFFD, which no setting accepts.
        let text = |name, default: &str| match variable(name) {
            Some(value) => value.to_string_lossy().into_owned(),
            None => default.to_owned(),
        };
        let setting = |name, default| (name, text(name, default));
        Ok(Self {
            address: parse(setting("API_ADDRESS", "[::]:5252"), address)?,
            metrics_address: parse(setting("API_METRICS_ADDRESS", "[::]:5253"), address)?,
            log_format: parse(setting("API_LOG_FORMAT", "text"), log_format)?,
            log_filter: parse(setting("API_LOG_FILTER", "info"), log_filter)?,
            allowed_origins: parse(setting("API_ALLOWED_ORIGINS", ""), allowed_origins)?,
            request_timeout: parse(setting("API_REQUEST_TIMEOUT", "10"), timeout)?,
            grace_period: parse(setting("API_GRACE_PERIOD", "5"), seconds)?,
        })
    }
}

/// Parses a setting, a name and a value, with a function whose error is what it expected.
fn parse<T>(
    (variable, value): (&str, String),
    parser: fn(&str) -> Result<T, &'static str>,
) -> Result<T, String> {
    parser(&value).map_err(|expected| format!("{variable} is '{value}': expected {expected}"))
}

fn address(value: &str) -> Result<SocketAddr, &'static str> {
    value
        .parse()
        .map_err(|_| "an IP address and a port, such as [::]:5252")
}

fn log_format(value: &str) -> Result<LogFormat, &'static str> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("text or json"),
    }
}

fn log_filter(value: &str) -> Result<Targets, &'static str> {
    // A lone word that is no level would be taken for a target, and a misspelt level pass unseen.
    // The empty word is a level to the parser.
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let is_directive = |part: &str| part.contains('=') || is_level(part);
    match value.parse() {
        Ok(targets) if value.split(',').all(is_directive) => Ok(targets),
        _ => Err("off, error, warn, info, debug or trace, or such as info,tower_http=debug"),
    }
}

/// No origin when `value` is empty, as a variable that a compose file passes on may be.
fn allowed_origins(value: &str) -> Result<AllowedOrigins, &'static str> {
    match value {
        "" => Ok(AllowedOrigins::Only(vec![])),
        "*" => Ok(AllowedOrigins::Any),
        list => {
            let origins: Option<_> = list.split(',').map(origin).collect();
            origins
                .map(AllowedOrigins::Only)
                .ok_or("* or origins separated by commas, such as http://localhost:9000")
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

fn timeout(value: &str) -> Result<Duration, &'static str> {
    match seconds(value) {
        Ok(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err("a whole number of seconds, at least 1"),
    }
}

fn seconds(value: &str) -> Result<Duration, &'static str> {
    value
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| "a whole number of seconds")
}
