//! Errors as JSON: a status and a sentence.

use std::time::Duration;

use axum::{
    Json,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// An error response: `{"status":404,"error":"There is no note with this id."}`.
pub fn error(status: StatusCode, sentence: &str) -> Response {
    let body = json!({ "status": status.as_u16(), "error": sentence });
    (status, Json(body)).into_response()
}

/// Marks a response that [`explain`] gives a body.
#[derive(Clone)]
struct Unexplained;

/// An error response that no handler made: no such route or method, a panic, the deadline.
pub fn unexplained(status: StatusCode) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Unexplained);
    response
}

/// Gives [`unexplained`] responses a body. Keeps their headers, such as `Allow`. What a handler made passes unchanged.
pub fn explain(
    mut response: Response,
    method: &Method,
    path: &str,
    request_timeout: Duration,
) -> Response {
    if response.extensions_mut().remove::<Unexplained>().is_none() {
        return response;
    }
    let status = response.status();
    let error = match status {
        StatusCode::NOT_FOUND => format!("There is nothing at {path}."),
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("{path} does not answer {method}; the header Allow says what it answers.")
        }
        StatusCode::GATEWAY_TIMEOUT => format!(
            "{path} did not answer within {} seconds. The request may have been carried out.",
            request_timeout.as_secs()
        ),
        StatusCode::INTERNAL_SERVER_ERROR => {
            format!("{path} failed; the log says why, under the id in X-Request-ID.")
        }
        other => format!("{method} {path} failed: {other}."),
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, self::error(status, &error)).into_response()
}
