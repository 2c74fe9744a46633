//! Which configuration is taken, and what is said of a wrong one.

use std::time::Duration;

use api::config::{AllowedOrigins, Config, LogFormat};

#[test]
fn the_defaults() {
    let config = Config::from_list(&["api"]).unwrap();
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
    let config = Config::from_list(&["api", "--allowed-origins=*"]).unwrap();
    assert_eq!(config.allowed_origins, AllowedOrigins::Any);
}

#[track_caller]
fn refused(argument: &str, message: &str) {
    let error = Config::from_list(&["api", argument]).unwrap_err();
    assert_eq!(error, message);
}

#[test]
fn a_wrong_address() {
    refused(
        "--address=localhost",
        "error: invalid value 'localhost' for '--address <IP:PORT>': \
         expected an IP address and a port, such as [::]:5252",
    );
}

#[test]
fn a_wrong_log_format() {
    refused(
        "--log-format=xml",
        "error: invalid value 'xml' for '--log-format <FORMAT>' [possible values: text, json]",
    );
}

#[test]
fn a_wrong_log_filter() {
    for value in ["verbose", "info,tower_http=loud", "info,"] {
        refused(
            &format!("--log-filter={value}"),
            &format!(
                "error: invalid value '{value}' for '--log-filter <FILTER>': \
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
            &format!("--allowed-origins={value}"),
            &format!(
                "error: invalid value '{value}' for '--allowed-origins <ORIGINS>': \
                 expected * or origins separated by commas, such as http://localhost:9000"
            ),
        );
    }
}

#[test]
fn a_wrong_grace_period() {
    refused(
        "--grace-period=5s",
        "error: invalid value '5s' for '--grace-period <SECONDS>': \
         expected a whole number of seconds",
    );
}

#[test]
fn a_wrong_request_timeout() {
    for value in ["0", "0.5", "10s"] {
        refused(
            &format!("--request-timeout={value}"),
            &format!(
                "error: invalid value '{value}' for '--request-timeout <SECONDS>': \
                 expected a whole number of seconds, at least 1"
            ),
        );
    }
}
