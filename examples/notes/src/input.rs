//! What clients send: bodies, ids and queries, with errors as JSON.

use std::{collections::BTreeMap, ops::RangeInclusive};

use api::error;
use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The content of a note.
pub struct Content {
    pub title: String,
    pub text: String,
}

const TITLE: RangeInclusive<usize> = 1..=100;
const TEXT: RangeInclusive<usize> = 0..=10_000;

impl<S: Send + Sync> FromRequest<S> for Content {
    /// 400, 413, 415, or 422 that names each wrong field.
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = Json::<Map<String, Value>>::from_request(request, state).await;
        let Json(body) =
            body.map_err(|rejection| error(rejection.status(), &rejection.body_text()))?;
        let mut wrong = BTreeMap::new();
        let mut text = |name: &'static str, characters: RangeInclusive<usize>| {
            let result = match body.get(name) {
                None => Err("nothing".to_owned()),
                // PostgreSQL's text has no such character.
                Some(Value::String(text)) if text.contains('\0') => Err("U+0000".to_owned()),
                Some(Value::String(text)) => match text.chars().count() {
                    count if characters.contains(&count) => Ok(text.clone()),
                    count => Err(count.to_string()),
                },
                Some(_) => Err("no text".to_owned()),
            };
            result.unwrap_or_else(|got| {
                let (least, most) = (characters.start(), characters.end());
                let sentence = format!("expected {least} to {most} characters, got {got}");
                wrong.insert(name, sentence);
                String::new()
            })
        };
        let content = Self {
            title: text("title", TITLE),
            text: text("text", TEXT),
        };
        match wrong.is_empty() {
            true => Ok(content),
            false => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                let body = json!({
                    "status": status.as_u16(),
                    "error": "The note is not valid.",
                    "fields": wrong,
                });
                Err((status, Json(body)).into_response())
            }
        }
    }
}

/// The id in the path.
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    /// 400.
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let text = text.map(|Path(text)| text).unwrap_or_default();
        let id = text.parse().map(Self);
        id.map_err(|_| bad_request(&expected("the id", &text, "a UUID")))
    }
}

/// Which part of the list.
pub struct Page {
    /// Only notes with smaller numbers, if any.
    pub before: i64,
    /// The most notes.
    pub limit: i64,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    /// 400.
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let query = Query::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Query(query) =
            query.map_err(|rejection| error(rejection.status(), &rejection.body_text()))?;
        let number = |name, range: RangeInclusive<i64>, default| match query.get(name) {
            None => Ok(default),
            Some(text) => {
                let number = text.parse().ok().filter(|number| range.contains(number));
                let (least, most) = (range.start(), range.end());
                let what = format!("a number from {least} to {most}");
                number.ok_or_else(|| expected(name, text, &what))
            }
        };
        let before = number("before", 1..=i64::MAX, i64::MAX);
        let limit = number("limit", 1..=100, 20);
        Ok(Self {
            before: before.map_err(|sentence| bad_request(&sentence))?,
            limit: limit.map_err(|sentence| bad_request(&sentence))?,
        })
    }
}

/// What is said of a wrong value.
fn expected(name: &str, value: &str, what: &str) -> String {
    format!("{name} is '{value}': expected {what}")
}

fn bad_request(sentence: &str) -> Response {
    error(StatusCode::BAD_REQUEST, sentence)
}
