//! Which configuration is taken, and what is said of a wrong one.

use std::time::Duration;

use api::config::{AllowedOrigins, Config, LogFormat};

/// The configuration with one variable, as `NAME=value`.
fn config(setting: &str) -> Result<Config, String> {
    Config::from_variables(|name| {
        let (set, value) = setting.split_once('=')?;
        (set == name).then(|| value.into())
    })
}

#[test]
fn the_defaults() {
    let config = config("").unwrap();
    assert_eq!(config.address.to_string(), "[::]:5252");
    assert_eq!(config.metrics_address.to_string(), "[::]:5253");
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.log_filter, "info".parse().unwrap());
    assert_eq!(config.allowed_origins, AllowedOrigins::Only(vec![]));
    assert_eq!(config.request_timeout, Duration::from_secs(10));
    assert_eq!(config.grace_period, Duration::from_secs(5));
}

#[test]
fn any_origin() {
    let config = config("API_ALLOWED_ORIGINS=*").unwrap();
    assert_eq!(config.allowed_origins, AllowedOrigins::Any);
}

#[track_caller]
fn refused(setting: &str, message: &str) {
    let error = config(setting).unwrap_err();
    assert_eq!(error, message);
}

#[test]
fn a_wrong_address() {
    refused(
        "API_ADDRESS=localhost",
        "API_ADDRESS is 'localhost': \
         expected an IP address and a port, such as [::]:5252",
    );
}

#[test]
fn a_wrong_log_format() {
    refused(
        "API_LOG_FORMAT=xml",
        "API_LOG_FORMAT is 'xml': expected text or json",
    );
}

#[test]
fn a_wrong_log_filter() {
    for value in ["verbose", "info,tower_http=loud", "info,"] {
        refused(
            &format!("API_LOG_FILTER={value}"),
            &format!(
                "API_LOG_FILTER is '{value}': \
                 expected off, error, warn, info, debug or trace, or such as info,tower_http=debug"
            ),
        );
    }
}

#[test]
fn a_wrong_origin() {
    for value in [
        "localhost:9000",
        "http://localhost:9000/",
        "null",
        "http://a b",
        "http://one.test, http://two.test",
        "http://one.test,",
    ] {
        refused(
            &format!("API_ALLOWED_ORIGINS={value}"),
            &format!(
                "API_ALLOWED_ORIGINS is '{value}': \
                 expected * or origins separated by commas, such as http://localhost:9000"
            ),
        );
    }
}

#[test]
fn a_wrong_grace_period() {
    refused(
        "API_GRACE_PERIOD=5s",
        "API_GRACE_PERIOD is '5s': \
         expected a whole number of seconds",
    );
}

#[test]
fn a_wrong_request_timeout() {
    for value in ["0", "0.5", "10s"] {
        refused(
            &format!("API_REQUEST_TIMEOUT={value}"),
            &format!(
                "API_REQUEST_TIMEOUT is '{value}': \
                 expected a whole number of seconds, at least 1"
            ),
        );
    }
}
