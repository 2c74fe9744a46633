//! Configuration, from environment variables or command-line options.

use std::{net::SocketAddr, process, time::Duration};

use axum::http::{HeaderValue, Uri};
use bpaf::{Args, OptionParser, ParseFailure, Parser, construct, long, pure};
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
    /// What to do instead of serving.
    pub command: Option<Command>,
}

/// What the program can do instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Exit with 0 when the API at the configured address is healthy, else say why not.
    Healthcheck,
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

/// Exit code for a wrong configuration.
const USAGE: i32 = 2;

impl Config {
    /// The configuration of this process. Exits on an invalid value, with a line that names the value and what
    /// was expected.
    pub fn from_args() -> Self {
        let wrong = |message: &str| -> ! {
            eprintln!("error: {message}");
            process::exit(USAGE)
        };
        match options().run_inner(Args::current_args()) {
            Ok(settings) => settings.parse().unwrap_or_else(|error| wrong(&error)),
            Err(ParseFailure::Stderr(message)) => wrong(&message.monochrome(true)),
            // --help and --version are no errors.
            Err(failure) => {
                failure.print_message(100);
                process::exit(0)
            }
        }
    }

    /// The configuration in `args`, which are options.
    ///
    /// # Errors
    ///
    /// A line that names the value and what was expected.
    pub fn from_list(args: &[&str]) -> Result<Self, String> {
        let settings = options().run_inner(args);
        settings.map_err(ParseFailure::unwrap_stderr)?.parse()
    }
}

/// The settings as given, not yet parsed.
struct Settings {
    address: String,
    metrics_address: String,
    log_format: String,
    log_filter: String,
    allowed_origins: String,
    request_timeout: String,
    grace_period: String,
    command: Option<Command>,
}

/// The options and their environment variables.
fn options() -> OptionParser<Settings> {
    let setting = |name, variable, metavar, default: &str, help: &str| {
        long(name)
            .env(variable)
            .help(help)
            .argument::<String>(metavar)
            .fallback(default.to_owned())
            .display_fallback()
    };
    let address = setting(
        "address",
        "API_ADDRESS",
        "IP:PORT",
        "[::]:5252",
        "IP address and port to listen on. [::] is every address, of IPv4 too.",
    );
    let metrics_address = setting(
        "metrics-address",
        "API_METRICS_ADDRESS",
        "IP:PORT",
        "[::]:5253",
        "IP address and port of the metrics, for Prometheus. Not for clients: no proxy passes it on.",
    );
    let log_format = setting(
        "log-format",
        "API_LOG_FORMAT",
        "FORMAT",
        "text",
        "How a log line is written: text, for people, or json, for programs.",
    );
    let log_filter = setting(
        "log-filter",
        "API_LOG_FILTER",
        "FILTER",
        "info",
        "What is logged: a level, or TARGET=LEVEL, or several of them separated by commas.",
    );
    let allowed_origins = setting(
        "allowed-origins",
        "API_ALLOWED_ORIGINS",
        "ORIGINS",
        "",
        "Origins whose pages may read the answers, separated by commas; * for any. A page that comes \
         from the same proxy needs none.",
    );
    let request_timeout = setting(
        "request-timeout",
        "API_REQUEST_TIMEOUT",
        "SECONDS",
        "10",
        "Seconds a handler may take; then the client gets 504. Keep the proxy's proxy_read_timeout a \
         second longer.",
    );
    let grace_period = setting(
        "grace-period",
        "API_GRACE_PERIOD",
        "SECONDS",
        "5",
        "Seconds that requests in flight get to finish when the program is told to stop. Docker kills \
         after 10.",
    );
    let command = pure(Command::Healthcheck)
        .to_options()
        .descr("Exit with 0 when the API at the configured address is healthy, else say why not.")
        .command("healthcheck")
        .optional();
    construct!(Settings {
        address,
        metrics_address,
        log_format,
        log_filter,
        allowed_origins,
        request_timeout,
        grace_period,
        command
    })
    .to_options()
    .version(env!("CARGO_PKG_VERSION"))
    .descr("An HTTP API that says hello and which replica it is.")
}

impl Settings {
    fn parse(self) -> Result<Config, String> {
        Ok(Config {
            address: parse("API_ADDRESS", &self.address, address)?,
            metrics_address: parse("API_METRICS_ADDRESS", &self.metrics_address, address)?,
            log_format: parse("API_LOG_FORMAT", &self.log_format, log_format)?,
            log_filter: parse("API_LOG_FILTER", &self.log_filter, log_filter)?,
            allowed_origins: parse(
                "API_ALLOWED_ORIGINS",
                &self.allowed_origins,
                allowed_origins,
            )?,
            request_timeout: parse("API_REQUEST_TIMEOUT", &self.request_timeout, timeout)?,
            grace_period: parse("API_GRACE_PERIOD", &self.grace_period, seconds)?,
            command: self.command,
        })
    }
}

/// Parses a setting with a function whose error is what it expected.
fn parse<T>(
    variable: &str,
    value: &str,
    parser: fn(&str) -> Result<T, &'static str>,
) -> Result<T, String> {
    parser(value).map_err(|expected| format!("{variable} is '{value}': expected {expected}"))
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
