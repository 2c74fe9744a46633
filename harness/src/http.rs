//! HTTP requests to published ports.

use std::time::Duration;

use ureq::{
    Agent, AsSendBody,
    http::{HeaderMap, Request, StatusCode},
};

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// As text; invalid UTF-8 is replaced.
    pub body: String,
}

impl Answer {
    /// The value of a header, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or(""))
    }

    /// The replica that sent this response.
    #[track_caller]
    pub fn served_by(&self) -> String {
        let replica = self.header("x-served-by").to_owned();
        assert!(!replica.is_empty(), "no X-Served-By: {self:?}");
        replica
    }
}

/// A client with keep-alive connections, a timeout of 10 s, and no redirects.
pub fn client() -> Agent {
    patient_client(Duration::from_secs(10))
}

/// A client with another timeout.
pub fn patient_client(patience: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(patience))
        .build()
        .into()
}

/// Sends a request without a body.
pub fn send(
    client: &Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, ureq::Error> {
    send_body(client, method, url, headers, ())
}

/// Sends a request with a body.
pub fn send_body(
    client: &Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl AsSendBody,
) -> Result<Answer, ureq::Error> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, mut body) = client.run(request.body(body)?)?.into_parts();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body.read_to_vec()?).into_owned(),
    })
}

/// Sends a `GET` over a new connection.
pub fn get(url: &str) -> Result<Answer, ureq::Error> {
    send(&client(), "GET", url, &[])
}
